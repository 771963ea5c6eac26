"""Do the files say what torch says?"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import torch

from mmsearch.encoders.patches import PATCH
from mmsearch.training.towers import AudioTower, ImageTower, TextTower


@torch.inference_mode()
def check_parity(
    towers: tuple[ImageTower, TextTower] | tuple[ImageTower, TextTower, AudioTower], folder: Path
) -> None:
    """Compare the written files with torch; a cosine below 0.99 stops the export."""
    generator = np.random.default_rng(0)
    # Blocks of colour rather than noise, which is like no picture.
    side, block = towers[0].size, 32
    blocks = generator.integers(0, 256, (4, side // block, side // block, 3), dtype=np.uint8)
    pixels = blocks.repeat(block, axis=1).repeat(block, axis=2)
    ids = generator.integers(5, towers[1].tokens.num_embeddings, (4, 9))
    mask = np.ones_like(ids)
    patches = generator.normal(0, 0.1, (3, PATCH)).astype(np.float32)
    found = {
        "image.onnx": (
            {"pixels": pixels},
            towers[0](torch.from_numpy(pixels).permute(0, 3, 1, 2).float()),
        ),
        "text.onnx": (
            {"ids": ids, "mask": mask},
            towers[1](torch.from_numpy(ids), torch.from_numpy(mask)),
        ),
    }
    if len(towers) == 3:
        owners = torch.zeros(len(patches), dtype=torch.int64)
        found["audio.onnx"] = (
            {"patches": patches},
            towers[2](torch.from_numpy(patches), owners),
        )
    for name, (feed, rows) in found.items():
        session = onnxruntime.InferenceSession(
            str(folder / name), providers=["CPUExecutionProvider"]
        )
        worst = float((session.run(None, feed)[0] * rows.numpy()).sum(1).min())
        print(f"{name}: cosine with torch at least {worst:.5f}")
        if worst < 0.99:
            raise ValueError(f"{name} differs from the tower it was made from: cosine {worst:.5f}")
