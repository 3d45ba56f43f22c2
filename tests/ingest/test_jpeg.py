import io
import random
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import numpy as np
import PIL.Image
import pytest
import simplejpeg
from hypothesis import given
from hypothesis import strategies as st

from capstan.ingest.decode import jpeg
from capstan.ingest.decode.jpeg import (
    EOI,
    JpegError,
    dct_scale,
    decode,
    exif_orientation,
    harmless,
    read,
)
from tests.ingest.conftest import encode, gradient

SIZE = (190, 130)
FULL = PIL.Image.blend(
    gradient(*SIZE),
    PIL.Image.fromarray(np.random.default_rng(0).integers(0, 256, (*SIZE[::-1], 3), np.uint8)),
    0.2,
)
PHOTO = encode(FULL, quality=90)


def pixels(data: bytes, target: tuple[int, int] | None = None) -> np.ndarray[Any, Any]:
    """(H, W, 3) as Capstan decodes them."""
    picture = read(data)
    return np.asarray(decode(picture, target or picture.size).convert("RGB"))


def by_pillow(data: bytes, target: tuple[int, int] | None = None) -> np.ndarray[Any, Any]:
    picture = PIL.Image.open(io.BytesIO(data))
    if target:
        picture.draft(picture.mode, target)
    return np.asarray(picture.convert("RGB"))


