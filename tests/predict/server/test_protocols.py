"""The shapes of both protocols and of our own, with a real model; hostile uploads; metrics."""

import asyncio
import base64
import gzip
import io
import json
import random
import struct
import zipfile
import zlib
from collections.abc import Callable, Sequence
from typing import Any

import aiohttp
import pytest
from PIL import Image

from capstan.predict.captions import Predictor
from capstan.records import Failure
from tests.predict.conftest import png
from tests.predict.server.conftest import ONE_MODEL, Client, metric

pytestmark = ONE_MODEL
PREDICT, INFER = "/v1/models/capstan:predict", "/v2/models/capstan/infer"


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def instances(*pictures: bytes) -> dict[str, Any]:
    return {"instances": [{"b64": b64(picture)} for picture in pictures]}


def tensor(*pictures: bytes) -> dict[str, Any]:
    data = [b64(picture) for picture in pictures]
    return {"name": "image", "datatype": "BYTES", "shape": [len(data)], "data": data}


def truth(predictor: Predictor, data: bytes) -> tuple[str, ...]:
    """The captions that the model itself has for a picture."""
    pixels = predictor.pixels(data)
    assert not isinstance(pixels, Failure)
    return tuple(caption.text for caption in predictor.captions([pixels])[0])


async def post(client: Client, path: str, content: object) -> tuple[int, Any]:
    async with client.post(path, json=content) as response:
        return response.status, await response.json()


async def test_tensorflow_serving(client: Client, predictor: Predictor) -> None:
    one, two = png(1), png(2)
    status, answer = await post(client, PREDICT, instances(one, two))
    assert status == 200
    for picture, prediction in zip((one, two), answer["predictions"], strict=True):
        best, other = truth(predictor, picture)
        assert prediction["caption"] == best
        assert [each["caption"] for each in prediction["alternatives"]] == [other]
        assert prediction["log_probability"] < 0
    named = {"signature_name": "serving_default", "inputs": {"image_bytes": [{"b64": b64(one)}]}}
    status, columns = await post(client, "/v1/models/capstan/versions/1:predict", named)
    assert status == 200
    assert columns["outputs"]["caption"] == [answer["predictions"][0]["caption"]]
    assert set(columns["outputs"]) == {"caption", "log_probability", "alternatives"}


async def test_tensorflow_serving_tells_of_its_model(client: Client, predictor: Predictor) -> None:
    async with client.get("/v1/models/capstan") as response:
        (version,) = (await response.json())["model_version_status"]
    ok = {"error_code": "OK", "error_message": ""}
    assert version == {"version": "1", "state": "AVAILABLE", "status": ok}
    async with client.get("/v1/models/capstan/metadata") as response:
        content = await response.json()
    assert content["model_spec"] == {"name": "capstan", "signature_name": "", "version": "1"}
    signature = content["metadata"]["signature_def"]["signature_def"]["serving_default"]
    assert signature["inputs"]["image_bytes"]["dtype"] == "DT_STRING"
    assert content["metadata"]["capstan"] == predictor.description


async def test_kserve(client: Client, predictor: Predictor) -> None:
    one, two = png(1), png(2)
    status, answer = await post(client, INFER, {"id": "42", "inputs": [tensor(one, two)]})
    assert status == 200
    assert (answer["model_name"], answer["model_version"], answer["id"]) == ("capstan", "1", "42")
    outputs = {each["name"]: each for each in answer["outputs"]}
    assert {name: each["datatype"] for name, each in outputs.items()} == {
        "caption": "BYTES",
        "log_probability": "FP32",
        "alternatives": "BYTES",
    }
    assert all(each["shape"] == [2] for each in outputs.values())
    others = [json.loads(each)[0]["caption"] for each in outputs["alternatives"]["data"]]
    said = zip(outputs["caption"]["data"], others, strict=True)
    assert list(said) == [truth(predictor, one), truth(predictor, two)]
    nested = {**tensor(one), "shape": [1, 1], "data": [[b64(one)]]}
    wanted = {"inputs": [nested], "outputs": [{"name": "caption"}]}
    status, answer = await post(client, "/v2/models/capstan/versions/1/infer", wanted)
    assert (status, answer["outputs"]) == (
        200,
        [{**outputs["caption"], "shape": [1], "data": outputs["caption"]["data"][:1]}],
    )
    assert "id" not in answer


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/healthz", {"live": True}),
        ("/v2/health/live", {"live": True}),
        ("/v2/health/ready", {"live": True, "ready": True}),
        ("/v2/models/capstan/ready", {"name": "capstan", "ready": True}),
        ("/v2", {"name": "capstan", "extensions": []}),
        ("/v2/models/capstan", {"name": "capstan", "versions": ["1"]}),
    ],
)
async def test_kserve_tells_of_itself(client: Client, path: str, expected: dict[str, Any]) -> None:
    async with client.get(path) as response:
        assert response.status == 200
        content = await response.json()
    assert content | expected == content


