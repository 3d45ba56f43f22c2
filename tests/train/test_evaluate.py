"""Evaluation and model card, by a captioner of few words that needs no TensorFlow."""

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from capstan.errors import SettingError
from capstan.records import Feature, row_key
from capstan.train.card import model_card
from capstan.train.consolidate import ConsolidateSettings as Division
from capstan.train.dataset import Corpus, load_corpus
from capstan.train.evaluate import Evaluation, _derangement, evaluate, write_evaluation
from capstan.train.history import Epoch, History
from capstan.train.search import Search
from capstan.train.settings import PROFILES, TrainingPlan, TrainSettings
from capstan.train.vocabulary import build_vocabulary
from tests.train.conftest import COLOURS, EXTRACTOR, SHAPES, World

Say = Callable[[Sequence[float]], str]


def see(vector: Sequence[float]) -> str:
    """What the features of a picture of `World` show."""
    return f"a {COLOURS[int(np.argmax(vector[:4]))]} {SHAPES[int(np.argmax(vector[4:7]))]}"


def captioner(corpus: Corpus, say: Say = see, max_length: int = 6) -> Any:
    """Stands in for `capstan.train.captioner.Captioner`."""
    return SimpleNamespace(
        extractor=corpus.extractor,
        cleaning=corpus.cleaning,
        max_length=max_length,
        search=Search(),
        vocabulary=build_vocabulary(corpus.select("train").column("cleaned"), 1, 100),
        network=SimpleNamespace(count_params=lambda: 123_456),
        captions=lambda features: [
            (SimpleNamespace(text=say(vector), log_probability=-1.5),) for vector in features
        ],
    )


@pytest.fixture(scope="module")
def corpus(shapes: Path) -> Corpus:
    return load_corpus(shapes)


@pytest.fixture(scope="module")
def seeing(corpus: Corpus) -> Evaluation:
    return evaluate(captioner(corpus), corpus, "test")


# Evaluation


def test_one_who_sees_says_it_right(seeing: Evaluation) -> None:
    assert (seeing.model.exact, seeing.model.rouge_l) == (1, 1)
    assert seeing.model.bleu[2] == pytest.approx(1)
    assert seeing.model.cider_d > 5
    for other in (seeing.shuffled, seeing.blind):
        assert other.exact < 0.5
        assert other.cider_d < seeing.model.cider_d / 2
    assert seeing.blind_caption.startswith("a ")


def test_one_who_is_blind_does_not_beat_the_blind(corpus: Corpus) -> None:
    blind = evaluate(captioner(corpus, lambda _: "a red star"), corpus, "test")
    assert blind.model == blind.shuffled == blind.blind
    assert blind.wording.distinct == 1


def test_pictures_have_scores_of_their_own(corpus: Corpus) -> None:
    def half(vector: Sequence[float]) -> str:
        return see(vector) if np.argmax(vector[:4]) < 2 else "zebras"

    predictions = evaluate(captioner(corpus, half), corpus, "test").predictions
    right = [one for one in predictions if one.caption != "zebras"]
    assert 0 < len(right) < len(predictions)
    assert all(one.scores.rouge_l == 1 and one.scores.cider_d > 5 for one in right)
    wrong = [one.scores for one in predictions if one.caption == "zebras"]
    assert all((one.cider_d, one.rouge_l, one.bleu_4) == (0, 0, 0) for one in wrong)


def test_captions_of_one_picture_are_its_references(world: World) -> None:
    pictures = ["one", "one", "two"]
    rows = [
        Feature(row_key("c/0", i), hashlib.sha256(name.encode()).hexdigest(), i)
        for i, name in enumerate(pictures)
    ]
    lines = [b"A cat.\thttp://c.test/\n", b"A black cat.\thttp://c.test/\n", b"Dogs.\thttp://d/\n"]
    world.add_chunk("c/0", lines, rows, np.zeros((3, 12)), EXTRACTOR)
    world.add_shapes("t/0", 20)
    corpus = load_corpus(world.consolidate(Division(assignments=(("c/*", "test"), ("*", "train")))))
    said = evaluate(captioner(corpus, lambda _: "a cat"), corpus, "test")
    assert (said.captions, len(said.predictions)) == (3, 2)
    assert said.predictions[0].references == ("a cat", "a black cat")
    assert said.model.exact == 0.5


def test_wording_is_counted(corpus: Corpus) -> None:
    def wordy(vector: Sequence[float]) -> str:
        return see(vector) if np.argmax(vector[:4]) < 2 else "not so very often seen"

    wording = evaluate(captioner(corpus, wordy, max_length=5), corpus, "test").wording
    assert wording.reference_words.mean == wording.words.median == 3
    assert wording.words.longest == 5
    assert 0 < wording.cut < 1
    assert wording.in_training == pytest.approx(1 - wording.cut)
    assert 3 < wording.distinct <= 7


def test_table_is_for_people(seeing: Evaluation) -> None:
    lines = seeing.table().splitlines()
    assert max(map(len, lines)) <= 100
    assert lines[0].startswith("test: ")
    for name in (
        "CIDEr-D ",
        "ROUGE-L ",
        "BLEU-4 (tutorial) ",
        "BLEU-4 (tutorial, startseq and endseq counted) ",
        "BLEU-4 (COCO) ",
        "exact ",
    ):
        assert sum(line.startswith(name) for line in lines) == 1
    assert "beam 3" in seeing.table()


