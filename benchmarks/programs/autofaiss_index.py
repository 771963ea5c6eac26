"""autofaiss's index of rows, as it chooses it: ROWS.npy QUERIES.npy FOLDER.

Prints JSON: what it chose, the seconds it took to build, the ten best rows of each query, and the
seconds of the queries one by one and all at once.
"""

import contextlib
import json
import sys
import time
from pathlib import Path

import faiss
import numpy as np
from autofaiss import build_index

rows, queries, folder = (Path(name) for name in sys.argv[1:4])
asked = np.load(queries)
begun = time.perf_counter()
with contextlib.redirect_stdout(sys.stderr):
    index, about = build_index(
        embeddings=np.load(rows), index_path=str(folder / "knn.index"),
        index_infos_path=str(folder / "knn.json"), max_index_memory_usage="4G",
        current_memory_available="8G",
    )  # fmt: skip
built = time.perf_counter() - begun
index = faiss.read_index(str(folder / "knn.index"))
index.search(asked[:10], 10)
begun = time.perf_counter()
for row in asked:
    index.search(row[None], 10)
single = time.perf_counter() - begun
begun = time.perf_counter()
found = index.search(asked, 10)[1]
batch = time.perf_counter() - begun
told = {"index_key": about["index_key"], "parameters": about["index_param"], "build_s": built}
size = (folder / "knn.index").stat().st_size
print(json.dumps({**told, "bytes": size, "single_s": single, "batch_s": batch,
                  "found": found.tolist()}))  # fmt: skip