async def test_a_picture_as_it_is_and_in_a_form(client: Client, predictor: Predictor) -> None:
    picture = png(3)
    async with client.post("/caption", data=picture) as response:
        answer = await response.json()
    best, other = truth(predictor, picture)
    assert (answer["caption"], answer["alternatives"][0]["caption"]) == (best, other)
    assert answer["model_sha256"] == predictor.description["model_sha256"]
    form = aiohttp.FormData({"note": "a word before it"})
    form.add_field("file", picture, filename="a.png", content_type="image/png")
    async with client.post("/caption", data=form) as response:
        assert await response.json() == answer


@pytest.mark.parametrize(
    ("path", "content", "message"),
    [
        (PREDICT, [], "not a JSON object"),
        (PREDICT, {}, "give instances, or else inputs"),
        (PREDICT, {"instances": [], "inputs": []}, "give instances, or else inputs"),
        (PREDICT, {"instances": []}, 'instances: give a list of {"b64": ...}'),
        (PREDICT, {"instances": ["what"]}, "instances[0].b64: not a base64 string"),
        (PREDICT, {"instances": [{"b64": "-"}]}, "instances[0].b64: not a base64 string"),
        (PREDICT, {"instances": [{"b64": "é"}]}, "instances[0].b64: not a base64 string"),
        (PREDICT, {"signature_name": "other", "instances": [1]}, "only serving_default"),
        (INFER, {}, "inputs: give one tensor, image"),
        (INFER, {"inputs": [{}]}, "inputs[0].datatype: must be BYTES"),
        (INFER, {"inputs": [{"datatype": "BYTES"}]}, "inputs[0].data: give a list"),
        (INFER, {"inputs": [{**tensor(b"a"), "shape": [2]}]}, "inputs[0].shape: must be [1]"),
        (INFER, {"inputs": [{**tensor(b"a"), "data": [7]}]}, "inputs[0].data[0]: not a base64"),
        (INFER, {"inputs": [tensor(b"a")], "outputs": [{"name": "x"}]}, "there is no 'x', only"),
        (INFER, {"inputs": [tensor(b"a")], "outputs": ["caption"]}, "objects with a name"),
    ],
)
async def test_what_is_asked_wrongly(
    client: Client, path: str, content: object, message: str
) -> None:
    status, answer = await post(client, path, content)
    assert status == 400
    assert message in answer["error"]


@pytest.mark.parametrize("body", [b"", b"{", b"\xff\xfe", b"[" * 100_000])
async def test_what_is_no_json(client: Client, body: bytes) -> None:
    for path in (PREDICT, INFER):
        async with client.post(path, data=body) as response:
            assert response.status == 400
            assert "not JSON" in (await response.json())["error"]


async def test_other_places_and_methods(client: Client) -> None:
    async with client.post("/v1/models/other:predict", data=b"") as response:
        assert response.status == 404
        assert await response.json() == {"error": "POST /v1/models/other:predict: Not Found"}
    async with client.get("/caption") as response:
        assert (response.status, response.headers["Allow"]) == (405, "POST")
        assert "error" in await response.json()


def cut_short() -> bytes:
    data = io.BytesIO()
    Image.effect_noise((200, 200), 80).save(data, "JPEG")
    return data.getvalue()[:3_000]


