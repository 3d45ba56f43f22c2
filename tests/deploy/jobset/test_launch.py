"""`capstan launch` as a process, over an API server of this machine; workers are processes too."""

import os
import signal
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest

from capstan.deploy.jobset.jobset import QUEUE_LABEL
from tests.deploy.jobset.api_server import ApiServer
from tests.deploy.jobset.conftest import Launcher, is_gone, role_rules
from tests.deploy.jobset.local_cluster import JOBSETS, Cluster

# Scripts of workers: $1 is --input=…, $2 is --output=…
MODEL = """
out="${2#--output=}"
if [ "$JOB_COMPLETION_INDEX" = 0 ]; then
    mkdir -p "$out/saved" "$out/.checkpoints"
    echo weights >"$out/saved/saved_model.keras"
    echo {} >"$out/saved/model.json"
    echo half >"$out/.checkpoints/1.npz"
fi
"""
HANG = "echo up $JOB_COMPLETION_INDEX; exec sleep 600"


def shell(script: str) -> list[str]:
    """A worker that runs a script."""
    return ["sh", "-c", script, "worker"]


class Gate:
    """What workers wait at, each with `read line <PATH`, until the test lets so many through.

    A named pipe that the test holds open both ways: nobody's opening waits, none finds its end.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        os.mkfifo(path)
        self._pipe = os.open(path, os.O_RDWR)

    def __str__(self) -> str:
        return str(self._path)

    def let(self, workers: int = 1) -> None:
        os.write(self._pipe, b"go\n" * workers)

    def close(self) -> None:
        os.close(self._pipe)


@pytest.fixture
def gate(tmp_path: Path) -> Iterator[Gate]:
    gate = Gate(tmp_path / "gate")
    yield gate
    gate.close()


def test_the_model_is_brought_and_nothing_stays(launcher: Launcher, cluster: Cluster) -> None:
    script = 'echo "$TF_CONFIG"; cat "${1#--input=}"/*; ls "${1#--input=}";' + MODEL
    with launcher.run(*shell(script)) as process:
        assert process.end() == 0, process.log
    assert {each.relative_to(launcher.output) for each in launcher.output.rglob("*")} == {
        Path("saved"),
        Path("saved/saved_model.keras"),
        Path("saved/model.json"),
    }
    assert "rows" in process.log
    assert "shard.parquet" in process.log
    assert '"index": 0' in process.log
    assert '"index": 1' not in process.log  # whose log is nobody's business while it is well
    assert "JobSet job: done" in process.log
    assert not list(launcher.volume.iterdir())
    cluster.wait(lambda: is_gone(cluster))


def test_input_on_the_volume_is_not_copied(launcher: Launcher) -> None:
    there = launcher.volume / "shards"
    launcher.input.rename(there)
    launcher.input = there
    with launcher.run(*shell('echo "reads $1";' + MODEL)) as process:
        assert process.end() == 0, process.log
    assert f"reads --input={there}" in process.log
    assert (there / "shard.parquet").is_file()


def test_states_restarts_and_who_failed_are_told(
    launcher: Launcher, server: ApiServer, gate: Gate, tmp_path: Path
) -> None:
    script = f"""
if mkdir "{tmp_path}/begun-$JOB_COMPLETION_INDEX"; then
    [ "$JOB_COMPLETION_INDEX" = 0 ] && exec sleep 600
    read line <{gate}; echo "first word"; echo "out of luck"; exit 3
fi
{MODEL}"""
    with launcher.run(*shell(script)) as process:
        process.until("JobSet job: running")
        server.cluster.wait(lambda: server.asked.count(("get", "", "pods/log")) == 2)
        gate.let()
        assert process.end() == 0, process.log
    assert "worker 1 | first word" in process.log
    assert "worker 1 ended with status 3: out of luck" in process.log
    assert "restarted once" in process.log


def test_it_fails_with_one_line_when_restarts_do_not_help(
    launcher: Launcher, cluster: Cluster
) -> None:
    template = launcher.read()
    template["spec"]["failurePolicy"]["maxRestarts"] = 1
    launcher.write(template)
    script = """
