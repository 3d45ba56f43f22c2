"""JPEG bytes to the square of pixels that the network sees."""

import io
import math

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from capstan.records import Failure, Reason

# ImageNet's usual crop: the middle 224 of a picture whose shorter side is 256.
CROP_MARGIN = 8 / 7


def decode(data: bytes, image_size: int) -> NDArray[np.uint8] | Failure:
    """Decode a picture to RGB, shape (image_size, image_size, 3), or say why not.

    The shorter side is brought into [image_size, 8/7 image_size], then the middle is cut out: so
    pictures already near the size are never resampled, and nothing of a small one is cut away.
    """
    try:
        with Image.open(io.BytesIO(data)) as picture:
            return np.asarray(_middle(picture.convert("RGB"), image_size))
    except UnidentifiedImageError:
        return Failure(Reason.NOT_AN_IMAGE)
    except Image.DecompressionBombError:
        return Failure(Reason.TOO_MANY_PIXELS)
    except (OSError, ValueError, SyntaxError):  # what Pillow's decoders raise on damaged data
        return Failure(Reason.CORRUPT_IMAGE)


def scaled(size: tuple[int, int], side: int) -> tuple[int, int]:
    """The width and height to which a picture is brought before its middle is cut out."""
    shorter = min(size)
    wanted = min(max(shorter, side), math.floor(side * CROP_MARGIN))
    width, height = (max(side, round(length * wanted / shorter)) for length in size)
    return width, height


def _middle(picture: Image.Image, side: int) -> Image.Image:
    width, height = scaled(picture.size, side)
    if (width, height) != picture.size:
        picture = picture.resize((width, height), Image.Resampling.BICUBIC, reducing_gap=3.0)
    left, top = (width - side) // 2, (height - side) // 2
    return picture.crop((left, top, left + side, top + side))
