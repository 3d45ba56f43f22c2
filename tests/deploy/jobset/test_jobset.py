"""JobSets from a template, what they tell each worker, and what their status says."""

import json
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from capstan.cli import main
from capstan.deploy.jobset.jobset import (
    FINGERPRINT,
    INDEX,
    INDEX_ANNOTATION,
    QUEUE_LABEL,
    JobSetState,
    Json,
    Launch,
    container_of,
    host_names,
    mounts,
    read_template,
    render,
    state_of,
    worker_job,
)
from capstan.errors import SettingError
from capstan.train.workers import Place, place
from tests.paths import ROOT

TEMPLATE = ROOT / "deploy" / "kubernetes" / "base" / "jobset" / "jobset.yaml"
SHIPPED = read_template(TEMPLATE)  # not to be changed


@pytest.fixture
def template() -> Json:
    return deepcopy(SHIPPED)


def launch(name: str = "job", **more: Any) -> Launch:
    return Launch(name, Path("/training/job/input"), Path("/training/job/output"), **more)


def environment(jobset: Json, rank: int) -> dict[str, str]:
    """A worker's variables, as its kubelet sets them; the index comes before what refers to it."""
    found: dict[str, str] = {}
    for each in container_of(jobset)["env"]:
        if each["name"] == INDEX:
            path = each["valueFrom"]["fieldRef"]["fieldPath"]
            assert path == f"metadata.annotations['{INDEX_ANNOTATION}']"
            found[INDEX] = str(rank)
        else:
            found[each["name"]] = each["value"].replace(f"$({INDEX})", found.get(INDEX, "?"))
    return found


@given(st.integers(1, 200))
def test_each_worker_is_told_its_place(workers: int) -> None:
    jobset = render(SHIPPED, launch(workers=workers))
    assert worker_job(jobset)["completions"] == worker_job(jobset)["parallelism"] == workers
    for rank in {0, workers // 2, workers - 1}:
        told = environment(jobset, rank)
        assert place(told) == Place(rank, workers)
        host = json.loads(told["TF_CONFIG"])["cluster"]["worker"][rank]
        assert host == f"job-worker-0-{rank}.job:2222"


def test_the_template_is_what_a_launch_of_its_name_renders(template: Json) -> None:
    """So that one who creates it by hand has the same."""
    name = template["metadata"]["name"]
    folder = Path("/training") / name
    rendered = render(template, Launch(name, folder / "input", folder / "output"))
    assert rendered["metadata"]["annotations"].pop(FINGERPRINT)
    assert environment(rendered, 1) == environment(template, 1)
    for jobset in (rendered, template):
        container_of(jobset).pop("env")
    assert not rendered["metadata"].pop("annotations")
    assert rendered == template


def test_what_a_launch_changes(template: Json) -> None:
    command = ["capstan", "train", "--epochs", "3"]
    jobset = render(
        template, launch(command=command, workers=4, image="registry/train:2", queue="training")
    )
    container = container_of(jobset)
    assert container["command"] == command
    assert container["args"] == ["--input=/training/job/input", "--output=/training/job/output"]
    assert container["image"] == "registry/train:2"
    assert jobset["metadata"]["labels"][QUEUE_LABEL] == "training"
    assert container_of(template)["image"] == "capstan/train-gpu:0.1.0"


def test_the_fingerprint_is_of_what_runs(template: Json) -> None:
    prints = {
        render(template, launch(**more))["metadata"]["annotations"][FINGERPRINT]
        for more in ({}, {}, {"workers": 3}, {"image": "other"}, {"command": ["other"]})
    }
    assert len(prints) == 4


def test_a_subdomain_of_its_own(template: Json) -> None:
    template["spec"]["network"]["subdomain"] = "net"
    assert host_names(template, "job", 2) == ["job-worker-0-0.net", "job-worker-0-1.net"]


@given(st.from_regex("[a-z]([a-z0-9-]*[a-z0-9])?", fullmatch=True), st.integers(1, 99))
def test_names_are_refused_before_the_server_does(name: str, workers: int) -> None:
    """Its limit: 63 letters in the name of a pod, five of them its own."""
    longest = len(f"{name}-worker-0-{workers - 1}-abcde")
    if longest <= 63:
        assert len(host_names(SHIPPED, name, workers)) == workers
    else:
        with pytest.raises(SettingError, match="give at most"):
            host_names(SHIPPED, name, workers)


@pytest.mark.parametrize("name", ["", "Job", "0job", "job-", "jo.b", "job\n", "j_b"])
def test_bad_names(template: Json, name: str) -> None:
    with pytest.raises(SettingError, match="--name"):
        render(template, launch(name))


def test_a_pachyderm_jobs_name_fits(template: Json) -> None:
    render(template, launch(f"train-{'0' * 32}", workers=1000))
    with pytest.raises(SettingError, match="--workers 0: give at least 1"):
        render(template, launch(workers=0))


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("{", "cannot be read"),
        ("kind: Pod", "no JobSet of"),
        ("apiVersion: jobset.x-k8s.io/v1alpha2\nkind: JobSet\nspec: {}", "needs one replicated"),
        (TEMPLATE.read_text().replace("replicas: 1", "replicas: 2"), "needs one replicated"),
        (TEMPLATE.read_text().replace("Indexed", "NonIndexed"), "needs one replicated"),
    ],
)
def test_a_template_that_is_none(tmp_path: Path, text: str, complaint: str) -> None:
    path = tmp_path / "jobset.yaml"
    path.write_text(text)
    with pytest.raises(SettingError, match=complaint):
        read_template(path)
    with pytest.raises(SettingError, match="No such file"):
        read_template(tmp_path / "missing")


