# ruff: noqa: E501 - the lines of the card are as wide as its tables
"""The model card and the measured part of model.json, from what benchmarks/model.py found.

    python -m mmsearch.training.card --model mmsearch/models/builtin-2 --results benchmarks/results/model.json

Each figure of the card is set here from the results; an invisible comment before it says where it stands there.
"""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path
from typing import Any

CARD = """\
# {facts/name}

Pictures, sounds, and English and Chinese text in one space of {facts/dim} dimensions: what fits each other lies near.
Three towers, trained by `mmsearch/training/recipe` on two cores of a CPU, and run by ONNX Runtime.

**For research use**: the weights were made with data whose terms say so. See [Terms](#terms).

| file | what | bytes |
| --- | --- | --- |
| `image.onnx` | MobileNetV2 1.0 at {facts/image/size} x {facts/image/size} and a projection head; float16 weights, float32 arithmetic | {bytes/image.onnx} |
| `text.onnx` | Transformer, 6 layers, width 384, and a projection head; int8 weights and products, the rest float32 | {bytes/text.onnx} |
| `audio.onnx` | log-mel spectrogram, MobileNetV1 as YAMNet has it, mean and maximum over a clip, and a projection head; int8 weights, float32 arithmetic but for the head's int8 products | {bytes/audio.onnx} |
| `tokenizer.json` | WordPiece, {config/vocabulary} tokens: English in lower case, Chinese by the character | {bytes/tokenizer.json} |
| `model.json` | dimensions, preprocessing, hashes, the training's settings, the measured figures | |

## Terms

The weights may be used for research, teaching and personal, non-commercial purposes; [`LICENSE-WEIGHTS`](../../../LICENSE-WEIGHTS)
has the words. The reason is the data: what is set in bold below is for research or non-commercial use only. mmsearch's code
is under its own, free licence, and `mmsearch train` makes a model from your own pairs.

## Trained on

| what | used for | terms |
| --- | --- | --- |
| Flickr8k, the 6,000 photos of its train list with five English captions each (Hodosh et al. 2013) | pairs | **research use** |
| Flickr8k-CN: five Chinese captions of the same photos, by people (Li et al. 2016) | pairs, translations | **research use** |
| tiny-ImageNet, forty photos of 64 x 64 of each of 200 classes (Stanford CS231n) | the teacher's opinion of them; pictures of what sounds | **research use** |
| ESC-50, folds 1 to 4: 1,600 clips of 50 classes (Piczak 2015) | sounds with their names | **CC BY-NC**; its ESC-10 part CC BY |
| captions of Flickr30k and COCO val, without their photos: {config/corpus_captions} sentences | sentences | **research use** and CC BY 4.0 |
| captions of AudioCaps and Clotho, without their sounds: {config/corpus_sounds} sentences | sentences | **research use** |
| CC-CEDICT: {config/dictionary} Chinese words with an English meaning | translations | CC BY-SA 4.0 |
| names of the 1,000 classes of ImageNet and the 521 of AudioSet, and {config/corpus_words} single English words | names, sentences | AudioSet: CC BY 4.0 |
| pictures drawn by a program, {config/drawings} of each of eleven kinds: chessboards, pages, diagrams, ... (`drawn.py`) | pairs | this project's own |
| some 250 words with what they look like (`glosses.txt`) | names | this project's own |

Captions of Flickr8k's dev and test photos were left out wherever they stood; dev was used to choose settings, test for
nothing but the figures below.

Three teachers, all Apache-2.0, gave start weights and targets:

- **MobileNetV2 1.0 224** (Google, an int8 ImageNet-1k classifier): its dequantised weights start the image tower, and its
  opinion of a photo, as probabilities over 1,000 class names, is one of the losses.
- **all-MiniLM-L6-v2** (sentence-transformers): its layers and a part of its tokens start the text tower, which keeps to its
  sentence vectors; a Chinese text goes where its English translation is.
- **YAMNet** (Google, an int8 AudioSet classifier): its network is the audio tower's, unchanged; the head on it is ours.

## How

1. Two heads on frozen features: symmetric InfoNCE between photos and captions; cross-entropy between the image teacher's
   opinion and the similarity to class names, on real photos and on synthetic features of classes no photo shows.
2. Both towers end to end, with the same losses, captions in both languages, rows of the batches before as further
   negatives; the classifier of the image teacher still reads its classes from the tower, and sentences of every kind stay
   where the text teacher puts them. The first {config/frozen} of the backbone's 19 layers stay as they started. Random
   crops, mirrored and brightened; weights are averaged over steps.
3. The heads of both towers alone, on what the finished towers make of whole photos, as they are and mirrored, and of
   sentences, with the same losses; the weights of several runs from the same start are averaged.
4. A head for sounds, on YAMNet's frozen features and against the finished towers: a clip finds the names of its class
   (half of the clips are mixtures of two) and photos of what makes its sound, and YAMNet's opinion over AudioSet's 521
   classes holds in the shared space too, on clips and on synthetic features of classes that no clip has.

Settings and losses: `mmsearch/training/recipe/config.py`; where this model's run departed from the recipe stands in `model.json`.

## Measured from these files

By `benchmarks/model.py` on {machine}, {date}. Ties count against the model.

{table}

A bar for a set that is not at hand is neither met nor missed: the figure is that of the set in brackets.

| percent | R@1 | R@5 | R@10 | median rank |
| --- | --- | --- | --- | --- |
| Flickr8k test, English: text to image | {flickr8k_test/text_to_image/recall@1} | {flickr8k_test/text_to_image/recall@5} | {flickr8k_test/text_to_image/recall@10} | {flickr8k_test/text_to_image/median_rank} |
| image to text, any of five | {flickr8k_test/image_to_text/recall@1} | {flickr8k_test/image_to_text/recall@5} | {flickr8k_test/image_to_text/recall@10} | {flickr8k_test/image_to_text/median_rank} |
| the same photos, Chinese: text to image | {flickr8k_cn_test/text_to_image/recall@1} | {flickr8k_cn_test/text_to_image/recall@5} | {flickr8k_cn_test/text_to_image/recall@10} | {flickr8k_cn_test/text_to_image/median_rank} |
| image to text | {flickr8k_cn_test/image_to_text/recall@1} | {flickr8k_cn_test/image_to_text/recall@5} | {flickr8k_cn_test/image_to_text/recall@10} | {flickr8k_cn_test/image_to_text/median_rank} |
| 96 free COCO photos, never trained on (captions perhaps): text to image | {coco_free/text_to_image/recall@1} | {coco_free/text_to_image/recall@5} | {coco_free/text_to_image/recall@10} | {coco_free/text_to_image/median_rank} |
| image to text | {coco_free/image_to_text/recall@1} | {coco_free/image_to_text/recall@5} | {coco_free/image_to_text/recall@10} | {coco_free/image_to_text/median_rank} |

Names, on tiny-ImageNet's ten held-out photos of each of 200 classes, 64 x 64 pixels ("a photo of a ..." and the first of a
class's names). The image teacher was trained on these photos; its own figures on them say what the bridge to words loses.

| percent | this model | image teacher |
| --- | --- | --- |
| right name first of 1,000 | {names/model/name_first_of_1000} | {names/image_teacher/name_first_of_1000} |
| right name in the first five of 1,000 | {names/model/name_in_first_5_of_1000} | {names/image_teacher/name_in_first_5_of_1000} |
| right name first of the 200 | {names/model/name_first_of_200} | {names/image_teacher/name_first_of_200} |
| a name finds a photo of it in the first ten of 2,000 | {names/model/photo_in_first_10_of_2000} | {names/image_teacher/photo_in_first_10_of_2000} |
| a name finds its photo in the first ten of 200, one a class | {names/model/photo_in_first_10_of_200} | {names/image_teacher/photo_in_first_10_of_200} |

Where the image teacher is sure of a Flickr8k test photo ({agreement_on_flickr8k_test/photos} of 1,000), this model puts the same of the 1,000 names first
for {agreement_on_flickr8k_test/agreement@1} %, and in the first ten for {agreement_on_flickr8k_test/agreement@10} %.

Sounds, on ESC-50 ("the sound of ..."). The head that ships was trained on all four folds, so each is held out by training the
head alone on the other three:

| percent | fold held out, mean of four | as shipped, on its own training clips |
| --- | --- | --- |
| right class first of 50 | {esc50/held_out_fold/top1} | {esc50/shipped_on_its_training_folds/top1} |
| class finds its clips: mean average precision | {esc50/held_out_fold/text_to_sound_map} | {esc50/shipped_on_its_training_folds/text_to_sound_map} |
| clip finds photos of what sounds among 2,000: precision at ten | {sound_to_picture/held_out_fold/precision@10} | {sound_to_picture/shipped_on_its_training_folds/precision@10} |

The last by class, fold held out: {sound_classes}. Chance is {sound_to_picture/chance}; `esc50_to_imagenet.tsv` says what counts as a photo of a
sound. These classes were trained with photos of them, though not with these photos, nor with these clips.

Among the {scikit_image/pictures} pictures that the scikit-image wheel carries, "a cat" ranks its photo
{scikit_image/ranks/a cat}, "a cup of coffee" {scikit_image/ranks/a cup of coffee}, "a rocket launch" {scikit_image/ranks/a rocket launch}, "an astronaut" {scikit_image/ranks/an astronaut}:
a demonstration, not a measurement.

Processor time of one core, in milliseconds, reading and decoding included: a picture {times/image_ms/median}, a text {times/text_ms/median},
five seconds of sound {times/sound_ms/median}, the first text of a process {times/first_text_ms/median}.

## What it cannot do

- It is small, and saw 6,000 captioned photos, most of people and dogs outdoors. Other subjects are known only by the names
  of 1,000 ImageNet classes and by what the text teacher thinks lies near them. A model of open_clip finds far more.
- Its Chinese is that of captions of those photos and of single words. No other language was trained, nor traditional
  characters beyond those that look the same.
- Of sounds it knows 50 classes well, and what else AudioSet's classes have in common with them. It does not understand
  speech, music it hears as music, and a short event in a long recording drowns: windows of five seconds are averaged.
- A sound finds pictures of the classes that were trained with both; from a sound to other pictures the way leads through
  words alone.
- It does not read text in pictures, does not count, and hardly tells who does what to whom, or left from right.
- It does not know names of people or places.
- Pictures are squashed to a square: what is very wide or high is seen distorted.
- Screenshots, diagrams, scans and microscope pictures it knows only as a program draws them; real ones are often misplaced.
- Captions written by people carry their guesses about people in photos; so does a model trained on them. It must not be
  used to judge persons, nor to recognise them by face or voice.
"""


