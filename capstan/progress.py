"""Progress of long work: rate, ETA and failures by reason.

On a terminal one line redraws itself; elsewhere one log line per interval, which the JSON log
format carries as numbers (the dry run and the report read them).
"""

import logging
import os
import sys
import threading
import time
from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any, Self

logger = logging.getLogger(__name__)

INTERVAL_VARIABLE = "CAPSTAN_PROGRESS_INTERVAL"  # seconds between log lines
TERMINAL_INTERVAL = 0.2


@dataclass(frozen=True, slots=True)
class Snapshot:
    """How far the work is."""

    label: str
    unit: str
    done: int  # failures included
    total: int | None
    seconds: float
    failures: dict[str, int]
    note: str = ""

    @property
    def rate(self) -> float:
        """Units per second since the start."""
        return self.done / self.seconds if self.seconds > 0 else 0.0

    @property
    def eta(self) -> float | None:
        """Seconds left at this rate, None when unknown."""
        if self.total is None or self.rate == 0:
            return None
        return max(0, self.total - self.done) / self.rate

    def line(self) -> str:
        """One line for people."""
        of_total = f"/{self.total:,}" if self.total is not None else ""
        parts = [f"{self.label}: {self.done:,}{of_total} {self.unit}", f"{self.rate:,.1f}/s"]
        if self.eta and self.done != self.total:
            parts.append(f"ETA {duration(self.eta)}")
        if self.failures:
            worst = sorted(self.failures.items(), key=lambda item: -item[1])
            reasons = ", ".join(f"{reason} {count:,}" for reason, count in worst[:4])
            more = f", {len(worst) - 4} more" if len(worst) > 4 else ""
            parts.append(f"{sum(self.failures.values()):,} failed ({reasons}{more})")
        return " · ".join([*parts, self.note] if self.note else parts)

    def numbers(self) -> dict[str, Any]:
        """The same for programs."""
        return asdict(self) | {"seconds": round(self.seconds, 3)}


def duration(seconds: float) -> str:
    """Seconds as `42s`, `3m05s` or `2h07m`."""
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    if hours:
        return f"{hours}h{minute:02d}m"
    return f"{minute}m{second:02d}s" if minute else f"{second}s"


class Progress:
    """Counts work and shows it from a thread of its own, so that a stall shows too."""

    def __init__(self, label: str, unit: str, total: int | None = None) -> None:
        self._label, self._unit, self._total = label, unit, total
        self._done = 0
        self._failures: Counter[str] = Counter()
        self._note = ""
        self._started = time.monotonic()
        self._terminal = sys.stderr.isatty() and not _json_logs()
        interval = float(os.environ.get(INTERVAL_VARIABLE, "10"))
        self._interval = TERMINAL_INTERVAL if self._terminal else interval
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._show_regularly, daemon=True)

    def add(self, count: int = 1, reason: str | None = None) -> None:
        """Count units done; with a reason, as failed."""
        self._done += count
        if reason is not None:
            self._failures[reason] += count

    def note(self, text: str) -> None:
        """Show a few words beside the numbers, such as the loss."""
        self._note = text

    def expect(self, total: int) -> None:
        """Set the total, for work whose size becomes known on the way."""
        self._total = total

    def snapshot(self) -> Snapshot:
        """The numbers now."""
        return Snapshot(
            self._label,
            self._unit,
            self._done,
            self._total,
            time.monotonic() - self._started,
            dict(self._failures),
            self._note,
        )

    def __repr__(self) -> str:
        return f"<Progress {self.snapshot().line()}>"

    def __enter__(self) -> Self:
        self._started = time.monotonic()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._thread.join()
        if self._terminal:
            sys.stderr.write("\r\x1b[K")
        self._log()

    def _show_regularly(self) -> None:
        while not self._stopped.wait(self._interval):
            if self._terminal:
                width = os.get_terminal_size(sys.stderr.fileno()).columns
                sys.stderr.write(f"\r\x1b[K{self.snapshot().line()[: width - 1]}")
                sys.stderr.flush()
            else:
                self._log()

    def _log(self) -> None:
        snapshot = self.snapshot()
        logger.info(snapshot.line(), extra={"progress": snapshot.numbers()})


def _json_logs() -> bool:
    return any(
        getattr(handler.formatter, "is_json", False) for handler in logging.getLogger().handlers
    )
