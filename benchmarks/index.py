"""Search engines over the same rows: ours, exact and approximate, and FAISS's own, with filters.

    python benchmarks/real_vectors.py --data DATA --out REAL
    python benchmarks/index.py --data real --real REAL --work FOLDER
    python benchmarks/index.py --data clustered-1000000 --work FOLDER [--engines NAME...]

Makes what is missing in FOLDER (rows, queries, truth, indexes), then measures every engine in a
process of its own, one after the other, in several turns: on a machine that others share, the
quickest of an engine's turns counts, the same way for all. The rows go into `results/index.json`
in the place of those of the same data set. What it takes in memory is measured in another process,
which opens what was built and searches, and does nothing else. The bars that these rows allow are
printed; exit 1 when one is missed.
Two threads each; run it with OMP_WAIT_POLICY=PASSIVE where others share the machine, or threads
that spin are all that is measured.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from index_data import LARGE, Data, K, prepare, recall
from measuring import machine, memory_of, origin
from numpy.typing import NDArray

OUT = Path(__file__).parent / "results" / "index.json"
EXACT, APPROXIMATE = "exact", "recall 0.95"
ENGINES = ("faiss-flat", "mmsearch-exact", "mmsearch-approximate", "faiss-ivfpq", "faiss-hnsw32")
TARGET = 0.95
RESIDENT = {1_000_000: 1000, 10_000_000: 8000}  # MB of so many rows x 512, at most
FILTERS = (0.1, 0.01, 0.001)
BARS_FROM = 200_000  # rows
SINGLES, BATCH, ROUNDS = 40, 256, 12
QUICKER = {"qps_single": max, "qps_batch": max, "cpu_ms_single": min, "cpu_ms_batch": min}
ASKED = {"text": 1000, "image": 256}  # for recall
THREADS = 2

Search = Callable[[NDArray[np.float32]], NDArray[np.int64]]


def lighten() -> None:
    """Measure less: what a machine with a load of thirty can do in minutes."""
    global ROUNDS, THREADS, FILTERS, SINGLES
    ROUNDS, THREADS, FILTERS, SINGLES = 1, 1, (), 20
    ASKED.update(text=256, image=256)
    os.environ["OPENBLAS_NUM_THREADS"] = "1"


def timed(search: Search, queries: NDArray[np.float32]) -> dict[str, float]:
    """Queries a second one by one (median) and in batches of 256 (the best of some); CPU time."""
    singles = []
    cpu = time.process_time()
    for query in queries[:SINGLES]:
        begun = time.perf_counter()
        search(query[None])
        singles.append(time.perf_counter() - begun)
    cpu_single = (time.process_time() - cpu) / len(singles)
    batches = []
    cpu = time.process_time()
    parts = [queries[start : start + BATCH] for start in range(0, len(queries) - BATCH + 1, BATCH)]
    for number in range(ROUNDS):
        begun = time.perf_counter()
        search(parts[number % len(parts)])
        batches.append(time.perf_counter() - begun)
    cpu_batch = (time.process_time() - cpu) / ROUNDS
    return {
        "qps_single": 1 / float(np.median(singles)),
        "qps_batch": BATCH / min(batches),
        "cpu_ms_single": 1e3 * cpu_single,
        "cpu_ms_batch": 1e3 * cpu_batch,
    }


def measure(name: str, data: Data) -> list[dict[str, Any]]:
    """The rows of one engine, in this process, which does nothing else."""
    import faiss

    faiss.omp_set_num_threads(THREADS)
    ours = name.startswith("mmsearch")
    search, filtered, told = (_ours if ours else _peer)(name, data)
    shape = json.loads((data.folder / "data.json").read_text())
    vectors = data.matrix.rows.vectors
    common = {"data": data.name, "n": shape["n"], "dim": shape["dim"]}
    common |= {"engine": "mmsearch" if ours else name}
    rows = []
    for kind in ("text", "image"):
        truth = data.truth(kind)[: ASKED[kind]]
        asked = data.queries(kind)[: len(truth)]
        found = np.concatenate(
            [search(asked[start : start + BATCH]) for start in range(0, len(asked), BATCH)]
        )
        alone = np.concatenate([search(query[None]) for query in asked[:SINGLES]])
        figures = {
            "recall@10": recall(vectors, asked, found, truth),
            "recall@10_single": recall(vectors, asked[:SINGLES], alone, truth[:SINGLES]),
            **timed(search, data.queries(kind)),
        }
        rows.append(common | {"setting": told["setting"], "queries": kind} | figures)
    for share in FILTERS if filtered else ():
        random = np.random.default_rng(int(1 / share))
        keep = np.flatnonzero(random.random(shape["n"]) < share)
        keep.flags.writeable = False
        asked = data.queries("text")
        kept = filtered(keep)
        near = keep[_truth_among(data, asked[:BATCH], keep)]
        figures = {
            "recall@10": recall(vectors, asked[:BATCH], kept(asked[:BATCH]), near),
            **timed(kept, asked),
        }
        rows.append(common | {"setting": f"keeps {share:.1%}", "queries": "text"} | figures)
    more = ("bare_s", "bare_cpu_s", "build_peak_mb")
    beside = {
        "build_s": told["build_s"], "build_cpu_s": told["build_cpu_s"],
        **{name: told[name] for name in more if name in told},
        "bytes_per_vector": told["bytes_per_vector"],
    }  # fmt: skip
    return [row | beside for row in rows]


def resident(name: str, data: Data) -> dict[str, float]:
    """Megabytes of this process, which does nothing else, once queries were answered one by one
    and together.
    """
    import faiss

    faiss.omp_set_num_threads(THREADS)
    search, _, _ = (_ours if name.startswith("mmsearch") else _peer)(name, data, tuned=False)
    for kind in ("text", "image"):
        asked = data.queries(kind)
        for query in asked[:SINGLES]:
            search(query[None])
        search(asked[:BATCH])
    sizes = memory_of(os.getpid())
    return {"peak_mb": sizes["VmHWM"], "resident_mb": sizes["VmRSS"]}


def _ours(name: str, data: Data, *, tuned: bool = True) -> tuple[Search, Any, dict[str, Any]]:
    from mmsearch.vectors import open_index, open_store

    matrix = data.matrix
    path = data.folder / f"{name}.index"
    index = open_index(str(path), matrix) if path.exists() else None  # few rows have none
    store = open_store("auto", matrix.rows.vectors.shape[1], matrix, index)
    told = json.loads((data.folder / f"{name}.json").read_text())

    def search(queries: NDArray[np.float32]) -> NDArray[np.int64]:
        return store.search(queries, K)[1] - 1  # ids begin at 1

    def filtered(keep: NDArray[np.int64]) -> Search:
        among = keep + 1
        among.flags.writeable = False
        return lambda queries: store.search(queries, K, among)[1] - 1

    exact = name == "mmsearch-exact"
    told["setting"] = EXACT if exact else APPROXIMATE
    if index is not None:
        words = ", ".join(f"{key}={value:.4g}" for key, value in index.settings.items())
        told["setting"] += f": {index.plan.factory}" + (f", {words}" if words else "")
        told["setting"] += f" ({index.note})" if index.note else ""
    told["bytes_per_vector"] = store.plan.bytes_per_vector
    return search, filtered if exact else None, told


def _peer(name: str, data: Data, *, tuned: bool = True) -> tuple[Search, Any, dict[str, Any]]:
    import index_peers

    from mmsearch.vectors.tuning import aim

    index = index_peers.opened(name, data)
    setting = index_peers.tuned(name, index, data, aim(TARGET)) if tuned else ""
    told = json.loads((data.folder / f"{name}.json").read_text())
    told["setting"] = f"{told['setting']}, {setting}" if setting != told["setting"] else setting
    size = (data.folder / f"{name}.faiss").stat().st_size
    told["bytes_per_vector"] = round(size / index.ntotal, 1)

    def search(queries: NDArray[np.float32]) -> NDArray[np.int64]:
        found: NDArray[np.int64] = index.search(queries, K)[1]
        return found

    def filtered(keep: NDArray[np.int64]) -> Search:
        bits, kept = index_peers.selector(keep, index.ntotal)

        def among(queries: NDArray[np.float32], held: Any = bits) -> NDArray[np.int64]:
            found: NDArray[np.int64] = index.search(queries, K, params=kept)[1]
            return found

        return among

    return search, filtered if name == "faiss-flat" else None, told


def _truth_among(
    data: Data, queries: NDArray[np.float32], keep: NDArray[np.int64]
) -> NDArray[np.int64]:
    """(q, 10) positions in `keep` of the nearest, by products of float32."""
    scores = queries @ data.matrix.rows.vectors[keep].astype(np.float32).T
    best: NDArray[np.int64] = np.argsort(-scores, axis=1, kind="stable")[:, :K]
    return best


def build(name: str, data: Data, only: bool) -> None:
    """Build what an engine needs, unless it is there; `only`: this process did nothing else."""
    import faiss

    faiss.omp_set_num_threads(THREADS)
    if not name.startswith("mmsearch"):
        import index_peers

        while not index_peers.build(name, data):
            pass
        return
    from mmsearch.vectors import Engine, build_index, choose

    told = data.folder / f"{name}.json"
    if told.exists():
        return
    matrix = data.matrix
    target = 1.0 if name == "mmsearch-exact" else TARGET
    plan = choose(*matrix.rows.vectors.shape, target_recall=target)
    asked = {"text": data.queries("tune"), "image": data.queries("image")[:200]}
    path = str(data.folder / f"{name}.index")
    took = {}
    # with what it is tuned and measured by, and before that, but of very many rows, without
    for what, queries in (("bare", {}), ("build", asked)):
        if what == "bare" and len(matrix.rows.ids) >= LARGE:
            continue
        begun, cpu = time.perf_counter(), time.process_time()
        if plan.engine is not Engine.PLAIN:
            build_index(path, matrix, plan, queries)
        took[f"{what}_s"] = time.perf_counter() - begun
        took[f"{what}_cpu_s"] = time.process_time() - cpu
    if only:
        took["build_peak_mb"] = memory_of(os.getpid())["VmHWM"]
    told.write_text(json.dumps(took))


def bars(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What the rows of one data set should reach, and do; smaller sets are there for growth."""
    if rows[0]["n"] < BARS_FROM:
        return []
    by = {(row["engine"], row["setting"].split(":")[0].split(",")[0], row["queries"]): row
          for row in rows}  # fmt: skip
    name, count = rows[0]["data"], rows[0]["n"]
    found = []

    def bar(measure: str, measured: float, least: float, *, most: bool = False) -> None:
        met = measured <= least if most else measured >= least
        said = f"{'≤' if most else '≥'} {least:g}"
        found.append({"measure": f"{name}: {measure}", "bar": said, "measured": measured,
                      "met": bool(met)})  # fmt: skip

    flat, exact = (by.get((engine, setting, "text")) for engine, setting in
                   (("faiss-flat", "Flat"), ("mmsearch", EXACT)))  # fmt: skip
    if flat and exact:
        bar("exact, one query, share of Flat's time", flat["qps_single"] / exact["qps_single"],
            0.1, most=True)  # fmt: skip
        bar("exact, one query, share of Flat's CPU time",
            exact["cpu_ms_single"] / flat["cpu_ms_single"], 0.1, most=True)  # fmt: skip
        bar("exact, batch, times Flat's", exact["qps_batch"] / flat["qps_batch"], 2.5)
        bar("exact, batch, times less CPU time than Flat",
            flat["cpu_ms_batch"] / exact["cpu_ms_batch"], 2.5)  # fmt: skip
        for kind in ("text", "image"):
            row = by["mmsearch", EXACT, kind]
            bar(f"exact, recall@10, {kind}", min(row["recall@10"], row["recall@10_single"]), 0.999)
        for share, least in zip(FILTERS, (3, 3, 5), strict=False):
            key = f"keeps {share:.1%}"
            mine, theirs = by["mmsearch", key, "text"], by["faiss-flat", key, "text"]
            bar(f"{key}, one query, times Flat's", mine["qps_single"] / theirs["qps_single"], least)
            bar(f"{key}, batch, times Flat's", mine["qps_batch"] / theirs["qps_batch"], 10)
            bar(f"{key}, batch, times less CPU time than Flat",
                theirs["cpu_ms_batch"] / mine["cpu_ms_batch"], 10)  # fmt: skip
            bar(f"{key}, recall@10", mine["recall@10"], 1.0)
    for kind in (EXACT, APPROXIMATE):
        if count in RESIDENT and (row := by.get(("mmsearch", kind, "text"))):
            bar(f"{kind}, resident MB", row["resident_mb"], RESIDENT[count], most=True)
    mine = by.get(("mmsearch", APPROXIMATE, "text"))
    peers = [row for row in rows if row["engine"] in ("faiss-hnsw32", "faiss-ivfpq")
             and row["queries"] == "text"]  # fmt: skip
    graph = next((row for row in peers if row["engine"] == "faiss-hnsw32"), None)
    if mine and peers:
        bar("approximate, recall@10, fresh texts", mine["recall@10"], TARGET)
        best = max(peers, key=lambda row: row["qps_batch"])
        bar(f"approximate, batch, times the best peer ({best['engine']})",
            mine["qps_batch"] / best["qps_batch"], 3 if count >= 1_000_000 else 2.5)  # fmt: skip
        best = min(peers, key=lambda row: row["cpu_ms_batch"])
        bar(f"approximate, batch, times less CPU time than the best peer ({best['engine']})",
            best["cpu_ms_batch"] / mine["cpu_ms_batch"],
            3 if count >= 1_000_000 else 2.5)  # fmt: skip
    if mine and graph:
        bar("approximate, one query, times HNSW32's", mine["qps_single"] / graph["qps_single"], 1)
        bar("approximate, build, share of HNSW32's CPU time",
            mine["build_cpu_s"] / graph["build_cpu_s"], 0.25, most=True)  # fmt: skip
        if "bare_cpu_s" in mine:
            bar("approximate, build without tuning and measuring, share of HNSW32's CPU time",
                mine["bare_cpu_s"] / graph["build_cpu_s"], 0.25, most=True)  # fmt: skip
    return found


