"""Captions for pictures, with a real network and an untrained captioner."""

import io
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from featurize.extractor import ResNetExtractor
from pipeline.errors import SettingError
from predict.run import Predictor, Settings, predict_folder, print_captions
from train.captioner import Captioner, save_description, save_network
from train.model import build_model
from train.settings import PROFILES
from train.vocabulary import SPECIALS, Vocabulary

SIZE = 32
WEIGHTS = "random:3"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    extractor = ResNetExtractor(WEIGHTS, SIZE, batch_size=2)
    vocabulary = Vocabulary((*SPECIALS, "a", "dog", "cat"))
    features = np.random.default_rng(0).random((8, 2048), np.float32)
    network = build_model(PROFILES["small"], len(vocabulary), features)
    captioner = Captioner(network, vocabulary, extractor.identity, "standard", max_length=5)
    folder = tmp_path_factory.mktemp("model") / "saved"
    save_network(folder, captioner)
    save_description(folder, captioner, {})
    return folder


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures" / "holiday"
    folder.mkdir(parents=True)
    for index in range(3):
        noise = np.random.default_rng(index).integers(0, 256, (40, 50, 3), np.uint8)
        data = io.BytesIO()
        Image.fromarray(noise).save(data, "PNG")
        (folder / f"{index}.png").write_bytes(data.getvalue())
    (folder / "notes.txt").write_text("not a picture")
    return folder.parent


def capstan(*words: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pipeline.cli", "predict", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_folder_becomes_captions_beside_descriptions(
    model: Path, pictures: Path, tmp_path: Path
) -> None:
    done = capstan("--model", model, "--input", pictures, "--output", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    out = tmp_path / "out" / "holiday"
    assert sorted(path.name for path in out.iterdir()) == [
        "0.png.json",
        "0.png.txt",
        "1.png.json",
        "1.png.txt",
        "2.png.json",
        "2.png.txt",
        "notes.txt.json",
    ]
    entry = json.loads((out / "1.png.json").read_text())
    assert entry["caption"] == (out / "1.png.txt").read_text().strip()
    assert entry["file"] == "holiday/1.png"
    assert entry["log_probability"] < 0
    assert entry["alternatives"] == []
    assert entry["search"] == {"beam": 3, "length_penalty": 0.7, "no_repeat": 5}
    assert entry["extractor"]["weights"] == WEIGHTS
    bad = json.loads((out / "notes.txt.json").read_text())
    assert (bad["caption"], bad["reason"]) == (None, "not_an_image")


def test_pictures_by_hand(model: Path, pictures: Path) -> None:
    done = capstan(pictures, "--model", model, "--beam", 2, "--top", 2)
    assert done.returncode == 1
    lines = [line.split("\t") for line in done.stdout.splitlines()]
    names = [Path(name).name for name, _, log_probability in lines if float(log_probability) < 0]
    assert names == ["0.png", "0.png", "1.png", "1.png", "2.png", "2.png"]
    assert "notes.txt (not_an_image); give pictures such as JPEG or PNG" in done.stderr
    assert "Traceback" not in done.stderr


def test_captions_do_not_depend_on_the_batch(model: Path, pictures: Path) -> None:
    files = [pictures / "holiday" / f"{index}.png" for index in range(3)]
    one, many = (
        list(Predictor(Settings(model, batch_size=size)).predict(files)) for size in (1, 3)
    )
    for alone, together in zip(one, many, strict=True):
        assert alone.captions[0].text == together.captions[0].text


def test_alternatives(
    model: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (pictures / "holiday" / "notes.txt").unlink()
    settings = Settings(model, top=2, search={"beam": 4, "length_penalty": 0.0})
    predict_folder(settings, pictures, tmp_path / "out")
    capsys.readouterr()
    print_captions(settings, [pictures])
    lines = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    assert [Path(name).name for name, *_ in lines] == [f"{i // 2}.png" for i in range(6)]
    for index in range(3):
        entry = json.loads((tmp_path / "out" / "holiday" / f"{index}.png.json").read_text())
        (other,) = entry["alternatives"]
        assert entry["search"]["beam"] == 4
        assert entry["caption"] != other["caption"]
        assert entry["log_probability"] >= other["log_probability"]
        for (_, caption, log_probability), written in zip(
            lines[2 * index : 2 * index + 2], (entry, other), strict=True
        ):
            assert caption == written["caption"]
            assert log_probability == f"{written['log_probability']:.2f}"


def test_more_captions_than_the_beam_is_wide(model: Path) -> None:
    with pytest.raises(SettingError, match=r"--top 4: a beam of 3 .*; give --beam 4 too"):
        Predictor(Settings(model, top=4))
    with pytest.raises(SettingError, match="--top 2: a beam of 1 finds no more than 1 caption;"):
        Predictor(Settings(model, top=2, search={"beam": 1}))


def test_features_of_another_extractor_are_refused(model: Path) -> None:
    with pytest.raises(SettingError, match=r"is not what .* was trained with"):
        Predictor(Settings(model, weights="random:4"))


def test_weights_that_were_a_file_must_be_named(model: Path, tmp_path: Path) -> None:
    copy = tmp_path / "saved"
    shutil.copytree(model, copy)
    description = json.loads((copy / "model.json").read_text())
    description["extractor"]["weights"] = "mine.weights.h5"
    (copy / "model.json").write_text(json.dumps(description))
    with pytest.raises(SettingError, match=r"mine\.weights\.h5 .*; name that file with --weights"):
        Predictor(Settings(copy))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "give either pictures to caption, or --input and --output"),
        (["a.png", "--input", "x", "--output", "y"], "give either pictures"),
        (["--input", "x"], "--input and --output go together"),
        (["absent.png"], "absent.png: no such file"),
        (["--input", "absent", "--output", "y"], "absent: no such directory"),
        (["a.png", "--batch-size", "0"], "--batch-size 0: give at least 1"),
        (["a.png", "--top", "0"], "--top 0: give at least 1"),
        (["a.png", "--beam", "0"], "--beam 0: give at least 1"),
    ],
)
def test_bad_settings_are_one_line(words: list[str], message: str, tmp_path: Path) -> None:
    done = capstan(*words, "--model", tmp_path)
    assert done.returncode == 2
    assert message in done.stderr
    assert done.stderr.count("\n") == 1


def test_model_without_its_vocabulary(model: Path, pictures: Path, tmp_path: Path) -> None:
    copy = tmp_path / "saved"
    shutil.copytree(model, copy)
    (copy / "vocabulary.json").unlink()
    done = capstan(pictures, "--model", copy)
    assert done.returncode == 1
    assert "vocabulary.json: missing; a model is" in done.stderr
    assert "Traceback" not in done.stderr
