"""clip-retrieval's query service, without the web server before it.

    query_clip_retrieval.py INDEX MODEL query K WORDS
    query_clip_retrieval.py INDEX MODEL warm QUERIES.json

Its command `clip-retrieval filter` fetches OpenAI's weights whatever the index was made with.
"""

import contextlib
import json
import sys
import tempfile
from pathlib import Path

from clip_retrieval.clip_back import ClipOptions, KnnService, load_clip_indices
from weighing import ask_all

index, model, what, *rest = sys.argv[1:]
options = ClipOptions(
    indice_folder="", clip_model=model, enable_hdf5=False, enable_faiss_memory_mapping=False,
    columns_to_return=["image_path"], reorder_metadata_by_ivf_index=False,
    enable_mclip_option=False, use_jit=False, use_arrow=False, provide_safety_model=False,
    provide_violence_detector=False, provide_aesthetic_embeddings=False,
)  # fmt: skip
with contextlib.redirect_stdout(sys.stderr), tempfile.NamedTemporaryFile("w") as places:
    json.dump({"photos": index}, places)
    places.flush()
    service = KnnService(clip_resources=load_clip_indices(places.name, clip_options=options))


def query(words, k=10):
    """The k best, near-duplicates too: with random weights all pictures are alike."""
    return service.query(text_input=words, num_images=k, num_result_ids=k, deduplicate=False)


if what == "query":
    for hit in query(rest[1], int(rest[0])):
        print(hit["image_path"])
else:
    ask_all(query, json.loads(Path(rest[0]).read_text(encoding="utf-8")))