def test_what_is_written(seeing: Evaluation, tmp_path: Path) -> None:
    write_evaluation(tmp_path, seeing)
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert (metrics["format"], metrics["version"]) == ("capstan-metrics", 1)
    for who in ("model", "shuffled", "blind"):
        scores = metrics[who]
        assert {len(scores[name]) for name in ("bleu", "bleu_marked", "bleu_coco")} == {4}
        assert {"cider_d", "rouge_l", "exact"} <= set(scores)
    assert metrics["wording"]["words"]["mean"] == 3
    assert metrics["search"]["beam"] == 3
    lines = (tmp_path / "predictions.jsonl").read_text().splitlines()
    assert len(lines) == metrics["pictures"]
    assert list(json.loads(lines[0])) == [
        *("key", "sha256", "references", "caption", "log_probability"),
        *("cider_d", "rouge_l", "bleu_4"),
    ]
    mean = np.mean([json.loads(line)["cider_d"] for line in lines])
    assert metrics["model"]["cider_d"] == pytest.approx(mean)


def test_a_split_without_pictures(corpus: Corpus) -> None:
    with pytest.raises(SettingError, match="--split"):
        evaluate(captioner(corpus), corpus.select("train"), "test")


@given(st.integers(2, 200))
def test_shuffling_moves_every_picture(count: int) -> None:
    order = _derangement(count)
    assert sorted(order) == list(range(count))
    assert all(i != j for i, j in enumerate(order))


# The model card


def epoch(number: int, validation_loss: float | None) -> Epoch:
    return Epoch(
        epoch=number,
        step=10 * number,
        seconds=30.0,
        train_loss=2.5,
        validation_loss=validation_loss,
        learning_rate=0.001,
        captions_per_second=1000.0 * number,
        waited=0.0,
    )


def card(corpus: Corpus, evaluation: Evaluation, validated: bool = True) -> tuple[Any, str]:
    """Front matter and text of the card."""
    history = History([epoch(n, 3.0 - n / 10 if validated else None) for n in (1, 2, 3)], best=2)
    plan = TrainingPlan(
        Path("model"), "small", PROFILES["small"], TrainSettings(batch_size=77), "f" * 64
    )
    text = model_card(plan, corpus, captioner(corpus), history, evaluation)
    start, front, body = text.split("---\n", 2)
    assert start == ""
    return yaml.safe_load(front), body


def test_card_has_what_hubs_read(corpus: Corpus, seeing: Evaluation) -> None:
    front, _ = card(corpus, seeing)
    assert front["pipeline_tag"] == "image-to-text"
    assert front["library_name"] == "keras"
    assert {"cider", "rouge", "bleu"} == set(front["metrics"])
    (model,) = front["model-index"]
    (result,) = model["results"]
    assert result["task"]["type"] == "image-to-text"
    assert result["dataset"]["name"] == "shapes_tsv"
    assert result["dataset"]["split"] == "test"
    values = {metric["name"]: metric["value"] for metric in result["metrics"]}
    assert values == pytest.approx(seeing.model.named(), abs=1e-4)
    assert {metric["type"] for metric in result["metrics"]} <= {*front["metrics"], "exact_match"}


def test_card_tells_what_was_measured(corpus: Corpus, seeing: Evaluation) -> None:
    _, text = card(corpus, seeing)
    rows = seeing.captions
    for words in (
        "# Image captioner",
        f"| test | {rows} | {rows} | shapes_tsv |",
        EXTRACTOR.weights_sha256,
        "cleaned as `standard`",
        "123,456 weights",
        "Batch size: 77",
        "3 epochs, weights of epoch 2",
        "2.800 in validation",
        "2,000 captions/s, 90 s in all",
        "beam 3",
        "| BLEU-4 (COCO) |",
        "Best by CIDEr-D",
        "Worst by CIDEr-D",
        "0.0% of the words that people used of the test pictures",
        "Photos and captions stay their owners'.",
    ):
        assert words in text, words


def test_card_admits_what_was_missing(corpus: Corpus) -> None:
    validated = evaluate(captioner(corpus), corpus, "validation")
    _, text = card(corpus, validated, validated=False)
    assert "There was no test split to judge by" in text
    assert "no validation split" in text


def test_card_of_words_it_does_not_know(corpus: Corpus, seeing: Evaluation) -> None:
    known = captioner(corpus)
    known.vocabulary = build_vocabulary(corpus.column("cleaned"), 90, 100)  # few words
    plan = TrainingPlan(Path("model"), "small", PROFILES["small"], TrainSettings(), "f" * 64)
    text = model_card(plan, corpus, known, History([epoch(1, None)], best=1), seeing)
    share = float(text.split("says no others; ")[1].split("%")[0])
    words = " ".join(corpus.select("test").column("cleaned").to_pylist()).split()
    strange = [word not in known.vocabulary.words for word in words]
    assert 0.2 < np.mean(strange) < 0.8
    assert share == pytest.approx(100 * np.mean(strange), abs=0.06)
