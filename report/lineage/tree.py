"""What a trace found: steps with facts and checks, as a tree for people, as JSON for machines."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from capstan.errors import DataError


class CheckState(StrEnum):
    """What came of holding a record against what is there."""

    OK = "ok"
    BROKEN = "broken"
    NOT_RECORDED = "not recorded"
    ABSENT = "absent"  # recorded, but of a stage whose files are not here
    LEFT_OUT = "left out"  # not looked at, as was asked


@dataclass(frozen=True)
class Check:
    """One hop: a record held against what it names."""

    what: str
    state: CheckState
    file: str  # to look at
    why: str = ""


@dataclass(frozen=True)
class TraceStep:
    """A station of a trace: where it lies, what is known of it, how it hangs on the others."""

    name: str
    place: str
    facts: Mapping[str, Any] = field(default_factory=dict)
    checks: Sequence[Check] = ()
    steps: Sequence["TraceStep"] = ()
    brief: bool = False  # one of many: unless some are broken, checks are only counted


def agree(what: str, recorded: Any, found: Any, file: str) -> Check:
    """Hold a recorded value (None: not recorded) against the one found."""
    if recorded is None:
        return Check(what, CheckState.NOT_RECORDED, file)
    if recorded == found:
        return Check(what, CheckState.OK, file)
    return Check(
        what, CheckState.BROKEN, file, f"{_short(found)} here, {_short(recorded)} on record"
    )


def _short(value: Any) -> str:
    text = shown(value)
    return text if len(text) <= 60 else f"{text[:12]}..."


def attempt(name: str, place: str, make: Callable[[], TraceStep]) -> TraceStep:
    """Make a step; one whose file cannot be read is a broken one."""
    try:
        return make()
    except DataError as error:
        return TraceStep(
            name, place, checks=[Check("can be read", CheckState.BROKEN, place, str(error))]
        )


def broken(step: TraceStep) -> list[Check]:
    """All broken checks of a step and those below it."""
    found = [check for check in step.checks if check.state is CheckState.BROKEN]
    return found + [check for below in step.steps for check in broken(below)]


def as_text(step: TraceStep) -> str:
    """The tree, one fact or check a line."""
    return "\n".join([_title(step), *_lines(step, "")]) + "\n"


def _lines(step: TraceStep, indent: str) -> Iterator[str]:
    bar = indent + ("│  " if step.steps else "   ")
    width = max(map(len, step.facts), default=0)
    for name, value in step.facts.items():
        yield f"{bar}{name:<{width}}  {shown(value)}"
    counts = Counter(check.state for check in step.checks)
    counted = step.brief and not counts[CheckState.BROKEN]
    for state, count in counts.items() if counted else ():
        yield f"{bar}[{state}] {count} of {len(step.checks)} hops"
    for check in () if counted else step.checks:
        why = f" ({check.why}): look at {check.file}" if check.state is CheckState.BROKEN else ""
        yield f"{bar}[{check.state}] {check.what}{why}"
    for number, below in enumerate(step.steps, start=1):
        last = number == len(step.steps)
        yield f"{indent}{'└─ ' if last else '├─ '}{_title(below)}"
        yield from _lines(below, indent + ("   " if last else "│  "))


def _title(step: TraceStep) -> str:
    return f"{step.name}: {step.place}" if step.place else step.name


def shown(value: Any) -> str:
    """A value on one line; what a terminal would obey, from captions of strangers, is escaped."""
    text = f"{value:,}" if isinstance(value, int) else str(value)
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