def scan_start(data: bytes) -> int:
    at = data.index(b"\xff\xda")
    return at + 2 + int.from_bytes(data[at + 2 : at + 4])


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("scale", [1, 2, 4, 8])
def test_pixels_are_those_that_pillow_decodes(mode: str, progressive: bool, scale: int) -> None:
    data = encode(FULL.convert(mode), progressive=progressive)
    ours = pixels(data, (int(SIZE[0] / scale / 1.25), int(SIZE[1] / scale / 1.25)))
    theirs = by_pillow(data, (SIZE[0] // scale, SIZE[1] // scale))
    assert ours.shape == theirs.shape
    assert np.abs(ours.astype(int) - theirs).max() <= 4  # another libjpeg's colour conversion


def test_ycck_is_read_as_pillow_reads_it() -> None:
    data = simplejpeg.encode_jpeg(np.asarray(FULL.convert("CMYK")), 95, "CMYK", "420")
    assert read(data).components == 4
    assert np.abs(pixels(data).astype(int) - by_pillow(data)).max() <= 3


def test_unusual_sampling_is_read_as_pillow_reads_it() -> None:
    """Three grey blocks of Y to one of Cb and Cr: codes of no difference and no more, and ones."""
    data = encode(PIL.Image.new("RGB", (24, 8), (128, 128, 128)), subsampling=0)
    data = data.replace(b"\1\x11\0\2\x11\1\3\x11\1", b"\1\x31\0\2\x11\1\3\x11\1")
    scan = int("001010" * 3 + "0000" * 2 + "111111", 2).to_bytes(4)
    data = data[: scan_start(data)] + scan + EOI
    assert not read(data).common
    assert (pixels(data) == 128).all()
    assert (by_pillow(data) == 128).all()


@given(st.integers(1, 70), st.integers(1, 70), st.integers(1, 70), st.integers(1, 70))
def test_scaled_pixels_cover_the_target(width: int, height: int, wide: int, high: int) -> None:
    target = (min(width, wide), min(height, high))
    found = pixels(encode(gradient(width, height)), target)
    assert found.shape[1] >= target[0]
    assert found.shape[0] >= target[1]
    assert found.shape[1] in {-(-width // scale) for scale in (1, 2, 4, 8)}


@pytest.mark.parametrize(
    ("size", "scale"),
    [((600, 480), 1), ((614, 614), 1), ((615, 615), 2), ((1228, 5_000), 2), ((9_000, 2_458), 8)],
)
def test_the_decoder_scales_as_far_as_leaves_enough(size: tuple[int, int], scale: int) -> None:
    assert dct_scale(size, (256, 256)) == scale


def put(marker: bytes, junk: bytes) -> Callable[[bytes], bytes]:
    """Put bytes before the first marker of a kind."""
    return lambda data: data.replace(marker, junk + marker, 1)


HARMLESS = {
    "junk between segments": put(b"\xff\xdb", b"junk"),
    "fill bytes": put(b"\xff\xdb", b"\xff" * 9),
    "a lone restart marker": put(b"\xff\xdb", b"\xff\xd0"),
    "trailing garbage": lambda data: data + b"<html>" * 99,
    "a second picture behind": lambda data: data + PHOTO,
    "no end": lambda data: data[:-2],
    "half an end": lambda data: data[:-1],
    "padding of zeros": lambda data: data[:-2] + bytes(700) + EOI,
    "padding of ones": lambda data: data[:-2] + b"\xff" * 700 + EOI,
    "a byte too many": lambda data: data[:-2] + b"\x55" + EOI,
    "an unknown JFIF": lambda data: data.replace(b"JFIF\0\1", b"JFIF\0\7"),
    "an unknown Adobe transform": put(b"\xff\xdb", b"\xff\xee\0\x0eAdobe\0\x64\0\0\0\0\x07"),
    "odd parameters of the scan": lambda data: (
        data[: scan_start(data) - 2] + b"\0\0" + data[scan_start(data) :]
    ),
    "a torn profile": put(b"\xff\xdb", b"\xff\xe2\0\x0fICC_PROFILE\0\x01"),
}


@pytest.mark.parametrize("habit", HARMLESS)
def test_habits_of_encoders_cost_no_picture(habit: str) -> None:
    odd = HARMLESS[habit](PHOTO)
    assert odd != PHOTO
    assert (pixels(odd) == pixels(PHOTO)).all()
    stored = read(odd).data
    assert (by_pillow(stored) == by_pillow(PHOTO)).all()  # which by itself refuses some of these


def overwrite(data: bytes, seed: int) -> bytes:
    chance, damaged = random.Random(seed), bytearray(data)
    for _ in range(60):
        damaged[chance.randrange(scan_start(data), len(data) - 2)] = chance.randrange(255)
    return bytes(damaged)


RESTARTING = encode(FULL, restart_marker_blocks=4)
PROGRESSIVE = encode(FULL, progressive=True)
MIDDLE = scan_start(PHOTO) + 900
DAMAGED = {
    "cut off": PHOTO[:MIDDLE],
    "cut off, with an end": PHOTO[:MIDDLE] + EOI,
    "a hole": PHOTO[:MIDDLE] + PHOTO[MIDDLE + 300 :],
    "other bytes": PHOTO[:MIDDLE] + random.Random(3).randbytes(300) + PHOTO[MIDDLE + 300 :],
    "a lone restart": PHOTO[:MIDDLE] + b"\xff\xd3" + PHOTO[MIDDLE:],
    "a lone marker": PHOTO[:MIDDLE] + b"\xff\xbc" + PHOTO[MIDDLE:],
    "a restart missing": RESTARTING.replace(b"\xff\xd3", b"\xff\xd4", 1),
    "a scan missing": PROGRESSIVE[: PROGRESSIVE.rindex(b"\xff\xda")],
    "a progressive scan cut off": PROGRESSIVE[:-40] + EOI,
    "no scan": PHOTO[: scan_start(PHOTO) - 12],
    "no frame": PHOTO.replace(b"\xff\xc0", b"\xff\xfe"),
    "two frames": PHOTO.replace(
        b"\xff\xc0", b"\xff\xc0\0\x11\x08\0\1\0\1\3" + bytes(9) + b"\xff\xc0"
    ),
    "no height": PHOTO.replace(b"\xff\xc0\0\x11\x08\0\x82", b"\xff\xc0\0\x11\x08\0\0"),
    "12 bits": PHOTO.replace(b"\xff\xc0\0\x11\x08", b"\xff\xc0\0\x11\x0c"),
    "no tables": PHOTO.replace(b"\xff\xdb", b"\xff\xfe"),
    "a CMYK hole": (cmyk := encode(FULL.convert("CMYK")))[:1500] + cmyk[1800:],
    "scans without end": PROGRESSIVE[:-2]
    + PROGRESSIVE[PROGRESSIVE.rindex(b"\xff\xda") : -2] * jpeg.MAX_SCANS
    + EOI,
    "segments without end": b"\xff\xd8" + b"\xff\xfe\0\2" * 2 * jpeg.MAX_SEGMENTS + PHOTO[2:],
}


@pytest.mark.parametrize("damage", DAMAGED)
def test_damage_costs_the_picture(damage: str) -> None:
    with pytest.raises(JpegError):
        pixels(DAMAGED[damage])


def test_most_random_damage_is_seen() -> None:
    """Not all: JPEG has no checksums, and what is wrong may decode as well as what is right."""
    seen = 0
    for seed in range(50):
        try:
            pixels(overwrite(PHOTO, seed))
        except JpegError:
            seen += 1
    assert seen >= 48


@pytest.mark.parametrize(
    ("warning", "forgiven"),
    [
        ("Corrupt JPEG data: 4 extraneous bytes before marker 0xd9", True),
        ("Corrupt JPEG data: 40 extraneous bytes before marker 0xd9", False),
        ("Corrupt JPEG data: 4 extraneous bytes before marker 0xd1", False),
        ("Corrupt JPEG data: 2 extraneous bytes before marker 0xc4", True),
        ("Corrupt JPEG data: 90 extraneous bytes before marker 0xda", False),
        ("Invalid SOS parameters for sequential JPEG", True),
        ("Corrupt JPEG data: bad Huffman code", False),
        ("Corrupt JPEG data: premature end of data segment", False),
        ("Corrupt JPEG data: found marker 0xd4 instead of RST3", False),
        ("Inconsistent progression sequence for component 1 coefficient 4", False),
    ],
)
def test_the_rule_for_warnings(warning: str, forgiven: bool) -> None:
    assert harmless(warning, PHOTO) == forgiven


def test_what_the_header_says() -> None:
    exif = PIL.Image.Exif()
    exif[jpeg.ORIENTATION] = 6
    found = read(encode(FULL, exif=exif, progressive=True))
    assert (found.size, found.orientation, found.components) == (SIZE, 6, 3)
    assert found.usual
    assert not found.common
    assert read(PHOTO).common
    assert not read(encode(FULL.convert("L"))).common
    assert not read(encode(FULL.convert("CMYK"))).common
    assert not read(PHOTO[:-2]).whole


def test_a_clean_file_is_left_as_it_is() -> None:
    for data in (PHOTO, PROGRESSIVE, RESTARTING):
        assert read(data).data == data


def test_thumbnails_are_left_out() -> None:
    body = b"JFIF\0\1\2\0\0\1\0\1\2\2" + b"thumbnail..."
    data = PHOTO[:2] + b"\xff\xe0" + (len(body) + 2).to_bytes(2) + body + PHOTO[20:]
    assert by_pillow(data).shape == by_pillow(PHOTO).shape
    assert b"thumbnail" not in read(data).data
    assert (pixels(data) == pixels(PHOTO)).all()


def test_a_scan_that_says_nothing_is_no_picture() -> None:
    header = PHOTO[: PHOTO.index(b"\xff\xda")]
    with pytest.raises(JpegError, match="no end"):
        read(header + b"\xff\xda\0\2")


def test_fill_bytes_without_end_are_passed_over_once() -> None:
    with pytest.raises(JpegError, match="no scan"):
        read(b"\xff\xd8" + b"\xff" * 10_000_000)  # without end, if each began a search of its own


@given(st.binary(max_size=300))
def test_anything_is_a_jpeg_or_none(data: bytes) -> None:
    with suppress(JpegError):
        read(b"\xff\xd8\xff" + data)


@given(st.lists(st.tuples(st.integers(2, len(PHOTO) - 1), st.integers(0, 255)), max_size=9))
def test_a_changed_jpeg_is_a_jpeg_or_none(changes: list[tuple[int, int]]) -> None:
    data = bytearray(PHOTO)
    for at, value in changes:
        data[at % 700] = value
    try:
        found = read(bytes(data))
    except JpegError:
        return
    assert found.data.startswith(b"\xff\xd8")
    assert found.data.endswith(EOI)
    assert found.orientation in range(1, 9)


@given(st.binary(max_size=80))
def test_anything_has_an_orientation_or_none(tiff: bytes) -> None:
    for start in (b"", b"II*\0\x08\0\0\0", b"MM\0*\0\0\0\x08"):
        assert exif_orientation(start + tiff) in range(9)


@given(
    orientation=st.integers(0, 9),
    order=st.sampled_from(["little", "big"]),
    before=st.integers(0, 3),
    gap=st.integers(0, 5),
)
def test_orientations_are_read(orientation: int, order: Any, before: int, gap: int) -> None:
    def number(value: int, size: int) -> bytes:
        return value.to_bytes(size, order)

    other = number(0x010F, 2) + number(3, 2) + number(1, 4) + number(5, 2) + bytes(2)
    entry = number(0x0112, 2) + number(3, 2) + number(1, 4) + number(orientation, 2) + bytes(2)
    tiff = (b"II*\0" if order == "little" else b"MM\0*") + number(8 + gap, 4) + bytes(gap)
    tiff += number(before + 1, 2) + other * before + entry
    assert exif_orientation(tiff) == (orientation if 1 <= orientation <= 8 else 0)
    assert exif_orientation(tiff[:-5]) == 0


def test_a_directory_that_points_at_itself() -> None:
    assert exif_orientation(b"II*\0\0\0\0\0" + bytes(4)) == 0
    assert exif_orientation(b"MM\0*\xff\xff\xff\xff\xff\xff") == 0
