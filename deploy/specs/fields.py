"""The names and types of all fields of a spec, as the message types of the installed SDK have them.

The SDK's own `from_dict` drops what it does not know; here it is a problem, and so is what is of
another type. Fields that Pachyderm had before version 2 are named with what replaces them.
"""

import json
import re
from collections.abc import Mapping
from datetime import datetime, timedelta
from difflib import get_close_matches
from typing import Any

from pachyderm_sdk.api import pps

RETIRED = {
    "atom": "use pfs",
    "batch": "remove it",
    "build": "build and push the image, and name it in transform.image",
    "cache_size": "size the sidecar with sidecar_resource_requests.memory",
    "chunk_spec": "use datum_set_spec",
    "coefficient": "use constant, a number of workers",
    "enable_stats": "remove it, statistics are always kept",
    "git": "use pfs, with a program that loads the repo",
    "hashtree_spec": "remove it",
    "incremental": "remove it, unchanged datums are always skipped",
    "max_queue_size": "remove it",
    "scale_down_threshold": 'use "autoscaling": true',
    "standby": 'use "autoscaling": true',
    "strategy": "give constant, a number of workers",
}
HOMES = {"constant": "parallelism_spec", "gpu": "resource_limits"} | dict.fromkeys(
    ("cmd", "env", "image", "stdin"), "transform"
)
Problems = list[str]  # one `field: what is wrong; cure` each


def read_fields(content: Any) -> tuple[dict[str, Any], Problems]:
    """A spec with its names in snake_case, less what does not fit, which is said beside it."""
    problems: Problems = []
    return _message(pps.CreatePipelineRequest, content, "", problems), problems


def matches(pattern: str, value: Any) -> bool:
    """Whether a value is a string of that form."""
    return isinstance(value, str) and re.fullmatch(pattern, value) is not None


def _message(kind: Any, value: Any, where: str, problems: Problems) -> dict[str, Any]:
    """The object with its names in snake_case; all that does not fit goes to `problems`."""
    fields: dict[str, Any] = kind()._betterproto.meta_by_field_name
    if not isinstance(value, dict):
        problems.append(f"{where or 'the spec'}: must be an object of {', '.join(fields)}")
        return {}
    spellings = {_camel(name): name for name in fields}
    result: dict[str, Any] = {}
    for key, item in value.items():
        place, name = f"{where}.{key}".lstrip("."), spellings.get(key, key)
        if name not in fields and key != "$schema":  # editors add that, the server drops it
            problems.append(f"{place}: {_cure(key, fields)}")
        elif name in result:
            problems.append(f"{place}: given twice, as {name} too; keep one")
        elif name in fields and item is not None:  # null is the same as absent
            result[name] = _field(kind()._betterproto, name, item, (place, problems))
    return result


def _camel(name: str) -> str:
    return re.sub("_(.)", lambda match: match[1].upper(), name)


def _cure(key: str, fields: Mapping[str, Any]) -> str:
    if retired := RETIRED.get(re.sub("([A-Z])", "_\\1", key).lower()):
        return f"gone since Pachyderm 2; {retired}"
    if home := HOMES.get(key):
        return f"no such field here; it belongs in {home}"
    close = get_close_matches(key, fields, 1)
    return f"no such field; did you mean {close[0]}?" if close else "no such field; remove it"


def _field(types: Any, name: str, value: Any, report: tuple[str, Problems]) -> Any:
    """A field's value, be it a list, a map or single."""
    meta, (place, problems) = types.meta_by_field_name[name], report
    if types.default_gen[name] is list and isinstance(value, list):
        places = [(f"{place}[{index}]", problems) for index in range(len(value))]
        return [
            _value(meta, types.cls_by_field[name], *each)
            for each in zip(value, places, strict=True)
        ]
    if types.default_gen[name] is list:
        problems.append(f"{place}: must be a list")
    elif meta.proto_type != "map":
        return _value(meta, types.cls_by_field[name], value, report)
    elif not isinstance(value, dict) or not all(isinstance(item, str) for item in value.values()):
        problems.append(f"{place}: must be an object of strings")
    return value


def _value(meta: Any, kind: Any, value: Any, report: tuple[str, Problems]) -> Any:
    place, problems = report
    proto_type = meta.wraps or meta.proto_type
    if proto_type == "message" and kind not in (timedelta, datetime):
        return _message(kind, value, place, problems)
    if proto_type.endswith(("int32", "int64")) and matches(r"-?\d+", value):
        value = int(value)  # protojson takes both
    expected, fits = _expectation(proto_type, kind, value)
    if not fits:
        problems.append(f"{place}: must be {expected}, not {json.dumps(value)}")
    return value


def _expectation(proto_type: str, kind: Any, value: Any) -> tuple[str, bool]:
    """What the value should be, and whether it is."""
    if kind is timedelta:
        return 'a duration in seconds such as "1800s"', matches(r"\d+(\.\d{1,9})?s", value)
    if proto_type == "enum":
        return f"one of {', '.join(kind.__members__)}", value in list(kind.__members__)
    if proto_type == "bool":
        return "true or false", isinstance(value, bool)
    if proto_type in ("float", "double"):
        return "a number", type(value) in (int, float)
    if proto_type.endswith(("int32", "int64")):
        low = 0 if proto_type.startswith("u") else -(2**63)
        return "a whole number", type(value) is int and low <= value < 2 ** int(proto_type[-2:])
    return "a string", isinstance(value, str)
