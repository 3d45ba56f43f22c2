"""What words leaned on: against pictures covered by hand; a guest in the captions' thread."""

import asyncio
import io
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from capstan.predict.captions import Captions, Pixels, Predictor, View
from capstan.predict.server.config import ServerLimits
from capstan.predict.server.explain import GRID, explanation, said, views
from capstan.records import Failure
from tests.predict.conftest import png
from tests.predict.server.conftest import SAID, Client, Held, Start, begun, metric

CELLS = GRID * GRID


async def ask(client: Client, data: bytes = b"a picture") -> tuple[int, Any]:
    async with client.post("/explain", data=data) as response:
        return response.status, await response.json()


def numbers(answer: dict[str, Any]) -> NDArray[np.float64]:
    """(words, GRID, GRID)."""
    return np.array([word["leaning"] for word in answer["words"]])


async def test_against_pictures_covered_by_hand(client: Client, predictor: Predictor) -> None:
    picture = png(1)
    status, answer = await ask(client, picture)
    assert status == 200
    pixels = predictor.pixels(picture)
    assert not isinstance(pixels, Failure)
    best = predictor.captions([pixels])[0][0]
    assert answer["caption"] == best.text == " ".join(word["word"] for word in answer["words"])
    each = [word["log_probability"] for word in answer["words"]]
    assert (*each, answer["end_log_probability"]) == pytest.approx(best.word_log_probabilities)
    assert answer["model_sha256"] == predictor.description["model_sha256"]

    side, leaning = len(pixels), numbers(answer)
    assert leaning.shape == (len(best.text.split()), GRID, GRID)
    (whole,) = predictor.word_log_probabilities([pixels], best.text)
    for row, column in ((0, 0), (3, 5), (6, 6)):
        covered = pixels.copy()
        down, right = (
            slice(round(place * side / GRID), round((place + 1) * side / GRID))
            for place in (row, column)
        )
        covered[down, right] = pixels.mean(axis=(0, 1)).round()
        (less,) = predictor.word_log_probabilities([covered], best.text)
        assert leaning[:, row, column] == pytest.approx((whole - less)[:-1], abs=2e-3)
    assert abs(leaning).max() > 0.01


async def test_the_window_is_what_the_model_sees(client: Client, predictor: Predictor) -> None:
    data = io.BytesIO()
    Image.new("RGB", (400, 200)).save(data, "PNG")
    _, answer = await ask(client, data.getvalue())
    seen = 32 / 36  # of the shorter side: the network sees the middle 32 of 36 pixels
    assert answer["window"]["width"] == pytest.approx(seen / 2)
    assert answer["window"]["height"] == pytest.approx(seen)
    assert answer["window"]["left"] == pytest.approx((1 - seen / 2) / 2)
    assert answer["window"]["top"] == pytest.approx((1 - seen) / 2)


@given(st.integers(GRID, 64), st.integers(0, 2**32 - 1))
def test_every_pixel_is_covered_once(side: int, seed: int) -> None:
    pixels = np.random.default_rng(seed).integers(0, 256, (side, side, 3)).astype(np.uint8)
    pixels[0, 0] = (0, 255, 0)
    colour = pixels.mean(axis=(0, 1)).round().astype(np.uint8)
    whole, *covered = views(pixels)
    assert (whole == pixels).all()
    assert len(covered) == CELLS
    is_covered = np.array([(view == colour).all(axis=2) for view in covered])
    by_itself = (pixels == colour).all(axis=2)
    assert (is_covered.sum(axis=0)[~by_itself] == 1).all()
    for view, where in zip(covered, is_covered, strict=True):
        assert (view[~where] == pixels[~where]).all()


def test_leaning_by_word_row_and_column() -> None:
    judged = np.zeros((CELLS + 1, 3), np.float32)
    judged[0] = (-1, -2, -3)
    judged[1 + 2 * GRID + 4] = (-1, -5, -9)
    leaning = explanation(SAID[0], View(np.zeros((7, 7, 3), np.uint8), (1, 1)), judged).leaning
    assert leaning.shape == (2, GRID, GRID)
    assert (leaning[0, 2, 4], leaning[1, 2, 4]) == (0, 3)
    assert (leaning[:, 0, 0] == (-1, -2)).all()
    assert said(explanation(SAID[0], View(np.zeros((7, 7, 3), np.uint8), (1, 0.5)), judged))[
        "window"
    ] == {"left": 0, "top": 0.25, "width": 1, "height": 0.5}


