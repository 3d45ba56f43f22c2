"""The served OpenAPI document, and requests held to it: what it does not name is refused."""

import json
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from aiohttp import web

from capstan.http.errors import RequestError

DOCUMENT = (Path(__file__).parent / "openapi.json").read_bytes()
Schema = Mapping[str, Any]
NUMBER = re.compile(r"-?\d{1,40}(\.\d{1,40})?([eE][-+]?\d{1,3})?", re.ASCII)
TYPES = {
    "string": "text",
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
}


@cache
def document() -> dict[str, Any]:
    """The document."""
    content: dict[str, Any] = json.loads(DOCUMENT)
    return content


def resolve(schema: Schema) -> Schema:
    """What a `$ref` within the document stands for."""
    while "$ref" in schema:
        found: Any = document()
        for part in schema["$ref"].removeprefix("#/").split("/"):
            found = found[part]
        schema = found
    return schema


@cache
def query_schemas(operation: str) -> Mapping[str, Schema]:
    """Schemas of the query of an operation, by name."""
    operations = (each for path in document()["paths"].values() for each in path.values())
    (found,) = (each for each in operations if each["operationId"] == operation)
    parameters = map(resolve, found.get("parameters", ()))
    return {each["name"]: resolve(each["schema"]) for each in parameters if each["in"] == "query"}


def read_query(request: web.Request, operation: str) -> dict[str, Any]:
    """The query of a request, each value of its type; raises RefusedError, 400, for any other."""
    schemas = query_schemas(operation)
    for name in request.query:
        if name not in schemas:
            known = f"choose from {', '.join(schemas)}" if schemas else "there is none here"
            raise RequestError(400, f"query: no {name[:80]!r}; {known}")
        if (times := len(request.query.getall(name))) > 1:
            raise RequestError(400, f"query: {name} is given {times} times; give one")
    return {name: _parsed(schemas[name], text, name) for name, text in request.query.items()}


def default(operation: str, name: str) -> Any:
    """What a name of a query stands for when it is not given."""
    return query_schemas(operation)[name]["default"]


def _parsed(schema: Schema, text: str, name: str) -> Any:
    kind = schema["type"]
    value: Any = text
    if kind == "boolean":
        value = {"true": True, "false": False}.get(text, text)
    elif kind in ("integer", "number") and NUMBER.fullmatch(text):
        value = json.loads(text) if not text.lstrip("-").startswith("0") else float(text)
    return check(schema, value, name)


def check(schema: Schema, value: Any, name: str) -> Any:
    """A value of a scalar type as its schema wants it; raises RefusedError, 400, for any other."""
    schema = resolve(schema)
    kind = schema["type"]
    if kind == "integer" and isinstance(value, float) and value.is_integer():
        value = int(value)
    if not _is(kind, value):
        raise RequestError(400, f"{name} {shown(value)}: give {TYPES[kind]}")
    if "enum" in schema and value not in schema["enum"]:
        raise RequestError(400, f"{name} {shown(value)}: choose from {', '.join(schema['enum'])}")
    if value < schema.get("minimum", value):
        raise RequestError(400, f"{name} {shown(value)}: give at least {schema['minimum']:,}")
    if value > schema.get("maximum", value):
        raise RequestError(400, f"{name} {shown(value)}: give at most {schema['maximum']:,}")
    if kind == "string":
        _check_text(schema, value, name)
    return value


def _is(kind: str, value: Any) -> bool:
    kinds = {"string": (str,), "integer": (int,), "number": (int, float), "boolean": (bool,)}
    return type(value) in kinds[kind]


def _check_text(schema: Schema, text: str, name: str) -> None:
    least, most = schema.get("minLength", 0), schema.get("maxLength")
    if len(text) < least or (most is not None and len(text) > most):
        raise RequestError(400, f"{name}: {len(text)} characters; give {least} to {most}")
    pattern = schema.get("pattern")
    if pattern and not re.fullmatch(pattern.removeprefix("^").removesuffix("$"), text):
        raise RequestError(400, f"{name} {shown(text)}: give what matches {pattern}")


def shown(value: Any) -> str:
    """A value as an error quotes it: on one line, not long."""
    text = json.dumps(value, default=str)
    return text if len(text) <= 80 else f"{text[:77]}..."
