"""The tables of the report and the README, in Markdown, from what the scripts wrote.

Nothing but the standard library is needed, and nothing but the results is read.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

Found = dict[str, Any]


def lines_of(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return [f"| {' | '.join(cells)} |" for cells in lines]


def where(found: Found) -> str:
    """What it was measured on, when, and how much else was running: above 0.5, something was."""
    on = found["machine"]
    machine = f"{on['processor']}, {on['cores']} cores, {on['memory_gb']} GB"
    return f"{machine}; load before: {on['load_before']}; {found['date'][:10]}"


# -- retrieval ---------------------------------------------------------------------------------


def retrieval(found: Found) -> list[str]:
    """A direction a line, in percent: exact search over bare vectors, and as a library answers."""
    head = ["set", "direction", "queries, items", "R@1", "R@5", "R@10", "MRR", "mAP",
            "served: R@1", "R@10"]  # fmt: skip
    rows = []
    for one in found["sets"].values():
        told = one["told"] + (f", {one['files']:,} files" if one["limit"] else "")
        told += " (trained with)" if one["seen_in_training"] else ""
        for direction, measures in one["measures"].items():
            bare, library = measures["embeddings"], served(measures)
            figures = [bare[f"recall@{k}"] for k in (1, 5, 10)] + [bare["mrr"], bare["map"]]
            figures += [library[f"recall@{k}"] if library else None for k in (1, 10)]
            cells = ["-" if figure is None else f"{100 * figure:.1f}" for figure in figures]
            counts = f"{measures['queries']:,}, {measures['items']:,}"
            rows.append([told, direction.replace("_to_", "→"), counts, *cells])
    return lines_of(head, rows)


def served(measures: Found) -> Found | None:
    """What a library found in this direction: with all it does, else by its vectors alone."""
    found: Found | None = measures.get("library") or measures.get("library_vectors")
    return found


# -- latency -----------------------------------------------------------------------------------


def latency(found: Found) -> list[str]:
    """Ways of asking by sizes, in milliseconds: the median, and the 95th percentile behind it."""
    sizes = found["sizes"]
    rows = []
    for key, told in (("wall", "wall"), ("cpu", "processor")):
        cells = [f"{1e3 * one['cold'][key]['median']:,.0f}" for one in sizes]
        rows.append([f"a process of its own: {told} time", *cells])
    for way in sizes[0]["warm_ms"]:
        bare = way in ("encoding alone", "numpy", "FAISS Flat")
        cells = [
            f"{o['warm_ms'][way]['median']:.2f} ({o['warm_ms'][way]['p95']:.2f})" for o in sizes
        ]
        rows.append([f"bare: {way}" if bare else f"warm: {way}", *cells])
    for way in sizes[0]["together"]["a_second"]:
        many = sizes[0]["together"]["queries"]
        cells = [f"{one['together']['a_second'][way]:,.0f}" for one in sizes]
        rows.append([f"{many} at once, {way}: queries a second", *cells])
    return lines_of(["ms, median (p95); pictures:", *(f"{o['items']:,}" for o in sizes)], rows)


# -- scale -------------------------------------------------------------------------------------

SCALE: dict[str, Callable[[Found], float]] = {
    "writing, s": lambda one: sum(stage["wall"] for stage in one["writing"].values()),
    "writing: catalog alone, s": lambda one: one["writing"]["catalog"]["wall"],
    "indexing again, s": lambda one: one["again"]["wall"]["median"],
    "adding 16 photos, s": lambda one: one["adding"]["wall"],
    "cold query, s": lambda one: one["cold_query"]["wall"]["median"],
    "warm query, s": lambda one: one["warm_query"]["median"],
    "memory, indexing again, MB": lambda one: one["again"]["memory_mb"],
    "memory, warm queries, MB": lambda one: one["warm_memory_mb"]["Rss"],
    "memory, warm queries, the process's own, MB": lambda one: one["warm_memory_mb"]["RssAnon"],
    "on disk, MB": lambda one: sum(one["bytes"].values()) / 1e6,
}


def scale(found: Found) -> list[str]:
    """Figures by sizes; the last column is the power of the size with which they grow at the end:
    1 is in proportion."""
    rows = []
    for name, value in SCALE.items():
        power = found["slopes"].get(name, {}).get("power")
        cells = [f"{value(one):.4g}" for one in found["sizes"]]
        rows.append([name, *cells, "-" if power is None else f"{power:.2f}"])
    sizes = [f"{one['items']:,}" for one in found["sizes"]]
    return lines_of(["pictures", *sizes, "power"], rows)


# -- peers -------------------------------------------------------------------------------------

SAME = "mmsearch, same model"  # what the others are compared with
SPEED = {
    "indexing a photo, CPU ms": ("cpu_a_photo_ms", 1),
    "indexing a photo, wall ms": ("wall_a_photo_ms", 1),
    "indexing few photos, whole, s": ("few_wall_s", 2),
    "indexing, memory of all processes, MB": ("indexing_memory_mb", 0),
    "again, nothing changed, CPU s": ("again_cpu_s", 2),
    "again, nothing changed, wall s": ("again_wall_s", 2),
    "a query as a process, CPU s": ("cold_query_cpu_s", 2),
    "a query as a process, wall s": ("cold_query_wall_s", 2),
    "a query as a process, memory, MB": ("cold_query_memory_mb", 0),
    "a query in a running process, ms": ("warm_query_ms", 1),
}


def peers(found: Found) -> list[list[str]]:
    """The tables of all parts that were measured."""
    tables = []
    if speed := peers_speed(found):
        tables.append(speed)
    if "faults" in found:
        tables.append(peers_faults(found["faults"]))
    if "recall" in found:
        tables.append(peers_recall(found["recall"]))
    return tables


def peers_figures(found: Found) -> dict[str, Found]:
    """What each program took, of indexing and of queries."""
    programs: dict[str, Found] = {}
    for part in _speed_parts(found):
        for name, figures in part["programs"].items():
            programs.setdefault(name, {}).update(figures)
    return programs


def _speed_parts(found: Found) -> list[Found]:
    return [found[name] for name in ("indexing", "queries") if "programs" in found.get(name, {})]


def peers_speed(found: Found) -> list[str]:
    """Medians, and how many times the figure of this project with the same model."""
    programs, rows = peers_figures(found), []
    for name, (key, digits) in SPEED.items():
        base = _middle(programs.get(SAME, {}).get(key))
        cells = []
        for one in programs.values():
            figure = _middle(one.get(key))
            if figure is None:
                cells.append("-")
                continue
            told = f"{figure:,.{digits}f}"
            told += f" ({figure / base:.2f} ×)" if base and one is not programs.get(SAME) else ""
            again = key.startswith("again") and one["cannot"]
            cells.append(f"{told}; cannot pass over: {one['cannot']}" if again else told)
        if any(cell != "-" for cell in cells):
            about = _speed_parts(found)[0]["settings"]
            counted = name.replace("few photos", f"{about.get('few')} photos")
            rows.append([counted.replace("again,", f"{about['many']} photos again,"), *cells])
    return lines_of(["", *programs], rows) if rows else []


def _middle(figure: Any) -> float | None:
    return figure["median"] if isinstance(figure, dict) else figure


def peers_faults(found: Found) -> list[str]:
    """What each withstands; a fault that was not measured is a dash."""
    programs, of = found["programs"], found["settings"]
    faults = {
        f"kill -9 when half of {of['photos']} are said to be done": ("killed", _killed),
        "the next run after that": ("killed", _resumed),
        "a photo is away for one run, and returns": ("away", _away),
        f"{of['few']} photos move into another folder": ("away", _moved),
        "half of a photo's bytes are missing": ("broken", _broken),
        "a sound and a text lie among the photos": ("others", _others),
    }
    rows = [
        [name, *(told(one[key]) if one.get(key) else "-" for one in programs.values())]
        for name, (key, told) in faults.items()
    ]
    return lines_of(["", *programs], rows)


def _killed(one: Found) -> str:
    if not one["killed"]:
        return "ended before it said so"
    lost = max(one["said"] - one["found"], 0)
    return f"{one['said']} said, {one['found']} found" + (f": **{lost} lost**" if lost else "")


def _resumed(one: Found) -> str:
    if not one["killed"]:
        return "-"
    return f"{one['found_again']} found, {one['again_cpu_s']:.1f} s of CPU"


def _away(one: Found) -> str:
    found = "found again" if one["found_again"] else "**never found again**"
    while_away = "; found while it was away" if one["found_while_away"] else ""
    return f"{found}, {one['again_cpu_s']:.2f} s of CPU{while_away}"


def _moved(one: Found) -> str:
    cost = f"{one['moved_cpu_s']:.2f} s of CPU ({one['first_cpu_s']:.2f} s the first time)"
    stale = one["found_where_they_were"]
    still = f"; **{stale} still found where they were**" if stale else ""
    return f"{one['found_moved']} of {one['of']} found there, {cost}{still}"


def _broken(one: Found) -> str:
    if not one["ended"]:
        return "**the run fails, nothing is found**"
    told = [f"{one['others']} of {one['of']} others found"]
    told.append("it is named" if one["named"] else "**not named**")
    told += ["**indexed half grey**"] if one["broken_is_found"] else []
    return ", ".join(told)


def _others(one: Found) -> str:
    found = [kind for kind in ("sound", "text") if one[kind]]
    return f"{' and '.join(found)} found" if found else "neither is found"


def peers_recall(found: Found) -> list[str]:
    """An approximate index that comes as it is chosen, against exact search of the same rows."""
    rows, queries = [], found["settings"]["queries"]
    for name, one in found["programs"].items():
        what = f"{name}: {one['index_key']} ({one['parameters']})" if "index_key" in one else name
        rows.append([
            what, f"{one['recall@10']:.4f}", f"{1e3 * one['single_s'] / queries:.2f}",
            f"{queries / one['batch_s']:,.0f}", f"{one['build_s']:.1f}",
        ])  # fmt: skip
    head = ["searched by", "recall@10", "one query, ms", "at once, queries a second", "made in, s"]
    return lines_of(head, rows)


def peers_told(found: Found) -> str:
    """What was compared: programs, versions, photos, turns, the machine."""
    part = _speed_parts(found)[0]
    of = part["settings"]
    versions = ", ".join(
        " ".join(pair) for one in of["peers"].values() for pair in list(one.items())[:2]
    )
    return (
        f"The same {of['many']} photos of Flickr8k, {len(part['turns'])} turns, medians; in "
        "brackets how many times the figure of this project with the same model, a random "
        "ViT-B/32 at 256 pixels in each one's own format. `mmsearch` without a word is the "
        f"built-in model, which is smaller. ({versions}; {where(part)}; `peers.py`)"
    )


# -- index -------------------------------------------------------------------------------------


def index(found: list[Found]) -> list[str]:
    """Engines on the same vectors, a setting a line; those asked in text."""
    rows = [
        [
            f"{row['data']} ({row['n']:,} × {row['dim']})", row["engine"],
            str(row["setting"] or "-"),
            _told(row.get("recall@10"), "{:.4f}"), _told(row.get("qps_single"), "{:,.0f}"),
            _told(row.get("qps_batch"), "{:,.0f}"), _told(row.get("build_s"), "{:.1f}"),
            _told(row.get("bytes_per_vector"), "{:,.0f}"), _told(row.get("peak_mb"), "{:,.0f}"),
        ]
        for row in found
        if row["queries"] == "text"
    ]  # fmt: skip
    head = ["vectors", "engine", "setting", "recall@10", "one at a time, queries/s",
            "in batches, queries/s", "built in, s", "bytes a vector", "peak, MB"]  # fmt: skip
    return lines_of(head, rows)


def _told(figure: float | None, form: str) -> str:
    return "-" if figure is None else form.format(figure)
