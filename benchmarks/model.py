"""Measure the built-in model from its shipped files: recall, zero-shot, time and size.

    python benchmarks/model.py --data ../shared/data --out benchmarks/results/model.json

Needs the project's training data (its test photos) and no torch. Percentages have two decimals;
ties count against the model. Times are of one core: the least of several rounds, so that other work
on the machine counts little.
"""

from __future__ import annotations

import argparse
import datetime
import hashlib
import importlib.util
import json
import os
import platform
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime
import PIL
import tokenizers
from PIL import Image

from mmsearch.metrics import accuracy, first_ranks, median_rank, recall_at_k
from mmsearch.training import pairs

MODEL = Path(__file__).parents[1] / "mmsearch" / "models" / "builtin-1"
Floats = npt.NDArray[np.float32]


class Towers:
    """The shipped files, run by ONNX Runtime."""

    def __init__(self, folder: Path, threads: int):
        self.image = session(folder / "image.onnx", threads)
        self.text = session(folder / "text.onnx", threads)
        self.tokenizer = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.tokenizer.enable_padding(pad_id=0)

    def images(self, pictures: list[pairs.Pixels], batch: int = 16) -> Floats:
        """(n, 256) unit rows."""
        starts = range(0, len(pictures), batch)
        rows = [
            self.image.run(None, {"pixels": np.stack(pictures[start : start + batch])})[0]
            for start in starts
        ]
        return np.concatenate(rows)

    def texts(self, sentences: list[str], batch: int = 64) -> Floats:
        """(n, 256) unit rows."""
        order = sorted(range(len(sentences)), key=lambda i: len(sentences[i]))
        out = np.zeros((len(sentences), 256), np.float32)
        for start in range(0, len(order), batch):
            rows = order[start : start + batch]
            encodings = self.tokenizer.encode_batch([sentences[i] for i in rows])
            ids = np.array([encoding.ids for encoding in encodings], np.int64)
            mask = np.array([encoding.attention_mask for encoding in encodings], np.int64)
            out[rows] = self.text.run(None, {"ids": ids, "mask": mask})[0]
        return out


