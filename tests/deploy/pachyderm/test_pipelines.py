"""`capstan up`, `status`, `logs` and `down`, against the fake."""

import io
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import _jsonnet  # type: ignore[import-untyped, unused-ignore]
import grpc
import pytest
from pachyderm_sdk.api import pps

from capstan.deploy.pachyderm.order import in_order
from capstan.errors import SettingError
from capstan.testing.pachd import TIME, Pachd
from tests.deploy.pachyderm.conftest import Capstan
from tests.paths import PIPELINES

NAMES = ["images", "features", "consolidate", "model", "predict"]


@pytest.fixture
def specs(tmp_path: Path) -> Path:
    """A copy of the shipped specs, to change."""
    return Path(shutil.copytree(PIPELINES, tmp_path / "specs"))


@pytest.fixture
def up(pachd: Pachd, capstan: Capstan, specs: Path) -> Pachd:
    """A server that has them all."""
    assert capstan("up", "--pipelines", specs) == 0
    pachd.calls.clear()
    return pachd


def edit(file: Path, **more: object) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | more))


def test_up_makes_repos_then_pipelines_in_order(up: Pachd) -> None:
    assert list(up.repos) == ["inpredict", "rawdata", *NAMES]
    for name in NAMES:
        shipped = json.loads((PIPELINES / f"{name}.json").read_text())
        shipped["pipeline"]["project"] = {"name": "photos"}
        assert json.loads(up.pipelines[name].spec) == shipped


def test_up_again_does_nothing(up: Pachd, capstan: Capstan, specs: Path) -> None:
    assert capstan("up", "--pipelines", specs) == 0
    assert set(up.calls) == {"GetVersion", "ListRepo", "ListPipeline"}
    assert capstan.err.count("unchanged") == 5
    assert capstan.out == ""


def test_up_shows_and_makes_the_difference_of_a_spec(
    up: Pachd, capstan: Capstan, specs: Path
) -> None:
    edit(specs / "images.json", parallelism_spec={"constant": 30})
    assert capstan("up", "--pipelines", specs, "--dry-run") == 0
    assert '-    "constant": 8\n+    "constant": 30\n' in capstan.out
    assert "pipeline images: would be updated" in capstan.err
    assert up.pipelines["images"].version == 1
    assert capstan("up", "--pipelines", specs) == 0
    assert [made.version for made in up.pipelines.values()] == [2, 1, 1, 1, 1]
    assert '"constant": 30' in up.pipelines["images"].spec


def test_other_spellings_of_the_same_are_no_difference(
    up: Pachd, capstan: Capstan, specs: Path
) -> None:
    """`pachctl` and the web console may have made it."""
    spec = json.loads(up.pipelines["images"].spec)
    spec["datumTries"] = str(spec.pop("datum_tries"))
    spec["update"] = True
    up.pipelines["images"].spec = json.dumps(spec)
    assert capstan("up", "--pipelines", specs) == 0
    assert "pipeline images: unchanged" in capstan.err


def test_dry_run_makes_nothing(pachd: Pachd, capstan: Capstan, specs: Path) -> None:
    assert capstan("up", "--pipelines", specs, "--dry-run") == 0
    assert not pachd.repos and not pachd.pipelines
    assert pachd.calls.count("CreatePipelineV2") == 5  # the server checks them
    assert capstan.err.count("would be made") == 7


def test_a_service_is_made_only_if_it_is_named(pachd: Pachd, capstan: Capstan, specs: Path) -> None:
    assert capstan("up", "--pipelines", specs) == 0
    assert "ingest-service: a service; `capstan up ingest-service` starts it" in capstan.err
    assert "ingest-service" not in pachd.pipelines
    assert capstan("up", "ingest-service", "--pipelines", specs) == 0
    assert list(pachd.pipelines) == [*NAMES, "ingest-service"]
    assert capstan("status") == 0
    assert capstan("down", "--pipelines", specs, "--yes") == 0
    assert not pachd.pipelines
    assert capstan("up", "ingest", "--pipelines", specs) == 2
    assert "ingest: no such pipeline; there are consolidate, features," in capstan.err


def test_pipelines_that_are_named_leave_the_repos_of_others_alone(
    pachd: Pachd, capstan: Capstan, specs: Path
) -> None:
    assert capstan("up", "images", "predict", "--pipelines", specs) == 0
    assert list(pachd.repos) == ["inpredict", "rawdata", "images", "predict"]


FLAGS = ("--registry", "r.example/us", "--tag", "2", "--workers", "features=7", "--workers=model=1")
GPUS = ("--gpu", "nvidia.com/mig-1g.10gb", "--gpus", "3", "--gpu-node", "pool=a=b")


