"""Pictures: MobileNetV2 (Sandler et al. 2018, arXiv 1801.04381) and a projection head."""

from __future__ import annotations

from torch import Tensor, nn

from mmsearch.training.towers.parts import DIM, Convolution, Head, Tower

FEATURES = 1280  # of MobileNetV2's pooled features
SIZE = 224  # pixels a side, as the teacher was trained; a tower may be trained at another

# (expansion, channels, repeats, stride) of each run of inverted residual blocks: table 2 of the
# paper.
BLOCKS = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)


class InvertedResidual(nn.Module):
    """Expand with a 1x1 convolution, filter each channel with a 3x3 one, project back linearly."""

    def __init__(self, inputs: int, outputs: int, stride: int, expansion: int):
        super().__init__()
        hidden = inputs * expansion
        self.residual = stride == 1 and inputs == outputs
        layers = [Convolution(inputs, hidden, 1)] if expansion != 1 else []
        layers.append(Convolution(hidden, hidden, 3, stride, depthwise=True))
        layers.append(Convolution(hidden, outputs, 1, linear=True))
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        """(n, inputs, height, width) -> (n, outputs, height / stride, width / stride)."""
        out: Tensor = self.layers(x)
        return x + out if self.residual else out


class MobileNetV2(nn.Module):
    """MobileNetV2 1.0 up to its 1280 feature maps, without the classifier."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = [Convolution(3, 32, 3, 2)]
        inputs = 32
        for expansion, outputs, repeats, stride in BLOCKS:
            for repeat in range(repeats):
                layers.append(
                    InvertedResidual(inputs, outputs, stride if repeat == 0 else 1, expansion)
                )
                inputs = outputs
        layers.append(Convolution(inputs, FEATURES, 1))
        self.layers = nn.Sequential(*layers)

    def convolutions(self) -> list[Convolution]:
        """Every convolution, in the order in which a picture passes them."""
        return [module for module in self.modules() if isinstance(module, Convolution)]

    def forward(self, pixels: Tensor) -> Tensor:
        """pixels: (n, 3, size, size), 0 to 255 -> pooled features (n, 1280), not negative."""
        # The teacher's input is quantised with scale 1/127.5 and zero point 127.
        return self.late((pixels - 127.0) / 127.5, 0)

    def late(self, maps: Tensor, first: int) -> Tensor:
        """Pooled features (n, 1280) from the maps that enter layer ``first`` of the 19."""
        for layer in list(self.layers)[first:]:
            maps = layer(maps)
        return maps.float().mean((2, 3))


class ImageTower(Tower):
    """Pictures to unit rows."""

    head: Head

    def __init__(self, hidden: int = 512, dropout: float = 0.0, dim: int = DIM, size: int = SIZE):
        super().__init__()
        self.arguments = {"hidden": hidden, "dim": dim, "size": size}
        self.size = size
        self.backbone = MobileNetV2()
        self.head = Head(FEATURES, hidden, dim, dropout)

    def features(self, *inputs: Tensor) -> Tensor:
        """pixels: (n, 3, size, size), 0 to 255 -> (n, 1280) pooled."""
        (pixels,) = inputs
        out: Tensor = self.backbone(pixels)
        return out
