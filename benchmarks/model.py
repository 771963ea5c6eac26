"""Measure the built-in model from its shipped files: what it finds, what it costs, which bars it
meets.

    python benchmarks/model.py --data ../shared/data --out benchmarks/results/model.json
    python benchmarks/model.py --data ../shared/data --out FILE --folder MODEL_FOLDER --work WORK

Needs the project's training data (its test splits) and the extra `train`. `pictures.py`,
`sounds.py` and `costs.py` say how each figure is had. Prints a table of the bars and writes all
figures; exits with 1 when a bar that could be measured is not met. No figure is typed by hand.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import costs
import pictures
import sounds
from measuring import machine, origin

from mmsearch.encoders import BUILTIN
from mmsearch.encoders.builtin import MODELS, Builtin

FLICKR = "Flickr8k test, English"
PACKAGES = ("numpy", "onnxruntime", "pillow", "tokenizers", "soundfile", "scikit-image", "torch")


@dataclass(frozen=True, slots=True)
class Bar:
    """What a figure should be. `instead`: the bar is for another set, which is not at hand; the
    figure is of this one, so that it neither meets nor misses the bar."""

    measure: str
    place: str  # of the figure in the results
    least: float | None = None
    most: float | None = None
    instead: str | None = None

    def judged(self, results: dict[str, Any]) -> dict[str, Any]:
        """The bar, the figure, and whether it is met: None where that cannot be said."""
        figure = place(results, self.place)
        met = None
        if figure is not None and self.instead is None:
            met = figure >= self.least if self.most is None else figure <= self.most
        bar = f"≥ {self.least:g}" if self.most is None else f"≤ {self.most:g}"
        return {
            "measure": self.measure, "bar": bar, "measured": figure, "place": self.place,
            "instead": self.instead, "met": met,
        }  # fmt: skip


BARS = (
    Bar(f"{FLICKR}: text→image R@1, %", "flickr8k_test/text_to_image/recall@1", 24),
    Bar(f"{FLICKR}: text→image R@10, %", "flickr8k_test/text_to_image/recall@10", 66),
    Bar(f"{FLICKR}: image→text R@1, %", "flickr8k_test/image_to_text/recall@1", 30),
    Bar(f"{FLICKR}: image→text R@10, %", "flickr8k_test/image_to_text/recall@10", 70),
    Bar(
        "the same photos, Chinese: text→image R@10, %",
        "flickr8k_cn_test/text_to_image/recall@10",
        45,
    ),
    Bar(
        "1,000 ImageNet classes, one photo each: the name finds it in the first ten, %",
        "names/model/photo_in_first_10_of_200",
        80,
        instead="200 classes of tiny-ImageNet, one photo of 64 x 64 each, ten draws",
    ),
    Bar(
        "the same: the photo names its class first of 1,000, %",
        "names/model/name_first_of_1000",
        45,
        instead="2,000 photos of tiny-ImageNet, 64 x 64",
    ),
    Bar(
        "231 COCO photos: text→image R@10, %",
        "coco_free/text_to_image/recall@10",
        77,
        instead="96 COCO photos",
    ),
    Bar("ESC-50, fold held out: top-1, %", "esc50/held_out_fold/top1", 88),
    Bar(
        "ESC-50, fold held out: text→sound mAP, %",
        "esc50/held_out_fold/text_to_sound_map",
        92,
    ),
    Bar(
        "sound→picture, fold held out: precision at 10, %",
        "sound_to_picture/held_out_fold/precision@10",
        50,
    ),
    Bar("all files, MB", "megabytes", most=40),
    Bar("pictures a second, one core, decoded", "times/images_per_second", 120),
    Bar("a text, one core, ms", "times/text_ms/median", most=5),
    Bar("5 s of sound, one core, decoded, ms", "times/sound_ms/median", most=30),
)


def place(results: dict[str, Any], path: str) -> Any:
    """The value at a path such as "times/text_ms/median"; None where there is none."""
    value: Any = results
    for key in path.split("/"):
        value = value.get(key) if isinstance(value, dict) else None
    return value


def table(bars: list[dict[str, Any]]) -> list[str]:
    """The bars in Markdown."""
    lines = ["| measure | bar | measured | met |", "| --- | --- | --- | --- |"]
    words = {True: "yes", False: "**no**", None: "-"}
    for bar in bars:
        figure = "-" if bar["measured"] is None else f"{bar['measured']:g}"
        figure += f" ({bar['instead']})" if bar["instead"] else ""
        lines.append(f"| {bar['measure']} | {bar['bar']} | {figure} | {words[bar['met']]} |")
    return lines


def measured(encoder: Builtin, data: Path, work: Path) -> dict[str, Any]:
    """All figures of a model. work: where the recipe keeps what it worked out."""
    teacher = pictures.image_teacher(data)
    sizes = costs.sizes(encoder.folder)
    results: dict[str, Any] = {
        "model": encoder.name,
        "fingerprint": encoder.fingerprint,
        "sha256": {
            name: hashlib.sha256((encoder.folder / name).read_bytes()).hexdigest()
            for name in encoder.files
        },
        "bytes": sizes,
        "megabytes": round(sum(sizes.values()) / 1e6, 2),
        "times": costs.times(encoder, data),  # first: the machine is as quiet as it was found
        **pictures.captions(encoder, data),
        "names": pictures.names(encoder, teacher, data),
        "agreement_on_flickr8k_test": pictures.agreement(encoder, teacher, data),
        **sounds.measure(encoder, data, work),
        "scikit_image": pictures.scikit_image(encoder),
    }
    bars = [bar.judged(results) for bar in BARS]
    return results | {"bars": bars, "table": table(bars)}


def main() -> int:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--folder", type=Path, default=MODELS / BUILTIN)
    parser.add_argument("--work", type=Path, help="the recipe's; a temporary one takes longer")
    arguments = parser.parse_args()
    conditions = {"machine": machine(), **origin(PACKAGES)}
    encoder = Builtin(arguments.folder.name, arguments.folder)
    with TemporaryDirectory(prefix="mmsearch-") as fresh:
        results = measured(encoder, arguments.data, arguments.work or Path(fresh))
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(
        json.dumps(results | conditions, indent=2, ensure_ascii=False) + "\n", encoding="utf-8"
    )
    print("\n".join(results["table"]))
    return 1 if any(bar["met"] is False for bar in results["bars"]) else 0


if __name__ == "__main__":
    sys.exit(main())
