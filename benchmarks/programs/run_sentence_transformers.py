"""sentence-transformers with FAISS, as its documentation puts them together.

    run_sentence_transformers.py PLACE MODEL index PHOTOS
    run_sentence_transformers.py PLACE MODEL query K WORDS
    run_sentence_transformers.py PLACE MODEL warm QUERIES.json

It is a library: there is no notion of files that change, so indexing encodes every photo.
"""

import json
import sys
from pathlib import Path

import faiss
import numpy as np
from PIL import Image
from sentence_transformers import SentenceTransformer
from weighing import ask_all

place, folder, what, *rest = sys.argv[1:]
place = Path(place)
model = SentenceTransformer(folder, device="cpu")


def rows(inputs, **how):
    """(n, 512) float32 unit rows."""
    return model.encode(inputs, normalize_embeddings=True, convert_to_numpy=True, **how)


if what == "index":
    paths = sorted(Path(rest[0]).rglob("*.jpg"))
    pictures = [Image.open(path).convert("RGB") for path in paths]
    found = rows(pictures, batch_size=8, show_progress_bar=True).astype(np.float32)
    index = faiss.IndexFlatIP(found.shape[1])
    index.add(found)
    place.mkdir(parents=True, exist_ok=True)
    faiss.write_index(index, str(place / "photos.index"))
    (place / "photos.json").write_text(json.dumps([str(path) for path in paths]))
else:
    index = faiss.read_index(str(place / "photos.index"))
    names = json.loads((place / "photos.json").read_text())

    def query(words, k=10):
        """The k best photos."""
        return [names[row] for row in index.search(rows([words]), k)[1][0] if row >= 0]

    if what == "query":
        print("\n".join(query(rest[1], int(rest[0]))))
    else:
        ask_all(query, json.loads(Path(rest[0]).read_text(encoding="utf-8")))
