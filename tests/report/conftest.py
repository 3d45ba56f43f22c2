"""A made-up run folder, in the true formats, with pictures of one shape each."""

import hashlib
import io
import json
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image, ImageDraw

from capstan import feature_shards, records, shards
from capstan.ingest.statistics import RowStatistics, RunStatistics
from capstan.records import Answer, Extractor, Failure, Feature, Outcome, Reason, Row
from capstan.schemas import EXAMPLE_SCHEMA
from tests.ingest.conftest import pictures, settings, web

__all__ = ["pictures", "settings", "web"]  # fixtures

START = 1_760_000_000.0
COLOURS = ("red", "green", "blue", "gold", "purple")
KINDS = ("circle", "square")
FAULTS = (
    *(Reason.NOT_FOUND,) * 5,
    *(Reason.TIMEOUT,) * 3,
    *(Reason.NOT_AN_IMAGE,) * 2,
    Reason.CORRUPT_IMAGE,
    Reason.SERVER_ERROR,
)
EXTRACTOR = Extractor("resnet50-avg", "random:7", "ab" * 32, 224, "caffe-center-crop")
METRICS: dict[str, Any] = {
    "format": "capstan-metrics",
    "version": 1,
    "split": "validation",
    "pictures": 340,
    "captions": 1700,
    "model": {
        "cider_d": 6.123,
        "rouge_l": 0.961,
        "bleu": [0.97, 0.95, 0.93, 0.91],
        "bleu_marked": [0.98, 0.96, 0.94, 0.92],
        "bleu_coco": [0.97, 0.95, 0.925, 0.905],
        "exact": 0.931,
    },
    "shuffled": {
        "cider_d": 0.234,
        "rouge_l": 0.345,
        "bleu": [0.51, 0.34, 0.25, 0.18],
        "bleu_marked": [0.61, 0.44, 0.35, 0.28],
        "bleu_coco": [0.51, 0.34, 0.24, 0.17],
        "exact": 0.061,
    },
    "blind": {
        "cider_d": 0.456,
        "rouge_l": 0.398,
        "bleu": [0.55, 0.39, 0.28, 0.19],
        "bleu_marked": [0.65, 0.49, 0.38, 0.29],
        "bleu_coco": [0.55, 0.39, 0.27, 0.185],
        "exact": 0.02,
        "caption": "a red circle",
    },
    "wording": {
        "words": {"mean": 3.04, "median": 3.0, "longest": 5},
        "reference_words": {"mean": 3.01, "median": 3.0, "longest": 4},
        "limit": 40,
        "cut": 0.002,
        "distinct": 17,
        "in_training": 0.987,
    },
    "search": {"beam": 3, "length_penalty": 0.7},
}
OLD_METRICS = METRICS | {  # as written before there were more figures
    who: {"bleu": METRICS[who]["bleu"], "exact": METRICS[who]["exact"]}
    for who in ("model", "shuffled", "blind")
}
del OLD_METRICS["wording"], OLD_METRICS["search"]
ALL = ("images", "features", "consolidate", "model", "predict")


@dataclass(frozen=True)
class Plan:
    """What run to make up."""

    rows: int = 60
    chunks: int = 2
    stages: Sequence[str] = ALL
    finished: bool = True
    caption: Callable[[str], str] = field(default=lambda caption: caption)  # of rows and models
    url: Callable[[str], str] = field(default=lambda url: url)
    title: str = "Coloured shapes"
    notes: Sequence[str] = ("Standardised features made the captions right.",)


@pytest.fixture
def make_run(tmp_path: Path) -> Callable[[Plan], Path]:
    """A function that writes a run folder for a plan and gives its path."""

    def make(plan: Plan) -> Path:
        run = tmp_path / "run"
        write_run(run, plan)
        return run

    return make


