import io
import json
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from capstan.records import Reason
from capstan.report.captions import RANKED, HeldOut, draw, judge, rank, read_held_out
from capstan.report.charts import round_steps, time_ticks
from capstan.report.learning import read_curves
from capstan.report.pictures import SIDE, plain, read_new_pictures, stored_pictures, thumbnail
from capstan.report.rows import (
    NO_HOST,
    WORDS,
    RowCounts,
    by_host,
    by_reason,
    funnel,
    read_examples,
    read_featurized,
    read_rows,
)
from capstan.report.run import read_run
from capstan.report.timeline import read_timeline
from capstan.schemas import OUTCOME_SCHEMA
from tests.report.conftest import START, Plan

MakeRun = Callable[[Plan], Path]


def outcomes(rows: list[tuple[str | None, str | None]]) -> pa.Table:
    """A table of (url, reason)."""
    names = dict.fromkeys(OUTCOME_SCHEMA.names)
    return pa.Table.from_pylist(
        [names | {"url": url, "reason": reason} for url, reason in rows], schema=OUTCOME_SCHEMA
    )


# Rows


def test_every_reason_has_words() -> None:
    assert set(WORDS) == set(Reason)


def test_funnel_adds_up(make_run: MakeRun) -> None:
    run = read_run(make_run(Plan(rows=500)))
    rows, _ = read_rows(run, ())
    assert rows is not None
    steps = funnel(rows, read_featurized(run), read_examples(run), trained=True)
    assert [step.name for step in steps] == ["rows", "fetched", "valid", "featurized", "trained on"]
    counts = [step.count or 0 for step in steps]
    assert counts[0] == 500
    assert counts[0] - sum(step.lost for step in steps) == counts[-1]
    assert sum(line.count for line in by_reason(rows, None)) == 500 - rows.images
    assert 0 < steps[-1].held_out < counts[-1]


@pytest.mark.parametrize(
    ("url", "host"),
    [
        ("http://A.example/x", "a.example"),
        ("https://user:secret@a.example:8080?x", "a.example"),
        ("http://[::1]:80/", "[::1]"),
        ("http://a.example@b.example@c.example/", "c.example"),
        ("ftp://a.example/", NO_HOST),
        ("", NO_HOST),
        (None, NO_HOST),
    ],
)
def test_host_of_an_address(url: str | None, host: str) -> None:
    rows = RowCounts()
    rows.add(outcomes([(url, "dns")]))
    assert [line.name for line in by_host(rows)] == [host]


@given(st.lists(st.tuples(st.text() | st.none(), st.sampled_from([None, *Reason]))))
def test_no_row_is_lost_whatever_its_address(ends: list[tuple[str | None, str | None]]) -> None:
    rows = RowCounts()
    rows.add(outcomes(ends))
    assert rows.total == len(ends) == rows.hosts.total()
    assert rows.reasons.total() == sum(count.total() for count in rows.failures.values())


# Learning


@pytest.mark.parametrize(
    ("caption", "references", "right", "marked"),
    [
        ("a red circle", ["a red circle"], True, []),
        ("a red circle", ["a cat", "a red  circle"], True, []),
        ("a red circle", ["a red square"], False, ["circle"]),
        ("dogs run", ["two red squares on a table"], False, []),
        ("a red circle", [], None, []),
        ("", ["a cat"], False, []),
    ],
)
def test_judge(caption: str, references: list[str], right: bool | None, marked: list[str]) -> None:
    verdict = judge(caption, references)
    assert verdict.right is right
    assert [word.text for word in verdict.said if word.differs] == marked


def test_sample_is_drawn_by_lot_and_shows_wrong_ones(make_run: MakeRun) -> None:
    sample = draw(read_held_out(read_run(make_run(Plan(rows=400)))))
    assert sample is not None
    assert len(sample.drawn) == 24
    assert sample.wrong
    assert not any(shown.right for shown in sample.wrong)
    shown_wrong = [shown for shown in (*sample.drawn, *sample.wrong) if not shown.right]
    assert len(shown_wrong) >= 8
    assert len({shown.key for shown in shown_wrong}) == len(shown_wrong)


def held_out(scores: list[float]) -> list[HeldOut]:
    return [HeldOut(str(n), "a cat", ["a dog"], False, score) for n, score in enumerate(scores)]


@given(st.lists(st.floats(0, 10), min_size=1, max_size=60))
def test_ranking_shows_no_picture_twice(scores: list[float]) -> None:
    ranking = rank(held_out(scores))
    assert ranking is not None
    shown = [*ranking.best, *ranking.middle, *ranking.worst]
    assert len({one.key for one in shown}) == len(shown) == min(len(scores), len(shown))
    values = [one.cider_d or 0 for one in shown]
    assert values == sorted(values, reverse=True)
    assert values[0] == max(scores)
    assert values[-1] == min(scores)
    if len(scores) >= 3 * RANKED:
        assert [len(part) for part in (ranking.best, ranking.middle, ranking.worst)] == [RANKED] * 3


def test_the_middle_lies_around_the_median() -> None:
    ranking = rank(held_out([n / 10 for n in range(101)]))
    assert ranking is not None
    assert [one.cider_d for one in ranking.middle] == [n / 10 for n in range(54, 46, -1)]


def test_nothing_to_rank() -> None:
    assert rank([]) is None
    assert rank([HeldOut("k", "a cat", ["a dog"], False, None)]) is None
    assert draw([]) is None


