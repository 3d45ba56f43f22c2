"""A real training under the launcher: two workers, one of which is killed on the way."""

import sys
from pathlib import Path

from capstan.train.consolidate import ConsolidateSettings
from tests.deploy.jobset.conftest import Launcher, is_gone
from tests.deploy.jobset.local_cluster import Cluster
from tests.train.conftest import World

COMMAND = [
    *(sys.executable, "-m", "capstan.cli", "train", "--profile", "small", "--batch-size", "16"),
    *("--min-count", "1", "--learning-rate", "0.01", "--epochs", "8", "--patience", "99"),
    *("--precision", "float32"),
]


def test_two_workers_train_and_survive_a_loss(
    launcher: Launcher, cluster: Cluster, tmp_path: Path
) -> None:
    world = World(tmp_path / "world")
    world.add_shapes("shapes.tsv/0000000000000000", 200)
    launcher.input = world.consolidate(ConsolidateSettings(validation_share=0.1, test_share=0.1))
    with launcher.run(*COMMAND) as process:
        process.until("epoch 1:")
        cluster.kill("job", 1, "OOMKilled")
        process.until("restarted once")
        process.until("going on after epoch")
        assert process.end() == 0, process.log
    assert "worker 1 was killed by SIGKILL (OOMKilled)" in process.log
    assert "epoch 8:" in process.log
    saved = {path.name for path in (launcher.output / "saved").iterdir()}
    assert saved == {"saved_model.keras", "vocabulary.json", "model.json"}
    assert (launcher.output / "model_card.md").is_file()
    assert not list(launcher.volume.iterdir())
    cluster.wait(lambda: is_gone(cluster))
