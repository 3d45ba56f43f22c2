"""Captions for pictures, with a real network and an untrained captioner."""

import json
import os
import pty
import shutil
import subprocess
from pathlib import Path

import pytest

from capstan.errors import SettingError
from capstan.files import sha256_file
from capstan.ingest.config import HttpOptions as WebSettings
from capstan.predict.captions import Predictor, PredictSettings
from capstan.predict.run import predict, predict_folder, print_captions
from capstan.testing.web import Fault, Web
from tests.commands import command_line, run_here
from tests.predict.conftest import WEIGHTS, png

WEB = WebSettings()
pytestmark = pytest.mark.usefixtures("each_network_once")


def test_folder_becomes_captions_beside_descriptions(
    model: Path, pictures: Path, tmp_path: Path
) -> None:
    done = run_here("predict", "--model", model, "--input", pictures, "--output", tmp_path / "out")
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
    assert entry["sha256"] == sha256_file(pictures / "holiday" / "1.png")
    assert entry["log_probability"] < 0
    assert entry["alternatives"] == []
    assert entry["search"] == {"beam": 3, "length_penalty": 0.7, "no_repeat": 5}
    assert entry["extractor"]["weights"] == WEIGHTS
    bad = json.loads((out / "notes.txt.json").read_text())
    assert (bad["caption"], bad["reason"]) == (None, "not_an_image")


def test_pictures_by_hand(model: Path, pictures: Path) -> None:
    done = run_here("predict", pictures, "--model", model, "--beam", 2, "--top", 2)
    assert done.returncode == 1
    lines = [line.split("\t") for line in done.stdout.splitlines()]
    names = [Path(name).name for name, _, log_probability in lines if float(log_probability) < 0]
    assert names == ["0.png", "0.png", "1.png", "1.png", "2.png", "2.png"]
    assert "notes.txt (not_an_image); give pictures such as JPEG or PNG" in done.stderr
    assert "Traceback" not in done.stderr


def test_captions_do_not_depend_on_the_batch(model: Path, pictures: Path) -> None:
    files = [pictures / "holiday" / f"{index}.png" for index in range(3)]
    one, many = (
        list(predict(Predictor(PredictSettings(model, batch_size=size)), files, WEB))
        for size in (1, 3)
    )
    for alone, together in zip(one, many, strict=True):
        assert alone.captions[0].text == together.captions[0].text


