"""Put the committed figures into the README, between its two marks.

    python benchmarks/readme.py

A test holds the README against this: no figure in it is typed by hand.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import index
import tables

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
BEGIN, END = "<!-- figures: benchmarks/readme.py writes them -->", "<!-- end of figures -->"
MODELS = "<!-- models: benchmarks/readme.py writes them -->", "<!-- end of models -->"


def figures() -> str:
    """The section, from the JSON files in `results/`."""
    model, indexing = (_read(name) for name in ("model.json", "indexing.json"))
    return "\n".join(
        [
            "## What was measured",
            "",
            f"The built-in model, {sum(model['bytes'].values()) / 1e6:.1f} MB, from the shipped "
            "files, in percent (`benchmarks/model.py`):",
            "",
            *_recall(model),
            "",
            *_bars(model),
            *_queries(),
            *_engines(),
            *_peers(),
            f"Speed and memory on {indexing['table'][0]} (`benchmarks/indexing.py`, "
            f"{indexing['date'][:10]}):",
            "",
            *indexing["table"][2:],
        ]
    )


def spliced(readme: str) -> str:
    """The README with today's figures."""
    return _between(*MODELS, models(), _between(BEGIN, END, figures(), readme))


def _between(begin: str, end: str, text: str, readme: str) -> str:
    """The README with this text between two of its marks."""
    before, rest = readme.split(begin)
    _, after = rest.split(end)
    return f"{before}{begin}\n\n{text}\n\n{end}{after}"