def test_mounts_are_those_of_persistent_volumes(template: Json) -> None:
    assert mounts(template) == [Path("/training")]


# The command, up to where it would speak to a cluster


def test_show_prints_the_jobset(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PACH_JOB_ID", "0123456789abcdef0123456789abcdef")
    paths = ["--input", str(tmp_path), "--output", str(tmp_path / "out")]
    flags = ["--volume", "/training", "--template", str(TEMPLATE), "--workers", "3", "--show"]
    assert main(["launch", *paths, *flags, "--", "capstan", "train", "--seed", "7"]) == 0
    shown = yaml.safe_load(capsys.readouterr().out)
    assert shown["metadata"]["name"] == "train-0123456789abcdef0123456789abcdef"
    assert container_of(shown)["command"] == ["capstan", "train", "--seed", "7"]
    assert place(environment(shown, 2)) == Place(2, 3)
    assert not (tmp_path / "out").exists()


def refused(*words: object) -> int:
    return main(["launch", "--output=out", f"--template={TEMPLATE}", *map(str, words)])


def test_settings_that_cannot_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("PACH_JOB_ID", raising=False)
    mine = tmp_path / "job" / "input"
    mine.mkdir(parents=True)
    assert refused(f"--input={tmp_path}", "--volume=/training") == 2
    assert "no name for the JobSet: give --name" in capsys.readouterr().err
    assert refused(f"--input={tmp_path}", "--volume=/data", "--name=job") == 2
    assert "have no persistent volume there, but at: /training" in capsys.readouterr().err
    assert refused(f"--input={tmp_path}/none", "--volume=/training", "--name=job") == 2
    assert "no such directory" in capsys.readouterr().err
    assert refused(f"--input={mine}", f"--volume={tmp_path}", "--name=job") == 2
    assert "is this launch's own; give another --name" in capsys.readouterr().err
    assert mine.is_dir()


def test_no_cluster(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    template = tmp_path / "jobset.yaml"
    template.write_text(
        TEMPLATE.read_text().replace("mountPath: /training", f"mountPath: {tmp_path}")
    )
    flags = [f"--input={tmp_path}", f"--output={tmp_path}/out", f"--volume={tmp_path}"]
    for content in (None, "", "a: b", "clusters: [{name: 7}]"):
        monkeypatch.setenv("KUBECONFIG", str(tmp_path / "kubeconfig"))
        if content is not None:
            (tmp_path / "kubeconfig").write_text(content)
        assert main(["launch", *flags, f"--template={template}", "--name=job"]) == 2
        assert "no Kubernetes to ask" in capsys.readouterr().err


# Status


@pytest.mark.parametrize(
    ("status", "expected", "text"),
    [
        ({}, JobSetState("starting"), "starting"),
        ({"restarts": 1}, JobSetState("starting", 1), "starting, restarted once"),
        (
            {"restarts": 2, "replicatedJobsStatus": [{"name": "worker", "ready": 1}]},
            JobSetState("running", 2),
            "running, restarted 2 times",
        ),
        (
            {"conditions": [{"type": "Suspended", "status": "True", "message": "m"}]},
            JobSetState("queued"),
            "queued",
        ),
        (
            {"conditions": [{"type": "Suspended", "status": "False"}]},
            JobSetState("starting"),
            "starting",
        ),
        ({"conditions": [{"type": "Completed", "status": "True"}]}, JobSetState("done"), "done"),
        (
            {"conditions": [{"type": "Failed", "status": "True", "message": "m"}]},
            JobSetState("failed", 0, "m"),
            "failed: m",
        ),
    ],
)
def test_states(status: Json, expected: JobSetState, text: str) -> None:
    state = state_of({"status": status})
    assert state == expected
    assert str(state) == text
    assert state.is_over == (state.phase in ("done", "failed"))