def write_run(run: Path, plan: Plan) -> None:
    outcomes = list(_outcomes(plan))
    step = -(-len(outcomes) // plan.chunks)
    chunks = [outcomes[at : at + step] for at in range(0, len(outcomes), step)]
    for number, chunk in enumerate(chunks):
        name = f"shapes.tsv/{number:016d}"
        if "images" in plan.stages:
            shards.write_image_shard(
                run / "repos/images",
                name,
                chunk,
                {"settings": {"resize": "keep_ratio", "size": 256}},
            )
        _write_features(run, plan, name, chunk)
    if "model" in plan.stages:
        _write_model(run, plan, outcomes)
    if "predict" in plan.stages:
        _write_predictions(run, plan)
    _write_record(run, plan)
    for number, stage in enumerate(plan.stages):
        _write_traces(run, stage, START + 40 * number, plan)


def _outcomes(plan: Plan) -> Iterator[Outcome]:
    lots = random.Random(3)
    pictures = {
        words: _picture(*words)
        for colour in COLOURS
        for kind in KINDS
        for words in [(colour, kind)]
    }
    for index in range(plan.rows):
        colour, kind = lots.choice(COLOURS), lots.choice(KINDS)
        key = records.row_key(f"shapes.tsv/{index * plan.chunks // plan.rows:016d}", index)
        host = f"pictures{lots.randint(1, 14)}.example.org"
        url = plan.url(f"http://{host}/{colour}/{index}.jpg")
        row = Row(index, key, plan.caption(f"a {colour} {kind}"), url)
        if lots.random() < 0.12:
            answer = Answer(attempts=2)
            yield Outcome(row, answer, Failure(lots.choice(FAULTS)))
            continue
        data = pictures[colour, kind] + index.to_bytes(
            4
        )  # bytes after the end differ, the picture not
        sha256 = hashlib.sha256(data).hexdigest()
        image = records.Image(data, 128, 96, 128, 96, sha256)
        yield Outcome(row, Answer(200, 1, len(data), url), image)


def _picture(colour: str, kind: str) -> bytes:
    image = Image.new("RGB", (128, 96), "ivory")
    pen = ImageDraw.Draw(image)
    (pen.ellipse if kind == "circle" else pen.rectangle)((34, 18, 94, 78), fill=colour)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def _write_features(run: Path, plan: Plan, name: str, chunk: Sequence[Outcome]) -> None:
    images = [(o.row, o.result) for o in chunk if isinstance(o.result, records.Image)]
    rows = [Feature(row.key, image.sha256, at) for at, (row, image) in enumerate(images)]
    if "features" in plan.stages:
        array = np.zeros((len(rows), 8), np.float16)
        feature_shards.write_feature_shard(run / "repos/features", name, rows, array, EXTRACTOR, {})
    if "consolidate" in plan.stages:
        columns = [
            {
                "key": row.key,
                "sha256": image.sha256,
                "row": at,
                "caption": row.caption,
                "cleaned": row.caption,
                "split": "validation" if at % 10 == 0 else "train",
            }
            for at, (row, image) in enumerate(images)
        ]
        table = pa.Table.from_pylist(columns, schema=EXAMPLE_SCHEMA)
        shard = feature_shards.TrainingShard(name, EXTRACTOR, "cd" * 32, "gentle", table)
        feature_shards.write_training_shard(run / "repos/consolidate", shard)


def _write_model(run: Path, plan: Plan, outcomes: Sequence[Outcome]) -> None:
    model = run / "repos/model"
    (model / "saved").mkdir(parents=True)
    (model / "metrics.json").write_text(json.dumps(METRICS))
    curves = [
        {
            "epoch": epoch,
            "seconds": 4.2,
            "train_loss": 0.08 + 2.1 * 0.72**epoch,
            "validation_loss": 0.14 + 2.0 * 0.75**epoch + 0.002 * epoch,
            "learning_rate": 0.001,
            "captions_per_second": 2817.0,
        }
        for epoch in range(1, 19)
    ]
    _write_lines(model / "curves.jsonl", curves)
    pictures = [(o.row, o.result) for o in outcomes if isinstance(o.result, records.Image)]
    predictions = [
        {
            "key": row.key,
            "sha256": image.sha256,
            "references": [row.caption],
            "caption": plan.caption("a gold square") if at % 12 == 0 else row.caption,
            "log_probability": -0.4,
            "cider_d": 0.0 if at % 12 == 0 else 5 + at / 1000,
            "rouge_l": 0.0 if at % 12 == 0 else 1.0,
            "bleu_4": 0.0 if at % 12 == 0 else 1.0,
        }
        for at, (row, image) in enumerate(pictures)
    ]
    _write_lines(model / "predictions.jsonl", predictions[:400])
    (model / "model_card.md").write_text("# A captioner\n\nMade for a test.\n")
    (model / "saved/model.json").write_text(json.dumps({"lstm_units": 256, "vocabulary": 31}))


def _write_predictions(run: Path, plan: Plan) -> None:
    new = run / "inpredict"
    new.mkdir(parents=True)
    lines = []
    for number, colour in enumerate(COLOURS):
        name = f"{number}.png"
        Image.open(io.BytesIO(_picture(colour, "circle"))).save(new / name)
        caption = plan.caption(f"a {colour} circle" if number else "a blue circle")
        predict = run / "repos/predict"
        predict.mkdir(parents=True, exist_ok=True)
        (predict / f"{name}.txt").write_text(caption + "\n")
        described = {"file": name, "caption": caption, "log_probability": -0.2}
        (predict / f"{name}.json").write_text(json.dumps(described))
        lines.append(f"{name}\ta {colour} circle\n")
    (run / "truth.tsv").write_text("".join(lines))


def _write_record(run: Path, plan: Plan) -> None:
    run.mkdir(exist_ok=True)
    record = {
        "format": "capstan-run",
        "version": 1,
        "repos": {"inpredict": str(run / "inpredict")},
        "pipelines": [
            {"name": stage, "datums": 8, "done": 7, "skipped": 1, "failed": 0, "seconds": 38.0}
            for stage in plan.stages
        ],
        "started": START,
        "finished": START + 40 * len(plan.stages) if plan.finished else None,
    }
    (run / "run.json").write_text(json.dumps(record))
    notes = {"title": plan.title, "notes": list(plan.notes)}
    (run / "notes.json").write_text(json.dumps(notes))


def _write_traces(run: Path, stage: str, begin: float, plan: Plan) -> None:
    """Logs and lineage of eight datums, four at a time."""
    unit = {"images": "rows", "features": "pictures", "model": "captions"}.get(stage)
    for folder in ("logs", "lineage"):
        (run / folder / stage).mkdir(parents=True)
    for datum in range(8):
        started, seconds = begin + 19 * (datum // 4), 17.0 + datum % 4
        record = {
            "pipeline": stage,
            "datum": f"{datum:016d}",
            "inputs": [],
            "outputs": [],
            "command": ["capstan", stage, "--input", "/pfs/in", "--output", "/pfs/out"],
            "started": started,
            "seconds": seconds,
        }
        (run / f"lineage/{stage}/{datum}.json").write_text(json.dumps(record))
        entries: list[dict[str, Any]] = [
            {
                "time": started + 0.25 * seconds * quarter,
                "level": "info",
                "message": "progress",
                "progress": {
                    "label": stage,
                    "unit": unit,
                    "done": round(plan.rows / 8 * (quarter / 4) ** 1.4),
                    "total": plan.rows // 8,
                    "seconds": 0.25 * seconds * quarter,
                    "failures": {},
                },
            }
            for quarter in range(1, 5)
            if unit
        ]
        text = "\n".join(["not JSON", '{"progress": 3}', *map(json.dumps, entries)])
        (run / f"logs/{stage}/{datum}.log").write_text(text + "\n")


def _write_lines(path: Path, lines: Sequence[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


PICTURE = records.Image(b"", 1, 1, 1, 1, "")


def write_statistics(directory: Path, hosts: Mapping[str, tuple[int, int]]) -> None:
    """What an ingestion of one shard saw of hosts that gave (rows, images), 2,000 bytes each.

    Rows without a picture got a 404 at the second attempt, and waited 2 s instead of 100 ms.
    """
    run, seen = RunStatistics(), RowStatistics()
    for host, (rows, images) in hosts.items():
        for row in range(rows):
            if row < images:
                seen.note(host, Answer(200, 1, 2000), PICTURE, 0.1)
            else:
                seen.note(host, Answer(404, 2, 0), Failure(Reason.NOT_FOUND), 2.0)
    numbers = seen.numbers()
    run.tick(numbers["rows"], numbers["images"], numbers["bytes"])
    run.add("cc.tsv/0000000000000000", seen)
    run.write(directory)
