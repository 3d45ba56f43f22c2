"""JPEG files: their segments read here, their pixels decoded by libjpeg-turbo.

The header is walked as libjpeg walks it, which forgives fill bytes and junk between segments. What
is handed on has neither, nor metadata, so that whatever libjpeg then warns of lies in the picture.
Markers are those of ITU T.81 annex B; the orientation is EXIF's, which is a TIFF directory.
"""

import io
import math
import re
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import PIL
import PIL.Image
import simplejpeg

SOI, EOI, SOS, COMMENT = b"\xff\xd8", b"\xff\xd9", 0xDA, 0xFE
ALONE = {0x01, *range(0xD0, 0xD8)}  # TEM and RSTn: markers without a segment
FRAMES = set(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
PROGRESSIVE = 0xC2
EVERYWHERE = {0xC0, 0xC1, PROGRESSIVE}  # frames that every reader knows
USUAL_SAMPLING = {b"\x11", b"\x21", b"\x12", b"\x22", b"\x41"}  # beside 1 x 1 of the others
APP0, APP1, APP14, APP15 = 0xE0, 0xE1, 0xEE, 0xEF
LEFT_OUT = {COMMENT, *range(APP0, APP15 + 1)} - {APP0, APP1, APP14}
EXIF = b"Exif\0\0"
MAX_SEGMENTS = 10_000  # bounds the time that hostile bytes can take
MAX_SCANS = 500  # libjpeg-turbo's own advice: each scan is a pass over all pixels
NOT_FILL = re.compile(rb"[^\xff]")

ORIENTATION = 0x0112  # EXIF tag
BYTE_ORDERS = {b"II*\0": "<", b"MM\0*": ">"}
TIFF_SHORT = 3

DCT_SCALES = (8, 4, 2)  # others are slower to decode and no smaller to resize
# By how much a scaled picture is larger than its target: nearer, the two blurs add up and real
# photos come out worse than with img2dataset's area interpolation (benchmarks/picture_quality.py).
DCT_MARGIN = 1.2
# pillow-simd resizes four bands faster than it unpacks three; Pillow does not.
MODE = "RGBX" if "post" in PIL.__version__ else "RGB"

# libjpeg's warnings about pictures that are whole: encoders' habits. Any other is damage.
HARMLESS = ("Invalid SOS parameters for sequential JPEG",)
EXTRANEOUS = re.compile(r"(\d+) extraneous bytes before marker 0x(\w\w)")
ODD_SAMPLING = "Could not determine subsampling"  # TurboJPEG knows the usual ones only
SLACK = 4  # bytes too many that encoders leave after a scan; damage leaves more


class JpegError(ValueError):
    """Bytes that are no whole picture."""


class Jpeg(NamedTuple):
    """A JPEG less its metadata, and what its header says of it."""

    data: bytes  # from its start to the end of its picture
    whole: bool  # its own end was found, not put there
    size: tuple[int, int]  # width and height as stored, before `orientation`
    usual: bool  # coded as every reader knows it, in colour
    components: int  # 1 grey, 3 colour, 4 CMYK or YCCK
    orientation: int  # EXIF's, 1 to 8; 1 if it says none

    @property
    def common(self) -> bool:
        """Whether every reader shows it in colour and upright, without its metadata."""
        return self.usual and self.orientation == 1


def read(data: bytes) -> Jpeg:
    """Read a JPEG's header and find its end, without decoding; raises JpegError.

    Left out are comments, EXIF, XMP, profiles, thumbnails and whatever follows the picture. Kept
    of the applications' segments are JFIF's and Adobe's, which say how colours are stored. An end
    that is missing is put there where the one scan before it can show whether anything else is.
    """
    kept: list[bytes | memoryview] = [SOI]
    frame, orientation = None, 0
    for marker, start, end in _segments(data):
        if marker in LEFT_OUT:  # unread, as there may be megabytes of them
            continue
        if marker in FRAMES:
            if frame:
                raise JpegError("two frames")
            frame = _Frame.read(marker, data[start:end])
        if marker == APP1 and data.startswith(EXIF, start, end):
            orientation = orientation or exif_orientation(data[start + len(EXIF) : end])
        is_own = APP0 <= marker <= APP15
        kept.append(_colours(marker, data[start:end]) if is_own else data[start - 4 : end])
        if marker == SOS:
            break
    if not frame:
        raise JpegError("no frame")
    scan = end  # its data follow
    components = data[start:end][:1]  # of the first scan; it may say none
    one_scan = frame.marker != PROGRESSIVE and components == bytes([frame.components])
    last = _scan_end(data, scan) if one_scan else _picture_end(data, scan)
    if last is None and not one_scan:
        raise JpegError("no end")
    header = b"".join(kept)
    clean = last == len(data) and header == data[:scan]  # spares a copy
    return Jpeg(
        data if clean else b"".join((header, memoryview(data)[scan:last], b"" if last else EOI)),
        last is not None,
        frame.size,
        frame.usual,
        frame.components,
        orientation or 1,
    )


class _Frame(NamedTuple):
    marker: int  # how it is coded
    size: tuple[int, int]
    sampling: bytes  # of each component, across and down in four bits each

    @classmethod
    def read(cls, marker: int, body: bytes) -> "_Frame":
        height, width = int.from_bytes(body[1:3]), int.from_bytes(body[3:5])
        if len(body) < 6 or body[0] != 8 or not width or not height:
            raise JpegError("a frame of no size, or not of 8 bits")
        if len(body) != 6 + 3 * body[5]:
            raise JpegError("a frame of other components than it says")
        return cls(marker, (width, height), body[7::3])

    @property
    def components(self) -> int:
        return len(self.sampling)

    @property
    def usual(self) -> bool:
        first, others = self.sampling[:1], self.sampling[1:]
        return self.marker in EVERYWHERE and first in USUAL_SAMPLING and others == b"\x11\x11"


def _segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Marker of each segment, where its contents begin and end; raises JpegError after the last."""
    at = len(SOI)
    for _ in range(MAX_SEGMENTS):
        # In two steps, as an expression for both would try each of many fill bytes as the first.
        fill = data.find(b"\xff", at)
        found = NOT_FILL.search(data, fill) if fill >= 0 else None
        if not found:
            break
        at, marker = found.end(), found[0][0]
        if marker == 0 or marker in ALONE:
            continue
        if marker in (SOI[1], EOI[1]):
            break
        end = at + int.from_bytes(data[at : at + 2])
        if not at + 2 <= end <= len(data):
            break
        yield marker, at + 2, end
        at = end
    raise JpegError("no scan")


def _colours(marker: int, body: bytes) -> bytes:
    """An application's own segment, if it says how colours are stored, else nothing.

    In a form that libjpeg has no doubts of.
    """
    if marker == APP0 and body.startswith(b"JFIF\0") and len(body) >= 14:
        version = body[5:7] if body[5] == 1 else b"\1\2"
        return b"\xff\xe0\0\x10" + body[:5] + version + body[7:12] + b"\0\0"
    if marker == APP14 and body.startswith(b"Adobe") and len(body) >= 12:
        transform = body[11:12] if body[11] <= 2 else b"\1"
        return b"\xff\xee\0\x0e" + body[:11] + transform
    return b""


def _scan_end(data: bytes, scan: int) -> int | None:
    """Where a picture of one scan ends: within a scan no byte 0xFF stands before another's code."""
    ends = []
    for start in (scan, scan + 1):  # pairs of bytes, eight times as fast as `bytes.find`
        pairs = np.frombuffer(data, "<u2", (len(data) - start) // 2, start)
        found = pairs == int.from_bytes(EOI, "little")
        first = int(found.argmax()) if found.size else 0
        if found.size and found[first]:
            ends.append(start + 2 * first + len(EOI))
    return min(ends, default=None)


def _picture_end(data: bytes, scan: int) -> int | None:
    """Where the picture ends whose first scan's data begin at `scan`; None if nothing says."""
    codes = np.frombuffer(data, np.uint8, offset=scan)
    found = np.flatnonzero(codes[:-1] == 0xFF)
    after = codes[found + 1]
    markers = found[(after != 0) & (after != 0xFF) & (after & 0xF8 != 0xD0)] + scan
    at, scans = scan, 1
    for marker in markers[:MAX_SEGMENTS].tolist():
        if marker < at:
            continue  # within a segment
        code = data[marker + 1]
        if code == EOI[1]:
            return int(marker) + 2
        scans += code == SOS
        if scans > MAX_SCANS:
            raise JpegError("too many scans")
        at = marker + 2 + int.from_bytes(data[marker + 2 : marker + 4])
    return None


def exif_orientation(tiff: bytes) -> int:
    """The orientation, 1 to 8, in EXIF's first directory; 0 if it says none that can be read."""
    order = BYTE_ORDERS.get(tiff[:4])
    if order is None:
        return 0
    endian = "little" if order == "<" else "big"

    def number(at: int, size: int) -> int:
        return int.from_bytes(tiff[at : at + size], endian)  # type: ignore[arg-type]

    directory = number(4, 4)
    for entry in range(directory + 2, directory + 2 + 12 * number(directory, 2), 12):
        if entry + 12 > len(tiff):
            break
        if number(entry, 2) == ORIENTATION:
            value = number(entry + 8, 2) if number(entry + 2, 2) == TIFF_SHORT else 0
            return value if 1 <= value <= 8 else 0
    return 0


def decode(jpeg: Jpeg, target: tuple[int, int]) -> PIL.Image.Image:
    """The pixels, scaled down by the decoder as far as leaves enough for a good resize.

    The mode is RGB, RGBX or CMYK. Raises JpegError for damage that libjpeg sees.
    """
    colours, raw = ("CMYK", "CMYK;I") if jpeg.components == 4 else (MODE, MODE)
    scale = dct_scale(jpeg.size, target)
    width, height = (-(-side // scale) if scale > 1 else 0 for side in jpeg.size)
    options = {"colorspace": colours, "min_width": width, "min_height": height}
    try:
        pixels = simplejpeg.decode_jpeg(jpeg.data, **options)
    except ValueError as error:
        if ODD_SAMPLING in str(error):
            return _by_pillow(jpeg.data, target)
        if not harmless(str(error), jpeg.data):
            raise JpegError(str(error)) from error
        pixels = simplejpeg.decode_jpeg(jpeg.data, **options, strict=False)
    size = pixels.shape[1], pixels.shape[0]
    return PIL.Image.frombuffer(colours, size, pixels, "raw", raw, 0, 1)


def _by_pillow(data: bytes, target: tuple[int, int]) -> PIL.Image.Image:
    """The pixels as Pillow has them, which does not tell of damage."""
    with PIL.Image.open(io.BytesIO(data), formats=("JPEG",)) as picture:
        wanted = tuple(math.ceil(side * DCT_MARGIN) for side in target)
        picture.draft(picture.mode, (wanted[0], wanted[1]))
        picture.load()
        return picture if picture.mode == "CMYK" else picture.convert("RGB")


def dct_scale(size: tuple[int, int], target: tuple[int, int]) -> int:
    """By how much, 8, 4, 2 or 1, a picture can be scaled down while it is decoded."""
    least = min(side / wanted for side, wanted in zip(size, target, strict=True)) / DCT_MARGIN
    return next((scale for scale in DCT_SCALES if scale <= least), 1)


def harmless(warning: str, data: bytes) -> bool:
    """Whether libjpeg's warning leaves the picture whole: a habit of encoders.

    Of bytes too many after a scan, a few are, or any number of padding: all zeros or all ones.
    """
    if warning.startswith(HARMLESS):
        return True
    found = EXTRANEOUS.search(warning)
    if not found:
        return False
    count, marker = int(found[1]), int(found[2], 16)
    if marker in ALONE:
        return False
    padding = data[-2 - count : -2] if marker == EOI[1] else b"?"
    return count <= SLACK or not padding.strip(b"\0") or not padding.strip(b"\xff")