@pytest.mark.parametrize(
    ("flags", "arguments"),
    [
        (FLAGS, {"registry": "r.example/us", "tag": "2", "workers": {"features": 7, "model": 1}}),
        (GPUS, {"gpu": "nvidia.com/mig-1g.10gb", "gpus": "3", "nodes": "pool=a=b"}),
        (("--gpus", "0"), {"gpus": "0"}),
    ],
)
def test_flags_change_specs_as_the_template_does(
    pachd: Pachd, capstan: Capstan, flags: tuple[str, ...], arguments: dict[str, Any]
) -> None:
    assert capstan("up", "--pipelines", PIPELINES, *flags) == 0
    for name in NAMES:
        words = {key: str(value) for key, value in arguments.items() if key != "workers"}
        if name in arguments.get("workers", {}):
            words["workers"] = str(arguments["workers"][name])
        if name not in ("features", "model"):
            words.pop("nodes", None)
        template = str(PIPELINES / "capstan.jsonnet")
        rendered = json.loads(_jsonnet.evaluate_file(template, tla_vars={"name": name, **words}))
        rendered["pipeline"]["project"] = {"name": "photos"}
        assert json.loads(pachd.pipelines[name].spec) == rendered
    assert capstan("up", "--pipelines", PIPELINES, *flags) == 0
    assert capstan.err.count("unchanged") == 5


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (("--workers", "images"), "--workers images: give NAME=VALUE"),
        (("--workers", "images=0"), "--workers images=0: give a number of workers, at least 1"),
        (("--workers", "image=3"), "--workers image: no such pipeline; there are consolidate"),
        (("--gpus", "-1"), "--gpus -1: give 0 or more"),
        (("--gpu-node", "=x"), "--gpu-node =x: give NAME=VALUE"),
    ],
)
def test_flags_that_cannot_be(
    pachd: Pachd, capstan: Capstan, flags: tuple[str, ...], says: str
) -> None:
    assert capstan("up", "--pipelines", PIPELINES, *flags) == 2
    assert says in capstan.err and not pachd.calls


def test_what_the_server_refuses_names_the_pipeline(
    pachd: Pachd, capstan: Capstan, specs: Path
) -> None:
    pachd.refusal["CreatePipelineV2"] = (grpc.StatusCode.UNKNOWN, "no such image")
    assert capstan("up", "--pipelines", specs) == 1
    assert "no such image" in capstan.err
    assert capstan("up", "--pipelines", specs, "--project", "else") == 1
    assert "project else: project not found" in capstan.err


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({"enable_stats": True}, "enable_stats: gone since Pachyderm 2; remove it"),
        ({"standby": True}, 'standby: gone since Pachyderm 2; use "autoscaling": true'),
        ({"chunk_spec": {"number": 5}}, "chunk_spec: gone since Pachyderm 2; use datum_set_spec"),
        ({"constant": 4}, "constant: no such field here; it belongs in parallelism_spec"),
        (
            {"parallelism_spec": {"strategy": "CONSTANT", "coefficient": 4}},
            "parallelism_spec.strategy: gone since Pachyderm 2; give constant",
        ),
        ({"gpu": {"number": 1}}, "gpu: no such field here; it belongs in resource_limits"),
        (
            {"resource_requests": {"gpu": {"type": "nvidia.com/gpu", "number": 1}}},
            "resource_requests.gpu: the GPU belongs in resource_limits; move it there",
        ),
    ],
)
def test_retired_fields_do_not_get_as_far_as_the_server(
    pachd: Pachd, capstan: Capstan, specs: Path, more: dict[str, object], says: str
) -> None:
    edit(specs / "images.json", **more)
    assert capstan("up", "--pipelines", specs) == 2
    assert f"images.json: {says}" in capstan.err
    assert not pachd.calls


def test_pipelines_that_read_each_other() -> None:
    assert in_order({"b": ["a"], "a": ["outside"]}) == ["a", "b"]
    with pytest.raises(SettingError, match=r"read each other: (a <- b <- a|b <- a <- b)$"):
        in_order({"a": ["b"], "b": ["a"]})


def test_status_before_up(capstan: Capstan) -> None:
    assert capstan("status") == 0
    assert capstan.out == "project photos has no pipelines; make them with `capstan up`\n"


def test_status_is_a_table_in_the_order_of_the_data(up: Pachd, capstan: Capstan) -> None:
    up.job(
        "images",
        state=pps.JobState.JOB_RUNNING,
        data_total=330,
        data_processed=100,
        data_skipped=20,
        data_failed=1,
        data_recovered=1,
        started=TIME,
    )
    up.pipelines["model"].state = pps.PipelineState.PIPELINE_FAILURE
    up.pipelines["model"].reason = "no such\nimage"
    assert capstan("status") == 0
    lines = capstan.out.splitlines()
    assert [line.split()[0] for line in lines[1:6]] == NAMES
    assert lines[1].split()[1:5] == ["running", "running", "122/330", "2"]
    assert lines[4].split()[1:4] == ["failure", "none", "yet"]
    assert lines[6] == "model: no such image"


