"""The demo's data: a TSV of captions and URLs, the pictures there, and pictures to caption."""

import random
from collections.abc import Sequence
from pathlib import Path

from capstan.demo.shapes import Scene, caption, encode
from capstan.files import atomic_write
from capstan.testing.web import Fault, Web

# Share of the addresses that misbehave, about as the open web's; the rest just answer.
FAULTS = {
    Fault.NOT_FOUND: 0.03,
    Fault.REDIRECT: 0.04,
    Fault.FLAKY: 0.02,
    Fault.HTML: 0.01,
    Fault.TRUNCATED: 0.01,
    Fault.CORRUPT: 0.01,
    Fault.SLOW: 0.01,
    Fault.GZIPPED: 0.01,
    Fault.DENIED: 0.005,
    Fault.EMPTY: 0.005,
    Fault.OPTED_OUT: 0.005,
    Fault.REDIRECT_LOOP: 0.005,
}


def picture_files(scenes: Sequence[Scene]) -> dict[str, bytes]:
    """Every scene as a file, by name: JPEGs and PNGs."""
    return {
        f"{index:05d}.{scene.file_format.lower()}": encode(scene)
        for index, scene in enumerate(scenes)
    }


def write_tsv(path: Path, scenes: Sequence[Scene], files: dict[str, bytes], web: Web) -> None:
    """Write `caption<TAB>url` for every scene, some under addresses that misbehave."""
    generator = random.Random(0)
    faults = generator.choices(
        [*FAULTS, Fault.NONE], [*FAULTS.values(), 1 - sum(FAULTS.values())], k=len(scenes)
    )
    rows = [
        f"{caption(scene)}\t{web.url(name, fault)}\n"
        for scene, name, fault in zip(scenes, files, faults, strict=True)
    ]
    write_if_changed(path, "".join(rows).encode())


def write_held_out(folder: Path, truth: Path, scenes: Sequence[Scene]) -> None:
    """Write pictures to caption, and beside the run the captions that are true of them."""
    files = picture_files(scenes)
    for name, data in files.items():
        write_if_changed(folder / name, data)
    rows = [
        f"{folder.name}/{name}\t{caption(scene)}\n"
        for name, scene in zip(files, scenes, strict=True)
    ]
    write_if_changed(truth, "".join(rows).encode())


def write_if_changed(path: Path, data: bytes) -> None:
    """Leave a file alone that already holds these bytes."""
    if not path.is_file() or path.read_bytes() != data:
        with atomic_write(path) as file:
            file.write(data)
