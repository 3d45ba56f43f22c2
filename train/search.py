"""How captions are searched for: what a model's description holds and flags override."""

import argparse
import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Self

from capstan.errors import DataError, SettingError


@dataclass(frozen=True)
class Search:
    """A beam search; see `capstan.train.decode`. With a beam of 1 it is greedy.

    Raises SettingError for what cannot be searched with.
    """

    beam: int = 3  # beginnings of captions kept at each step
    length_penalty: float = 0.7  # captions are ranked by log-probability / length ** this
    no_repeat: int = 5  # no caption says so many words in a row twice; 0 for no such rule

    def __post_init__(self) -> None:
        if self.beam < 1:
            raise SettingError(f"--beam {self.beam}: give at least 1")
        if not 0 <= self.length_penalty < math.inf:
            raise SettingError(f"--length-penalty {self.length_penalty}: give 0 or more")
        if self.no_repeat < 0:
            raise SettingError(f"--no-repeat {self.no_repeat}: give 0 or more")

    @classmethod
    def of_description(cls, path: Path, description: Mapping[str, Any]) -> Self:
        """The search that a model's description (read from `path`) has; raises DataError."""
        entry = description.get("search", {})
        try:
            return cls(**entry)
        except (TypeError, SettingError) as error:
            raise DataError(
                f"{path}: search {entry}: {error}; mend or delete that entry"
            ) from error


def given(arguments: argparse.Namespace) -> dict[str, Any]:
    """What the flags of `add_flags` say, to `replace` in a model's search; raises SettingError."""
    names = {field.name for field in fields(Search)}
    said = {name: value for name, value in vars(arguments).items() if name in names}
    Search(**said)
    return said


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add `--beam`, `--length-penalty` and `--no-repeat`, which stand over the model's own."""
    group = parser.add_argument_group("search", "By default as the model's model.json says.")
    group.add_argument(
        "--beam",
        type=int,
        metavar="N",
        default=argparse.SUPPRESS,
        help="beginnings of captions kept at each word; 1 is greedy, the fastest",
    )
    group.add_argument(
        "--length-penalty",
        type=float,
        metavar="X",
        default=argparse.SUPPRESS,
        help="captions are ranked by log-probability / length ** X: 0 favours short ones, 1 ranks "
        "by the mean over the words, more favours long ones",
    )
    group.add_argument(
        "--no-repeat",
        type=int,
        metavar="N",
        default=argparse.SUPPRESS,
        help="never say N words in a row that the caption has said before; 0 for no such rule",
    )
