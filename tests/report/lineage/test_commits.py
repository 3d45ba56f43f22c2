"""`capstan trace` through Pachyderm: the same trees from commits, and servers that refuse."""

import json
import os
import uuid
from pathlib import Path

import pytest

from tests.report.lineage.conftest import CHUNKS, EMPTY, GOOD, Trace
from tests.report.lineage.pachd import ID, MADE_OF, Pachd
from tests.report.lineage.test_trace import KEY, states

SERVER = os.environ.get("CAPSTAN_PACHD")


@pytest.mark.parametrize(
    "what", [KEY, f"{CHUNKS[1]}/{EMPTY}", "model", "A 1 coloured circle number 4."]
)
def test_commits_say_what_folders_say(
    whole: Path, pachd: Pachd, trace: Trace, capsys: pytest.CaptureFixture[str], what: str
) -> None:
    assert trace(what, "--run", pachd.address, "--project", "photos", "--json") == 0
    commits = json.loads(capsys.readouterr().out)
    assert trace(what, "--run", whole, "--json") == 0
    folders = json.loads(capsys.readouterr().out)
    assert list(states(commits)) == list(states(folders))
    assert [step["name"] for step in commits["steps"]] == [
        step["name"] for step in folders["steps"]
    ]


def test_places_are_as_pachctl_takes_them(
    pachd: Pachd, trace: Trace, capsys: pytest.CaptureFixture[str]
) -> None:
    assert trace(KEY, "--run", pachd.address, "--project", "photos") == 0
    printed = capsys.readouterr().out
    assert f"outcome: images@{ID['images']}:/{CHUNKS[0]}.parquet" in printed
    assert f"model: model@{ID['model']}:/saved" in printed  # not the one at work


def test_a_prediction_is_followed_from_its_commit(
    pachd: Pachd, trace: Trace, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("predict/new/one.png.json", "--run", pachd.address, "--project", "photos")
    assert trace(*words, "--commit", f"predict@{ID['predict']}", "--json") == 0
    step = json.loads(capsys.readouterr().out)
    assert step["facts"]["picture"] == "new/one.png"
    assert {state for _, state in states(step)} == {"ok"}


@pytest.mark.parametrize(
    ("words", "status", "says"),
    [
        (("--project", "nothing"), 2, "no finished commit"),
        (("--project", "photos", "--commit", "model@old"), 2, "no such commit"),
        (("--project", "photos", "--commit", "model@a=b^c"), 2, "no such commit"),
        (("--project", "photos", "--commit", "model@a^c"), 2, "no such commit"),
        (("--project", "photos", "--commit", f"model@{ID['predict']}"), 2, "no such commit"),
    ],
)
def test_commits_that_are_not_there(
    pachd: Pachd,
    trace: Trace,
    capsys: pytest.CaptureFixture[str],
    words: tuple[str, ...],
    status: int,
    says: str,
) -> None:
    assert trace(KEY, "--run", pachd.address, *words) == status
    printed = capsys.readouterr().err
    assert says in printed
    assert "Traceback" not in printed


def test_the_token_is_read_as_all_commands_for_a_cluster_do(
    pachd: Pachd, trace: Trace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = (KEY, "--address", pachd.address, "--project", "photos")
    assert trace(*words, "--token-file", tmp_path / "none") == 2
    assert "none: cannot be read" in capsys.readouterr().err
    (tmp_path / "token").write_text("secret")
    assert trace(*words, "--token-file", tmp_path / "token") == 0


def test_a_server_that_is_not_there(trace: Trace, capsys: pytest.CaptureFixture[str]) -> None:
    assert trace(KEY, "--run", "grpc://127.0.0.1:1") == 1
    printed = capsys.readouterr().err
    assert "grpc://127.0.0.1:1, project default: nothing answers as it should" in printed
    assert "Traceback" not in printed


@pytest.mark.skipif(not SERVER, reason="no Pachyderm: give its address in CAPSTAN_PACHD")
def test_a_real_server(whole: Path, trace: Trace, capsys: pytest.CaptureFixture[str]) -> None:
    """Branches that follow others, as pipelines' do, whose commits are filled as workers do."""
    import grpc
    from pachyderm_sdk import Client
    from pachyderm_sdk.api import pfs

    assert SERVER is not None
    pfs_api, project = (
        Client.from_pachd_address(SERVER).pfs,
        pfs.Project(name=f"t{uuid.uuid4().hex}"),
    )
    pfs_api.create_project(project=project)

    def branch(repo: str) -> pfs.Branch:
        return pfs.Branch(repo=pfs.Repo(name=repo, type="user", project=project), name="master")

    def head(repo: str) -> pfs.Commit:
        return pfs_api.inspect_commit(
            commit=pfs.Commit(branch=branch(repo), repo=branch(repo).repo)
        ).commit

    for repo, others in MADE_OF.items():
        pfs_api.create_repo(repo=branch(repo).repo)
        pfs_api.create_branch(branch=branch(repo), provenance=[branch(each) for each in others])
        if others:
            pfs_api.finish_commit(commit=head(repo))
    for repo in ("inpredict", "rawdata"):
        with pfs_api.commit(branch=branch(repo)) as commit:
            commit.put_files(source=whole / repo, path="/")
        for follower in [each for each, others in MADE_OF.items() if others]:
            try:
                pfs_api.put_files(commit=head(follower), source=whole / follower, path="/")
                pfs_api.finish_commit(commit=head(follower))
            except grpc.RpcError as error:  # not of this load: finished before
                assert "finished" in error.details()
    for repo in MADE_OF:
        pfs_api.wait_commit(head(repo))
    where = ("--run", SERVER, "--project", project.name, "--json")
    for what in (f"{CHUNKS[0]}/{GOOD}", "model", "predict/new/one.png.json"):
        assert trace(what, *where) == 0
        assert {state for _, state in states(json.loads(capsys.readouterr().out))} == {"ok"}
    with pfs_api.commit(branch=branch("rawdata")) as commit:  # and not yet computed
        commit.put_file_from_bytes(path=f"/{CHUNKS[0]}", data=b"another\thttp://other.test/\n")
    assert trace("model", *where) == 0
