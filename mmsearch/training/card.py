# ruff: noqa: E501 - the lines of the card are as wide as its tables
"""The model card and the measured part of model.json, from what benchmarks/model.py found.

    python -m mmsearch.training.card --model mmsearch/models/builtin-1 --results benchmarks/results/model.json

Each figure of the card is set here from the results; an invisible comment before it says where it stands there.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

MEASURED = (
    "flickr8k_test",
    "coco_free",
    "tiny_imagenet_held_out",
    "imagenet_names_on_flickr8k_test",
    "scikit_image",
)

CARD = """\
# builtin-1

Pictures and English text in one space of 256 dimensions: a picture and a sentence that fit each other lie near.
Two towers, trained by `mmsearch/training/builtin.py` on two cores of a CPU, and run by ONNX Runtime.

| file | what | bytes |
| --- | --- | --- |
| `image.onnx` | MobileNetV2 1.0 at 224 x 224 and a projection head; float16 weights, float32 arithmetic | {bytes/image.onnx} |
| `text.onnx` | Transformer, 3 layers, width 384, and a projection head; int8 weights, float32 arithmetic | {bytes/text.onnx} |
| `tokenizer.json` | WordPiece, 16,000 tokens, lower case | {bytes/tokenizer.json} |
| `model.json` | dimensions, preprocessing, hashes, the training's settings, the figures below | |

## Terms

The weights are for **research use**; see `LICENSE-WEIGHTS` at the root of the repository. They were made with data whose
terms say so. mmsearch's code is under its own, free licence.

## Trained on

| what | used for | terms |
| --- | --- | --- |
| Flickr8k, the 6,000 photos of its train list with five captions each (Hodosh et al. 2013) | pairs | research use |
| tiny-ImageNet, forty photos of 64 x 64 of each of 200 classes (Stanford CS231n) | the teacher's opinion of them | research use |
| captions of Flickr30k and COCO val, without their photos: {config/corpus_captions} sentences | sentences | CC BY 4.0 and research use |
| captions of AudioCaps and Clotho, without their sounds: {config/corpus_sounds} sentences | sentences | research use |
| names of the 1,000 ImageNet classes; single English words, and {config/corpus_pairs} pairs of them | names, sentences | |
| pictures drawn by a program, {config/drawings} of each of eleven kinds: chessboards, pages, diagrams, ... (`drawn.py`) | pairs | this project's own |
| some 250 words with what they look like (`glosses.txt`) | names | this project's own |

Captions of Flickr8k's dev and test photos were left out wherever they stood; dev was used to choose settings, test for
nothing but the figures below.

Two teachers, both Apache-2.0, gave start weights and targets:

- **MobileNetV2 1.0 224** (Google, an int8 ImageNet-1k classifier): its dequantised weights start the image tower, and its
  opinion of a photo, as probabilities over 1,000 class names, is one of the losses.
- **all-MiniLM-L6-v2** (sentence-transformers): three of its six layers and 16,000 of its tokens start the text tower,
  which learns to reproduce its sentence vectors.

## How

1. Two heads on frozen features: symmetric InfoNCE between photos and captions; cross-entropy between the image teacher's
   opinion and the similarity to class names, on real photos and on synthetic features of classes no photo shows.
2. The three-layer text tower learns the teacher's vectors of all those sentences, names, words and pairs of words.
3. The text tower goes on with the losses of step 1, and words move toward what they look like.
4. So does the image tower: eleven of the backbone's nineteen layers and the head, on random crops, mirrored and
   brightened, with drawings among the photos. The first eight layers, simple filters, stay as they started.
5. Two new heads on the features of both towers, now frozen. Weights are averaged over steps at every stage.

The recipe was improved while this model was made; where its run departed from it stands in `model.json`.

## Measured from these files

By `benchmarks/model.py`; ties count against the model. Percent unless said otherwise.

| Flickr8k test, 1,000 photos, 5,000 captions | R@1 | R@5 | R@10 | median rank |
| --- | --- | --- | --- | --- |
| text to image | {flickr8k_test/text_to_image/recall@1} | {flickr8k_test/text_to_image/recall@5} | {flickr8k_test/text_to_image/recall@10} | {flickr8k_test/text_to_image/median_rank} |
| image to text, any of five | {flickr8k_test/image_to_text/recall@1} | {flickr8k_test/image_to_text/recall@5} | {flickr8k_test/image_to_text/recall@10} | {flickr8k_test/image_to_text/median_rank} |

