"""Many queries in one process: LIBRARY MODEL QUERIES.json."""

import json
import sys
from pathlib import Path

from weighing import ask_all

import mmsearch

folder, model, queries = sys.argv[1:4]
with mmsearch.open_library(folder, model=model) as library:
    ask_all(library.query, json.loads(Path(queries).read_text(encoding="utf-8")))
