"""What a job may choose for itself: how pictures are made, how patient it is."""

from collections.abc import Mapping
from dataclasses import asdict, fields, replace
from typing import Any

from capstan.errors import SettingError
from capstan.ingest.config import ImageOptions, RetryPolicy
from capstan.ingest.service.jobs import BadSubmissionError

PATIENCE = ("attempts", "deadline")
TYPES: Mapping[str, type] = {  # of each option
    **{item.name: type(item.default) for item in fields(ImageOptions)},
    **{item.name: type(item.default) for item in fields(RetryPolicy) if item.name in PATIENCE},
}


def complete(
    options: Mapping[str, Any], pictures: ImageOptions, patience: RetryPolicy
) -> dict[str, Any]:
    """All options, by default the service's own; BadSubmissionError for one that cannot be."""
    given = {name: _checked(name, value) for name, value in options.items()}
    try:
        chosen = chosen_pictures(given, pictures), chosen_patience(given, patience)
    except SettingError as error:
        flag, _, rest = str(error).partition(" ")
        name = flag.removeprefix("--").replace("-", "_")
        raise BadSubmissionError(f"{name} {rest}") from error
    return {**asdict(chosen[0]), **{name: getattr(chosen[1], name) for name in PATIENCE}}


def chosen_pictures(options: Mapping[str, Any], pictures: ImageOptions) -> ImageOptions:
    """How a job's pictures are made."""
    names = {item.name for item in fields(ImageOptions)}
    return replace(pictures, **{name: options[name] for name in names & options.keys()})


def chosen_patience(options: Mapping[str, Any], patience: RetryPolicy) -> RetryPolicy:
    """How patient a job is."""
    return replace(patience, **{name: options[name] for name in PATIENCE if name in options})


def _checked(name: str, value: Any) -> Any:
    kind = TYPES.get(name)
    if kind is None:
        raise BadSubmissionError(f"no option {name}; choose from {', '.join(TYPES)}")
    if kind is float and type(value) is int:
        return float(value)
    if type(value) is not kind:
        raise BadSubmissionError(f"{name} {value!r}: give {_NAMES[kind]}")
    return value


_NAMES = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}
