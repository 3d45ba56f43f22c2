"""Damaged and hostile pictures, made up from a seed: what a decoder meets on the open web."""

import io
import random
import struct
import zlib
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from typing import Any

import numpy as np
import PIL.Image

PNG = b"\x89PNG\r\n\x1a\n"
EXTREMES = (0, 1, 2, 0x7F, 0x80, 0xFF)
SIZES = (0, 1, 2, 255, 256, 65_535, 65_536, 0x7FFF_FFFF, 0x8000_0000, 0xFFFF_FFFF)

Mutation = Callable[[bytes, random.Random], bytes]


def corpus(count: int, seed: int = 0) -> Iterator[tuple[str, bytes]]:
    """So many pictures, each with the name of what was done to it; the first are `bombs`."""
    chance = random.Random(seed)
    heavy = bombs()
    yield from heavy[:count]
    yield from mutants(count - len(heavy), chance)


def mutants(count: int, chance: random.Random) -> Iterator[tuple[str, bytes]]:
    """Whole pictures with one to three changes."""
    for _ in range(count):
        name, data = chance.choice(originals())
        changes = chance.choices(list(MUTATIONS), k=chance.choice((1, 1, 1, 2, 3)))
        for change in changes:
            data = MUTATIONS[change](data, chance)
        yield f"{name}: {', '.join(changes)}", data


# What is to be damaged