def test_alternatives(
    model: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (pictures / "holiday" / "notes.txt").unlink()
    settings = PredictSettings(model, top=2, search={"beam": 4, "length_penalty": 0.0})
    predict_folder(settings, pictures, tmp_path / "out")
    capsys.readouterr()
    print_captions(settings, [str(pictures)], WEB, as_json=False)
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


def test_json_lines_of_files_and_urls(model: Path, pictures: Path) -> None:
    (pictures / "empty.jpg").touch()
    with Web({"a.png": png(0)}) as web:
        urls = [web.url("a.png"), web.url("a.png", Fault.NOT_FOUND), web.url("a.png", Fault.HTML)]
        more = ("--json", "--allow-private", "--beam", 2, "--top", 2)
        done = run_here("predict", pictures, *urls, "--model", model, *more)
    assert done.returncode == 0, done.stderr
    entries = [json.loads(line) for line in done.stdout.splitlines()]
    folder = pictures / "holiday"
    names = ["0.png", "1.png", "2.png", "notes.txt"]
    files = [str(pictures / "empty.jpg"), *(str(folder / name) for name in names)]
    assert [entry["file"] for entry in entries] == [*files, *urls]
    reasons = ["empty_body", None, None, None, "not_an_image", None, "not_found", "not_an_image"]
    assert [entry["reason"] for entry in entries] == reasons
    for entry in entries:
        assert (entry["caption"] is None) == (entry["reason"] is not None)
        assert len(entry["alternatives"]) == (entry["reason"] is None)
        assert entry["extractor"]["weights"] == WEIGHTS
        assert len(entry["model_sha256"]) == 64
        assert (entry["sha256"] is None) == (entry["reason"] == "not_found")
    assert entries[1]["caption"] == entries[5]["caption"]  # the same picture
    (other,) = entries[1]["alternatives"]
    assert 0 > entries[1]["log_probability"] >= other["log_probability"]


def test_private_addresses_are_not_asked(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Web({"a.png": png(0)}) as web:
        print_captions(PredictSettings(model), [web.url("a.png")], WEB, as_json=True)
        assert web.log == []
    assert json.loads(capsys.readouterr().out)["reason"] == "forbidden_address"


def test_many_pictures_have_a_progress_bar_on_a_terminal(model: Path, pictures: Path) -> None:
    (pictures / "holiday" / "notes.txt").unlink()
    ours, theirs = pty.openpty()
    words = ["predict", pictures, "--model", model, "--batch-size", "1"]
    done = subprocess.run(
        command_line(*words),
        stdout=subprocess.PIPE,
        stderr=theirs,
        check=True,
    )
    os.close(theirs)
    assert done.stdout.count(b"\n") == 3
    assert b"predict: 3/3 pictures" in os.read(ours, 100_000)
    os.close(ours)


def test_more_captions_than_the_beam_is_wide(model: Path) -> None:
    with pytest.raises(SettingError, match=r"--top 4: a beam of 3 .*; give --beam 4 too"):
        Predictor(PredictSettings(model, top=4))
    with pytest.raises(SettingError, match="--top 2: a beam of 1 finds no more than 1 caption;"):
        Predictor(PredictSettings(model, top=2, search={"beam": 1}))


def test_features_of_another_extractor_are_refused(model: Path) -> None:
    with pytest.raises(SettingError, match=r"is not what .* was trained with"):
        Predictor(PredictSettings(model, weights="random:4"))


def test_weights_that_were_a_file_must_be_named(model: Path, tmp_path: Path) -> None:
    copy = tmp_path / "saved"
    shutil.copytree(model, copy)
    description = json.loads((copy / "model.json").read_text())
    description["extractor"]["weights"] = "mine.weights.h5"
    (copy / "model.json").write_text(json.dumps(description))
    with pytest.raises(SettingError, match=r"mine\.weights\.h5 .*; name that file with --weights"):
        Predictor(PredictSettings(copy))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "give either pictures to caption, or --input and --output"),
        (["a.png", "--input", "x", "--output", "y"], "give either pictures"),
        (["--input", "x"], "--input and --output go together"),
        (["absent.png"], "absent.png: no such file"),
        (["ftp://localhost/a.png"], "a.png: no such file; name a picture, a folder of them or"),
        (["--json", "--input", "x", "--output", "y"], "--json is for pictures given by name"),
        (["--input", "absent", "--output", "y"], "absent: no such directory"),
        (["a.png", "--batch-size", "0"], "--batch-size 0: give at least 1"),
        (["a.png", "--top", "0"], "--top 0: give at least 1"),
        (["a.png", "--beam", "0"], "--beam 0: give at least 1"),
    ],
)
def test_bad_settings_are_one_line(words: list[str], message: str, tmp_path: Path) -> None:
    done = run_here("predict", *words, "--model", tmp_path)
    assert done.returncode == 2
    assert message in done.stderr
    assert done.stderr.count("\n") == 1


def test_model_that_is_not_there(pictures: Path, tmp_path: Path) -> None:
    done = run_here("predict", pictures, "--model", tmp_path / "absent")
    assert done.returncode == 2
    assert "absent: no such folder; give the `saved` that `capstan train` wrote" in done.stderr
    assert done.stderr.count("\n") == 1


def test_model_without_its_vocabulary(model: Path, pictures: Path, tmp_path: Path) -> None:
    copy = tmp_path / "saved"
    shutil.copytree(model, copy)
    (copy / "vocabulary.json").unlink()
    done = run_here("predict", pictures, "--model", copy)
    assert done.returncode == 1
    assert "vocabulary.json: missing; a model is" in done.stderr
    assert "Traceback" not in done.stderr