def test_status_for_programs(up: Pachd, capstan: Capstan) -> None:
    up.job("images", data_total=2, data_processed=2, started=TIME, finished=TIME)
    assert capstan("status", "--json") == 0
    printed = json.loads(capstan.out)
    assert printed["project"] == "photos"
    images = printed["pipelines"][0]
    assert images["inputs"] == ["rawdata"]
    assert (images["job"]["state"], images["job"]["done"]) == ("success", 2)
    assert printed["pipelines"][1]["job"] is None


def test_follow_ends_when_nothing_is_under_way(up: Pachd, capstan: Capstan) -> None:
    looks = 0

    def go_on(method: str) -> None:
        nonlocal looks
        looks += method == "ListPipeline"
        up.pipelines["images"].jobs[-1].data_processed = looks
        if looks == 4:
            up.pipelines["images"].jobs[-1].state = pps.JobState.JOB_SUCCESS

    up.job("images", state=pps.JobState.JOB_RUNNING, data_total=4)
    up.on_call = go_on
    assert capstan("status", "--follow", "--interval", 0, "--json") == 0
    shown = [json.loads(line)["pipelines"][0]["job"]["done"] for line in capstan.out.splitlines()]
    assert shown == [1, 2, 3, 4]


def test_follow_does_not_wait_for_what_is_stuck(up: Pachd, capstan: Capstan) -> None:
    up.pipelines["features"].state = pps.PipelineState.PIPELINE_FAILURE
    for name in ("features", "consolidate", "model"):
        up.job(name, state=pps.JobState.JOB_CREATED)
    assert capstan("status", "--follow", "--interval", 0) == 0
    assert capstan("status", "--follow", "--interval", -1) == 2


def test_logs(up: Pachd, capstan: Capstan) -> None:
    up.pipelines["images"].logs = [
        pps.LogMessage(message="fetched 3\n", user=True, worker_id="w-1", job_id="j", ts=TIME),
        pps.LogMessage(message="downloading", worker_id="w-1"),
        pps.LogMessage(message="done", user=True, worker_id="w-2", datum_id="d" * 64),
    ]
    assert capstan("logs", "images") == 0
    assert capstan.out == f"00:00:00 w-1: fetched 3\nw-2 {'d' * 12}: done\n"
    assert capstan("logs", "images", "--all", "--tail", 2) == 0
    assert capstan.out == f"w-1: downloading\nw-2 {'d' * 12}: done\n"
    assert capstan("logs", "images", "--job", "j") == 0
    assert capstan.out == "00:00:00 w-1: fetched 3\n"


def test_logs_to_one_who_has_enough(up: Pachd) -> None:
    up.pipelines["images"].logs = [pps.LogMessage(message="x" * 999, user=True)] * 999
    words = ("--address", up.address, "--project", "photos")
    with subprocess.Popen(
        [sys.executable, "-m", "capstan.cli", "logs", "images", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdout and process.stderr
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 0


def test_logs_of_what_is_not_there(up: Pachd, capstan: Capstan) -> None:
    assert capstan("logs", "image") == 2
    assert "image: no such pipeline in project photos; there are images, features" in capstan.err
    assert capstan("logs", "images", "--tail", -1) == 2


def test_down_deletes_the_last_first_and_keeps_what_was_put_in(
    up: Pachd, capstan: Capstan, specs: Path
) -> None:
    up.put("rawdata", {"/cc.tsv/0000000000000000": b"a\tb\n"})
    assert capstan("down", "--pipelines", specs, "--yes") == 0
    assert not up.pipelines
    assert list(up.repos) == ["inpredict", "rawdata"]
    assert capstan("down", "--pipelines", specs, "--yes", "--data") == 0
    assert not up.repos
    assert capstan("down", "--pipelines", specs) == 0
    assert "nothing of the specs is there" in capstan.err


@pytest.mark.parametrize(("answer", "status"), [("y\n", 0), ("yes\n", 0), ("\n", 1), ("", 1)])
def test_down_asks(
    up: Pachd,
    capstan: Capstan,
    specs: Path,
    monkeypatch: pytest.MonkeyPatch,
    answer: str,
    status: int,
) -> None:
    terminal = io.StringIO(answer)
    monkeypatch.setattr(terminal, "isatty", lambda: True)
    monkeypatch.setattr("sys.stdin", terminal)
    assert capstan("down", "--pipelines", specs) == status
    assert f"{up.address}, project photos: delete pipelines predict, model" in capstan.err
    assert bool(up.pipelines) == bool(status)


def test_down_without_a_terminal_needs_yes(up: Pachd, capstan: Capstan, specs: Path) -> None:
    assert capstan("down", "--pipelines", specs) == 2
    assert "give --yes" in capstan.err
    assert len(up.pipelines) == 5
