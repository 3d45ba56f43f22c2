"""The OpenAPI document is true: held against the code it describes and against a real service."""

import json
from dataclasses import fields
from typing import Any

import pytest
import schemathesis

from capstan.ingest.config import ImageOptions, RetryPolicy
from capstan.ingest.service.validation import DOCUMENT
from capstan.records import Reason
from capstan.schemas import OUTCOME_SCHEMA

openapi: dict[str, Any] = json.loads(DOCUMENT)
schemas: dict[str, Any] = openapi["components"]["schemas"]
schema = schemathesis.openapi.from_dict(openapi)


# Against the code


def test_the_document_is_valid() -> None:
    schema.validate()


def test_reasons_are_those_of_the_records() -> None:
    assert schemas["Reason"]["enum"] == list(Reason)


@pytest.mark.parametrize(
    "field", [*fields(ImageOptions), *fields(RetryPolicy)], ids=lambda field: field.name
)
def test_options_are_those_of_the_command(field: Any) -> None:
    said = schemas["Options"]["properties"].get(field.name)
    if said is None:
        assert field.name in ("host_patience", "first_wait", "longest_wait")  # the service's own
        return
    assert said["default"] == field.default
    assert said.get("minimum") == field.metadata["minimum"]
    assert said.get("maximum") == field.metadata["maximum"]
    assert said.get("enum") == (field.metadata["choices"] and list(field.metadata["choices"]))


def test_outcomes_have_columns_of_the_shards() -> None:
    assert set(schemas["Outcome"]["properties"]) <= set(OUTCOME_SCHEMA.names)


def test_every_option_of_a_job_is_a_parameter_of_an_upload() -> None:
    parameters = {
        each["name"]: each["schema"]
        for each in openapi["paths"]["/api/jobs"]["post"]["parameters"]
        if each["in"] == "query"
    }
    assert {name: parameters.get(name) for name in schemas["Options"]["properties"]} == schemas[
        "Options"
    ]["properties"]
