"""Many queries of the current folder in one process: QUERIES.json."""

import json
import os
import sys
from pathlib import Path

from rclip import main
from weighing import ask_all

program, model, database = main.init_rclip(os.getcwd(), 8, no_indexing=True)
asked = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
ask_all(lambda words: program.search(words, os.getcwd(), 10), asked)
