"""Network, fitting, decoding, saving and the commands; the one place that loads TensorFlow."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from benchmarks.train import prefixes, tutorial_model
from capstan.errors import DataError, SettingError
from capstan.train.captioner import Captioner, load_captioner, save_description, save_network
from capstan.train.dataset import (
    Corpus,
    Examples,
    epoch_order,
    load_corpus,
    pictures,
    read_features,
)
from capstan.train.evaluate import evaluate
from capstan.train.fit import fit
from capstan.train.history import CHECKPOINTS, History, checkpoints, restore
from capstan.train.losses import word_losses
from capstan.train.model import arithmetic, build_model, decoder_states
from capstan.train.settings import PROFILES, Architecture, TrainSettings
from capstan.train.trainer import Trainer
from capstan.train.vocabulary import Vocabulary, build_vocabulary

TINY = Architecture(image=16, embedding=8, language=16, text=16, decoder=32, dropout=0.1)
SETTINGS = TrainSettings(
    epochs=4, batch_size=16, learning_rate=0.03, min_count=1, max_length=6, patience=9
)


def random_features(count: int) -> np.ndarray:
    return np.random.default_rng(0).random((count, 12), dtype=np.float32)


def tiny_model(architecture: Architecture = TINY, words: int = 20) -> keras.Model:
    keras.utils.set_random_seed(1)
    return build_model(architecture, words, random_features(50))


@pytest.fixture(scope="module")
def corpus(shapes: Path) -> Corpus:
    return load_corpus(shapes)


@pytest.fixture(scope="module")
def vocabulary(corpus: Corpus) -> Vocabulary:
    return build_vocabulary(corpus.column("cleaned"), 1, 100)


def make_trainer(corpus: Corpus, vocabulary: Vocabulary, settings: TrainSettings) -> Trainer:
    keras.utils.set_random_seed(settings.seed)
    training = corpus.select("train")
    model = build_model(TINY, len(vocabulary), read_features(training))
    return Trainer(model, Examples(training, vocabulary, 6), settings)


def parts(corpus: Corpus, vocabulary: Vocabulary) -> tuple[Examples, Examples]:
    train, validation = (
        Examples(corpus.select(split), vocabulary, 6) for split in ("train", "validation")
    )
    return train, validation


# The network


@pytest.mark.parametrize("name", sorted(PROFILES))
def test_profiles_build(name: str) -> None:
    small = replace(PROFILES[name], image=8, decoder=8)
    model = tiny_model(small)
    assert model([random_features(3), np.ones((3, 5), np.int32)]).shape == (3, 5, 20)


def test_loss_is_a_plain_masked_loss() -> None:
    model = tiny_model()
    words = np.array([[1, 5, 6, 7], [1, 9, 0, 0]], np.int32)
    targets = np.array([[5, 6, 7, 2], [9, 2, 0, 0]], np.int32)
    features = random_features(2)
    objective, total, count = word_losses(
        model.get_layer("logits"), decoder_states(model)([features, words]), targets
    )
    logits = model([features, words]).numpy().astype(np.float64)
    log_probabilities = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    expected = -sum(
        log_probabilities[row, step, targets[row, step]]
        for row, step in zip(*np.nonzero(targets), strict=True)
    )
    assert float(count) == 6
    assert float(total) == pytest.approx(expected, rel=1e-5)
    assert float(objective) == float(total)
    smoothed = word_losses(
        model.get_layer("logits"), decoder_states(model)([features, words]), targets, 0.2
    )
    even = -log_probabilities[targets > 0].mean(axis=-1).sum()
    assert float(smoothed[0]) == pytest.approx(0.8 * expected + 0.2 * even, rel=1e-5)
    assert float(smoothed[1]) == pytest.approx(expected, rel=1e-5)


def test_one_pass_over_a_caption_is_the_tutorials_sample_per_prefix() -> None:
    """Loss and gradients of its network, inputs and targets, with our weights, against ours."""
    model = tiny_model(PROFILES["tutorial"])
    theirs = tutorial_model(20, longest=6, feature_size=12)
    names = ("image", "embedding", "language", "text", "decoder", "hidden", "logits")
    for name in names:
        theirs.get_layer(name).set_weights(model.get_layer(name).get_weights())
    features = random_features(3)
    words = np.array([[1, 5, 6, 7, 8, 0], [1, 9, 0, 0, 0, 0], [1, 6, 6, 4, 0, 0]], np.int32)
    targets = np.array([[5, 6, 7, 8, 2, 0], [9, 2, 0, 0, 0, 0], [6, 6, 4, 2, 0, 0]], np.int32)
    inputs, one_hot = prefixes(features, words, targets, longest=6, vocabulary=20)
    with tf.GradientTape(persistent=True) as tape:
        states = decoder_states(model)([features, words])
        ours, _, count = word_losses(model.get_layer("logits"), states, targets)
        per_prefix = keras.losses.categorical_crossentropy(one_hot, theirs(inputs))
        summed = tf.reduce_sum(per_prefix)
    assert float(count) == len(per_prefix) == 11
    assert float(ours) == pytest.approx(float(summed), rel=1e-5)
    for name in names:
        for one, other in zip(
            tape.gradient(ours, model.get_layer(name).trainable_variables),
            tape.gradient(summed, theirs.get_layer(name).trainable_variables),
            strict=True,
        ):
            a, b = (tf.convert_to_tensor(gradient).numpy() for gradient in (one, other))
            assert np.abs(a).max() > 0
            assert np.allclose(a, b, rtol=1e-3, atol=1e-5), name


def test_padding_changes_nothing() -> None:
    model, features = tiny_model(), random_features(2)
    words = np.array([[1, 5, 6], [1, 7, 8]], np.int32)
    padded = np.pad(words, [(0, 0), (0, 5)])
    assert np.allclose(model([features, words]), model([features, padded])[:, :3], atol=1e-6)


def test_features_are_normalised() -> None:
    features = random_features(500) * np.linspace(1, 50, 12) + 7
    features[:, 0] = 3  # never varies
    model = build_model(TINY, 20, features.astype(np.float32))
    normalised = keras.Model(model.inputs[0], model.get_layer("normalise").output)
    found = normalised(features).numpy()
    assert np.isfinite(found).all()
    assert np.abs(found.mean(axis=0)).max() < 0.01
    assert np.allclose(found[:, 6:].std(axis=0), 1, atol=0.05)


def test_words_start_from_the_vectors_given() -> None:
    vectors = np.random.default_rng(0).random((20, 8)).astype(np.float32)
    model = build_model(TINY, 20, random_features(3), vectors)
    assert np.array_equal(model.get_layer("embedding").get_weights()[0], vectors)


def test_bfloat16_is_for_arithmetic_only() -> None:
    features, words = random_features(4), np.array([[1, 5, 6, 7]] * 4, np.int32)
    plain = tiny_model()
    with arithmetic("bfloat16"):
        quick = tiny_model()
    quick.set_weights(plain.get_weights())
    assert quick.get_layer("logits").compute_dtype == "bfloat16"
    assert {variable.dtype for variable in quick.trainable_variables} == {"float32"}
    losses = [
        float(word_losses(m.get_layer("logits"), decoder_states(m)([features, words]), words)[1])
        for m in (plain, quick)
    ]
    assert losses[0] == pytest.approx(losses[1], rel=0.01)
    assert keras.config.dtype_policy().name == "float32"


# Fitting


New = Callable[[], Trainer]
Whole = tuple[Path, list[np.ndarray]]


@pytest.fixture(scope="module")
def new(corpus: Corpus, vocabulary: Vocabulary) -> New:
    """Make the only trainer with SETTINGS as good as new: its steps are traced but once."""
    trainer = make_trainer(corpus, vocabulary, SETTINGS)
    start = [variable.numpy() for variable in trainer.variables]

    def as_new() -> Trainer:
        for variable, value in zip(trainer.variables, start, strict=True):
            variable.assign(value)
        return trainer

    return as_new


@pytest.fixture(scope="module")
def whole(
    corpus: Corpus, vocabulary: Vocabulary, new: New, tmp_path_factory: pytest.TempPathFactory
) -> Whole:
    """A run of four epochs that nothing stopped, and all values at its end."""
    output, trainer = tmp_path_factory.mktemp("whole"), new()
    fit(trainer, parts(corpus, vocabulary), SETTINGS, output, "x")
    return output, [variable.numpy() for variable in trainer.variables]


def test_fitting_lowers_the_loss(whole: Whole) -> None:
    output, _ = whole
    curves = [json.loads(line) for line in (output / "curves.jsonl").read_text().splitlines()]
    assert [curve["epoch"] for curve in curves] == [1, 2, 3, 4]
    assert curves[-1]["validation_loss"] < curves[0]["validation_loss"] * 0.8
    assert [curve["step"] for curve in curves] == [16, 32, 48, 64]
    assert set(curves[0]) == {
        "epoch",
        "step",
        "seconds",
        "train_loss",
        "validation_loss",
        "learning_rate",
        "captions_per_second",
        "waited",
    }
    assert list((output / "tensorboard").glob("events*"))


def test_early_stopping_keeps_the_best_weights(
    corpus: Corpus, vocabulary: Vocabulary, tmp_path: Path
) -> None:
    settings = replace(SETTINGS, epochs=50, learning_rate=0.3, patience=2)
    trainer = make_trainer(corpus, vocabulary, settings)
    examples = parts(corpus, vocabulary)
    history = fit(trainer, examples, settings, tmp_path, "x")
    assert len(history.curves) < 50
    assert history.best == len(history.curves) - 2
    (batch,) = examples[1].batches([np.arange(len(examples[1]))])
    total, count = trainer.loss(batch.features, batch.words, batch.targets)
    best = history.curves[history.best - 1].validation_loss
    assert float(total / count) == pytest.approx(best, rel=1e-4)


def test_a_stopped_run_goes_on_as_if_it_had_not_stopped(
    whole: Whole,
    corpus: Corpus,
    vocabulary: Vocabulary,
    new: New,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    examples = parts(corpus, vocabulary)
    stopped = new()
    with monkeypatch.context() as patch:
        patch.setattr(History, "is_over", lambda self, _: len(self.curves) == 2)
        fit(stopped, examples, SETTINGS, tmp_path, "x")
    for variable in stopped.variables:  # what a new process would begin with is of no account
        variable.assign(np.full(variable.shape, 1))
    assert restore(tmp_path / CHECKPOINTS, stopped.variables, "other settings") is None
    history = fit(stopped, examples, SETTINGS, tmp_path, "x")
    assert [epoch.epoch for epoch in history.curves] == [1, 2, 3, 4]
    for ours, theirs in zip(stopped.variables, whole[1], strict=True):
        assert np.array_equal(ours.numpy(), theirs), ours.path


def test_a_damaged_checkpoint_gives_way_to_the_one_before(
    whole: Whole,
    corpus: Corpus,
    vocabulary: Vocabulary,
    new: New,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    shutil.copytree(whole[0] / CHECKPOINTS, tmp_path / CHECKPOINTS)
    before, last = checkpoints(tmp_path / CHECKPOINTS)
    assert (before.name, last.name) == ("epoch-000003.npz", "epoch-000004.npz")
    content = last.read_bytes()
    trainer = new()
    for damage in (content[: len(content) // 2], content[:-2000] + bytes(2000), b""):
        last.write_bytes(damage)
        caplog.clear()
        history = restore(tmp_path / CHECKPOINTS, trainer.variables, "x")
        assert history is not None
        assert len(history.curves) == 3
        assert "epoch-000004.npz: damaged" in caplog.text
    history = fit(trainer, parts(corpus, vocabulary), SETTINGS, tmp_path, "x")
    assert len(history.curves) == 4
    for ours, theirs in zip(trainer.variables, whole[1], strict=True):
        assert np.array_equal(ours.numpy(), theirs), ours.path


def test_an_epoch_may_be_a_part_of_a_pass(
    corpus: Corpus, vocabulary: Vocabulary, tmp_path: Path
) -> None:
    settings = replace(SETTINGS, epochs=3, epoch_captions=100)
    examples = parts(corpus, vocabulary)
    history = fit(make_trainer(corpus, vocabulary, settings), examples, settings, tmp_path, "x")
    assert len(examples[0]) == 241  # of which 80, 80 and 81 make a pass
    assert [curve.step for curve in history.curves] == [5, 10, 16]
    assert history.curves[-1].learning_rate == pytest.approx(SETTINGS.learning_rate / 100)


def test_averaged_weights_follow_the_last(corpus: Corpus, vocabulary: Vocabulary) -> None:
    trainer = make_trainer(corpus, vocabulary, replace(SETTINGS, average=0.9))
    examples, _ = parts(corpus, vocabulary)
    expected = [weight.numpy() for weight in trainer.model.trainable_variables]
    order = epoch_order(examples.lengths, SETTINGS.batch_size, 0, 0)[:3]
    for step, batch in enumerate(examples.batches(order)):
        trainer.train_step(batch.features, batch.words, batch.targets)
        decay = min(0.9, (2 + step) / (11 + step))
        last = [weight.numpy() for weight in trainer.model.trainable_variables]
        expected = [decay * a + (1 - decay) * w for a, w in zip(expected, last, strict=True)]
    with trainer.averaged():
        for weight, average in zip(trainer.model.trainable_variables, expected, strict=True):
            assert np.allclose(weight.numpy(), average, atol=1e-6)
    for weight, value in zip(trainer.model.trainable_variables, last, strict=True):
        assert np.array_equal(weight.numpy(), value)


# The saved model


@pytest.fixture
def saved(corpus: Corpus, vocabulary: Vocabulary, tmp_path: Path) -> Path:
    model = build_model(TINY, len(vocabulary), read_features(corpus))
    captioner = Captioner(model, vocabulary, corpus.extractor, corpus.cleaning, 6)
    save_network(tmp_path / "saved", captioner)
    save_description(tmp_path / "saved", captioner, {"fingerprint": "x"})
    expected = captioner.captions(random_features(9))
    assert load_captioner(tmp_path / "saved").captions(random_features(9)) == expected
    return tmp_path / "saved"


def test_the_network_loads_in_plain_keras(saved: Path) -> None:
    code = (
        "import keras, sys; model = keras.models.load_model(sys.argv[1]);"
        "assert not [name for name in sys.modules if name.split('.')[0] == 'capstan']"
    )
    subprocess.run(
        [sys.executable, "-c", code, str(saved / "saved_model.keras")], check=True, timeout=120
    )


@pytest.mark.parametrize("name", ["model.json", "vocabulary.json", "saved_model.keras"])
def test_an_incomplete_model_names_the_missing_file(saved: Path, name: str) -> None:
    (saved / name).unlink()
    with pytest.raises(DataError, match=rf"{name}: missing; .*capstan train"):
        load_captioner(saved)


def test_a_model_of_another_version(saved: Path) -> None:
    path = saved / "model.json"
    path.write_text(path.read_text().replace('"version": 1', '"version": 2'))
    with pytest.raises(DataError, match=r"model\.json: capstan-model version 2"):
        load_captioner(saved)


def test_a_truncated_network(saved: Path) -> None:
    path = saved / "saved_model.keras"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(DataError, match=r"saved_model\.keras: not a Keras model"):
        load_captioner(saved)


def test_anothers_vocabulary(saved: Path) -> None:
    path = saved / "vocabulary.json"
    path.write_text(path.read_text().replace('"red",', '"red", "crimson",'))
    with pytest.raises(DataError, match=r"vocabulary\.json: .* words, but the network says"):
        load_captioner(saved)


def test_features_of_another_size(saved: Path) -> None:
    with pytest.raises(DataError, match="N x 12"):
        load_captioner(saved).captions(np.zeros((1, 5)))


def test_shards_of_another_extractor_are_not_scored(saved: Path, corpus: Corpus) -> None:
    captioner = load_captioner(saved)
    other = replace(corpus, extractor=replace(corpus.extractor, image_size=224))
    with pytest.raises(DataError, match="the model's extractor"):
        evaluate(captioner, other, "test")
    with pytest.raises(DataError, match="--cleaning standard"):
        evaluate(captioner, replace(corpus, cleaning="tutorial"), "test")


# The commands


def test_train_and_evaluate(
    shapes: Path, tmp_path: Path, capstan: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    model = tmp_path / "model"
    flags: list[Any] = ["train", "--input", shapes, "--output", model, "--profile", "small"]
    flags += ["--epochs", "15", "--batch-size", "16", "--learning-rate", "0.01", "--min-count", "1"]
    vectors = tmp_path / "vectors.txt"
    vectors.write_text("".join(f"{word} 0.5 {i} 1\n" for i, word in enumerate(("red", "star"))))
    flags += ["--embeddings", vectors]
    assert capstan(*flags) == 0
    description = json.loads((model / "saved" / "model.json").read_text())
    assert description["architecture"]["embedding"] == 3
    assert sorted(path.name for path in model.iterdir()) == [
        "curves.jsonl",
        "metrics.json",
        "model_card.md",
        "predictions.jsonl",
        "saved",
        "tensorboard",
    ]
    metrics = json.loads((model / "metrics.json").read_text())
    assert (metrics["format"], metrics["version"]) == ("capstan-metrics", 1)
    assert metrics["split"] == "test"
    assert metrics["model"]["exact"] > 0.95
    assert metrics["model"]["bleu"][2] > 0.95  # captions of three words have no BLEU-4
    assert metrics["shuffled"]["exact"] < 0.4
    assert metrics["blind"]["exact"] < 0.4
    lines = [json.loads(line) for line in (model / "predictions.jsonl").read_text().splitlines()]
    assert len(lines) == metrics["pictures"]
    assert {"key", "sha256", "references", "caption", "cider_d"} <= set(lines[0])
    assert "shuffled features" in (model / "model_card.md").read_text()

    before = {path: path.stat().st_mtime_ns for path in model.rglob("*")}
    assert capstan(*flags) == 0
    assert {path: path.stat().st_mtime_ns for path in model.rglob("*")} == before

    capsys.readouterr()
    judged = tmp_path / "judged"
    words = ["evaluate", "--model", model / "saved", "--input", shapes, "--output", judged]
    assert capstan(*words) == 0
    assert "BLEU-4" in capsys.readouterr().out
    assert (judged / "metrics.json").read_bytes() == (model / "metrics.json").read_bytes()
    assert not (model / CHECKPOINTS).exists()


def test_no_training_example(world: Any, tmp_path: Path, capstan: Callable[..., int]) -> None:
    from capstan.train.consolidate import ConsolidateSettings as Division

    world.add_shapes("dev.tsv/0", 5)
    source = world.consolidate(Division(assignments=(("*", "test"),)))
    assert capstan("train", "--input", source, "--output", tmp_path / "model") == 1


def test_a_diverging_run_says_so(
    corpus: Corpus, vocabulary: Vocabulary, new: New, tmp_path: Path
) -> None:
    trainer = new()
    trainer.model.get_layer("logits").bias.assign(np.full(len(vocabulary), np.nan))
    with pytest.raises(SettingError, match="--learning-rate"):
        fit(trainer, parts(corpus, vocabulary), SETTINGS, tmp_path, "x")
    assert not (tmp_path / CHECKPOINTS).exists()


def test_bad_settings(shapes: Path, tmp_path: Path, capstan: Callable[..., int]) -> None:
    flags = ["train", "--input", shapes, "--output", tmp_path / "model"]
    assert capstan(*flags, "--epochs", "0") == 2
    assert capstan(*flags, "--dropout", "1.5") == 2
    assert capstan(*flags, "--label-smoothing", "1") == 2
    assert capstan(*flags, "--embeddings", tmp_path / "nowhere.txt") == 2
    assert capstan(*flags, "--max-words", "4") == 2
    assert capstan("train", "--input", tmp_path / "nowhere", "--output", tmp_path) == 2


def test_pictures_count_once(corpus: Corpus) -> None:
    doubled = corpus.take(np.concatenate([np.arange(300), np.arange(300)]))
    assert pictures(doubled).tolist() == list(range(300))
