"""What a model was made of, shard by shard, and which model and picture made a caption."""

from collections import Counter
from functools import partial
from typing import Any

import pyarrow.compute as pc

from capstan.errors import DataError
from capstan.files import read_json
from capstan.records import PREDICTION_FORMAT, PREDICTION_VERSION, Extractor
from capstan.report.lineage.row import find_rows
from capstan.report.lineage.shards import (
    description,
    example_hops,
    feature_hops,
    is_file,
    manifest,
    model_hops,
    outcome_hops,
    stats,
    trained_on,
)
from capstan.report.lineage.source import RunFiles, chunks
from capstan.report.lineage.tree import Check, CheckState, TraceStep, agree, attempt
from capstan.train.cleaning import PROFILES
from capstan.train.settings import NETWORK

SHOWN = 20  # rows of a caption


def trace_model(source: RunFiles, deep: bool = True) -> TraceStep:
    """A model and every chunk that it was made of; unless `deep`, tars and arrays go unread.

    Where the model does not say, that is all chunks of the run. DataError if there is no model.
    """
    record = description(source)
    place = source.name("model", source.saved)
    if record is None:
        raise DataError(f"{place}: holds no model.json, so it is no model; name one")
    shards = record.get("shards", [])
    known = [shard["chunk"] for shard in shards] or chunks(source)
    totals: Counter[str] = Counter()
    for shard in shards:
        totals.update(shard["examples"])
    facts = {
        "extractor": Extractor(**record["extractor"]),
        "cleaning": record["cleaning"],
        "chunks": len(known),
        **totals,
    }
    steps = [
        attempt("chunk", chunk, partial(_chunk_step, source, record, chunk, deep))
        for chunk in known
    ]
    return TraceStep("model", place, facts, list(model_hops(source, record)), steps)


def _chunk_step(source: RunFiles, record: dict[str, Any], chunk: str, deep: bool) -> TraceStep:
    checks = trained_on(source, record, chunk)
    if (made := manifest(source, "consolidate", chunk)) is not None:
        extractor = Extractor(**made["extractor"])
        same = extractor.same_features(Extractor(**record["extractor"]))
        found = None if same else str(extractor)
        place = source.name("consolidate", f"{chunk}.parquet")
        checks.append(agree("features are of the model's extractor", True, found or True, place))
    for hops in (example_hops, feature_hops, outcome_hops):
        checks += hops(source, chunk, deep)
    facts = {}
    if outcomes := stats(source, chunk):
        facts = {name: outcomes[1][name] for name in ("rows", "images")}
    known = {shard["chunk"]: shard["examples"] for shard in record.get("shards", ())}
    return TraceStep("chunk", chunk, facts | known.get(chunk, {}), checks, brief=True)


def trace_prediction(source: RunFiles, path: str, deep: bool = True) -> TraceStep:
    """A prediction's JSON in repo `predict`: its picture, and the model that made it."""
    file, place = source.file("predict", path), source.name("predict", path)
    assert file is not None
    record = read_json(file, PREDICTION_FORMAT, PREDICTION_VERSION)
    facts = {name: value for name in ("caption", "reason") if (value := record.get(name))}
    facts["picture"] = record["file"]
    checks = [is_file(source, "inpredict", record["file"], ("predict", record.get("sha256")))]
    text = source.file("predict", f"{path.removesuffix('.json')}.txt")
    if text is not None:
        said = text.read_text().removesuffix("\n")
        checks.append(agree("the text beside it says the same", record["caption"], said, str(text)))
    network = f"{source.saved}/{NETWORK}"
    name = source.name("model", network)
    what = "the model that made it is this one"
    made = source.sha256("model", network)
    if made is None:
        return TraceStep(
            "prediction", place, facts, [*checks, Check(what, CheckState.ABSENT, name)]
        )
    checks.append(agree(what, record["model_sha256"], made, name))
    below = attempt("model", source.name("model"), lambda: trace_model(source, deep))
    return TraceStep("prediction", place, facts, checks, [below])


def trace_caption(source: RunFiles, text: str) -> TraceStep | None:
    """The training rows with a caption, as written or once cleaned; None if there are none."""
    found: list[TraceStep] = []
    count = 0
    for chunk in chunks(source):
        record = manifest(source, "consolidate", chunk)
        file = source.file("consolidate", f"{chunk}.parquet")
        if record is None or file is None:
            continue
        cleaned = PROFILES[record["cleaning"]](text)
        rows = find_rows(file, (pc.field("caption") == text) | (pc.field("cleaned") == cleaned))
        count += len(rows)
        for row in rows[: SHOWN - len(found)]:
            facts = {name: row[name] for name in ("caption", "cleaned", "split", "sha256")}
            found.append(TraceStep("training row", row["key"], facts))
    more = {"shown": len(found)} if count > len(found) else {}
    return (
        TraceStep("caption", text, {"training rows": count, **more}, steps=found) if found else None
    )
