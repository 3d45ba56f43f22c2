"""The bytes of a picture to the JPEG that is stored: checked, upright, RGB, resized. Pure.

Rules: JPEG, PNG, WebP, GIF and BMP only. Of an animation the first frame. Transparency lies on
white. 16-bit samples keep their upper 8 bits; CMYK is turned to RGB without its colour profile.
EXIF orientation is applied; metadata and profiles are left out. Nothing is enlarged.
"""

import hashlib
import io
import struct

import PIL.features
import PIL.Image
from PIL.Image import Resampling, Transpose

from ingest.config import Pictures
from pipeline.errors import SettingError
from pipeline.records import Failure, Image, Reason

ORIENTATION = 0x0112  # EXIF tag
UPRIGHT = {
    2: Transpose.FLIP_LEFT_RIGHT,
    3: Transpose.ROTATE_180,
    4: Transpose.FLIP_TOP_BOTTOM,
    5: Transpose.TRANSPOSE,
    6: Transpose.ROTATE_270,
    7: Transpose.TRANSVERSE,
    8: Transpose.ROTATE_90,
}
LONGEST_JPEG_SIDE = 65_500  # libjpeg's limit
WHITE = (255, 255, 255)
BMP_HEADER_SIZES = {12, 40, 52, 56, 64, 108, 124}
# What Pillow's decoders raise on damaged bytes: it has no error of its own for that.
DECODER_ERRORS = (
    OSError,
    ValueError,
    SyntaxError,
    EOFError,
    LookupError,
    TypeError,
    ArithmeticError,
    struct.error,
)

# `prepare` has a lower limit of its own, checked before a pixel is decoded; Pillow's would warn.
PIL.Image.MAX_IMAGE_PIXELS = None


def check_decoders() -> None:
    """Refuse a Pillow built without a library it needs: good pictures would count as corrupt."""
    missing = [library for library in ("jpg", "zlib", "webp") if not PIL.features.check(library)]
    if missing:
        raise SettingError(
            f"Pillow {PIL.__version__} was built without {', '.join(missing)}; "
            "install a wheel of pillow, or build pillow-simd where these libraries' headers are"
        )


def prepare(data: bytes, pictures: Pictures) -> Image | Failure:
    """Make the stored picture of a downloaded body, or say why there is none."""
    kind = sniff(data)
    if kind is None:
        return Failure(Reason.NOT_AN_IMAGE)
    try:
        with PIL.Image.open(io.BytesIO(data), formats=(kind,)) as picture:
            reason = refuse(picture.size, pictures)
            return Failure(reason) if reason else _prepare(picture, data, pictures)
    except DECODER_ERRORS:
        return Failure(Reason.CORRUPT_IMAGE)


def sniff(data: bytes) -> str | None:
    """Pillow's name of the allowed format that the first bytes announce."""
    if data.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return "PNG"
    if data.startswith((b"GIF87a", b"GIF89a")):
        return "GIF"
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return "WEBP"
    if data.startswith(b"BM") and int.from_bytes(data[14:18], "little") in BMP_HEADER_SIZES:
        return "BMP"
    return None


def refuse(size: tuple[int, int], pictures: Pictures) -> Reason | None:
    """Why a picture of this width and height is not decoded, if so."""
    width, height = size
    if width * height > pictures.max_pixels or max(size) > LONGEST_JPEG_SIDE:
        return Reason.TOO_MANY_PIXELS
    return Reason.TOO_SMALL if min(size) < pictures.min_side else None


def resized(size: tuple[int, int], mode: str, side: int) -> tuple[int, int]:
    """Width and height after resizing, before bars are added or sides cut off."""
    if mode == "no":
        return size
    scale = min(1.0, side / (max(size) if mode == "border" else min(size)))
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def _prepare(picture: PIL.Image.Image, data: bytes, pictures: Pictures) -> Image:
    original = picture.size
    target = resized(original, pictures.resize_mode, pictures.image_size)
    picture.draft(picture.mode, target)  # JPEGs: decode at 1/2, 1/4 or 1/8 where that is enough
    picture.load()
    orientation = _orientation(picture)
    if orientation >= 5:
        original = original[::-1]
    if pictures.resize_mode == "no" and orientation == 1 and (kept := _as_it_came(picture, data)):
        return _image(kept, original, original)
    final = to_rgb(picture)
    if final.size != target:
        final = final.resize(target, Resampling.BICUBIC)
    if orientation in UPRIGHT:
        final = final.transpose(UPRIGHT[orientation])
    if pictures.resize_mode == "border":
        final = _with_bars(final, pictures.image_size)
    elif pictures.resize_mode == "center_crop":
        final = _middle(final, pictures.image_size)
    return _image(_encode(final, pictures.jpeg_quality), final.size, original)


def _orientation(picture: PIL.Image.Image) -> int:
    try:
        orientation = picture.getexif().get(ORIENTATION, 1)
    except DECODER_ERRORS:
        return 1  # damaged metadata does not spoil a picture
    return orientation if orientation in UPRIGHT else 1


def to_rgb(picture: PIL.Image.Image) -> PIL.Image.Image:
    """A loaded picture of any mode as 8-bit RGB."""
    if picture.mode.startswith("I"):  # 16 bits a sample: grey PNGs
        picture = picture.convert("I").point(lambda value: value * (1 / 256)).convert("L")
    if picture.has_transparency_data:
        layer = picture.convert("RGBA")
        canvas = PIL.Image.new("RGB", picture.size, WHITE)
        canvas.paste(layer, mask=layer.getchannel("A"))
        return canvas
    return picture if picture.mode == "RGB" else picture.convert("RGB")


def _with_bars(picture: PIL.Image.Image, side: int) -> PIL.Image.Image:
    canvas = PIL.Image.new("RGB", (side, side), WHITE)
    canvas.paste(picture, ((side - picture.width) // 2, (side - picture.height) // 2))
    return canvas


def _middle(picture: PIL.Image.Image, side: int) -> PIL.Image.Image:
    side = min(side, *picture.size)
    left, top = (picture.width - side) // 2, (picture.height - side) // 2
    return picture.crop((left, top, left + side, top + side))


def _encode(picture: PIL.Image.Image, quality: int) -> bytes:
    file = io.BytesIO()
    picture.info.clear()  # else Pillow writes comments and profiles along
    picture.save(file, "JPEG", quality=quality)
    return file.getvalue()


def _image(data: bytes, size: tuple[int, int], original: tuple[int, int]) -> Image:
    return Image(data, *size, *original, hashlib.sha256(data).hexdigest())


def _as_it_came(picture: PIL.Image.Image, data: bytes) -> bytes | None:
    if picture.format != "JPEG" or picture.mode != "RGB":
        return None
    return without_metadata(data)


def without_metadata(data: bytes) -> bytes | None:
    """A JPEG's own bytes less its comments, EXIF, XMP, thumbnails and profiles.

    Kept are JFIF's and Adobe's segments, which say how colours are stored. None when the segments
    before the first scan do not follow each other as they should.
    """
    kept, at = [data[:2]], 2
    while at + 4 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker == 0xDA:  # start of scan: the rest is picture
            return b"".join([*kept, data[at:]])
        end = at + 2 + int.from_bytes(data[at + 2 : at + 4])
        if marker in (0xE0, 0xEE) or not (0xE0 <= marker <= 0xEF or marker == 0xFE):
            kept.append(data[at:end])
        at = end
    return None