def quickest(turns: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """One row of several turns of the same engine with the same settings."""
    best = {name: better(row[name] for row in turns) for name, better in QUICKER.items()}
    return turns[0] | best


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True, help='"real" or "clustered-N"')
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--real", type=Path, help="a folder of benchmarks/real_vectors.py")
    parser.add_argument("--engines", nargs="+", default=list(ENGINES), choices=ENGINES)
    parser.add_argument("--only", choices=("prepare", "build", "measure"))
    parser.add_argument("--turns", type=int, help="an engine's quickest counts; 3, of light ones 1")
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument(
        "--light",
        action="store_true",
        help="one thread, 256 queries, no filters: where a machine is busy",
    )
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--resident", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.light:
        lighten()
    count = options.turns or (1 if options.light else 3)
    data = Data(options.data, options.work / options.data)
    if options.child:
        print(json.dumps((resident if options.resident else measure)(options.child, data)))
        return 0
    if options.only != "measure":
        if not (data.folder / "data.json").exists():
            prepare(options.data, data.folder, options.real)
        for name in options.engines if options.only != "prepare" else ():
            build(name, data, options.only == "build" and len(options.engines) == 1)
    if options.only in ("prepare", "build"):
        return 0

    def child(name: str, *more: str) -> Any:
        command = [sys.executable, __file__, "--data", options.data, "--work", str(options.work)]
        command += [*(["--light"] if options.light else []), "--child", name, *more]
        return json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)

    where = machine()
    turns: dict[str, list[Any]] = {name: [] for name in options.engines}
    for turn in range(count):
        for name in options.engines:
            turns[name].append(child(name))
            print(f"{name}: measured, turn {turn + 1} of {count}", file=sys.stderr)
    rows: list[dict[str, Any]] = []
    for name, told in turns.items():
        sizes = child(name, "--resident")
        rows += [quickest(same) | sizes for same in zip(*told, strict=True)]
    said = {"date": origin(["faiss-cpu", "onnxruntime", "numpy"]), "machine": where}
    for row in rows:
        row |= {"date": said["date"]["date"], "commit": said["date"]["commit"]}
        row |= {"processor": where["processor"], "threads": THREADS, "load": where["load_before"]}
    old = json.loads(options.out.read_text()) if options.out.exists() else []
    kept = [row for row in old if row["data"] != options.data]
    options.out.write_text(json.dumps(kept + rows, indent=1, ensure_ascii=False) + "\n")
    judged = bars(rows)
    for one in judged:
        print(f"{'met ' if one['met'] else 'MISS'} {one['measure']}: "
              f"{one['measured']:.4g} ({one['bar']})")  # fmt: skip
    return 0 if all(one["met"] for one in judged) else 1


if __name__ == "__main__":
    sys.exit(main())