| 96 free COCO photos, never trained on (some of their captions were among the sentences) | R@1 | R@5 | R@10 |
| --- | --- | --- | --- |
| text to image | {coco_free/text_to_image/recall@1} | {coco_free/text_to_image/recall@5} | {coco_free/text_to_image/recall@10} |
| image to text | {coco_free/image_to_text/recall@1} | {coco_free/image_to_text/recall@5} | {coco_free/image_to_text/recall@10} |

| tiny-ImageNet, ten held-out photos of each class (the image teacher saw them, larger) | |
| --- | --- |
| right name first among its classes | {tiny_imagenet_held_out/right_name_first_of_its_classes} |
| right name first among all 1,000 | {tiny_imagenet_held_out/right_name_first_of_1000} |
| right name in the first five of 1,000 | {tiny_imagenet_held_out/right_name_in_first_5_of_1000} |
| a class's name finds one of its photos in the first ten | {tiny_imagenet_held_out/name_finds_a_photo_in_first_10} |

Of the 1,000 names, the one that the image teacher puts first for a Flickr8k test photo stands first here for
{imagenet_names_on_flickr8k_test/agreement@1} and in the first ten for {imagenet_names_on_flickr8k_test/agreement@10}.

Among the {scikit_image/pictures} pictures that the scikit-image wheel carries, "a cat" ranks its photo
{scikit_image/ranks/a cat}, "a cup of coffee" {scikit_image/ranks/a cup of coffee}, "a rocket launch" {scikit_image/ranks/a rocket launch}, "an astronaut" {scikit_image/ranks/an astronaut}.
None of them was trained on, but these ranks were looked at when the weights of the losses were chosen: a demonstration,
not a measurement.

On one core of {machine} ({date}), milliseconds of processor time:
a picture {times/image_ms} (plain MobileNetV2 with its classifier: {times/plain_mobilenet_v2_ms}), a query {times/text_ms};
starting the image session {times/load_ms/image.onnx}, the text session {times/load_ms/text.onnx},
the tokenizer {times/load_ms/tokenizer.json}.

## What it cannot do

- It is small, and saw 6,000 captioned photos, most of people and dogs outdoors. Other subjects are known only by the names
  of 1,000 ImageNet classes and by what the text teacher thinks lies near them. A model of open_clip finds far more.
- It does not read text in pictures, does not count, and hardly tells who does what to whom, or left from right.
- It does not know names of people or places, nor any language but English.
- Pictures are squashed to a square: what is very wide or high is seen distorted.
- Screenshots, diagrams, scans and microscope pictures it knows only as a program draws them; real ones are often misplaced
  (the picture of the moon in the scikit-image wheel is not found by its name).
- Captions written by people carry their guesses about people in photos; so does a model trained on them. It must not be
  used to judge persons.
"""


def place(results: dict[str, Any], key: str) -> Any:
    """The value at a path such as ``times/image_ms``."""
    value: Any = results
    for part in key.split("/"):
        value = value[part]
    return value


def card(results: dict[str, Any]) -> str:
    """The card with every figure set."""
    text = CARD
    for piece in CARD.split("{")[1:]:
        key = piece.split("}")[0]
        if key == "machine":
            machine = results["machine"]
            figure = f"{machine['processor']} ({machine['cores']} cores)"
        elif key == "date":
            figure = results["date"]
        elif key.startswith("config/"):
            figure = f"{place(results, key):,}"
        else:
            figure = f"<!-- {key} -->{place(results, key)}"
        text = text.replace("{" + key + "}", figure)
    return text


def main() -> None:
    """Write CARD.md and the measured part of model.json."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--results", type=Path, required=True)
    arguments = parser.parse_args()
    results = json.loads(arguments.results.read_text(encoding="utf-8"))
    path = arguments.model / "model.json"
    facts = json.loads(path.read_text(encoding="utf-8"))
    if facts["files"] != results["sha256"]:
        raise SystemExit("the results are of other files: run benchmarks/model.py again")
    facts["training"]["measured"] = {name: results[name] for name in MEASURED}
    path.write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
    text = card(results | {"config": facts["training"]["config"]})
    (arguments.model / "CARD.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
