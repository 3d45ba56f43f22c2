"""Small image shards with real JPEGs."""

import hashlib
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image as Picture

from capstan.records import Answer, Image, Outcome, Row, row_key
from capstan.shards import write_image_shard

SIZE = 32
CHUNK = "cc.tsv/0000000000000000"


def jpeg(seed: int) -> bytes:
    """A picture of coloured blotches; another for each seed."""
    cells = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), np.uint8)
    buffer = io.BytesIO()
    Picture.fromarray(cells).resize((SIZE, SIZE)).save(buffer, "JPEG")
    return buffer.getvalue()


def write_images(folder: Path, pictures: Sequence[bytes], chunk: str = CHUNK) -> None:
    """Write an image shard."""
    outcomes = [
        Outcome(
            Row(index, row_key(chunk, index), "a caption", "http://example.com"),
            Answer(200, 1, len(data)),
            Image(data, SIZE, SIZE, SIZE, SIZE, hashlib.sha256(data).hexdigest()),
        )
        for index, data in enumerate(pictures)
    ]
    write_image_shard(folder, chunk, outcomes, {})
