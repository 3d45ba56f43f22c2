"""JPEGs with the detail of photos, made up from a seed."""

import io
from collections.abc import Iterator, Mapping
from functools import cache, lru_cache
from math import log
from typing import Self

import numpy as np
from PIL import Image as Picture

CELLS = (3, 6, 12, 24, 48, 96, 192, 384)  # per height: from broad shapes to grain
SLOPE = 0.78  # an octave's strength beside the one above; photos' spectra fall about so


def photo(seed: int, width: int = 640, height: int = 480, quality: int = 90) -> bytes:
    """A JPEG; at the default size and quality about 90 KB, as the median picture of the web."""
    random = np.random.default_rng(seed)
    pixels = np.zeros((height, width, 3), np.float32)
    layers = [cells for cells in CELLS if cells <= height // 2]
    strengths = [SLOPE**octave for octave in range(len(layers))]
    for cells, strength in zip(layers, strengths, strict=True):
        noise = random.integers(0, 256, (cells, cells * width // height, 3), np.uint8)
        layer = Picture.fromarray(noise).resize((width, height), Picture.Resampling.BICUBIC)
        pixels += strength * (np.asarray(layer, np.float32) - 127.5)
    pixels = np.clip(127.5 + pixels / np.linalg.norm(strengths), 0, 255)
    file = io.BytesIO()
    Picture.fromarray(pixels.astype(np.uint8)).save(file, "JPEG", quality=quality)
    return file.getvalue()


@cache
def photos(count: int) -> tuple[bytes, ...]:
    """The first so many photos of the default size."""
    return tuple(map(photo, range(count)))


# Bodies of a given size

SMALLEST, STEP, STEPS = 2_000, 1.3, 21  # bytes of photos, about, up to half a megabyte
HEAD, BYTES_PER_PIXEL = 620, 0.4  # of a photo, about
SEGMENT = 65_533  # bytes in a JPEG's comment at most
SPACES = memoryview(b" " * SEGMENT)


@cache
def rung(step: int) -> bytes:
    """A photo of about SMALLEST * STEP ** step bytes."""
    pixels = (SMALLEST * STEP**step - HEAD) / BYTES_PER_PIXEL
    height = round((pixels * 3 / 4) ** 0.5)
    return photo(step, height * 4 // 3, height)


@lru_cache(maxsize=256)
def filled(body: bytes, size: int) -> bytes:
    """A JPEG filled up with comments to just so many bytes; one that is larger stays as it is."""
    whole = memoryview(body)
    return b"".join((whole[:2], *comments(size - len(body)), whole[2:]))


def comments(size: int) -> Iterator[bytes | memoryview]:
    """The pieces of JPEG comments of so many bytes together, four or more; fewer are none."""
    while size >= 4:
        text = min(size - 4, SEGMENT)
        if 0 < size - 4 - text < 4:
            text -= 4
        yield b"\xff\xfe" + (text + 2).to_bytes(2)
        yield SPACES[:text]
        size -= text + 4


class Sizes(Mapping[str, bytes]):
    """Photos by the size that their names begin with: `31039.jpg`; none is below SMALLEST."""

    def __init__(self) -> None:
        self._rungs: dict[int, bytes] = {}

    def warm(self) -> Self:
        """Make all photos now, which takes a second or two, and not while they are asked for."""
        self._rungs = {step: rung(step) for step in range(STEPS + 1)}
        return self

    def __getitem__(self, name: str) -> bytes:
        digits = name.partition(".")[0]
        if not digits.isdecimal():
            raise KeyError(name)
        return self._of(int(digits)) if int(digits) else b""

    def _of(self, size: int) -> bytes:
        step = min(STEPS, int(log(max(size, SMALLEST) / SMALLEST, STEP)))
        while step and len(self._rung(step)) > size - 4:
            step -= 1
        return filled(self._rung(step), size)

    def _rung(self, step: int) -> bytes:
        return self._rungs.get(step) or rung(step)

    def __iter__(self) -> Iterator[str]:
        return iter(())

    def __len__(self) -> int:
        return 0
