"""What was measured, as tables."""

from __future__ import annotations

from typing import Any

_COLUMNS = (
    ("recall@1", "R@1"), ("recall@5", "R@5"), ("recall@10", "R@10"), ("median_rank", "median"),
    ("mrr", "MRR"), ("ndcg@10", "nDCG@10"), ("map", "mAP"),
)  # fmt: skip
_PLACES = {
    "embeddings": "exact search, raw embeddings",
    "library_vectors": "a library, vectors alone",
    "library": "a library, as it answers",
}
_HYBRID = {"vectors": "vectors alone", "words": "words alone", "both": "both, as it answers"}
_KNOWN = {
    "captions": "captions in files", "sidecars": "captions beside files", "names": "names of files"
}  # fmt: skip
_ALTERED = {
    "crop": "a tenth cut off on every side", "half": "half as wide and high",
    "jpeg": "JPEG of quality 40", "quieter": "half as loud", "vorbis": "Ogg Vorbis",
}  # fmt: skip
_SAME = {
    "encoded_twice": "files have the same vector when encoded twice",
    "as_stored": "files have the vector that is stored",
    "asked_twice": "questions have the same answer twice",
    "opened_anew": "questions have the same answer when the library is opened anew",
}
_WIDTH = 32


def print_recall(found: dict[str, Any]) -> None:
    """Print what `mmsearch bench recall` found."""
    what = "classes" if "classes" in found else "captions"
    counts = f"{found['files']:,} files, {found[what]:,} {what}, {found['split'] or 'all'}"
    print(f"{found['model']} ({found['fingerprint'][:8]}) on {counts}")
    if found.get("missing"):
        print(f"{found['missing']:,} files of the set are not there: they are not in any figure")
    print(f"{'':{_WIDTH}}" + "".join(f"{name:>8}" for _, name in _COLUMNS))
    for direction, measures in found["measures"].items():
        print(f"{_named(direction)}: {measures['queries']:,} of {measures['items']:,}")
        for key, place in _PLACES.items():
            if key in measures:
                _row(place, measures[key])
    if folds := found.get("folds"):
        for direction in found["measures"]:
            kind = direction.replace("text", "").replace("_to_", "")
            size = f"{folds['count']} folds of {folds[f'{kind}_files']:,}"
            print(f"{_named(direction)}, mean of {size}")
            _row(_PLACES["embeddings"], folds[direction])
    for direction, hybrid in found.get("hybrid", {}).items():
        told = f"a caption beside {hybrid['captioned']:,} of {hybrid['files']:,} files"
        print(f"{_named(direction)}, another caption asked: {told}")
        for key, way in _HYBRID.items():
            _row(way, hybrid[key])
    if zero := found.get("zero_shot"):
        accuracy, f1 = zero["accuracy"], zero["macro_f1"]
        print(f"zero-shot labels: accuracy {accuracy:.3f}, macro F1 {f1:.3f}")


def print_speed(found: dict[str, Any]) -> None:
    """Print what `mmsearch bench speed` found."""
    about, index, again = found["machine"], found["index"], found["again"]
    print(f"{found['model']} ({found['fingerprint'][:8]}) on {about['processor']}, "
          f"{about['cores']} cores, load before: {about['load_before']}")  # fmt: skip
    print(f"{'ms a file':14}{'CPU':>9}{'wall':>9}{'bare CPU':>11}{'bare wall':>11}")
    for name, stage in found["stages"].items():
        bare = [stage[key] for key in ("limit_cpu_ms", "limit_wall_ms")]
        shown = "".join(f"{'-':>11}" if value is None else f"{value:11.3f}" for value in bare)
        print(f"{name:14}{stage['cpu_ms']:9.3f}{stage['wall_ms']:9.3f}{shown}")
    total = sum(stage["cpu_ms"] for stage in found["stages"].values())
    print(f"{'all of them':14}{total:9.3f}")
    if index["cpu_ms_a_file"] is not None:
        print(f"mmsearch index {index['cpu_ms_a_file']:8.3f} CPU, starting included: "
              f"{index['files']:,} files in {index['wall_s']:.1f} s, "
              f"{index['files_per_second']:,.1f} a second, {index['cores_busy']:.2f} cores busy"
              f"{_memory(index['memory_mb'])}")  # fmt: skip
    if index["failed"]:
        print(f"{index['failed']:,} files could not be read")
    print(f"again, nothing changed: {again['wall_s']:.2f} s, {again['cpu_s']:.2f} s of CPU")
    cold, warm = found["query"]["cold"], found["query"]["warm"]
    print(f"query, a process of its own: {cold['wall_ms']:.0f} ms, {cold['cpu_ms']:.0f} of CPU "
          f"(its imports alone: {cold['limit_wall_ms']:.0f}, {cold['limit_cpu_ms']:.0f})"
          f"{_memory(cold['memory_mb'])}")  # fmt: skip
    print(f"query, library open: {warm['wall_ms']:.2f} ms, 95 of 100 within {warm['p95_ms']:.2f} "
          f"(encoding alone {warm['encode_ms']:.2f}, one product with {warm['vectors']:,} vectors "
          f"{warm['product_ms']:.2f})")  # fmt: skip


def print_self(found: dict[str, Any]) -> None:
    """Print what `mmsearch bench self` found, a sentence a line."""
    print(f"{found['model']} ({found['fingerprint'][:8]}): {found['files']:,} files, "
          f"of which {found['sample']:,} are asked for")  # fmt: skip
    print("first  in ten")
    for what, told in _KNOWN.items():
        known = found["known_item"][what]
        if isinstance(known, str):
            print(f"{'-':>5}{'-':>8}  {told}: there are none")
            continue
        for way, how in (("vectors", "by vectors alone"), ("library", "as the library answers")):
            _shares(known[way], f"of {known['count']:,} {told} find their file, {how}")
    for kind, ways in found["altered"].items():
        if isinstance(ways, str):
            print(f"{'-':>5}{'-':>8}  altered copies: {ways}")
            continue
        for name, shares in ways.items():
            told = _ALTERED[name]
            _shares(shares, f"of {shares['count']:,} {kind} copies, {told}, find the original")
    for name, told in _SAME.items():
        same = found["determinism"][name]
        print(f"{same['same']:>5,} of {same['count']:,} {told}")
    for direction, one in found["approximate"].items():
        print(f"{one['recall@10']:13.1%}  of the true ten are answered, "
              f"{_named(direction)}, {one['count']:,} queries against brute force")  # fmt: skip
    for problem in found["problems"]:
        print(f"problem: {problem}")


def _shares(shares: dict[str, float], told: str) -> None:
    print(f"{shares['recall@1']:5.0%}{shares['recall@10']:8.0%}  {told}")


def _memory(megabytes: float | None) -> str:
    return "; memory not measured: no /proc" if megabytes is None else f"; {megabytes:,.0f} MB"


def _named(direction: str) -> str:
    return direction.replace("_to_", " → ")


def _row(place: str, measures: dict[str, float]) -> None:
    """A line of figures; a list of ten tells no median, no mAP, and of the MRR its first ten."""
    cells = []
    for key, _ in _COLUMNS:
        value = measures.get(key, measures.get(f"{key}@10"))
        form = "8.1f" if key == "median_rank" else "8.3f"
        cells.append(f"{'-':>8}" if value is None else f"{value:{form}}")
    print(f"  {place:{_WIDTH - 2}}" + "".join(cells))
