"""What each program withstands, and what it takes in; each answer is kept once it is there."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
import time
from contextlib import suppress
from functools import partial
from typing import Any

import numpy as np
from measuring import REPOSITORY, CommandFailed
from peer_bench import Bench, done
from peer_programs import Command, Program, found

Figures = dict[str, Any]


def faults(bench: Bench) -> Figures:
    """A kill -9 midway, photos that go, come back and move, half a photo, files of other kinds."""
    part = bench.begun("faults", {"photos": bench.given.kill, "few": bench.given.few})
    programs: dict[str, Figures] = part.setdefault("programs", {})
    for number, program in enumerate(bench.programs()):
        mine = programs.setdefault(program.name, {"cannot": program.cannot})
        for name, fault in FAULTS.items():
            if name not in mine:
                one = program.at(bench.work / f"{name}-{number}")
                what = bench.attempt(f"{one.name}: {name}", partial(fault, bench, one))
                if what is not None:
                    mine[name] = what
                    bench.keep("faults", part)
    return part


def killed(bench: Bench, program: Program) -> Figures:
    """Killed when it says that half are done: what it finds then, and after another run."""
    count = bench.given.kill
    photos = bench.folder(f"killed-{program.name}", count)
    program.begin()
    said = 0
    for command in program.index(photos):
        told = stopped(command, program, count // 2)
        if told is not None:
            said = told
            break
    else:
        return {"killed": False}
    after = len(found(program, photos, count))
    again = done(program.index(photos))
    return {
        "killed": True, "said": said, "found": after,
        "again_cpu_s": again.cpu, "found_again": len(found(program, photos, count)),
    }  # fmt: skip


def stopped(command: Command, program: Program, enough: int) -> int | None:
    """Run a command and kill it, with all its children, when it says that enough photos are done.

    How many it said; None when it ended before.
    """
    paths = os.pathsep.join([str(REPOSITORY), *filter(None, [os.environ.get("PYTHONPATH")])])
    inside = {**os.environ, "PYTHONPATH": paths, **command.environment}
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(
            command.words, stdin=subprocess.DEVNULL, stdout=output, stderr=output,
            cwd=command.cwd, env=inside, start_new_session=True,
        )  # fmt: skip
        while process.poll() is None:
            text = os.pread(output.fileno(), 1 << 20, 0).decode(errors="replace")
            said = program.said_of * max(map(int, program.said.findall(text)), default=0)
            if said >= enough:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                return said
            time.sleep(0.005)
        if process.returncode:
            raise CommandFailed(f"ended with {process.returncode} before it was killed")
    return None


def away(bench: Bench, program: Program) -> Figures:
    """A photo that is not there in one run, and back, as it was, in the next; then all are moved.

    What it finds is counted by names; one that has moved is found where it is now.
    """
    count = bench.given.few
    photos = bench.folder(f"away-{program.name}", count)
    one = sorted(photos.iterdir())[count // 2]
    program.begin()
    first = done(program.index(photos))
    hidden = bench.work / f"hidden-{program.name}"
    one.rename(hidden)
    done(program.index(photos))
    while_away = one in found(program, photos, count)
    hidden.rename(one)
    cost = done(program.index(photos))
    again = one in found(program, photos, count)
    names = [path.name for path in photos.iterdir()]
    place = photos / "moved"
    place.mkdir()
    for name in names:
        (photos / name).rename(place / name)
    moved = done(program.index(photos))
    there = found(program, photos, 2 * count)
    return {
        "found_while_away": while_away, "found_again": again, "again_cpu_s": cost.cpu,
        "of": count, "found_moved": len(there & {place / name for name in names}),
        "found_where_they_were": len(there & {photos / name for name in names}),
        "first_cpu_s": first.cpu, "moved_cpu_s": moved.cpu,
    }  # fmt: skip


def broken(bench: Bench, program: Program) -> Figures:
    """A photo of which half the bytes are there: is it named, and are the others found?"""
    count = bench.given.few
    photos = bench.folder(f"broken-{program.name}", count)
    one = sorted(photos.iterdir())[count // 2]
    data = one.read_bytes()
    one.write_bytes(data[: len(data) // 2])
    program.begin()
    try:
        cost = done(program.index(photos))
    except CommandFailed:
        return {"ended": False}
    there = found(program, photos, count)
    return {
        "ended": True, "others": len(there - {one}), "of": count - 1,
        "broken_is_found": one in there, "named": one.name in cost.output + cost.errors,
    }  # fmt: skip


def others(bench: Bench, program: Program) -> Figures:
    """A sound and a text among the photos: which of them is found?"""
    import soundfile

    count = bench.given.few
    photos = bench.folder(f"others-{program.name}", count)
    sound, text = photos / "sound.wav", photos / "text.txt"
    tone = np.sin(np.arange(32_000) * (2 * np.pi * 440 / 16_000)).astype(np.float32)
    soundfile.write(sound, 0.5 * tone, 16_000)
    text.write_text("A dog is running over the grass.\n", encoding="utf-8")
    program.begin()
    done(program.index(photos))
    there = found(program, photos, count + 2)
    return {"sound": sound in there, "text": text in there, "photos": len(there - {sound, text})}


FAULTS = {"killed": killed, "away": away, "broken": broken, "others": others}