async def test_captions_say_how_sure_of_each_word(client: Client, predictor: Predictor) -> None:
    picture = png(2)
    async with client.post("/caption", data=picture) as response:
        answer = await response.json()
    _, explained = await ask(client, picture)
    bare = [{key: word[key] for key in ("word", "log_probability")} for word in explained["words"]]
    assert [word["word"] for word in answer["words"]] == [word["word"] for word in bare]
    total = sum(word["log_probability"] for word in answer["words"])
    assert total + answer["end_log_probability"] == pytest.approx(answer["log_probability"])


@pytest.mark.parametrize(("data", "reason"), [(b"", "empty_body"), (b"<html>", "not_an_image")])
async def test_what_is_no_picture(client: Client, data: bytes, reason: str) -> None:
    status, answer = await ask(client, data)
    assert (status, answer["reason"]) == (422, reason)


class Turns(Held):
    """Tells in which order captions and parts of explanations were computed."""

    def __init__(self) -> None:
        super().__init__()
        self.turns: list[str] = []

    def captions(self, pixels: Sequence[Pixels]) -> list[Captions]:
        self.turns.append("captions")
        return super().captions(pixels)

    def word_log_probabilities(self, pixels: Sequence[Pixels], caption: str) -> NDArray[np.float32]:
        self.turns.append("part")
        return super().word_log_probabilities(pixels, caption)


async def test_captions_come_between_the_parts_of_explanations(start: Start) -> None:
    model = Turns()
    client, service = await start(model, ServerLimits(max_batch=1, max_wait=0, explanations=2))
    first = asyncio.create_task(client.post("/caption", data=b"a picture"))
    await begun(model)
    captions = [asyncio.create_task(client.post("/caption", data=b"a picture")) for _ in range(9)]
    while service.gate.held < 10:
        await metric(client, "capstan_held_pictures")
    explained = [asyncio.create_task(ask(client)) for _ in range(2)]
    while await metric(client, "capstan_held_explanations") < 2:
        pass
    later = [asyncio.create_task(client.post("/caption", data=b"a picture")) for _ in range(9)]
    while service.gate.held < 21:
        await metric(client, "capstan_held_pictures")
    model.go.set()
    for response in await asyncio.gather(first, *captions, *later):
        assert response.status == 200
    last = len(model.turns) - model.turns[::-1].index("captions")
    assert model.turns[:last].count("part") < CELLS + 1  # who came later did not wait for one
    assert [status for status, _ in await asyncio.gather(*explained)] == [200, 200]
    assert model.turns.count("part") == 2 * (CELLS + 1)


async def test_429_when_there_are_enough(start: Start) -> None:
    held = Held()
    client, service = await start(held, ServerLimits(explanations=1))
    first = asyncio.create_task(ask(client))
    await begun(held)
    async with client.post("/explain", data=b"a picture") as response:
        assert response.status == 429
        assert int(response.headers["Retry-After"]) > 1
    caption = asyncio.create_task(client.post("/caption", data=b"a picture"))
    held.go.set()
    assert (await caption).status == 200
    assert (await first)[0] == 200
    assert service.gate.held == service.explain_gate.held == 0
    assert (await ask(client))[0] == 200


async def test_none_at_all(start: Start) -> None:
    client, _ = await start(Held(), ServerLimits(explanations=0))
    assert (await ask(client))[0] == 429


async def test_time_runs_out(start: Start) -> None:
    held = Held()
    client, service = await start(held, ServerLimits(timeout=0.05))
    assert (await ask(client))[0] == 503
    assert service.gate.held == service.explain_gate.held == 0
    held.go.set()


async def test_a_model_that_says_nothing(start: Start) -> None:
    class Silent(Held):
        def captions(self, pixels: Sequence[Pixels]) -> list[Captions]:
            return [() for _ in pixels]

    client, _ = await start(Silent(), ServerLimits())
    status, answer = await ask(client)
    assert status == 422
    assert "the model says nothing" in answer["error"]
