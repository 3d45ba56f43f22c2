"""What a JPEG's header decides alone, and what becomes of pictures that are damaged."""

import io
import random
from collections import Counter
from dataclasses import replace

import PIL.Image
import pytest

from benchmarks.broken_pictures import mutants
from capstan.ingest.config import ImageOptions
from capstan.ingest.decode.images import ORIENTATION, prepare, prepare_undecoded
from capstan.records import Failure, Image, Reason
from tests.ingest.conftest import encode, gradient

SMALL = ImageOptions(image_size=32)
KEEP = ImageOptions(resize_mode="no")
HEADER = ImageOptions(resize_mode="no", check="header")


def test_by_its_header_a_jpeg_is_kept_undecoded() -> None:
    data = encode(gradient(90, 60), comment=b"text")
    image = prepare_undecoded(data, HEADER)
    assert image == prepare(data, HEADER) == prepare(data, KEEP)
    all_of_it = prepare_undecoded(data, replace(HEADER, keep_metadata=True))
    assert isinstance(all_of_it, Image)
    assert all_of_it.data == data
    damaged = data[:-400] + bytes(200) + data[-200:]
    assert isinstance(prepare(damaged, HEADER), Image)  # which is what this check gives up
    for pictures in (KEEP, SMALL, replace(HEADER, resize_mode="keep_ratio")):
        assert prepare(damaged, pictures) == Failure(Reason.CORRUPT_IMAGE)


def test_what_a_header_does_not_decide_is_decoded() -> None:
    exif = PIL.Image.Exif()
    exif[ORIENTATION] = 6
    picture = gradient(90, 60)
    for data in (
        encode(picture, exif=exif),
        encode(picture.convert("L")),
        encode(picture.convert("CMYK")),
        encode(picture)[:-2],
        encode(picture, "PNG"),
    ):
        assert prepare_undecoded(data, HEADER) is None
        assert prepare(data, HEADER) == prepare(data, KEEP)
        assert isinstance(prepare(data, HEADER), Image)
    for pictures in (KEEP, SMALL):
        assert prepare_undecoded(encode(picture), pictures) is None


def test_what_a_header_refuses() -> None:
    data = encode(gradient(90, 60))
    for refused, reason in (
        (b"<html>", Reason.NOT_AN_IMAGE),
        (data[:-300], None),  # decoding will tell whether anything is missing
        (data[:100], Reason.CORRUPT_IMAGE),
    ):
        assert prepare_undecoded(refused, HEADER) == (Failure(reason) if reason else None)
        assert isinstance(prepare(refused, HEADER), Failure)
    small = prepare_undecoded(data, replace(HEADER, min_side=61))
    assert small == Failure(Reason.TOO_SMALL)
    large = prepare_undecoded(data, replace(HEADER, max_pixels=99))
    assert large == Failure(Reason.TOO_MANY_PIXELS)


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@pytest.mark.parametrize("pictures", [SMALL, KEEP, HEADER])
def test_damaged_files_end_as_a_picture_or_a_reason(pictures: ImageOptions) -> None:
    """`python -m benchmarks.pictures hostile` does this with thousands."""
    found = Counter[str]()
    for name, data in mutants(600, random.Random(1)):
        result = prepare(data, pictures)
        if isinstance(result, Failure):
            found[result.reason] += 1
        else:
            found["image"] += 1
            if pictures.check == "header":
                continue  # what is wrong behind the header is not seen
            stored = PIL.Image.open(io.BytesIO(result.data), formats=("JPEG",))
            assert (stored.size, stored.mode) == ((result.width, result.height), "RGB"), name
    assert found.keys() <= {
        "image",
        Reason.NOT_AN_IMAGE,
        Reason.CORRUPT_IMAGE,
        Reason.TOO_MANY_PIXELS,
    }
    assert found["image"] > 50  # what is changed may be metadata
