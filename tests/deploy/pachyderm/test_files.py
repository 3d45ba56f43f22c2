"""`capstan caption` and `capstan fetch`, against the fake."""

from pathlib import Path

import grpc
import pytest
from pachyderm_sdk.api import pps

from capstan.testing.pachd import Made, Pachd
from tests.deploy.pachyderm.conftest import Capstan

SPEC = """{"pipeline": {"name": "predict"}, "transform": {"image": "x:1", "cmd": ["x"]},
"input": {"pfs": {"repo": "inpredict", "glob": "/*"}}}"""
MODEL = {"/saved/saved_model.keras": bytes(3000), "/saved/vocabulary.json": b"{}", "/log": b""}


@pytest.fixture
def predicting(pachd: Pachd) -> Pachd:
    """A server whose pipeline captions whatever is put there, but no GIF."""
    pachd.repos |= {"inpredict": [], "predict": []}
    pachd.pipelines["predict"] = Made(SPEC)

    def predict(repo: str, id: str) -> None:
        names = [path for path in pachd.files(repo) if not path.endswith(".gif")]
        pachd.put("predict", {f"{name}.txt": f"a {name[1:-4]}\n".encode() for name in names}, id=id)
        pachd.job("predict", id)

    pachd.on_commit = predict
    return pachd


@pytest.fixture
def pictures(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / name for name in ("cat.jpg", "dog.png")]
    for path in paths:
        path.write_bytes(path.name.encode() * 300)
    return paths


def test_pictures_are_put_in_one_commit_and_captioned(
    predicting: Pachd, capstan: Capstan, pictures: list[Path]
) -> None:
    assert capstan("caption", *pictures) == 0
    assert capstan.out == f"{pictures[0]}\ta cat\n{pictures[1]}\ta dog\n"
    assert len(predicting.streams) == 1
    assert predicting.files("inpredict")["/cat.jpg"] == pictures[0].read_bytes()


def test_pictures_that_are_there_are_not_sent_again(
    predicting: Pachd, capstan: Capstan, pictures: list[Path]
) -> None:
    assert capstan("caption", *pictures) == 0
    assert capstan("caption", pictures[1]) == 0
    assert capstan.out == f"{pictures[1]}\ta dog\n"
    assert len(predicting.streams) == 1
    pictures[1].write_bytes(b"another")
    assert capstan("caption", *pictures) == 0
    assert {path for _, path, _ in predicting.streams[1]} == {"/dog.png"}


def test_what_gets_no_caption_is_named(
    predicting: Pachd, capstan: Capstan, pictures: list[Path], tmp_path: Path
) -> None:
    (tmp_path / "x.gif").write_bytes(b"GIF")
    assert capstan("caption", tmp_path / "x.gif", pictures[0]) == 1
    assert capstan.out == f"{pictures[0]}\ta cat\n"
    assert f"no caption for {tmp_path / 'x.gif'}; are they pictures" in capstan.err


def test_a_job_that_fails(predicting: Pachd, capstan: Capstan, pictures: list[Path]) -> None:
    predicting.on_commit = lambda repo, id: predicting.job(
        "predict", id, state=pps.JobState.JOB_FAILURE, reason="datum failed"
    )
    assert capstan("caption", pictures[0]) == 1
    id = predicting.repos["inpredict"][-1].id
    assert f"job {id}: failure (datum failed); `capstan logs predict --job {id}`" in capstan.err


def test_pipelines_that_do_not_run(
    predicting: Pachd, capstan: Capstan, pictures: list[Path]
) -> None:
    predicting.pipelines["predict"].state = pps.PipelineState.PIPELINE_PAUSED
    assert capstan("caption", pictures[0]) == 1
    assert "pipeline predict is paused; see `capstan status`" in capstan.err
    assert capstan("caption", pictures[0], "--pipeline", "other") == 1
    assert "pipeline other is absent" in capstan.err
    assert not predicting.streams


def test_pictures_that_cannot_be(capstan: Capstan, pictures: list[Path], tmp_path: Path) -> None:
    assert capstan("caption", tmp_path / "none.jpg") == 2
    assert "none.jpg: no such file" in capstan.err
    twin = tmp_path / "more" / "cat.jpg"
    twin.parent.mkdir()
    twin.write_bytes(b"x")
    assert capstan("caption", pictures[0], twin) == 2
    assert f"{twin}: the same name as {pictures[0]}" in capstan.err


def test_fetch_copies_the_newest_whole_commit(
    pachd: Pachd, capstan: Capstan, tmp_path: Path
) -> None:
    whole = pachd.put("model", MODEL)
    pachd.put("model", {"/log": b"half"}, error="a datum failed")
    pachd.put("model", {"/log": b"at work"}, open=True)
    assert capstan("fetch", "model", tmp_path / "m") == 0
    assert files(tmp_path / "m") == MODEL
    assert f"3 files, 3,002 bytes, of model@{whole.id}" in capstan.err
    assert capstan("fetch", "model", tmp_path / "s", "--path", "saved", "--commit", whole.id) == 0
    assert set(files(tmp_path / "s")) == {"/saved/saved_model.keras", "/saved/vocabulary.json"}


def files(folder: Path) -> dict[str, bytes]:
    return {
        f"/{path.relative_to(folder).as_posix()}": path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_fetch_leaves_nothing_half(pachd: Pachd, capstan: Capstan, tmp_path: Path) -> None:
    pachd.put("model", MODEL)
    pachd.refusal["GetFile"] = (grpc.StatusCode.DATA_LOSS, "chunk is gone")
    assert capstan("fetch", "model", tmp_path / "new" / "m") == 1
    assert "chunk is gone" in capstan.err
    assert list((tmp_path / "new").iterdir()) == []


def test_fetch_does_not_write_over_or_outside(
    pachd: Pachd, capstan: Capstan, tmp_path: Path
) -> None:
    full = tmp_path / "full"
    full.mkdir()
    (full / "x").touch()
    assert capstan("fetch", "model", full) == 2
    assert f"{full}: is there already" in capstan.err
    pachd.put("model", {"/../../evil": b"x"})
    assert capstan("fetch", "model", tmp_path / "m") == 1
    assert "leads out of the folder" in capstan.err


def test_fetch_of_what_is_not_there(pachd: Pachd, capstan: Capstan, tmp_path: Path) -> None:
    assert capstan("fetch", "model", tmp_path / "m") == 1
    assert "model@master: no finished commit in project photos" in capstan.err
    pachd.put("model", MODEL)
    assert capstan("fetch", "model", tmp_path / "m", "--path", "/none") == 1
    assert ":/none: no files there; check --path" in capstan.err
