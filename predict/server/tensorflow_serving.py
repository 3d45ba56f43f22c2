"""The REST interface of TensorFlow Serving, for clients that speak it.

https://github.com/tensorflow/serving/blob/master/tensorflow_serving/g3doc/api_rest.md, of which:
status, metadata, and predict with `instances` (row format) or `inputs` (columnar format). The one
input is a string tensor of pictures, base64 in an object `{"b64": ...}`; it may be named, as in
`{"image_bytes": {"b64": ...}}`. Besides the outputs `caption` and `log_probability` there is
`alternatives`, which is no tensor: a list of objects for each picture. An error is
`{"error": message}`, as there, with `reason` beside it if a picture has one.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

from aiohttp import web

from capstan.http.errors import RequestError
from capstan.predict.captions import said
from capstan.predict.server.bodies import decode_base64, read_json
from capstan.predict.server.config import NAME, VERSION
from capstan.predict.server.service import CaptionService

INPUT = "image_bytes"
SIGNATURE = "serving_default"
MODEL = f"/v1/models/{NAME}"
PLACES = (MODEL, f"{MODEL}/versions/{VERSION}")


def routes(service: CaptionService) -> list[web.RouteDef]:
    """The routes of this protocol."""
    return [
        route
        for place in PLACES
        for route in (
            web.get(place, partial(status, service)),
            web.get(f"{place}/metadata", partial(metadata, service)),
            web.post(f"{place}:predict", partial(predict, service)),
        )
    ]


async def status(service: CaptionService, request: web.Request) -> web.Response:
    """A GetModelStatusResponse."""
    state = "UNLOADING" if service.gate.draining else "AVAILABLE"
    of_version = {
        "version": VERSION,
        "state": state,
        "status": {"error_code": "OK", "error_message": ""},
    }
    return web.json_response({"model_version_status": [of_version]})


async def metadata(service: CaptionService, request: web.Request) -> web.Response:
    """A GetModelMetadataResponse; under `capstan` what model and extractor these are."""
    signature = {
        "inputs": {INPUT: _tensor(INPUT, "DT_STRING")},
        "outputs": {
            "caption": _tensor("caption", "DT_STRING"),
            "log_probability": _tensor("log_probability", "DT_FLOAT"),
        },
        "method_name": "tensorflow/serving/predict",
    }
    return web.json_response(
        {
            "model_spec": {"name": NAME, "signature_name": "", "version": VERSION},
            "metadata": {
                "signature_def": {"signature_def": {SIGNATURE: signature}},
                "capstan": service.description,
            },
        }
    )


def _tensor(name: str, kind: str) -> dict[str, Any]:
    shape = {"dim": [{"size": "-1", "name": ""}], "unknown_rank": False}
    return {"dtype": kind, "tensor_shape": shape, "name": f"{name}:0"}


async def predict(service: CaptionService, request: web.Request) -> web.Response:
    """Captions of a list of pictures: `predictions` for `instances`, `outputs` for `inputs`."""
    content = await read_json(request, service)
    if content.get("signature_name", SIGNATURE) not in (SIGNATURE, ""):
        raise RequestError(400, f"signature_name: there is only {SIGNATURE}")
    given = [key for key in ("instances", "inputs") if key in content]
    if len(given) != 1:
        raise RequestError(400, "give instances, or else inputs")
    key = given[0]
    values = content[key] if key == "instances" else _unnamed(content[key])
    if not isinstance(values, list) or not values:
        raise RequestError(400, f'{key}: give a list of {{"b64": ...}}')
    places = [f"{key}[{index}]" for index in range(len(values))]
    pictures = await service.in_thread(_pictures, values, places)
    answers = [said(captions) for captions in await service.caption(pictures, places)]
    if key == "instances":
        return web.json_response({"predictions": answers})
    return web.json_response(
        {"outputs": {name: [answer[name] for answer in answers] for name in answers[0]}}
    )


def _pictures(values: Sequence[Any], places: Sequence[str]) -> list[bytes]:
    return [_picture(*each) for each in zip(values, places, strict=True)]


def _picture(value: Any, place: str) -> bytes:
    named = _unnamed(value)
    encoded = named.get("b64") if isinstance(named, dict) else None
    return decode_base64(encoded, f"{place}.b64")


def _unnamed(value: Any) -> Any:
    """The value of the only input, be it named or not."""
    if isinstance(value, dict) and len(value) == 1 and "b64" not in value:
        return next(iter(value.values()))
    return value
