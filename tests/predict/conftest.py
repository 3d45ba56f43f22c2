"""A real network with an untrained captioner, and pictures for it."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from capstan.train.captioner import Captioner, save_description, save_network
from capstan.train.model import build_model
from capstan.train.settings import PROFILES
from capstan.train.vocabulary import SPECIALS, Vocabulary
from tests.networks import each_network_once, loaded

__all__ = ["each_network_once"]

SIZE = 32
WEIGHTS = "random:3"


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a captioner that says anything but something."""
    extractor = loaded(WEIGHTS, SIZE, 32, padded=False)
    vocabulary = Vocabulary((*SPECIALS, "a", "dog", "cat"))
    features = np.random.default_rng(0).random((8, 2048), np.float32)
    network = build_model(PROFILES["small"], len(vocabulary), features)
    captioner = Captioner(network, vocabulary, extractor.identity, "standard", max_length=5)
    folder = tmp_path_factory.mktemp("model") / "saved"
    save_network(folder, captioner)
    save_description(folder, captioner, {})
    return folder


def png(seed: int) -> bytes:
    """A picture of noise; another for each seed."""
    noise = np.random.default_rng(seed).integers(0, 256, (40, 50, 3), np.uint8)
    data = io.BytesIO()
    Image.fromarray(noise).save(data, "PNG")
    return data.getvalue()


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """A folder with three pictures in another, and what is none."""
    folder = tmp_path / "pictures" / "holiday"
    folder.mkdir(parents=True)
    for index in range(3):
        (folder / f"{index}.png").write_bytes(png(index))
    (folder / "notes.txt").write_text("not a picture")
    return folder.parent