@cache
def originals() -> Sequence[tuple[str, bytes]]:
    """Whole pictures of all formats and modes, a few KB each."""
    coarse = np.random.default_rng(0).integers(0, 256, (9, 12, 4), np.uint8)
    rgba = PIL.Image.fromarray(coarse).resize((120, 90), PIL.Image.Resampling.BICUBIC)
    frames = [rgba.rotate(90 * turn).convert("P") for turn in range(4)]
    exif = PIL.Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "maker" * 30
    moving: dict[str, Any] = {"save_all": True, "append_images": frames}
    kinds: list[tuple[str, str, dict[str, Any]]] = [
        *(("JPEG", mode, {}) for mode in ("RGB", "L", "CMYK")),
        ("JPEG", "RGB", {"progressive": True, "subsampling": 0}),
        ("JPEG", "RGB", {"restart_marker_blocks": 5, "exif": exif, "comment": b"words"}),
        ("JPEG", "CMYK", {"progressive": True}),
        *(("PNG", mode, {}) for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16")),
        ("PNG", "P", {"transparency": 3, "exif": exif, "icc_profile": b"profile" * 40}),
        ("PNG", "P", moving),
        *(("GIF", mode, {"interlace": mode == "L"}) for mode in ("L", "P")),
        ("GIF", "P", {"transparency": 5, **moving}),
        *(("WEBP", mode, {"lossless": mode == "RGBA"}) for mode in ("RGB", "RGBA")),
        ("WEBP", "RGBA", {"exif": exif, "quality": 50}),
        ("WEBP", "RGB", {**moving, "quality": 30}),
        *(("BMP", mode, {}) for mode in ("1", "L", "P", "RGB", "RGBA")),
    ]
    return [
        (" ".join([kind, mode, *options]), encode(converted(rgba, mode), kind, options))
        for kind, mode, options in kinds
    ]


def converted(picture: PIL.Image.Image, mode: str) -> PIL.Image.Image:
    """A picture in another mode; to 16 bits a sample there is no straight way."""
    return picture.convert("L").convert(mode) if mode == "I;16" else picture.convert(mode)


def encode(picture: PIL.Image.Image, kind: str, options: dict[str, Any]) -> bytes:
    """A picture as the bytes of a file."""
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()


# What is done to them


def flip_bits(data: bytes, chance: random.Random) -> bytes:
    """Flip some bits anywhere."""
    changed = bytearray(data)
    for _ in range(chance.randint(1, 20) if data else 0):
        changed[chance.randrange(len(changed))] ^= 1 << chance.randrange(8)
    return bytes(changed)


def edit_header(data: bytes, chance: random.Random) -> bytes:
    """Set some of the first bytes to extremes."""
    changed = bytearray(data)
    for _ in range(chance.randint(1, 4) if data else 0):
        changed[chance.randrange(min(len(changed), 200))] = chance.choice(EXTREMES)
    return bytes(changed)


def cut_off(data: bytes, chance: random.Random) -> bytes:
    """Leave out the end."""
    return data[: chance.randrange(len(data) + 1)]


def leave_out(data: bytes, chance: random.Random) -> bytes:
    """Leave out a part."""
    start = chance.randrange(len(data) + 1)
    return data[:start] + data[start + chance.randint(1, 400) :]


def repeat(data: bytes, chance: random.Random) -> bytes:
    """Repeat a part many times."""
    start = chance.randrange(len(data) + 1)
    return data[:start] + data[start : start + chance.randint(1, 60)] * 50 + data[start:]


def insert_junk(data: bytes, chance: random.Random) -> bytes:
    """Put random bytes, zeros or ones somewhere."""
    start, length = chance.randrange(len(data) + 1), chance.randint(1, 3_000)
    junk = chance.choice((chance.randbytes(length), bytes(length), b"\xff" * length))
    return data[:start] + junk + data[start:]


def splice(data: bytes, chance: random.Random) -> bytes:
    """Go on with a part of another picture."""
    other = chance.choice(originals())[1]
    return data[: chance.randrange(len(data) + 1)] + other[chance.randrange(len(other)) :]


def declare(data: bytes, chance: random.Random) -> bytes:
    """Declare another width, height or length, at the place where the format has it."""
    if not (fields := size_fields(data)):
        return data
    value = chance.choice((*SIZES, chance.randrange(1, 20_000)))
    at, form = chance.choice(fields)
    number = struct.pack(form, value & (0xFFFF if form.endswith("H") else 0xFFFF_FFFF))
    return mend(data[:at] + number + data[at + len(number) :])


def size_fields(data: bytes) -> list[tuple[int, str]]:
    """Places and `struct` formats of the sizes that a picture declares."""
    if data.startswith(PNG):
        return [(16, ">I"), (20, ">I")]
    if data.startswith(b"GIF"):
        return [(6, "<H"), (8, "<H")]
    if data.startswith(b"BM"):
        return [(18, "<I"), (22, "<I"), (10, "<I"), (14, "<I"), (46, "<I")]
    if data.startswith(b"RIFF"):
        return [(4, "<I"), (16, "<I"), (24, "<H"), (27, "<H"), (26, "<H"), (28, "<H")]
    frame = max(data.find(b"\xff\xc0"), data.find(b"\xff\xc2"))
    return [(frame + 5, ">H"), (frame + 7, ">H"), (frame + 2, ">H")] if frame > 0 else []


def edit_chunks(data: bytes, chance: random.Random) -> bytes:
    """Change a PNG within its chunks and mend their checksums, so that it is read on."""
    return mend(flip_bits(data, chance))


def mend(data: bytes) -> bytes:
    """A PNG with checksums that are right, as far as its chunks can be followed."""
    if not data.startswith(PNG):
        return data
    mended, at = bytearray(data), len(PNG)
    while at + 12 <= len(data):
        end = at + 8 + int.from_bytes(data[at : at + 4])
        if end + 4 > len(data):
            break
        mended[end : end + 4] = struct.pack(">I", zlib.crc32(data[at + 4 : end]))
        at = end + 4
    return bytes(mended)


MUTATIONS: dict[str, Mutation] = {
    change.__name__: change
    for change in (
        *(flip_bits, edit_header, cut_off, leave_out, repeat, insert_junk),
        *(splice, declare, edit_chunks),
    )
}


# Whole and small, but heavy


def bombs() -> list[tuple[str, bytes]]:
    """Pictures that ask for far more memory or time than their bytes tell."""
    frames = [PIL.Image.new("P", (1, 1), index % 2) for index in range(3_000)]
    gif = encode(frames[0], "GIF", {"save_all": True, "append_images": frames[1:]})
    scans = encode(PIL.Image.new("RGB", (64, 64)), "JPEG", {"progressive": True})
    last_scan = scans[scans.rindex(b"\xff\xda") : -2]
    text = b"zTXt" + b"a\0\0" + zlib.compress(bytes(100_000_000))
    profile = b"iCCP" + b"a\0\0" + zlib.compress(bytes(100_000_000))
    grey, large = zlib.compress(bytes(90)), (7_000, 7_000)
    zeros = zlib.compress(bytes(7_001 * 7_000))
    bitmap = b"BM" + bytes(12)
    directory = b"II*\0\x08\0\0\0" + struct.pack("<HHHII", 1, 0x8769, 4, 1, 8) + bytes(4)
    circle = b"\xff\xe1" + struct.pack(">H", len(directory) + 8) + b"Exif\0\0" + directory
    return [
        ("PNG of 20,000 x 20,000", png(20_000, 20_000, grey)),
        ("PNG of 7,000 x 7,000 that is whole", png(*large, zeros)),
        ("PNG of 7,000 x 7,000 that is not", png(*large, grey)),
        ("PNG with more pixels than it says", png(9, 9, zeros)),
        ("PNG with a text of 100 MB", png(9, 9, grey, text)),
        ("PNG with a profile of 100 MB", png(9, 9, grey, profile)),
        ("PNG of a million empty chunks", png(9, 9, grey, *[b"teXt"] * 1_000_000)),
        ("GIF of 65,535 x 65,535", gif[:6] + b"\xff" * 4 + gif[10:]),
        ("GIF of 7,000 x 7,000", gif[:6] + struct.pack("<HH", *large) + gif[10:]),
        ("GIF of 3,000 frames", gif),
        ("JPEG of 65,535 x 700 without data", jpeg_of(scans, (65_535, 700))),
        ("JPEG of 7,000 x 7,000 with 400 scans", jpeg_of(scans, large, last_scan * 400)),
        ("JPEG of 100,000 scans", jpeg_of(scans, (64, 64), last_scan * 100_000)),
        ("JPEG of fill bytes", b"\xff\xd8" + b"\xff" * 10_000_000),
        ("JPEG of empty segments", b"\xff\xd8" + b"\xff\xe1\0\2" * 3_000_000),
        ("JPEG of markers", scans[:-2] + b"\xff\xc4\0\2" * 3_000_000),
        ("JPEG whose EXIF leads in a circle", scans[:2] + circle + scans[2:]),
        ("BMP of 2,147,483,647 x 1", bitmap + struct.pack("<IiiHH", 40, 2**31 - 1, 1, 1, 24)),
        ("BMP of minus 2,147,483,648", bitmap + struct.pack("<IiiHH", 40, 9, -(2**31), 1, 1)),
    ]


def png(width: int, height: int, body: bytes, *chunks: bytes) -> bytes:
    """A grey PNG of a compressed body, with more chunks (type and contents) before it."""
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return PNG + b"".join(
        struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk))
        for chunk in (header, *chunks, b"IDAT" + body, b"IEND")
    )


def jpeg_of(data: bytes, size: tuple[int, int], more: bytes = b"") -> bytes:
    """A progressive JPEG that says it is so wide and high, with more scans at its end."""
    at = data.index(b"\xff\xc2") + 5
    return data[:at] + struct.pack(">HH", *size[::-1]) + data[at + 4 : -2] + more + data[-2:]