def huge() -> bytes:
    """A whole PNG of 20,000 x 20,000 pixels, one bit each: 50 kB."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        crc = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + crc

    header = struct.pack(">IIBBBBB", 20_000, 20_000, 1, 0, 0, 0, 0)
    rows = zlib.compress(bytes(20_000 * 2_501))
    parts = (chunk(b"IHDR", header), chunk(b"IDAT", rows), chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def zipped() -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("a.png", bytes(1_000_000))
    return data.getvalue()


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (cut_short, "corrupt_image"),
        (huge, "too_many_pixels"),
        (zipped, "not_an_image"),
        (bytes, "empty_body"),
        (lambda: b"<html>", "not_an_image"),
        (lambda: b"\x89PNG\r\n\x1a\n", "corrupt_image"),
    ],
)
async def test_hostile_uploads(client: Client, make: Callable[[], bytes], reason: str) -> None:
    data = make()
    form = aiohttp.FormData()
    form.add_field("file", data, filename="a.jpg")
    asked: Sequence[tuple[str, dict[str, Any]]] = (
        ("/caption", {"data": data}),
        ("/caption", {"data": form}),
        (PREDICT, {"json": instances(png(0), data)}),
        (INFER, {"json": {"inputs": [tensor(png(0), data)]}}),
    )
    for path, body in asked:
        async with client.post(path, **body) as response:
            answer = await response.json()
        assert (response.status, answer["reason"]) == (422, reason), path
        place = {"/caption": "the picture", PREDICT: "instances[1]", INFER: "inputs[0].data[1]"}
        assert answer["error"].startswith(f"{place[path]}: {reason}: ")
    async with client.post("/caption", data=png(0)) as response:
        assert response.status == 200


@pytest.mark.filterwarnings("ignore::aiohttp.BadContentDispositionHeader")
@pytest.mark.filterwarnings("ignore::aiohttp.BadContentDispositionParam")
async def test_damaged_forms(client: Client) -> None:
    whole = (
        b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.png"\r\n'
        b"Content-Type: image/png\r\n\r\n" + png(0)[:300] + b"\r\n--x--\r\n"
    )
    chance = random.Random(0)
    for _ in range(150):
        data = bytearray(whole[: chance.randrange(len(whole))] if chance.random() < 0.3 else whole)
        for _ in range(chance.randrange(1, 6) if data else 0):
            data[chance.randrange(min(len(data), 120))] = chance.randrange(256)
        kind = chance.choice(["x", "x", "y", "x; charset=z", "é", ""])
        headers = {"Content-Type": f"multipart/form-data; boundary={kind}"}
        async with client.post("/caption", data=bytes(data), headers=headers) as response:
            assert response.status in (400, 422), (bytes(data), kind)
            assert "error" in await response.json()


async def test_concurrent_requests_are_computed_together(client: Client) -> None:
    async def ask(seed: int) -> int:
        async with client.post("/caption", data=png(seed)) as response:
            return response.status

    assert await asyncio.gather(*map(ask, range(24))) == [200] * 24
    assert await metric(client, "capstan_batch_pictures_sum") == 24
    assert await metric(client, "capstan_batch_pictures_count") < 24
    assert await metric(client, 'capstan_pictures_total{reason="ok"}') == 24


async def test_metrics(client: Client) -> None:
    await post(client, PREDICT, instances(b"none"))
    async with client.get("/healthz"):
        pass
    async with client.get("/no/such/place"):
        pass
    labels = (
        ("/v1/models/capstan:predict", "4xx"),
        ("/healthz", "2xx"),
        ("other", "4xx"),
    )
    for endpoint, status in labels:
        name = f'capstan_requests_total{{endpoint="{endpoint}",status="{status}"}}'
        assert await metric(client, name) == 1
    assert await metric(client, 'capstan_request_seconds_count{endpoint="/healthz"}') == 1
    assert await metric(client, 'capstan_pictures_total{reason="not_an_image"}') == 1
    assert await metric(client, "capstan_held_pictures") == 0
    assert await metric(client, "capstan_queue_pictures") == 0
    assert await metric(client, "process_resident_memory_bytes") > 0


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        (b"Transfer-Encoding: chunked", b"ZZZ\r\nno length\r\n"),
        (b"Transfer-Encoding: chunked", b"5\r\nabcdefgh\r\n0\r\n\r\n"),
        (b"Content-Encoding: gzip\r\nContent-Length: 9", b"not gzip!"),
        (b"Content-Encoding: deflate\r\nContent-Length: 9", b"not so..."),
        (b"Content-Encoding: br\r\nContent-Length: 9", b"not so..."),
        (b"Content-Encoding: zstd\r\nContent-Length: 9", b"not so..."),
        (b"Content-Type: multipart/form-data\r\nContent-Length: 9", b"no border"),
        (b"Content-Type: multipart/\r\nContent-Length: 9", b"no border"),
        (b"Content-Length: -1", b""),
        (b"Content-Length: 1\r\nTransfer-Encoding: chunked", b""),
    ],
)
@pytest.mark.parametrize("path", [b"/caption", PREDICT.encode(), INFER.encode()])
async def test_bodies_that_are_no_http(
    client: Client, path: bytes, headers: bytes, body: bytes
) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", client.port)
    writer.write(b"POST " + path + b" HTTP/1.1\r\nHost: a\r\n" + headers + b"\r\n\r\n" + body)
    answer = await reader.readline()
    writer.close()
    await writer.wait_closed()
    assert answer.split()[1].startswith(b"4")


async def test_bombs(client: Client) -> None:
    bomb = gzip.compress(bytes(40_000_000))
    headers = {"Content-Encoding": "gzip"}
    for path in ("/caption", PREDICT, INFER):
        async with client.post(path, data=bomb, headers=headers) as response:
            assert response.status == 413