[ "$JOB_COMPLETION_INDEX" = 1 ] && exec sleep 600
echo '{"level": "error", "message": "error: no luck"}'
exit 1
"""
    with launcher.run(*shell(script)) as process:
        assert process.end() == 1
    assert "worker 0 ended with status 1: error: no luck; JobSet job failed" in process.error
    assert "max number of restarts" in process.error
    assert (launcher.volume / "job").is_dir()  # where its checkpoints are
    assert not list(launcher.output.iterdir())
    cluster.wait(lambda: is_gone(cluster))


def test_a_bad_setting_is_not_tried_again(launcher: Launcher, cluster: Cluster) -> None:
    script = '[ "$JOB_COMPLETION_INDEX" = 0 ] && exec sleep 600; echo "error: --epochs 0"; exit 2'
    with launcher.run(*shell(script)) as process:
        assert process.end() == 2
    assert "worker 1 ended with status 2: error: --epochs 0; JobSet job failed" in process.error
    assert "restarted" not in process.log
    cluster.wait(lambda: is_gone(cluster))


def test_killed_by_the_system(launcher: Launcher, cluster: Cluster) -> None:
    template = launcher.read()
    template["spec"]["failurePolicy"]["maxRestarts"] = 1
    launcher.write(template)
    with launcher.run(*shell(HANG)) as process:
        process.until("up 0")
        cluster.kill("job", 1, "OOMKilled")
        process.until("worker 1 was killed by SIGKILL (OOMKilled)")
        process.until("up 0")
        cluster.evict("job", 1, "The node was low on resource: memory.")
        assert process.end() == 1
    assert "worker 1 failed (Evicted: The node was low on resource: memory.)" in process.error


def test_why_workers_wait_is_told(launcher: Launcher, cluster: Cluster) -> None:
    cluster.full = "0/3 nodes are available: 3 Insufficient nvidia.com/gpu."
    with launcher.run(*shell(HANG)) as process:
        assert "worker 0 waits: Unschedulable: 0/3 nodes" in process.until("worker 0 waits")
        process.send(signal.SIGTERM)
        assert process.end() == 130
    cluster.wait(lambda: is_gone(cluster))


def test_kueue_lets_it_in(launcher: Launcher, cluster: Cluster) -> None:
    template = launcher.read()
    template["spec"]["suspend"] = True  # as Kueue's webhook does with those that have a queue
    launcher.write(template)
    with launcher.run(*shell(MODEL), flags=("--queue=training",)) as process:
        process.until("JobSet job: queued")
        jobset = cluster.get(JOBSETS, "job")
        assert jobset is not None
        assert jobset["metadata"]["labels"][QUEUE_LABEL] == "training"
        assert not cluster.pods_of("job")
        cluster.admit("job")
        assert process.end() == 0, process.log


# Its own end


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_cancelled_launch_deletes_its_jobset(
    launcher: Launcher, cluster: Cluster, number: signal.Signals
) -> None:
    with launcher.run(*shell(HANG)) as process:
        process.until("up 0")
        process.send(number)
        assert process.end() == 130
    cluster.wait(lambda: is_gone(cluster))
    assert "interrupted" in process.error


def test_a_killed_launch_has_its_jobset_deleted(launcher: Launcher, cluster: Cluster) -> None:
    with launcher.run(*shell(HANG)) as process:
        process.until("up 0")
        process.send(signal.SIGKILL)
        assert process.end() == -signal.SIGKILL
        cluster.wait(lambda: is_gone(cluster))


def test_a_jobset_ends_with_the_pod_of_its_launcher(
    launcher: Launcher, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    pod = cluster.add_pod("model-v1-abcde")
    monkeypatch.setenv("PPS_POD_NAME", "model-v1-abcde")
    with launcher.run(*shell(HANG)) as process:
        process.until("up 0")
        jobset = cluster.get(JOBSETS, "job")
        assert jobset is not None
        (owner,) = jobset["metadata"]["ownerReferences"]
        assert (owner["kind"], owner["name"]) == ("Pod", "model-v1-abcde")
        assert owner["uid"] == pod["metadata"]["uid"]
        cluster.remove_pod("model-v1-abcde")
        assert process.end() == 1
    assert "was deleted by another; run the same command again" in process.error


def granted() -> set[tuple[str, str, str]]:
    """Verb, API group and resource of all that the launcher's Role grants."""
    return {
        (verb, group, resource)
        for rule in role_rules()
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }


