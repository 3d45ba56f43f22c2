"""Who is let in, and what of requests is refused before anything is done."""

import json
import string
import time
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request
from hypothesis import given
from hypothesis import strategies as st

from capstan.http.errors import RequestError
from capstan.ingest.service import auth, validation
from capstan.ingest.service.auth import COOKIE, SESSION, Auth
from capstan.ingest.service.validation import check, document, query_schemas, read_query

TOKEN = "open sesame"
JOBS = "/api/jobs"


def asked(path: str = JOBS, method: str = "GET", **headers: str) -> web.Request:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return make_mocked_request(method, path, headers={"Host": "127.0.0.1:8090"} | named)


def status(keeper: Auth, request: web.Request) -> int:
    """What it is refused with; 200 if it is not."""
    try:
        keeper.check(request)
    except RequestError as error:
        return error.status
    return 200


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (f"Bearer {TOKEN}", 200),
        (f"bearer  {TOKEN} ", 200),
        ("Bearer other", 401),
        (f"Basic {TOKEN}", 401),
        (TOKEN, 401),
        ("Bearer", 401),
        ("Bearer \xff", 401),
        ("", 401),
    ],
)
def test_the_token_lets_in(header: str, expected: int) -> None:
    assert status(Auth(TOKEN), asked(Authorization=header)) == expected


@pytest.mark.parametrize("path", sorted(auth.OPEN))
def test_some_addresses_are_open(path: str) -> None:
    assert status(Auth(TOKEN), asked(path)) == 200


@pytest.mark.parametrize("path", ["/metrics", "/api/jobs", "/api/events", "/api/", "/other"])
def test_all_others_are_not(path: str) -> None:
    assert status(Auth(TOKEN), asked(path)) == 401


def cookie_of(keeper: Auth, **headers: str) -> Any:
    response = web.Response()
    keeper.sign_in(asked(**headers), response)
    return response.cookies[COOKIE]


def test_a_cookie_is_as_good_as_the_token_and_does_not_tell_it() -> None:
    cookie = cookie_of(Auth(TOKEN))
    assert (cookie["httponly"], cookie["samesite"], cookie["secure"]) == (True, "Strict", False)
    assert TOKEN not in cookie.value
    assert status(Auth(TOKEN), asked(Cookie=f"session={cookie.value}")) == 200
    assert status(Auth("new since"), asked(Cookie=f"session={cookie.value}")) == 401


def test_behind_tls_a_cookie_is_for_tls_only() -> None:
    assert cookie_of(Auth(TOKEN), X_Forwarded_Proto="https")["secure"] is True


def test_a_cookie_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    value = cookie_of(Auth(TOKEN)).value
    monkeypatch.setattr(time, "time", lambda now=time.time(): now + SESSION + 1)  # noqa: B008
    assert status(Auth(TOKEN), asked(Cookie=f"session={value}")) == 401


@given(st.text(string.printable.replace(";", "").replace(",", ""), max_size=100))
def test_no_made_up_cookie_lets_in(text: str) -> None:
    for value in (text, f"9999999999.{text}", f"{text}.{'0' * 64}"):
        clean = value.translate({ord(each): None for each in '\r\n"\\'})
        assert status(Auth(TOKEN), asked(Cookie=f"session={clean}")) == 401


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1:8090", 200),
        ("127.0.0.1", 200),
        ("127.1.2.3:1", 200),
        ("localhost:8090", 200),
        ("a.localhost", 200),
        ("[::1]:8090", 200),
        ("evil.example", 403),
        ("evil.example:8090", 403),
        ("127.0.0.1.evil.example", 403),
        ("localhost.evil.example", 403),
        ("", 403),
        ("10.0.0.1", 403),
        ("localhost:8090@evil.example", 403),
    ],
)
def test_without_a_token_other_names_of_loopback_are_not_served(host: str, expected: int) -> None:
    assert status(Auth(None), asked(Host=host)) == expected
    assert status(Auth(TOKEN), asked(Host=host, Authorization=f"Bearer {TOKEN}")) == 200


