import io
import struct
import zlib
from typing import Any

import PIL.Image
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL.Image import Transpose

from capstan.errors import SettingError
from capstan.ingest.config import ImageOptions
from capstan.ingest.decode.images import ORIENTATION, check_decoders, prepare, resized, sniff
from capstan.records import Failure, Image, Reason
from tests.examples import examples
from tests.ingest.conftest import encode, gradient

SMALL = ImageOptions(image_size=32)
KEEP = ImageOptions(resize_mode="no")


def ready(data: bytes, pictures: ImageOptions = KEEP) -> PIL.Image.Image:
    """The stored picture, decoded again."""
    image = prepare(data, pictures)
    assert isinstance(image, Image)
    stored = PIL.Image.open(io.BytesIO(image.data))
    stored.load()
    assert (stored.format, stored.mode) == ("JPEG", "RGB")
    assert stored.size == (image.width, image.height)
    return stored


def colour(picture: PIL.Image.Image, x: int, y: int) -> tuple[int, ...]:
    pixel = picture.getpixel((x, y))
    assert isinstance(pixel, tuple)
    return pixel


def close(found: tuple[int, ...], wanted: tuple[int, ...], by: int = 12) -> bool:
    return all(abs(a - b) <= by for a, b in zip(found, wanted, strict=True))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "WEBP", "BMP"])
def test_allowed_formats(kind: str) -> None:
    data = encode(gradient(90, 60), kind)
    assert sniff(data) == kind
    assert ready(data, SMALL).size == (48, 32)


@pytest.mark.parametrize("kind", ["TIFF", "ICO", "PPM", "TGA", "PDF", "EPS"])
def test_other_formats_are_not_images_here(kind: str) -> None:
    assert prepare(encode(gradient(90, 60), kind), SMALL) == Failure(Reason.NOT_AN_IMAGE)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", Reason.NOT_AN_IMAGE),
        (b"<html>", Reason.NOT_AN_IMAGE),
        (b"BM is how this text begins, not a bitmap", Reason.NOT_AN_IMAGE),
        (b"RIFF\0\0\0\0WAVE", Reason.NOT_AN_IMAGE),
        (b"\xff\xd8\xff", Reason.CORRUPT_IMAGE),
        (b"GIF89a", Reason.CORRUPT_IMAGE),
        (b"\x89PNG\r\n\x1a\n" + b"\0" * 50, Reason.CORRUPT_IMAGE),
        (b"RIFF\x10\0\0\0WEBPVP8 ", Reason.CORRUPT_IMAGE),
    ],
)
def test_bodies_that_are_no_pictures(data: bytes, reason: Reason) -> None:
    assert prepare(data, SMALL) == Failure(reason)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP", "GIF"])
