"""Where the server is: flags before environment before pachctl's configuration."""

import argparse
import json
from base64 import b64encode
from pathlib import Path
from typing import Any

import grpc
import pytest
import trustme
from hypothesis import given
from hypothesis import strategies as st

from capstan.errors import SettingError
from capstan.pachyderm import connection
from capstan.pachyderm.connection import ServerTarget, find, parse
from capstan.testing.pachd import Pachd
from tests.deploy.pachyderm.conftest import Capstan

PEM = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----"
CONTEXT = {
    "pachd_address": "grpcs://pach.example:443",
    "server_cas": b64encode(PEM.encode()).decode(),
    "session_token": "from-pachctl",
    "project": "captions",
    "source": "IMPORTED",
    "cluster_deployment_id": "1",
}


def flags(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    connection.add_flags(parser)
    return parser.parse_args(words)


@pytest.fixture
def home(tmp_path: Path) -> dict[str, str]:
    """The environment of someone who has set up pachctl."""
    configure(tmp_path, {"one": CONTEXT, "two": {"port_forwarders": {"pachd": 30651}}})
    return {"HOME": str(tmp_path)}


def configure(home: Path, contexts: dict[str, Any], active: str = "one") -> None:
    file = home / ".pachyderm" / "config.json"
    file.parent.mkdir(exist_ok=True)
    v2 = {"active_context": active, "contexts": contexts, "metrics": True}
    file.write_text(json.dumps({"user_id": "1", "v2": v2}))


def test_without_any_setting_it_is_where_pachctl_forwards_to() -> None:
    assert find(flags(), {"HOME": "/nowhere"}) == ServerTarget("localhost", 30650)


def test_the_active_context_of_pachctl(home: dict[str, str]) -> None:
    expected = ServerTarget("pach.example", 443, True, PEM.encode(), "from-pachctl", "captions")
    assert find(flags(), home) == expected
    assert "from-pachctl" not in repr(expected)


def test_in_a_worker_it_is_the_sidecar_and_the_pipelines_project(tmp_path: Path) -> None:
    """A spout's workers find such a file at /pachctl/config.json."""
    configure(tmp_path, {"default": {"pachd_address": "localhost:1653"}}, "default")
    environment = {"HOME": str(tmp_path), "PPS_PROJECT_NAME": "photos"}
    assert find(flags(), environment) == ServerTarget("localhost", 1653, project="photos")


def test_another_context_or_file_is_named_by_the_environment(
    home: dict[str, str], tmp_path: Path
) -> None:
    assert find(flags(), home | {"PACH_CONTEXT": "two"}) == ServerTarget("localhost", 30651)
    other = tmp_path / "other.json"
    other.write_text('{"v2": {"active_context": "", "contexts": {}}}')
    assert find(flags(), home | {"PACH_CONFIG": str(other)}) == ServerTarget("localhost", 30650)


def test_environment_goes_before_configuration_and_flags_before_both(
    home: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "token").write_text("of-a-file\n")
    (tmp_path / "ca.pem").write_text(PEM)
    environment = home | {
        "PACHD_ADDRESS": "grpcs://other.example",
        "PACH_PYTHON_AUTH_TOKEN": "of-environment",
        "CAPSTAN_PROJECT": "p",
        "PACH_CA_CERTS": str(tmp_path / "ca.pem"),
    }
    found = ServerTarget("other.example", 30650, True, PEM.encode(), "of-environment", "p")
    assert find(flags(), environment) == found
    words = ("--address", "1.2.3.4:5", "--project", "q", "--token-file", str(tmp_path / "token"))
    del environment["PACH_CA_CERTS"]
    assert find(flags(*words), environment) == ServerTarget(
        "1.2.3.4", 5, False, None, "of-a-file", "q"
    )


def test_what_is_known_of_one_server_is_not_told_to_another(home: dict[str, str]) -> None:
    elsewhere = find(flags("--address", "grpcs://evil.example:443"), home)
    assert elsewhere == ServerTarget("evil.example", 443, True)
    same = find(flags("--address", "https://pach.example:443"), home)
    assert (same.token, same.project) == ("from-pachctl", "captions")


@pytest.mark.parametrize(
    ("text", "environment", "says"),
    [
        ("{", {}, "no configuration of pachctl"),
        ('{"v2": []}', {}, None),
        ('{"v2": {"contexts": [1]}}', {}, "no configuration of pachctl"),
        ('{"v2": {"active_context": "x", "contexts": {}}}', {}, "no context 'x' there"),
        ("{}", {"PACH_CONTEXT": "y"}, "no context 'y' there"),
        (
            '{"v2": {"active_context": "x", "contexts": {"x": {"server_cas": "%"}}}}',
            {},
            "server_cas of pachctl's active context: not base64",
        ),
    ],
)
def test_configurations_that_cannot_be_read(
    tmp_path: Path, text: str, environment: dict[str, str], says: str | None
) -> None:
    file = tmp_path / "config.json"
    file.write_text(text)
    environment = {"PACH_CONFIG": str(file), **environment}
    if says is None:
        assert find(flags(), environment) == ServerTarget("localhost", 30650)
        return
    with pytest.raises(SettingError, match=says):
        find(flags(), environment)


def test_files_that_are_not_there(tmp_path: Path) -> None:
    none = str(tmp_path / "none")
    for words, environment in (
        (("--token-file", none), {}),
        (("--ca", none), {}),
        ((), {"PACH_CONFIG": none}),
    ):
        with pytest.raises(SettingError, match=f"{none}: cannot be read"):
            find(flags(*words), {"HOME": none, **environment})


def test_certificates_need_tls(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text(PEM)
    with pytest.raises(SettingError, match="write it as grpcs://a:1"):
        find(flags("--address", "a:1", "--ca", str(tmp_path / "ca.pem")), {"HOME": "/nowhere"})


@pytest.mark.parametrize(
    ("address", "parsed"),
    [
        ("a", ("a", 30650, False)),
        ("a:1", ("a", 1, False)),
        ("grpcs://a", ("a", 30650, True)),
        ("https://a:443", ("a", 443, True)),
        ("grpc://[::1]:5", ("[::1]", 5, False)),
    ],
)
def test_addresses(address: str, parsed: tuple[str, int, bool]) -> None:
    assert parse(address) == parsed


@pytest.mark.parametrize(
    "address",
    ["", "ftp://a", "grpc://", "a:b", "a:99999", "grpc://a/b", "grpc://u@a", "a?b", "[::1"],
)
def test_what_is_no_address(address: str) -> None:
    with pytest.raises(SettingError, match="write it as grpc://HOST:PORT"):
        parse(address)


@given(st.text())
def test_no_text_makes_it_crash(address: str) -> None:
    try:
        host, port, _ = parse(address)
    except SettingError:
        return
    assert host and 0 < port < 65536


def test_the_token_is_sent(pachd: Pachd, capstan: Capstan, tmp_path: Path) -> None:
    pachd.token = "secret"
    assert capstan("status") == 1
    assert "no authentication token (try logging in); `pachctl auth login`" in capstan.err
    (tmp_path / "token").write_text("secret\n")
    assert capstan("status", "--token-file", tmp_path / "token") == 0


def test_tls_with_the_authority_that_is_named(tmp_path: Path, capstan: Capstan) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    issued = authority.issue_cert("localhost")
    pair = (issued.private_key_pem.bytes(), issued.cert_chain_pems[0].bytes())
    with Pachd(grpc.ssl_server_credentials([pair])) as secured:
        assert capstan("status", "--address", secured.address, "--ca", tmp_path / "ca.pem") == 0
        assert capstan("status", "--address", secured.address) == 1
        assert "--ca" in capstan.err
        plain = secured.address.replace("grpcs", "grpc")
        assert capstan("status", "--address", plain) == 1
        assert "grpcs:// is the other way" in capstan.err


def test_servers_that_are_not_there_or_no_pachyderm(pachd: Pachd, capstan: Capstan) -> None:
    from http.server import BaseHTTPRequestHandler, HTTPServer
    from threading import Thread

    assert capstan("status", "--address", "grpc://127.0.0.1:1") == 1
    assert "grpc://127.0.0.1:1, project photos: nothing answers as it should" in capstan.err
    assert "pachctl port-forward" in capstan.err
    pachd.refusal["GetVersion"] = (grpc.StatusCode.UNIMPLEMENTED, "unknown service")
    assert capstan("status") == 1
    assert "no Pachyderm 2 (unknown service); check --address" in capstan.err

    class Web(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None: ...

    with HTTPServer(("127.0.0.1", 0), Web) as web:
        Thread(target=web.serve_forever, daemon=True).start()
        assert capstan("status", "--address", f"127.0.0.1:{web.server_port}") == 1
        web.shutdown()
    assert "is Pachyderm up, the address right" in capstan.err
    assert len(capstan.err.strip().splitlines()) == 1


def test_one_who_may_not(pachd: Pachd, capstan: Capstan) -> None:
    pachd.refusal["ListPipeline"] = (grpc.StatusCode.UNKNOWN, "robot:x is not authorized to do so")
    assert capstan("status") == 1
    assert "robot:x is not authorized to do so; ask for that role" in capstan.err
