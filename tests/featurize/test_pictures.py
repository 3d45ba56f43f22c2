"""Decoding and cropping: which pixels the network sees."""

import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from capstan.featurize.pictures import decode
from capstan.records import Failure, Reason
from tests.examples import examples


def encode(picture: Image.Image, format: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, format)
    return buffer.getvalue()


@examples(40)
@given(st.integers(1, 300), st.integers(1, 300))
def test_any_size_becomes_the_square(width: int, height: int) -> None:
    pixels = decode(encode(Image.new("RGB", (width, height), (10, 20, 30))), 32)
    assert not isinstance(pixels, Failure)
    assert pixels.shape == (32, 32, 3)
    assert pixels.dtype == np.uint8
    assert (pixels == (10, 20, 30)).all()


@pytest.mark.parametrize("shorter", [64, 70, 73])
def test_pictures_near_the_size_are_cut_not_resampled(shorter: int) -> None:
    noise = np.random.default_rng(1).integers(0, 256, (shorter, 90, 3), np.uint8)
    pixels = decode(encode(Image.fromarray(noise)), 64)
    top, left = (shorter - 64) // 2, 13
    assert np.array_equal(np.asarray(pixels), noise[top : top + 64, left : left + 64])


def test_larger_pictures_lose_the_usual_eighth() -> None:
    picture = Image.new("L", (512, 512), 0)
    picture.paste(255, (0, 0, 256, 512))
    pixels = decode(encode(picture), 224)
    assert not isinstance(pixels, Failure)
    assert pixels[:, :110].min() > 250
    assert pixels[:, 114:].max() < 5


def test_damaged_pictures_are_values() -> None:
    noise = np.random.default_rng(1).integers(0, 256, (64, 64, 3), np.uint8)
    whole = encode(Image.fromarray(noise), "JPEG")
    assert decode(b"<html>", 32) == Failure(Reason.NOT_AN_IMAGE)
    assert decode(whole[: len(whole) // 2], 32) == Failure(Reason.CORRUPT_IMAGE)
