"""Pictures small enough to live inside the page, and captions of new pictures."""

import base64
import io
import re
import warnings
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from PIL import Image, ImageOps

from capstan.files import data_files
from capstan.report.captions import JudgedCaption, Word, judge, lot
from capstan.report.run import Run, read_object
from capstan.shards import read_images

SIDE = 256  # pixels, the longer side
QUALITY = 80
NEW_PICTURES = 12  # shown at most
MAX_PIXELS = 60_000_000  # more are not opened
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")  # the rest of Pillow is left alone


@dataclass(frozen=True)
class NewPicture:
    """A picture from `inpredict` and what the model says of it."""

    name: str
    picture: str | None  # data URI, None when it cannot be shown
    verdict: JudgedCaption
    reason: str  # why it has no caption, empty when it has one


@dataclass(frozen=True)
class NewPictures:
    """All of them, and those to show."""

    total: int
    known: int  # those with a true caption to compare with
    right: int
    shown: Sequence[NewPicture]


def thumbnail(data: bytes) -> str | None:
    """Any picture as a data URI of a small JPEG, or None when it cannot be opened."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about odd metadata, and sizes, which we check
            with Image.open(io.BytesIO(data), formats=FORMATS) as image:
                if image.width * image.height > MAX_PIXELS:
                    return None
                image.draft("RGB", (SIDE, SIDE))
                upright = ImageOps.exif_transpose(image)
                upright.thumbnail((SIDE, SIDE))
                return _data_uri(_on_white(upright))
    except (EOFError, OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return None  # Pillow's words for broken files


def _on_white(image: Image.Image) -> Image.Image:
    if not image.has_transparency_data:
        return image.convert("RGB")
    seen_through = image.convert("RGBA")
    white = Image.new("RGBA", seen_through.size, "white")
    return Image.alpha_composite(white, seen_through).convert("RGB")


def _data_uri(image: Image.Image) -> str:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=QUALITY, optimize=True)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def stored_pictures(tars: Mapping[str, Path]) -> dict[str, str | None]:
    """Thumbnails of pictures in image shards, by key; `tars` says where each lies."""
    keys: dict[Path, set[str]] = defaultdict(set)
    for key, tar in tars.items():
        keys[tar].add(key)
    found: dict[str, str | None] = {}
    for tar, wanted in keys.items():
        for image in read_images(tar):
            if image.key in wanted:
                found[image.key] = thumbnail(image.data)
                wanted.remove(image.key)
            if not wanted:
                break
    return found


def read_new_pictures(run: Run) -> NewPictures | None:
    """Captions of the pictures in `inpredict`, or None when none were asked for."""
    directory = run.repo("predict")
    files = [file for suffix in (".txt", ".json") for file in data_files(directory, suffix)]
    names = sorted({file.relative_to(directory).with_suffix("").as_posix() for file in files})
    if not names:
        return None
    truth = _read_truth(run.path / "truth.tsv")
    said = {name: _read_caption(directory, name) for name in names}
    verdicts = {name: _verdict(caption, truth.get(name)) for name, (caption, _) in said.items()}
    return NewPictures(
        total=len(names),
        known=sum(verdict.right is not None for verdict in verdicts.values()),
        right=sum(verdict.right is True for verdict in verdicts.values()),
        shown=[
            NewPicture(name, _open(run.repo("inpredict") / name), verdicts[name], said[name][1])
            for name in sorted(sorted(names, key=lot)[:NEW_PICTURES])
        ],
    )


def _read_caption(directory: Path, name: str) -> tuple[str, str]:
    """A picture's caption, or why it has none."""
    description, text = (directory / f"{name}{suffix}" for suffix in (".json", ".txt"))
    record = read_object(description) if description.is_file() else {}
    caption, reason = record.get("caption"), str(record.get("reason") or "")
    if not isinstance(caption, str):
        caption = text.read_text(errors="replace") if text.is_file() else ""
    return caption, "" if caption else reason.replace("_", " ")


def _verdict(caption: str, true: str | None) -> JudgedCaption:
    if true is None:
        return judge(caption, [])
    verdict = judge(caption, [true])
    if plain(caption) != plain(true):
        return verdict
    unmarked = [Word(word.text, False) for word in verdict.said]
    return replace(verdict, right=True, said=unmarked)


def plain(caption: str) -> list[str]:
    """Words without case, punctuation and one-letter words, which cleaning profiles differ on."""
    return [word for word in re.findall(r"\w+", caption.casefold()) if len(word) > 1]


def _read_truth(path: Path) -> dict[str, str]:
    """`file name<TAB>true caption` lines; none when there is no such file."""
    if not path.is_file():
        return {}
    lines = path.read_text(errors="replace").splitlines()
    return {name: caption for name, tab, caption in (line.partition("\t") for line in lines) if tab}


def _open(path: Path) -> str | None:
    try:
        return thumbnail(path.read_bytes())
    except FileNotFoundError:
        return None
