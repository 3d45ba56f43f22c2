"""What pods say, who is to blame, and what is copied to and from the volume."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from capstan.deploy.jobset.jobset import ATTEMPT_LABEL, INDEX_ANNOTATION, Json
from capstan.deploy.jobset.pods import (
    LONGEST,
    PodFailure,
    failure_of,
    has_begun,
    is_over,
    last_words,
    rank,
    to_blame,
    why_pending,
)
from capstan.deploy.jobset.volume import lay_in, take_out
from capstan.errors import DataError


def pod(number: int = 1, attempt: int = 0, **status: Any) -> Json:
    metadata = {
        "annotations": {INDEX_ANNOTATION: str(number)},
        "labels": {ATTEMPT_LABEL: str(attempt)},
    }
    return {"metadata": metadata, "status": status}


def ended(code: int, reason: str = "Error", when: str = "") -> list[Json]:
    """Status of the container."""
    state = {"terminated": {"exitCode": code, "reason": reason, "finishedAt": when}}
    return [{"name": "train", "state": state}]


def test_pods_that_wait() -> None:
    assert rank({"metadata": {}}) == -1
    assert rank(pod(3)) == 3
    assert why_pending(pod(phase="Running")) == ""
    assert why_pending(pod(phase="Pending")) == why_pending({"metadata": {}}) == ""
    waiting: Json = {"reason": "ContainerCreating"}
    assert why_pending(pod(phase="Pending", containerStatuses=[{"state": {}}])) == ""
    status = [{"name": "train", "state": {"waiting": waiting}}]
    assert why_pending(pod(phase="Pending", containerStatuses=status)) == ""
    waiting |= {"reason": "ImagePullBackOff", "message": "no such image"}
    told = why_pending(pod(phase="Pending", containerStatuses=status))
    assert told == "ImagePullBackOff: no such image"
    condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable"}
    assert why_pending(pod(phase="Pending", conditions=[condition])) == "Unschedulable"


@pytest.mark.parametrize(
    ("phase", "begun", "over"),
    [
        ("Pending", False, False),
        ("Unknown", False, False),
        ("Running", True, False),
        ("Succeeded", True, True),
        ("Failed", True, True),
    ],
)
def test_phases(phase: str, begun: bool, over: bool) -> None:
    assert (has_begun(pod(phase=phase)), is_over(pod(phase=phase))) == (begun, over)


@pytest.mark.parametrize(
    ("failed", "told"),
    [
        (pod(phase="Failed", containerStatuses=ended(1)), "worker 1 ended with status 1"),
        (pod(phase="Failed", containerStatuses=ended(139)), "worker 1 was killed by SIGSEGV"),
        (
            pod(phase="Failed", containerStatuses=ended(137, "OOMKilled")),
            "worker 1 was killed by SIGKILL (OOMKilled)",
        ),
        (pod(phase="Failed", containerStatuses=ended(255)), "worker 1 ended with status 255"),
        (
            pod(phase="Failed", reason="Evicted", message="disk"),
            "worker 1 failed (Evicted: disk)",
        ),
        (pod(phase="Failed"), "worker 1 failed"),
    ],
)
def test_pods_that_failed(failed: Json, told: str) -> None:
    assert str(failure_of(failed, "train")) == told


def test_pods_that_did_not_fail_of_their_own() -> None:
    assert failure_of(pod(phase="Succeeded", containerStatuses=ended(0)), "train") is None
    assert failure_of(pod(phase="Running", containerStatuses=ended(1)), "sidecar") is None
    assert failure_of({"metadata": {}}, "train") is None
    deleted = pod(phase="Failed", containerStatuses=ended(137))
    deleted["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    assert failure_of(deleted, "train") is None


def test_the_first_that_was_not_another_doing_is_to_blame() -> None:
    last = [
        PodFailure(0, 1, 75, "", "2026-01-01T00:00:01Z"),
        PodFailure(1, 1, 137, "OOMKilled", "2026-01-01T00:00:03Z"),
        PodFailure(2, 1, 1, "", "2026-01-01T00:00:04Z"),
    ]
    earlier = PodFailure(3, 0, 1, "", "2026-01-01T00:00:00Z")
    assert to_blame([earlier, *last]) == last[1]
    assert to_blame(last[:1]) == last[0]
    assert to_blame([]) is None


def test_last_words() -> None:
    assert last_words([]) == ""
    assert last_words(["one", "two  \t three "]) == "two three"
    assert last_words(['{"level": "error", "message": "no luck"}']) == "no luck"
    assert last_words(['{"level": "error"}']) == '{"level": "error"}'
    assert last_words(["[1]"]) == "[1]"
    assert last_words(["x" * 999]) == "x" * LONGEST + "…"


@given(st.lists(st.text()))
def test_last_words_are_one_line(lines: list[str]) -> None:
    assert len(last_words(lines).splitlines()) <= 1


# The volume


def test_input_is_laid_in_whole_and_once(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "volume" / "input"
    (source / "deep").mkdir(parents=True)
    (source / "real").write_text("vectors")
    (source / "deep" / "link").symlink_to(source / "real")  # as Pachyderm's inputs may be
    (source / ".hidden").write_text("")
    (target.parent / ".partial-input").mkdir(parents=True)
    (target.parent / ".partial-input" / "stale").write_text("from a launch that was killed")
    lay_in(source, target)
    assert {each.name for each in target.rglob("*")} == {"deep", "real", "link"}
    assert (target / "deep" / "link").read_text() == "vectors"
    assert not (target / "deep" / "link").is_symlink()
    (source / "real").write_text("others")
    lay_in(source, target)
    assert (target / "real").read_text() == "vectors"


def test_a_model_is_taken_out(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    (source / ".checkpoints").mkdir(parents=True)
    (source / ".checkpoints" / "1.npz").write_text("")
    with pytest.raises(DataError, match="wrote nothing there"):
        take_out(source, target)
    (source / "saved").mkdir()
    for name in ("model.json", "saved_model.keras", "vocabulary.json"):
        (source / "saved" / name).write_text(name)
    take_out(source, target)
    written = sorted(target.rglob("*.*"), key=lambda path: path.stat().st_mtime_ns)
    assert written[-1].name == "model.json"  # by which the model is known to be whole
    assert not (target / ".checkpoints").exists()
