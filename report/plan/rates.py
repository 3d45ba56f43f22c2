"""The rates a plan is made from: each a number with its unit, and where it is from."""

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

from capstan.errors import DataError, SettingError
from capstan.files import read_json

FORMAT, VERSION = "capstan-rates", 1
SHIPPED = Path(__file__).with_name("rates.json")


class RateSource(StrEnum):
    """How much a number is worth."""

    MEASURED = "measured"  # by this project, on its machine
    GIVEN = "given"  # by the user, or read from a run of theirs
    ASSUMED = "assumed"  # by nobody measured


@dataclass(frozen=True)
class Rate:
    """One number."""

    value: float
    unit: str
    origin: RateSource
    source: str

    def admits(self, value: float) -> bool:
        """Whether it may have this value in place of its own: nothing is only what takes time."""
        if self.unit.startswith("of "):
            return 0 < value <= 1
        per_second = self.unit.endswith("/s")
        return math.isfinite(value) and (value > 0 if per_second else value >= 0)


class Rates(Mapping[str, float]):
    """All of them by name; the names are those of the shipped `rates.json`."""

    def __init__(self, rates: Mapping[str, Rate]) -> None:
        self.known = dict(rates)

    def __getitem__(self, name: str) -> float:
        return self.known[name].value

    def __iter__(self) -> Iterator[str]:
        return iter(self.known)

    def __len__(self) -> int:
        return len(self.known)

    def __repr__(self) -> str:
        return f"<Rates {self.known}>"

    def given(self, values: Mapping[str, float], source: str) -> "Rates":
        """The same with some of them given; raises ValueError for one that does not exist."""
        changed = dict(self.known)
        for name, value in values.items():
            if name not in changed:
                raise ValueError(f"no rate {name}; there are {', '.join(changed)}")
            rate = changed[name]
            if not rate.admits(value):
                raise ValueError(f"{name}: {value} {rate.unit} is no rate")
            changed[name] = replace(rate, value=value, origin=RateSource.GIVEN, source=source)
        return Rates(changed)


def shipped_rates() -> Rates:
    """Those that come with Capstan."""
    entry = read_json(SHIPPED, FORMAT, VERSION)
    return Rates(
        {
            name: Rate(
                float(rate["value"]), rate["unit"], RateSource(rate["origin"]), rate["source"]
            )
            for name, rate in entry["rates"].items()
        }
    )


def read_rates(path: Path, rates: Rates) -> Rates:
    """Replace some of `rates` by those in a JSON file: `{"disk": 2e9, ...}`.

    Raises SettingError where there is no file, DataError where it is none of rates.
    """
    try:
        entry: Any = json.loads(path.read_bytes())
        if not isinstance(entry, dict):
            raise ValueError("not an object")
        return rates.given({name: float(value) for name, value in entry.items()}, path.name)
    except OSError as error:
        raise SettingError(f"{path}: {error.strerror}; give a file with --rates") from error
    except (TypeError, ValueError) as error:
        raise DataError(f'{path}: {error}; give JSON such as {{"disk": 2e9}}') from error