def place(results: dict[str, Any], key: str) -> Any:
    """The value at a path such as ``times/text_ms/median``."""
    value: Any = results
    for part in key.split("/"):
        value = value[part]
    return value


def card(results: dict[str, Any], facts: dict[str, Any]) -> str:
    """The card with every figure set. results: of benchmarks/model.py; facts: of model.json."""
    machine, classes = results["machine"], results["sound_to_picture"]["held_out_fold"]["classes"]
    said = {
        "machine": f"{machine['processor']} ({machine['cores']} cores)",
        "date": results["date"][:10],
        "table": "\n".join(results["table"]),
        "sound_classes": ", ".join(f"{name.replace('_', ' ')} {n}" for name, n in classes.items()),
    }

    def figure(match: re.Match[str]) -> str:
        key = match[1]
        if key in said:
            return str(said[key])
        if key.startswith("facts/"):
            return str(place(facts, key.removeprefix("facts/")))
        if key.startswith("config/"):
            return f"{place(facts['training'], key):,}"
        return f"<!-- {key} -->{place(results, key)}"

    return re.sub(r"\{([^{}]+)\}", figure, CARD)


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
    facts["training"]["measured"] = {bar["measure"]: bar["measured"] for bar in results["bars"]}
    path.write_text(json.dumps(facts, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    (arguments.model / "CARD.md").write_text(card(results, facts), encoding="utf-8")


if __name__ == "__main__":
    main()
