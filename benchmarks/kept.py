"""Results that are measured in pieces: each is written once it is whole; --resume goes on there."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from measuring import REPOSITORY, begin, origin

from mmsearch.encoders import Encoder

Found = dict[str, Any]


def read(out: Path) -> Found:
    """What was written so far."""
    found: Found = json.loads(out.read_text(encoding="utf-8")) if out.exists() else {}
    return found


def write(out: Path, found: Found) -> None:
    """Replace the file: a run that is killed leaves the one before."""
    out.parent.mkdir(parents=True, exist_ok=True)
    new = out.with_name(f"{out.name}.new")
    new.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    new.replace(out)


def begun(
    there: Found, settings: Found, packages: Sequence[str], encoder: Encoder | None = None
) -> Found:
    """`there`, where it was measured with these settings and this code on this machine; else begun
    again: machine, date, commit, versions and settings.
    """
    settings = json.loads(json.dumps(settings | {"code": code()}))
    found = {**begin(packages, encoder), "settings": settings}
    now, then = found["machine"], there.get("machine", {})
    same = all(then.get(key) == now[key] for key in ("processor", "cores", "memory_gb"))
    return there if same and there.get("settings") == settings else found


def moment() -> Found:
    """When a piece was measured, and how much else was running."""
    return {"date": origin([])["date"], "load": round(os.getloadavg()[0], 2)}


def code() -> str:
    """What mmsearch itself is at this commit: pieces of another are not put together."""
    asked = ["git", "-C", str(REPOSITORY), "rev-parse", "HEAD:mmsearch"]
    return subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip()