@pytest.mark.parametrize("pictures", [SMALL, KEEP])
def test_half_a_picture_is_corrupt(kind: str, pictures: ImageOptions) -> None:
    data = encode(gradient(90, 60), kind)
    assert prepare(data[: len(data) // 2], pictures) == Failure(Reason.CORRUPT_IMAGE)


SIDE = st.integers(1, 3_000)


@given(width=SIDE, height=SIDE, side=st.integers(1, 400))
def test_sizes(width: int, height: int, side: int) -> None:
    size = (width, height)
    assert resized(size, "no", side) == size
    for mode, bounded in (("keep_ratio", min), ("center_crop", min), ("border", max)):
        found = resized(size, mode, side)
        assert bounded(found) == min(side, bounded(size))
        assert found[0] <= width
        assert found[1] <= height
        if found != size:  # the same shape, to half a pixel
            scale = side / bounded(size)
            assert all(
                abs(new - old * scale) <= 0.5 or new == 1
                for new, old in zip(found, size, strict=True)
            )


@examples(40)
@given(
    width=st.integers(1, 120),
    height=st.integers(1, 120),
    side=st.integers(1, 60),
    kind=st.sampled_from(["JPEG", "PNG"]),
)
def test_modes_give_the_promised_shapes(width: int, height: int, side: int, kind: str) -> None:
    data = encode(gradient(width, height), kind)
    shape = {
        mode: ready(data, ImageOptions(resize_mode=mode, image_size=side)).size
        for mode in ("no", "keep_ratio", "border", "center_crop")
    }
    assert shape["no"] == (width, height)
    assert min(shape["keep_ratio"]) == min(side, width, height)
    assert shape["border"] == (side, side)
    assert shape["center_crop"] == (min(side, width, height),) * 2


def test_bars_are_white_and_crops_are_from_the_middle() -> None:
    picture = PIL.Image.new("RGB", (80, 40), "red")
    picture.paste("blue", (30, 0, 50, 40))
    data = encode(picture, "PNG")
    bars = ready(data, ImageOptions(resize_mode="border", image_size=100))
    assert close(colour(bars, 50, 50), (0, 0, 255))
    assert close(colour(bars, 50, 5), (255, 255, 255))
    assert close(colour(bars, 15, 50), (255, 0, 0))
    crop = ready(data, ImageOptions(resize_mode="center_crop", image_size=20))
    assert close(colour(crop, 10, 10), (0, 0, 255))
    assert close(colour(crop, 0, 10), (255, 0, 0), by=60)


@pytest.mark.parametrize("orientation", range(10))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("mode", ["keep_ratio", "no"])
def test_exif_orientation_is_applied(orientation: int, kind: str, mode: str) -> None:
    upright = gradient(60, 40)
    undo = {
        2: Transpose.FLIP_LEFT_RIGHT,
        3: Transpose.ROTATE_180,
        4: Transpose.FLIP_TOP_BOTTOM,
        5: Transpose.TRANSPOSE,
        6: Transpose.ROTATE_90,
        7: Transpose.TRANSVERSE,
        8: Transpose.ROTATE_270,
    }
    stored = upright.transpose(undo[orientation]) if orientation in undo else upright
    exif = PIL.Image.Exif()
    exif[ORIENTATION] = orientation
    options: dict[str, Any] = {"lossless": True} if kind == "WEBP" else {}
    data = encode(stored, kind, exif=exif, **options)

    image = prepare(data, ImageOptions(resize_mode=mode))

    assert isinstance(image, Image)
    assert (image.original_width, image.original_height) == (60, 40)
    found = PIL.Image.open(io.BytesIO(image.data))
    assert found.size == (60, 40)
    for x, y in ((2, 2), (57, 2), (2, 37), (57, 37)):
        assert close(colour(found, x, y), colour(upright, x, y), by=30)


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
def test_damaged_exif_does_not_spoil_a_picture() -> None:
    exif = b"Exif\0\0MM\0*" + struct.pack(">IHHHII", 8, 1, ORIENTATION, 5, 99, 1 << 31)
    assert ready(encode(gradient(60, 40), exif=exif)).size == (60, 40)
    assert ready(encode(gradient(60, 40), exif=b"Exif\0\0junk")).size == (60, 40)


def test_transparency_lies_on_white() -> None:
    clear = gradient(20, 20).convert("RGBA")
    clear.putalpha(0)
    half = PIL.Image.new("RGBA", (20, 20), (255, 0, 0, 128))
    grey = PIL.Image.new("LA", (20, 20), (0, 0))
    palette = PIL.Image.new("P", (20, 20), 0)
    keyed = PIL.Image.new("RGB", (20, 20), (1, 2, 3))
    pictures = [
        (encode(clear, "PNG"), (255, 255, 255)),
        (encode(half, "PNG"), (255, 127, 127)),
        (encode(half, "WEBP", lossless=True), (255, 127, 127)),
        (encode(grey, "PNG"), (255, 255, 255)),
        (encode(palette, "PNG", transparency=0), (255, 255, 255)),
        (encode(palette, "GIF", transparency=0), (255, 255, 255)),
        (encode(keyed, "PNG", transparency=(1, 2, 3)), (255, 255, 255)),
    ]
    for data, wanted in pictures:
        assert close(colour(ready(data), 10, 10), wanted)


@pytest.mark.parametrize("level", [0, 60, 128, 250])
def test_16_bit_greys_keep_their_brightness(level: int) -> None:
    picture = PIL.Image.new("I;16", (20, 20), level * 257)
    assert close(colour(ready(encode(picture, "PNG")), 10, 10), (level,) * 3, by=3)


def test_other_modes_become_rgb() -> None:
    red = PIL.Image.new("RGB", (20, 20), (250, 5, 5))
    cmyk = ready(encode(red.convert("CMYK"), "JPEG", quality=95))
    assert close(colour(cmyk, 10, 10), (250, 5, 5))
    assert close(colour(ready(encode(red.convert("P"), "GIF")), 10, 10), (250, 5, 5), by=60)
    assert close(colour(ready(encode(red.convert("L"), "JPEG")), 10, 10), (78, 78, 78))
    assert close(colour(ready(encode(red.convert("1"), "PNG")), 10, 10), (0, 0, 0), by=255)


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG"])
def test_of_an_animation_the_first_frame(kind: str) -> None:
    frames = [PIL.Image.new("RGB", (20, 20), name) for name in ("red", "blue", "green")]
    options: dict[str, Any] = {"lossless": True} if kind == "WEBP" else {}
    data = encode(frames[0], kind, save_all=True, append_images=frames[1:], **options)
    assert close(colour(ready(data), 10, 10), (255, 0, 0))


def claiming(width: int, height: int) -> bytes:
    """A PNG of a few bytes that says it is so large."""
    data = encode(PIL.Image.new("L", (2, 2)), "PNG")
    header = b"IHDR" + struct.pack(">II", width, height) + data[24:29]
    return data[:12] + header + struct.pack(">I", zlib.crc32(header)) + data[33:]


def test_too_many_pixels_are_not_decoded() -> None:
    assert prepare(claiming(20_000, 20_000), SMALL) == Failure(Reason.TOO_MANY_PIXELS)
    assert prepare(claiming(5_000, 5_000), SMALL) == Failure(Reason.CORRUPT_IMAGE)
    assert prepare(claiming(70_000, 2), SMALL) == Failure(Reason.TOO_MANY_PIXELS)
    assert prepare(encode(gradient(90, 60)), ImageOptions(max_pixels=5_399)) == Failure(
        Reason.TOO_MANY_PIXELS
    )
    assert isinstance(prepare(encode(gradient(90, 60)), ImageOptions(max_pixels=5_400)), Image)


def test_too_small() -> None:
    data = encode(gradient(90, 60))
    assert prepare(data, ImageOptions(min_side=61)) == Failure(Reason.TOO_SMALL)
    assert isinstance(prepare(data, ImageOptions(min_side=60)), Image)
    assert ready(encode(gradient(1, 1), "PNG"), SMALL).size == (1, 1)


def test_metadata_is_left_out_in_every_mode() -> None:
    secret = b"taken at home"
    exif = PIL.Image.Exif()
    exif[0x010E] = secret.decode()
    for kind, options in (
        ("JPEG", {"exif": exif, "comment": secret, "icc_profile": secret, "xmp": secret}),
        ("JPEG", {"exif": exif, "progressive": True}),
        ("PNG", {"exif": exif, "icc_profile": secret}),
        ("GIF", {"comment": secret}),
        ("WEBP", {"exif": exif, "xmp": secret}),
    ):
        data = encode(gradient(90, 60), kind, **options)
        assert secret in data or kind == "PNG"
        for pictures in (KEEP, SMALL, ImageOptions(resize_mode="border")):
            image = prepare(data, pictures)
            assert isinstance(image, Image)
            assert secret not in image.data
            assert b"Exif" not in image.data


def test_without_resizing_a_jpegs_own_bytes_are_kept() -> None:
    data = encode(gradient(90, 60), quality=40)
    image = prepare(data, KEEP)
    assert isinstance(image, Image)
    assert image.data == data
    exif = PIL.Image.Exif()
    exif[0x010E] = "text"
    described = encode(
        gradient(90, 60), quality=40, exif=exif, comment=b"text", icc_profile=b"text"
    )
    assert prepare(described, KEEP) == image
    with_all = prepare(described, ImageOptions(resize_mode="no", keep_metadata=True))
    assert isinstance(with_all, Image)
    assert with_all.data == described


def test_16_bit_colours_keep_their_brightness() -> None:
    header = struct.pack(">IIBBBBB", 9, 9, 16, 2, 0, 0, 0)
    rows = (b"\0" + struct.pack(">HHH", 0, 0x80FF, 0xFFFF) * 9) * 9
    data = b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    )
    assert close(colour(ready(data), 4, 4), (0, 128, 255))


@pytest.mark.parametrize("mode", ["keep_ratio", "center_crop", "no"])
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "WEBP"])
def test_nothing_is_enlarged(mode: str, kind: str) -> None:
    for size in ((1, 1), (1, 40), (40, 1)):
        found = ready(encode(gradient(*size), kind), ImageOptions(resize_mode=mode))
        assert found.size == ((1, 1) if mode == "center_crop" else size)


def test_equal_bodies_give_equal_bytes() -> None:
    data = encode(gradient(500, 300), "PNG")
    assert prepare(data, SMALL) == prepare(data, SMALL)


def test_quality_is_the_setting() -> None:
    data = encode(gradient(500, 300), "PNG")
    sizes = []
    for quality in (30, 95):
        image = prepare(data, ImageOptions(jpeg_quality=quality))
        assert isinstance(image, Image)
        sizes.append(len(image.data))
    assert sizes[0] < sizes[1]


def test_a_pillow_without_a_decoder_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    check_decoders()
    monkeypatch.setattr("PIL.features.check", lambda library: library != "webp")
    with pytest.raises(SettingError, match="built without webp"):
        check_decoders()