def test_a_training_that_went_astray_is_drawn_as_far_as_it_goes(make_run: MakeRun) -> None:
    path = make_run(Plan())
    epochs = [
        {"epoch": n, "seconds": 1, "train_loss": loss, "validation_loss": None}
        for n, loss in enumerate([2.0, 1.0, float("nan")], start=1)
    ]
    (path / "repos/model/curves.jsonl").write_text("\n".join(map(json.dumps, epochs)))
    curves = read_curves(read_run(path))
    assert curves is not None
    assert (curves.epochs, curves.best_epoch, curves.best_loss) == (3, 2, 1.0)
    assert [line.name for line in curves.chart.lines] == ["training"]


# Pictures


def test_stored_pictures_are_found_by_key(make_run: MakeRun) -> None:
    run = read_run(make_run(Plan()))
    keys = {held_out.key for held_out in read_held_out(run)}
    _, tars = read_rows(run, keys)
    pictures = stored_pictures(tars)
    assert set(pictures) == keys
    assert all((uri or "").startswith("data:image/jpeg;base64,") for uri in pictures.values())


@given(st.binary(max_size=400))
def test_no_bytes_stop_a_thumbnail(data: bytes) -> None:
    assert thumbnail(data) is None
    thumbnail(b"GIF89a" + data)
    thumbnail(b"\x89PNG\r\n\x1a\n" + data)
    thumbnail(b"\xff\xd8\xff" + data)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P", "L", "LA", "1", "I;16"])
def test_thumbnail_takes_any_mode(mode: str) -> None:
    buffer = io.BytesIO()
    Image.new(mode, (900, 300)).save(buffer, "PNG")
    uri = thumbnail(buffer.getvalue())
    assert uri is not None
    assert len(uri) < 20_000


def test_a_picture_too_large_to_open_is_not_opened() -> None:
    buffer = io.BytesIO()
    Image.new("1", (8_000, 8_000)).save(buffer, "PNG")
    assert thumbnail(buffer.getvalue()) is None
    assert SIDE < 8_000


def test_new_pictures_know_right_wrong_and_unknown(make_run: MakeRun) -> None:
    path = make_run(Plan())
    (path / "truth.tsv").write_text("0.png\tA red circle.\n1.png\tGreen circle!\nno tab\n")
    failed = {"file": "x.png", "caption": None, "reason": "not_an_image"}
    (path / "repos/predict/x.png.json").write_text(json.dumps(failed))
    (path / "repos/predict/2.png.json").unlink()
    new = read_new_pictures(read_run(path))
    assert new is not None
    assert (new.total, new.known, new.right) == (6, 2, 1)
    shown = {picture.name: picture for picture in new.shown}
    assert [shown[f"{n}.png"].verdict.right for n in range(3)] == [False, True, None]
    assert [word.text for word in shown["2.png"].verdict.said] == ["a", "blue", "circle"]
    assert shown["x.png"].reason == "not an image"
    assert shown["x.png"].picture is None


def test_plain_ignores_what_cleaning_profiles_differ_on() -> None:
    assert plain("A large, RED circle") == plain("large red circle")


# Time


def write_log(run: Path, name: str, entries: list[tuple[float, int, float]]) -> None:
    """Progress lines of (seconds after the start, done, seconds since its own start)."""
    lines = [
        {"time": START + at, "progress": {"label": "l", "unit": "rows", "done": done, "seconds": s}}
        for at, done, s in entries
    ]
    path = run / "logs/images" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(["junk", *map(json.dumps, lines)]))


def test_concurrent_datums_add_up(make_run: MakeRun) -> None:
    path = make_run(Plan(stages=()))
    write_log(path, "a.log", [(10, 100, 10)])
    write_log(path, "b.log", [(5, 50, 5), (10, 100, 10)])
    (speed,) = read_timeline(read_run(path)).tracks[0].speeds
    assert (speed.unit, speed.done) == ("rows", 200)
    assert speed.mean == pytest.approx(20)
    assert speed.peak == pytest.approx(20)


def test_work_that_began_anew_counts_from_nought(make_run: MakeRun) -> None:
    path = make_run(Plan(stages=()))
    write_log(path, "a.log", [(10, 100, 10), (30, 100, 10), (40, 200, 20)])
    (speed,) = read_timeline(read_run(path)).tracks[0].speeds
    assert speed.done == 300
    assert speed.mean == pytest.approx(10)


def test_a_run_with_nothing_to_do_draws_the_earlier_one(make_run: MakeRun) -> None:
    path = make_run(Plan())
    record = json.loads((path / "run.json").read_text())
    record |= {"started": START + 9000, "finished": START + 9001}
    (path / "run.json").write_text(json.dumps(record))
    timeline = read_timeline(read_run(path))
    assert timeline.earlier
    assert timeline.seconds < 300
    assert all(track.bars for track in timeline.tracks)


def test_a_pipeline_of_ones_own_is_shown_too(make_run: MakeRun) -> None:
    timeline = read_timeline(read_run(make_run(Plan(stages=("images", "sharpen")))))
    names = [track.name for track in timeline.tracks]
    assert names == ["images", "features", "consolidate", "model", "predict", "sharpen"]
    assert [track.pipeline is not None for track in timeline.tracks].count(True) == 2


# Charts


@given(
    st.floats(-1e6, 1e6),
    st.floats(0, 1e6),
    st.integers(2, 8),
)
def test_round_steps_cover_the_range(low: float, width: float, count: int) -> None:
    steps = round_steps(low, low + width, count)
    slack = 1e-6 * (1 + abs(low) + width)
    assert steps[0] <= low + slack
    assert steps[-1] >= low + width - slack
    assert 2 <= len(steps) <= 3 * count + 2


@given(st.floats(0.5, 1e7))
def test_time_ticks_are_few_and_inside(seconds: float) -> None:
    ticks = time_ticks(seconds)
    assert ticks[0].label == "0"
    assert all(0 <= tick.place <= 100 for tick in ticks)
    assert len({tick.label for tick in ticks}) == len(ticks)