def test_what_a_killed_launcher_left_is_taken_up_by_rights_that_all_are_needed(
    launcher: Launcher,
    cluster: Cluster,
    server: ApiServer,
    gate: Gate,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    script = f"echo up $JOB_COMPLETION_INDEX; read line <{gate}; {MODEL}"
    server.rules = without("delete")  # so that nobody deletes it
    with launcher.run(*shell(script)) as process:
        process.until("up 0")
        process.send(signal.SIGKILL)
    cluster.wait(lambda: ("delete", "jobset.x-k8s.io", "jobsets") in server.asked)
    server.rules = role_rules()
    cluster.add_pod("launcher")
    monkeypatch.setenv("POD_NAME", "launcher")
    with launcher.run(*shell(script)) as process:
        process.until("taken up")
        jobset = cluster.get(JOBSETS, "job")
        assert jobset is not None
        assert jobset["metadata"]["ownerReferences"][0]["name"] == "launcher"
        gate.let(2)
        assert process.end() == 0, process.log
    assert len([each for each in cluster.history if each[1:3] == (JOBSETS, "ADDED")]) == 1
    assert (launcher.output / "saved" / "model.json").is_file()
    assert set(server.asked) == granted()


def without(verb: str) -> list[dict[str, list[str]]]:
    """The Role's rules less a verb."""
    return [
        {**rule, "verbs": [each for each in rule["verbs"] if each != verb]} for rule in role_rules()
    ]


def test_anothers_jobset_is_left_alone(
    launcher: Launcher, cluster: Cluster, server: ApiServer
) -> None:
    with launcher.run(*shell(HANG)) as process:
        process.until("up 0")
        with launcher.run(*shell(MODEL)) as second:
            assert second.end() == 2
        assert "JobSet job is running, with another spec; give another --name" in second.error
        jobset = cluster.get(JOBSETS, "job")
        assert jobset is not None
        assert "deletionTimestamp" not in jobset["metadata"]
        process.send(signal.SIGTERM)
        process.end()


def test_one_that_failed_is_made_anew(launcher: Launcher, cluster: Cluster) -> None:
    """Such as a launcher leaves that was killed with its JobSet about to fail."""
    with launcher.run(*shell("exit 2")) as process:
        assert process.end() == 2
    cluster.wait(lambda: is_gone(cluster))
    failed = next(item for _, kind, _, item in cluster.history if kind == JOBSETS)
    with cluster.changed:
        cluster.create_jobset(failed)
    cluster.wait(lambda: cluster.get(JOBSETS, "job")["status"].get("terminalState"))  # type: ignore[index]
    with launcher.run(*shell("exit 2")) as process:
        process.until("waiting for the end of an earlier one")
        process.until("JobSet job: made")
        assert process.end() == 2


# The API server's moods


def test_watches_that_expire_and_connections_that_break(
    launcher: Launcher, cluster: Cluster, server: ApiServer, gate: Gate
) -> None:
    script = f"""
for number in 1 2 3 4; do echo "line $number of $JOB_COMPLETION_INDEX"; read line <{gate}; done
{MODEL}"""
    with launcher.run(*shell(script), flags=("--workers=1",)) as process:
        process.until("line 1 of 0")
        server.break_streams()  # watches and log
        gate.let()
        process.until("line 2 of 0")
        cluster.compact()
        server.end_watches()  # asked for again from a version that is gone: 410
        gate.let()
        process.until("line 3 of 0")
        server.faults += [429, 503, 500]
        server.break_streams()
        gate.let()
        process.until("line 4 of 0")
        gate.let()
        assert process.end() == 0, process.log
    for number in range(1, 5):
        assert process.log.count(f"line {number} of 0") == 1


def test_the_api_server_restarts(
    launcher: Launcher,
    cluster: Cluster,
    server: ApiServer,
    context: ssl.SSLContext,
    gate: Gate,
) -> None:
    with launcher.run(
        *shell(f"echo up $JOB_COMPLETION_INDEX; read line <{gate}; {MODEL}"), flags=("--workers=1",)
    ) as process:
        process.until("up 0")
        server.stop()
        process.until("Kubernetes")  # is missed
        gate.let()
        cluster.wait(lambda: cluster.get(JOBSETS, "job")["status"].get("terminalState"))  # type: ignore[index]
        again = ApiServer(cluster, context, server.server_port)
        again.rules = role_rules()
        try:
            assert process.end() == 0, process.log
            cluster.wait(lambda: is_gone(cluster))
        finally:
            again.stop()


def test_busy_at_first(launcher: Launcher, server: ApiServer) -> None:
    server.faults += [429, 503]
    with launcher.run(*shell(MODEL)) as process:
        assert process.end() == 0, process.log
    assert "trying again for 30 seconds at most" in process.log


@pytest.mark.parametrize("verb", ["create", "watch", "delete"])
def test_a_right_that_is_missing(
    launcher: Launcher, cluster: Cluster, server: ApiServer, verb: str
) -> None:
    server.rules = without(verb)
    with launcher.run(*shell(MODEL)) as process:
        assert process.end() == 1
    assert "deploy/kubernetes/base/training has the rights" in process.error


def test_no_jobset_controller(launcher: Launcher, server: ApiServer) -> None:
    server.has_jobsets = False
    with launcher.run(*shell(MODEL)) as process:
        assert process.end() == 1
    assert "is JobSet (jobset.x-k8s.io/v1alpha2) installed there?" in process.error


def test_a_token_that_is_not_accepted(launcher: Launcher, server: ApiServer) -> None:
    server.tokens = {"another"}
    with launcher.run(*shell(MODEL)) as process:
        assert process.end() == 1
    assert "token" in process.error
    assert "Traceback" not in process.log


def test_workers_that_write_nothing(launcher: Launcher) -> None:
    with launcher.run(*shell("exit 0")) as process:
        assert process.end() == 1
    assert "the workers ended well, but wrote nothing there" in process.error
