"""Pictures that no camera took, drawn by a program, each with a sentence.

Photos of people and dogs teach an image tower nothing about scans, textures, pages and diagrams.
Left alone, such pictures fall near the middle of the space, and so near every unusual query. Drawn
ones with plain captions give them a place of their own.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFilter, ImageFont

SIZE = 224
Pixels = npt.NDArray[np.uint8]
Random = np.random.Generator


def _grey(generator: Random) -> tuple[int, int, int]:
    value = int(generator.integers(0, 256))
    return (value, value, value)


def _colour(generator: Random) -> tuple[int, int, int]:
    red, green, blue = (int(value) for value in generator.integers(0, 256, 3))
    return (red, green, blue)


def _ink(generator: Random) -> tuple[int, int, int]:
    return _grey(generator) if generator.random() < 0.6 else _colour(generator)


def noise(generator: Random, words: list[str]) -> Image.Image:
    """Cloudy noise of one scale, grey or tinted."""
    cells = int(generator.choice([4, 8, 16, 32, 64, 112, 224]))
    values = generator.normal(generator.uniform(60, 200), generator.uniform(10, 60), (cells, cells))
    image = Image.fromarray(np.clip(values, 0, 255).astype(np.uint8))
    image = image.resize((SIZE, SIZE), Image.Resampling.BICUBIC)
    if generator.random() < 0.6:
        return image.convert("RGB")
    tint = np.array(_colour(generator)) / 255
    return Image.fromarray((np.asarray(image)[:, :, None] * tint).astype(np.uint8))


def chessboard(generator: Random, words: list[str]) -> Image.Image:
    """Squares of two colours."""
    n = int(generator.integers(4, 13))
    board = (np.indices((n, n)).sum(0) % 2).astype(bool)[:, :, None]
    plain = generator.random() < 0.6
    two = ((0, 0, 0), (255, 255, 255)) if plain else (_colour(generator), _colour(generator))
    image = Image.fromarray(np.where(board, two[0], two[1]).astype(np.uint8))
    image = image.resize((SIZE, SIZE), Image.Resampling.NEAREST)
    return image.rotate(float(generator.uniform(-20, 20))) if generator.random() < 0.3 else image


def stripes(generator: Random, words: list[str]) -> Image.Image:
    """Parallel bands."""
    y, x = np.indices((SIZE, SIZE))
    angle, period = generator.uniform(0, np.pi), generator.uniform(6, 60)
    wave = np.sin((x * np.cos(angle) + y * np.sin(angle)) * 2 * np.pi / period) > 0
    return Image.fromarray(
        np.where(wave[:, :, None], _ink(generator), _ink(generator)).astype(np.uint8)
    )


def bricks(generator: Random, words: list[str]) -> Image.Image:
    """Rows of blocks, every other row shifted by half."""
    red = int(generator.integers(90, 210))
    tone = (red, red // 2, red // 3) if generator.random() < 0.5 else (red, red, red)
    image = Image.new("RGB", (SIZE, SIZE), _grey(generator))
    draw = ImageDraw.Draw(image)
    height = int(generator.integers(12, 40))
    width, gap = int(height * generator.uniform(1.8, 3)), int(generator.integers(1, 5))
    for row in range(SIZE // height + 1):
        for column in range(-1, SIZE // width + 2):
            left, top = column * width + (row % 2) * width // 2, row * height
            shade = float(generator.uniform(0.75, 1.2))
            fill = tuple(min(255, int(value * shade)) for value in tone)
            draw.rectangle((left, top, left + width - gap, top + height - gap), fill=fill)
    return image.filter(ImageFilter.GaussianBlur(float(generator.uniform(0.3, 1.5))))


def spots(generator: Random, words: list[str]) -> Image.Image:
    """Round blobs on a plain ground, as cells under a microscope."""
    pale = generator.random() < 0.6
    ground = tuple(int(v) for v in generator.integers(170, 256, 3)) if pale else _grey(generator)
    image = Image.new("RGB", (SIZE, SIZE), ground)
    draw = ImageDraw.Draw(image)
    ink, largest = _ink(generator), generator.uniform(3, 25)
    for _ in range(int(generator.integers(20, 150))):
        x, y = generator.uniform(0, SIZE, 2)
        rx, ry = generator.uniform(1, largest, 2)
        draw.ellipse((x - rx, y - ry, x + rx, y + ry), fill=ink)
    return image.filter(ImageFilter.GaussianBlur(float(generator.uniform(0.5, 3))))


def starfield(generator: Random, words: list[str]) -> Image.Image:
    """Small bright points on black."""
    image = Image.new("RGB", (SIZE, SIZE), (0, 0, int(generator.integers(0, 25))))
    draw = ImageDraw.Draw(image)
    for _ in range(int(generator.integers(60, 500))):
        x, y = generator.uniform(0, SIZE, 2)
        radius = float(generator.exponential(0.8))
        light = int(generator.integers(120, 256))
        fill = (
            light,
            int(light * generator.uniform(0.7, 1)),
            int(light * generator.uniform(0.6, 1)),
        )
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=fill)
    return image.filter(ImageFilter.GaussianBlur(float(generator.uniform(0.3, 1.2))))


def discs(generator: Random, words: list[str]) -> Image.Image:
    """Round pieces of metal in rows, each with a rim and a relief."""
    tone = np.array(generator.choice([[190, 190, 195], [200, 160, 70], [170, 100, 60]]))
    if generator.random() < 0.4:
        tone = np.array([170, 170, 170])
    image = Image.new("RGB", (SIZE, SIZE), _grey(generator))
    draw = ImageDraw.Draw(image)
    n = int(generator.integers(3, 7))
    step = SIZE / n
    for row in range(n):
        for column in range(n):
            x, y = (column + 0.5) * step, (row + 0.5) * step
            radius = step * generator.uniform(0.25, 0.48)
            fill = tuple(int(v) for v in np.clip(tone * generator.uniform(0.6, 1.2), 0, 255))
            draw.ellipse(
                (x - radius, y - radius, x + radius, y + radius), fill=fill, outline=(60, 60, 60)
            )
            for _ in range(6):
                dx, dy, size = generator.uniform(-0.5, 0.5, 3) * radius
                shade = tuple(int(v * generator.uniform(0.6, 1)) for v in fill)
                box = (
                    x + dx - abs(size),
                    y + dy - abs(size),
                    x + dx + abs(size),
                    y + dy + abs(size),
                )
                draw.ellipse(box, fill=shade)
    return image.filter(ImageFilter.GaussianBlur(float(generator.uniform(0.3, 1.5))))


def page(generator: Random, words: list[str]) -> Image.Image:
    """Lines of printed words, sometimes in a box or beside one."""
    paper = int(generator.integers(200, 256))
    dark = generator.random() < 0.1
    ground, ink = (
        ((20,) * 3, (230,) * 3) if dark else ((paper,) * 3, (int(generator.integers(0, 90)),) * 3)
    )
    image = Image.new("RGB", (SIZE, SIZE), ground)
    draw = ImageDraw.Draw(image)
    size = float(generator.choice([8, 10, 12, 16, 24, 34]))
    font = ImageFont.load_default(size)
    top = int(generator.integers(2, 20))
    left = int(generator.integers(2, 20))
    while top < SIZE:
        line = " ".join(generator.choice(words, 14))
        if generator.random() < 0.85:
            draw.text((left, top), line, fill=ink, font=font)
        top += int(size * 1.35)
    return image


def diagram(generator: Random, words: list[str]) -> Image.Image:
    """Boxes, lines and bars on white."""
    image = Image.new("RGB", (SIZE, SIZE), (255, 255, 255))
    draw = ImageDraw.Draw(image)
    if generator.random() < 0.5:
        n = int(generator.integers(4, 12))
        fill = _colour(generator)
        for i in range(n):
            top = int(generator.integers(30, 190))
            draw.rectangle((20 + i * 190 // n, top, 20 + (i + 1) * 190 // n - 4, 200), fill=fill)
        draw.line((15, 15, 15, 200, 215, 200), fill=(0, 0, 0), width=2)
        return image
    boxes = generator.integers(5, 170, (int(generator.integers(3, 7)), 2))
    for (x, y), (x2, y2) in itertools.pairwise(boxes):
        draw.line((int(x) + 20, int(y) + 12, int(x2) + 20, int(y2) + 12), fill=(0, 0, 0), width=2)
    for x, y in boxes:
        box = (int(x), int(y), int(x) + 48, int(y) + 26)
        draw.rectangle(
            box, fill=tuple(int(v) for v in generator.integers(180, 256, 3)), outline=(0, 0, 0)
        )
    return image


def shapes(generator: Random, words: list[str]) -> Image.Image:
    """A few plain coloured shapes, as in a logo."""
    image = Image.new(
        "RGB", (SIZE, SIZE), (255, 255, 255) if generator.random() < 0.7 else _colour(generator)
    )
    draw = ImageDraw.Draw(image)
    for _ in range(int(generator.integers(1, 5))):
        x, y = (float(v) for v in generator.uniform(20, 150, 2))
        size = float(generator.uniform(30, 90))
        kind = generator.integers(3)
        if kind == 0:
            draw.ellipse((x, y, x + size, y + size), fill=_colour(generator))
        elif kind == 1:
            draw.rectangle((x, y, x + size, y + size), fill=_colour(generator))
        else:
            draw.polygon(
                [(x, y + size), (x + size / 2, y), (x + size, y + size)], fill=_colour(generator)
            )
    return image


def gradient(generator: Random, words: list[str]) -> Image.Image:
    """A smooth passage from one colour to another, or one colour alone."""
    first, second = np.array(_ink(generator)), np.array(_ink(generator))
    if generator.random() < 0.3:
        second = first
    share = np.linspace(0, 1, SIZE)[:, None, None] * np.ones((1, SIZE, 1))
    image = Image.fromarray((first * (1 - share) + second * share).astype(np.uint8))
    return image.rotate(90 * int(generator.integers(4)))


# Each kind with what people would type to find it.
KINDS: dict[Callable[[Random, list[str]], Image.Image], tuple[str, ...]] = {
    noise: ("a rough grey texture", "gravel", "a grainy surface", "a texture", "many small stones"),
    chessboard: ("a chessboard", "a checkerboard", "black and white squares"),
    stripes: ("stripes", "a striped pattern", "parallel lines"),
    bricks: ("a brick wall", "bricks", "a wall of blocks"),
    spots: ("cells under a microscope", "a microscope picture", "a medical picture", "dark spots"),
    starfield: ("stars in the night sky", "a galaxy", "stars in space", "bright points on black"),
    discs: ("coins", "round pieces of metal", "a collection of coins"),
    page: ("a page of text", "a document", "printed text", "a page of a book", "a screenshot"),
    diagram: ("a diagram", "a chart", "boxes and lines"),
    shapes: ("a logo", "coloured shapes", "a simple drawing"),
    gradient: ("a plain colour", "a colour gradient", "an empty picture"),
}


def drawings(each: int, words: list[str], seed: int) -> list[Pixels]:
    """``each`` pictures of every kind in the order of KINDS, (224, 224, 3) uint8.

    words: what the pages are written with.
    """
    generator = np.random.default_rng(seed)
    return [
        np.asarray(draw(generator, words).convert("RGB")) for draw in KINDS for _ in range(each)
    ]