def models() -> str:
    """The recommended models with what is published of them, and what was measured here, if
    `encoders.json` is there.
    """
    path = ROOT / "mmsearch" / "encoders" / "recommended.json"
    measured = _read("encoders.json") if (RESULTS / "encoders.json").exists() else None
    lines = [
        "| model | reads | million parameters | languages | licence "
        "| COCO text→image R@1, published | a second here, float32 / bfloat16 |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for one in json.loads(path.read_text(encoding="utf-8")):
        recall = ", ".join(f"{value} ({one['source']})" for value in one["recall"].values())
        lines.append(
            f"| `{one['name']}` | {', '.join(one['modalities'])} | {one['parameters']} "
            f"| {one['languages']} | {one['licence']} | {recall or '-'} "
            f"| {_rates(one['name'], measured)} |"
        )
    return "\n".join(lines + (_encoder_bars(measured) if measured else []))


def _rates(name: str, measured: dict[str, Any] | None) -> str:
    """What a model of this size encodes a second in both precisions."""
    if not measured or name not in measured["rates"]:
        return "-"
    rate = measured["rates"][name]
    told = [f"{rate[kind]:.1f}" for kind in ("float32", "bfloat16") if rate[kind]]
    return f"{' / '.join(told)} ({rate['of']})"


def _encoder_bars(measured: dict[str, Any]) -> list[str]:
    lines = [
        "",
        f"Measured with {measured['model']}, at {measured['size']} px on {measured['threads']} "
        f"threads (`benchmarks/encoders.py`, {measured['date']}; rates compare within this run "
        "alone):",
        "",
        "| measure | bar | measured | met |",
        "| --- | --- | --- | --- |",
    ]
    for bar in measured["bars"]:
        wanted = f"{'≥' if bar['is'] == '>=' else '≤'} {bar['bar']:g}"
        met = "yes" if bar["met"] else "**no**"
        lines.append(f"| {bar['measure']} | {wanted} | {bar['measured']:g} | {met} |")
    return lines


def _recall(model: dict[str, Any]) -> list[str]:
    lines = [
        "| photos and captions | direction | R@1 | R@5 | R@10 |",
        "| --- | --- | --- | --- | --- |",
    ]
    sets = {
        "flickr8k_test": "Flickr8k test",
        "flickr8k_cn_test": "the same in Chinese",
        "coco_free": "COCO, 96 free photos",
    }
    for key, name in sets.items():
        if key not in model:
            continue
        result = model[key]
        for direction in ("text_to_image", "image_to_text"):
            recall = [f"{result[direction][f'recall@{k}']:.1f}" for k in (1, 5, 10)]
            counts = f"{name} ({result['photos']:,} and {result['captions']:,})"
            lines.append(f"| {counts} | {direction.replace('_to_', '→')} | {' | '.join(recall)} |")
    return lines


def _bars(model: dict[str, Any]) -> list[str]:
    if "table" not in model:
        return []
    machine, on = model["machine"], model["date"][:10]
    where = f"{machine['processor']}, {machine['cores']} cores, {on}"
    return [f"What it should reach, and what it does ({where}):", "", *model["table"], ""]


def _queries() -> list[str]:
    """The bars of what answers queries, from one result each."""
    lines = ["What queries do with it:", "", "| measure | bar | measured | met |"]
    lines.append("| --- | --- | --- | --- |")
    for name in ("hybrid", "exclusion", "relevance", "queries"):
        for one in _read(f"{name}.json")["bars"]:
            bar = one["bar"] if "bar" in one else f"≥ {one['least']:g}"
            met = "yes" if one["met"] else "**no**"
            told = f"{one['measure']} (`{name}.py`)"
            lines.append(f"| {told} | {bar} | {one['measured']:.4g} | {met} |")
    return [*lines, ""]


def _peers() -> list[str]:
    """Other programs, and the one plot of them; where they have been measured."""
    found = _read("peers.json") if (RESULTS / "peers.json").exists() else {}
    speed = tables.peers_speed(found)
    if not speed:
        return []
    return [
        "Beside other programs ([`benchmarks/REPORT.md`](benchmarks/REPORT.md) has more):",
        "",
        tables.peers_told(found),
        "",
        *speed,
        "",
        "![What each program takes](benchmarks/results/plots/peers.svg)",
        "",
        *(tables.peers_faults(found["faults"]) if "faults" in found else []),
        "",
    ]


def _engines() -> list[str]:
    """Engines over the same rows, beside FAISS Flat in the same run, and their bars."""
    rows: list[dict[str, Any]] = json.loads((RESULTS / "index.json").read_text(encoding="utf-8"))
    lines = [
        "Engines over the same rows, asked with texts on two threads; speed as times FAISS Flat's "
        "in the same run, by the clock and in brackets by processor time (`benchmarks/index.py`):",
        "",
        "| rows | engine | setting | recall@10 | one query | 256 together | bytes a vector |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    rows.sort(key=lambda row: row["n"])  # those of one set stay in their order
    asked = [row for row in rows if row["queries"] == "text"]
    flats = {(row["data"], row["setting"]): row for row in asked if row["engine"] == "faiss-flat"}
    for row in asked:
        keeps = row["setting"] if row["setting"].startswith("keeps") else "Flat"
        flat = flats.get((row["data"], keeps))
        if flat is None or row is flat or row["n"] < index.BARS_FROM:
            continue
        speed = [
            f"{row[f'qps_{many}'] / flat[f'qps_{many}']:.1f} "
            f"({flat[f'cpu_ms_{many}'] / row[f'cpu_ms_{many}']:.1f})"
            for many in ("single", "batch")
        ]
        lines.append(
            f"| {row['data']}, {row['n']:,} × {row['dim']} | {row['engine']} | {row['setting']} "
            f"| {row['recall@10']:.3f} | {' | '.join(speed)} | {row['bytes_per_vector']:,.0f} |"
        )
    lines += ["", "| measure | bar | measured | met |", "| --- | --- | --- | --- |"]
    for name in dict.fromkeys(row["data"] for row in rows):
        for bar in index.bars([row for row in rows if row["data"] == name]):
            met = "yes" if bar["met"] else "**no**"
            lines.append(f"| {bar['measure']} | {bar['bar']} | {bar['measured']:.4g} | {met} |")
    lines += [
        "", "What ours takes as rows become more, with a recall of 0.95 asked for:", "",
        "| rows | built in | of processor time | recall@10 | one query | resident |",
        "| --- | --- | --- | --- | --- | --- |",
    ]  # fmt: skip
    for row in asked:
        if row["data"] != "real" and row["setting"].startswith(index.APPROXIMATE):
            lines.append(
                f"| {row['n']:,} × {row['dim']} | {row['build_s']:,.1f} s "
                f"| {row['build_cpu_s']:,.1f} s | {row['recall@10']:.3f} "
                f"| {1e3 / row['qps_single']:.2g} ms | {row['resident_mb']:,.0f} MB |"
            )
    return [*lines, ""]


def _read(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((RESULTS / name).read_text(encoding="utf-8"))
    return found


if __name__ == "__main__":
    path = ROOT / "README.md"
    path.write_text(spliced(path.read_text(encoding="utf-8")), encoding="utf-8")