def session(path: Path, threads: int) -> onnxruntime.InferenceSession:
    """A CPU session with so many threads."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def recalls(scores: Floats, relevant: npt.NDArray[np.bool_]) -> dict[str, float]:
    """Recall at 1, 5 and 10 in percent, and the median rank. scores, relevant: (queries, items)."""
    ranks = first_ranks(scores, relevant)
    found = {f"recall@{k}": round(100 * recall_at_k(ranks, k), 2) for k in (1, 5, 10)}
    return found | {"median_rank": median_rank(ranks)}


def flickr8k(towers: Towers, data: Path, split: str = "test") -> dict[str, Any]:
    """Both directions on the photos of one official split."""
    photos = pairs.flickr8k(data, split)
    images = towers.images([pairs.decode(photo) for photo in photos])
    texts = towers.texts([caption for photo in photos for caption in photo.captions])
    owners = np.repeat(np.arange(len(photos)), [len(photo.captions) for photo in photos])
    scores, relevant = texts @ images.T, owners[:, None] == np.arange(len(photos))[None, :]
    return {
        "photos": len(photos),
        "captions": len(texts),
        "text_to_image": recalls(scores, relevant),
        "image_to_text": recalls(scores.T, relevant.T),
    }


def coco_free(towers: Towers, data: Path) -> dict[str, Any]:
    """96 photos of another collection, which no stage of the training saw.

    Some of their captions were among the sentences that the text tower learnt from its teacher.
    """
    lines = (data / "coco_free" / "captions.jsonl").read_text(encoding="utf-8").splitlines()
    entries = [json.loads(line) for line in lines]
    pictures = []
    for entry in entries:
        with Image.open(data / "coco_free" / "images" / entry["file"]) as image:
            pictures.append(pairs.squash(image))
    captions = [caption for entry in entries for caption in entry["captions"]]
    owners = np.repeat(np.arange(len(entries)), [len(entry["captions"]) for entry in entries])
    scores = towers.texts(captions) @ towers.images(pictures).T
    relevant = owners[:, None] == np.arange(len(entries))[None, :]
    return {
        "photos": len(entries),
        "captions": len(captions),
        "text_to_image": recalls(scores, relevant),
        "image_to_text": recalls(scores.T, relevant.T),
    }


def tiny_imagenet(towers: Towers, data: Path) -> dict[str, Any]:
    """Ten held-out photos of each tiny-ImageNet class, named among its classes and among all 1,000.

    The image teacher was trained on ImageNet, these photos included; this model saw other photos of
    the classes. A class is the mean of "a photo of a NAME" over its names.
    """
    photos = pairs.tiny_imagenet(data, held_out=True)
    images = towers.images([pairs.decode(photo) for photo in photos])
    names = pairs.class_names(data)
    rows = towers.texts([f"a photo of a {name}" for several in names for name in several])
    starts = np.cumsum([0] + [len(several) for several in names[:-1]])
    classes = np.add.reduceat(rows, starts, axis=0)
    classes /= np.linalg.norm(classes, axis=1, keepdims=True)
    labels = np.array([photo.label for photo in photos])
    own, among = np.unique(labels, return_inverse=True)
    scores = images @ classes.T
    relevant = labels[:, None] == np.arange(len(names))[None, :]
    # The other way: does the name of a class find a photo of it among all held-out photos?
    found = first_ranks(scores[:, own].T, own[:, None] == labels[None, :])
    return {
        "photos": len(photos),
        "classes": len(own),
        "right_name_first_of_its_classes": round(100 * accuracy(scores[:, own], among), 2),
        "right_name_first_of_1000": round(100 * accuracy(scores, labels), 2),
        "right_name_in_first_5_of_1000": round(
            100 * recall_at_k(first_ranks(scores, relevant), 5), 2
        ),
        "name_finds_a_photo_in_first_10": round(100 * recall_at_k(found, 10), 2),
    }


def imagenet_names(towers: Towers, data: Path) -> dict[str, Any] | None:
    """How often the shared space and the image teacher put the same of the 1,000 names first, on
    Flickr8k test.

    None where the runtime of the teacher is not installed.
    """
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError:
        return None
    teacher: Any = Interpreter(str(data / "teachers" / "mobilenet_v2_1.0_224_int8.tflite"))
    teacher.allocate_tensors()
    source, target = (
        teacher.get_input_details()[0]["index"],
        teacher.get_output_details()[0]["index"],
    )
    pictures = [pairs.decode(photo) for photo in pairs.flickr8k(data, "test")]
    said = []
    for picture in pictures:
        teacher.set_tensor(source, picture[None])
        teacher.invoke()
        said.append(int(teacher.get_tensor(target)[0, 1:].argmax()))
    names = pairs.class_names(data)
    classes = towers.texts([f"a photo of a {several[0]}" for several in names])
    scores = towers.images(pictures) @ classes.T
    relevant = np.array(said)[:, None] == np.arange(len(names))[None, :]
    ranks = first_ranks(scores, relevant)
    return {f"agreement@{k}": round(100 * recall_at_k(ranks, k), 2) for k in (1, 5, 10)}


DEMO = {
    "a cat": "chelsea.png",
    "a cup of coffee": "coffee.png",
    "a rocket launch": "rocket.jpg",
    "an astronaut": "astronaut.png",
}


def scikit_image(towers: Towers) -> dict[str, Any] | None:
    """Where four queries rank their photo among the pictures that the scikit-image wheel carries.

    None where it is not installed. Most of these are textures, scans and drawings.
    """
    spec = importlib.util.find_spec("skimage")
    if spec is None or spec.origin is None:
        return None
    folder = Path(spec.origin).parent / "data"
    paths = sorted(path for path in folder.iterdir() if path.suffix in (".png", ".jpg"))
    pictures = []
    for path in paths:
        with Image.open(path) as image:
            pictures.append(pairs.squash(image))
    scores = towers.texts(list(DEMO)) @ towers.images(pictures).T
    names = np.array([path.name for path in paths])
    relevant = np.array([names == wanted for wanted in DEMO.values()])
    ranks = first_ranks(scores, relevant).tolist()
    return {"pictures": len(paths), "ranks": dict(zip(DEMO, ranks, strict=True))}


def quickest(call: Callable[[], object], rounds: int, calls: int) -> float:
    """Milliseconds of processor time a call takes in the quickest round."""
    best = np.inf
    for _ in range(rounds):
        began = time.process_time()
        for _ in range(calls):
            call()
        best = min(best, (time.process_time() - began) / calls)
    return round(1000 * float(best), 2)


def times(folder: Path, data: Path) -> dict[str, Any]:
    """Milliseconds of one core: a picture, a query, and starting each session."""
    towers = Towers(folder, 1)
    picture = pairs.decode(pairs.flickr8k(data, "test")[0])[None]
    query = "a black dog is running on the grass"

    def text() -> object:
        encoding = towers.tokenizer.encode(query)
        ids = np.array([encoding.ids], np.int64)
        return towers.text.run(None, {"ids": ids, "mask": np.ones_like(ids)})

    out: dict[str, Any] = {
        "image_ms": quickest(lambda: towers.image.run(None, {"pixels": picture}), 7, 20),
        "text_ms": quickest(text, 7, 50),
        "load_ms": {
            "image.onnx": quickest(lambda: session(folder / "image.onnx", 1), 7, 1),
            "text.onnx": quickest(lambda: session(folder / "text.onnx", 1), 7, 1),
            "tokenizer.json": quickest(
                lambda: tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json")), 7, 1
            ),
        },
    }
    plain = plain_mobilenet(data)
    if plain is not None:
        out["plain_mobilenet_v2_ms"] = quickest(lambda: plain.run(None, {"pixels": picture}), 7, 20)
    return out


def plain_mobilenet(data: Path) -> onnxruntime.InferenceSession | None:
    """MobileNetV2 1.0 with its classifier, float32, for comparison; None without what training
    needs."""
    try:
        from mmsearch.training.export import classifier_graph
        from mmsearch.training.towers import mobilenet_from_tflite
    except ImportError:
        return None
    teacher = data / "teachers" / "mobilenet_v2_1.0_224_int8.tflite"
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    graph = classifier_graph(*mobilenet_from_tflite(teacher)).SerializeToString()
    return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])


def machine() -> dict[str, Any]:
    """What the times were taken on."""
    name = platform.processor() or platform.machine()
    if Path("/proc/cpuinfo").exists():
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                name = line.split(":", 1)[1].strip()
                break
    return {"processor": name, "cores": os.cpu_count(), "system": platform.system()}


def main() -> None:
    """Measure everything and write one JSON file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--model", type=Path, default=MODEL)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    folder = arguments.model
    towers = Towers(folder, arguments.threads)
    files = sorted(path for path in folder.iterdir() if path.suffix in (".onnx", ".json"))
    files = [path for path in files if path.name != "model.json"]
    results = {
        "model": json.loads((folder / "model.json").read_text(encoding="utf-8"))["name"],
        "sha256": {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files},
        "bytes": {path.name: path.stat().st_size for path in files},
        "flickr8k_test": flickr8k(towers, arguments.data),
        "coco_free": coco_free(towers, arguments.data),
        "tiny_imagenet_held_out": tiny_imagenet(towers, arguments.data),
        "imagenet_names_on_flickr8k_test": imagenet_names(towers, arguments.data),
        "scikit_image": scikit_image(towers),
        "times": times(folder, arguments.data),
        "machine": machine(),
        "versions": {
            "python": platform.python_version(),
            "numpy": np.__version__,
            "onnxruntime": onnxruntime.__version__,
            "pillow": PIL.__version__,
            "tokenizers": tokenizers.__version__,
        },
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
    }
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    json.dump(results, sys.stdout, indent=2)
    print()


if __name__ == "__main__":
    main()