@pytest.mark.parametrize(
    ("method", "headers", "expected"),
    [
        ("POST", {}, 200),
        ("POST", {"Sec_Fetch_Site": "same-origin"}, 200),
        ("POST", {"Sec_Fetch_Site": "none"}, 200),
        ("POST", {"Sec_Fetch_Site": "cross-site"}, 403),
        ("POST", {"Sec_Fetch_Site": "cross-site", "Sec_Fetch_Mode": "navigate"}, 403),
        ("POST", {"Sec_Fetch_Site": "same-site"}, 403),
        ("POST", {"Origin": "http://127.0.0.1:8090"}, 200),
        ("POST", {"Origin": "http://127.0.0.1:9999"}, 403),
        ("POST", {"Origin": "https://evil.example"}, 403),
        ("POST", {"Origin": "null"}, 403),
        ("GET", {"Sec_Fetch_Site": "cross-site"}, 403),
        ("GET", {"Sec_Fetch_Site": "cross-site", "Sec_Fetch_Mode": "navigate"}, 200),
    ],
)
def test_other_sites_cannot_act_through_a_browser(
    method: str, headers: dict[str, str], expected: int
) -> None:
    assert status(Auth(None), asked(JOBS, method, **headers)) == expected


# What the document does not name


def query(operation: str, text: str) -> dict[str, Any]:
    return read_query(asked(f"/?{text}"), operation)


def test_a_query_has_the_types_of_the_document() -> None:
    text = "name=a%20b&image_size=64&deadline=0.5&keep_metadata=true&resize_mode=no"
    assert query("submitJob", text) == {
        "name": "a b",
        "image_size": 64,
        "deadline": 0.5,
        "keep_metadata": True,
        "resize_mode": "no",
    }


@pytest.mark.parametrize(
    ("operation", "text", "message"),
    [
        ("listJobs", "limt=5", "query: no 'limt'; choose from state, limit, after"),
        ("showJob", "a=5", "query: no 'a'; there is none here"),
        ("listJobs", "limit=5&limit=6", "query: limit is given 2 times; give one"),
        ("listJobs", "limit=0", "limit 0: give at least 1"),
        ("listJobs", "limit=1001", "limit 1001: give at most 1,000"),
        ("listJobs", "limit=", 'limit "": give a whole number'),
        ("listJobs", "limit=1_0", 'limit "1_0": give a whole number'),
        ("listJobs", "limit=%D9%A1", 'limit "\\u0661": give a whole number'),
        ("listJobs", "limit=1.5", "limit 1.5: give a whole number"),
        ("listJobs", "limit=1e999", "limit Infinity: give a whole number"),
        ("listJobs", "state=over", 'state "over": choose from queued, running'),
        ("listJobs", "after=%00", 'after "\\u0000": give what matches'),
        ("listJobs", "after=a%0a", 'after "a\\n": give what matches'),
        ("submitJob", "keep_metadata=yes", 'keep_metadata "yes": give true or false'),
        ("submitJob", "name=", "name: 0 characters; give 1 to 200"),
        ("submitJob", f"name={'n' * 201}", "name: 201 characters; give 1 to 200"),
        ("submitJob", "deadline=nan", 'deadline "nan": give a number'),
    ],
)
def test_what_is_wrong_with_a_query_is_said(operation: str, text: str, message: str) -> None:
    with pytest.raises(RequestError) as refused:
        query(operation, text)
    assert refused.value.status == 400
    assert str(refused.value).startswith(message)


@given(st.text(max_size=40))
def test_any_text_is_a_value_or_refused(text: str) -> None:
    for name, schema in query_schemas("submitJob").items():
        try:
            value = validation._parsed(schema, text, name)
        except RequestError as error:
            assert error.status == 400
            assert "\n" not in str(error)
        else:
            assert check(schema, value, name) == value


@given(st.recursive(st.none() | st.booleans() | st.floats() | st.text(), st.lists))
def test_any_json_is_a_value_or_refused(value: Any) -> None:
    for name, schema in document()["components"]["schemas"]["Options"]["properties"].items():
        try:
            checked = check(schema, value, name)
        except RequestError as error:
            assert "\n" not in str(error)
        else:
            assert json.dumps(checked)
