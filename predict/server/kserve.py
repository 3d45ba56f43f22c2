"""The Open Inference Protocol (KServe v2) over HTTP.

https://github.com/kserve/open-inference-protocol/blob/main/specification/protocol/inference_rest.md:
health, server and model metadata, and inference. The one input is a BYTES tensor of pictures,
shape [N] or [N, 1], each in base64, for JSON has no bytes. Outputs, each of shape [N]: `caption`
(BYTES), `log_probability` (FP32) and `alternatives` (BYTES, JSON lists). An error is
`{"error": message}`, as there, with `reason` beside it if a picture has one.
"""

import json
from collections.abc import Sequence
from functools import partial
from typing import Any

from aiohttp import web

from capstan import __version__
from capstan.http.errors import RequestError
from capstan.predict.captions import said
from capstan.predict.server.bodies import decode_base64, read_json
from capstan.predict.server.config import NAME, VERSION
from capstan.predict.server.service import CaptionService

INPUT = "image"
OUTPUTS = {"caption": "BYTES", "log_probability": "FP32", "alternatives": "BYTES"}
MODEL = f"/v2/models/{NAME}"
PLACES = (MODEL, f"{MODEL}/versions/{VERSION}")


def routes(service: CaptionService) -> list[web.RouteDef]:
    """The routes of this protocol."""
    return [
        web.get("/v2", server),
        web.get("/v2/health/live", live),
        web.get("/v2/health/ready", partial(ready, service)),
        *(web.get(place, partial(metadata, service)) for place in PLACES),
        *(web.get(f"{place}/ready", partial(model_ready, service)) for place in PLACES),
        *(web.post(f"{place}/infer", partial(infer, service)) for place in PLACES),
    ]


async def server(request: web.Request) -> web.Response:
    """Which server this is."""
    return web.json_response({"name": NAME, "version": __version__, "extensions": []})


async def live(request: web.Request) -> web.Response:
    """That the server runs."""
    return web.json_response({"live": True})


async def ready(service: CaptionService, request: web.Request) -> web.Response:
    """Whether requests are taken: 200, or 503 while draining."""
    return _readiness(service, {"live": True})


async def model_ready(service: CaptionService, request: web.Request) -> web.Response:
    """The same of the only model."""
    return _readiness(service, {"name": NAME})


def _readiness(service: CaptionService, more: dict[str, Any]) -> web.Response:
    is_ready = not service.gate.draining
    return web.json_response({**more, "ready": is_ready}, status=200 if is_ready else 503)


async def metadata(service: CaptionService, request: web.Request) -> web.Response:
    """The model's tensors; under `parameters` what model and extractor these are."""
    return web.json_response(
        {
            "name": NAME,
            "versions": [VERSION],
            "platform": "tensorflow_keras",
            "inputs": [{"name": INPUT, "datatype": "BYTES", "shape": [-1]}],
            "outputs": [
                {"name": name, "datatype": datatype, "shape": [-1]}
                for name, datatype in OUTPUTS.items()
            ],
            "parameters": service.description,
        }
    )


async def infer(service: CaptionService, request: web.Request) -> web.Response:
    """Captions of a tensor of pictures."""
    content = await read_json(request, service)
    names = _wanted(content.get("outputs"))
    values = _tensor(content.get("inputs"))
    places = [f"inputs[0].data[{index}]" for index in range(len(values))]
    pictures = await service.in_thread(_pictures, values, places)
    answers = [said(captions) for captions in await service.caption(pictures, places)]
    named = {"id": content["id"]} if isinstance(content.get("id"), str) else {}
    outputs = [_output(name, [answer[name] for answer in answers]) for name in names]
    return web.json_response(
        {"model_name": NAME, "model_version": VERSION, **named, "outputs": outputs}
    )


def _pictures(values: Sequence[Any], places: Sequence[str]) -> list[bytes]:
    return [decode_base64(*each) for each in zip(values, places, strict=True)]


def _wanted(outputs: Any) -> list[str]:
    """The names of the outputs asked for, all if none are."""
    if not outputs:
        return list(OUTPUTS)
    if not isinstance(outputs, list) or not all(isinstance(each, dict) for each in outputs):
        raise RequestError(400, "outputs: give a list of objects with a name")
    names = [each.get("name") for each in outputs]
    for name in names:
        if not isinstance(name, str) or name not in OUTPUTS:
            raise RequestError(400, f"outputs: there is no {name!r}, only {', '.join(OUTPUTS)}")
    return [name for name in OUTPUTS if name in names]


def _tensor(inputs: Any) -> list[Any]:
    """The elements of the only input tensor."""
    if not isinstance(inputs, list) or len(inputs) != 1 or not isinstance(inputs[0], dict):
        raise RequestError(400, f"inputs: give one tensor, {INPUT}")
    tensor = inputs[0]
    if tensor.get("datatype") != "BYTES":
        raise RequestError(400, "inputs[0].datatype: must be BYTES, pictures in base64")
    data, shape = tensor.get("data"), tensor.get("shape")
    if not isinstance(data, list) or not data:
        raise RequestError(400, "inputs[0].data: give a list of pictures in base64")
    flat = [item for each in data for item in (each if isinstance(each, list) else [each])]
    if shape not in ([len(flat)], [len(flat), 1]):
        raise RequestError(400, f"inputs[0].shape: must be [{len(flat)}], as many as data has")
    return flat


def _output(name: str, values: Sequence[Any]) -> dict[str, Any]:
    data = [json.dumps(value) for value in values] if name == "alternatives" else values
    return {"name": name, "datatype": OUTPUTS[name], "shape": [len(data)], "data": data}
