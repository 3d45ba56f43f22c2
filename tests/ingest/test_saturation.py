"""A thread that hardly ever waits for anything but a core is saturated."""

import threading
import time
from pathlib import Path

import pytest

from capstan.ingest.scheduling import saturation
from capstan.ingest.scheduling.saturation import INTERVAL, Saturation, wanted


class Thread:
    """One whose time is told by hand; seconds."""

    def __init__(self) -> None:
        self.now = self.wanted = 100.0

    def spend(self, seconds: float, idle: float) -> None:
        """Be so long at work or waiting for a core, and so long idle."""
        self.now += seconds + idle
        self.wanted += seconds


def test_it_is_saturated_while_it_is_hardly_idle() -> None:
    thread = Thread()
    saturated = Saturation(lambda: thread.wanted, lambda: thread.now)
    assert not saturated.is_full()
    for busy, idle, full in (
        (INTERVAL, 0.0, True),
        (0.0, INTERVAL / 2, True),  # no interval is over yet
        (0.0, INTERVAL / 2, False),
        (10.0, 0.1, True),  # nobody had asked for long
        (9.0, 1.0, False),
    ):
        thread.spend(busy, idle)
        assert saturated.is_full() is full


def test_waiting_for_a_core_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "schedstat").write_text("1500000000 500000000 7\n")
    monkeypatch.setattr(saturation, "SCHEDSTAT", tmp_path / "schedstat")
    assert wanted() == 2.0


@pytest.mark.parametrize("text", [None, "", "not supported"])
def test_elsewhere_the_time_on_a_core_is_all(
    text: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "schedstat"
    if text is not None:
        path.write_text(text)
    monkeypatch.setattr(saturation, "SCHEDSTAT", path)
    before = time.thread_time()
    assert before <= wanted() <= time.thread_time()


def test_other_threads_do_not_count() -> None:
    took: list[float] = []

    def work() -> None:
        while time.thread_time() < 0.3:  # more than a busy machine lets anybody wait
            pass
        took.append(time.thread_time())

    other, before = threading.Thread(target=work), wanted()
    other.start()
    other.join()
    assert wanted() - before < took[0]
