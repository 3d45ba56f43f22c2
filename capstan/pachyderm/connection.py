"""Where Pachyderm is and who asks: from flags, the environment or pachctl's configuration.

They are looked at in this order, as pachctl does (`src/internal/{client,config}` of 2.12), but for
one thing: what the configuration has for one server (token, certificates, project) is not sent to
another that a flag or PACHD_ADDRESS names.
"""

import argparse
import json
import os
from base64 import b64decode
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from capstan.errors import SettingError

PORT = 30650  # pachd's, also where `pachctl port-forward` has it
SCHEMES = {"grpc": False, "http": False, "grpcs": True, "https": True}  # whether TLS
ADDRESS, CONFIGURATION, CONTEXT = "PACHD_ADDRESS", "PACH_CONFIG", "PACH_CONTEXT"  # pachctl's names
CERTIFICATES = "PACH_CA_CERTS"
TOKEN = "PACH_PYTHON_AUTH_TOKEN"  # the SDK's name; pachctl has none
PROJECT = "CAPSTAN_PROJECT"
OWN_PROJECT = "PPS_PROJECT_NAME"  # of the pipeline whose worker this is
IN_PODS = Path("/pachctl/config.json")


@dataclass(frozen=True)
class ServerTarget:
    """A server, and what to tell it."""

    host: str
    port: int
    tls: bool = False
    certificates: bytes | None = None  # PEM to trust in place of the public ones
    token: str | None = field(default=None, repr=False)
    project: str = "default"

    def __str__(self) -> str:
        return f"grpc{'s' if self.tls else ''}://{self.host}:{self.port}"


def add_flags(parser: argparse.ArgumentParser, prefix: str = "") -> None:
    """Add the flags that all commands for a cluster have; a prefix keeps them from others."""
    group = parser.add_argument_group("Pachyderm")
    group.add_argument(
        f"--{prefix}address",
        metavar="grpc[s]://HOST:PORT",
        help=f"else {ADDRESS}, else that of pachctl's active context, else localhost:{PORT}",
    )
    group.add_argument(
        f"--{prefix}ca",
        type=Path,
        metavar="PEM",
        help=f"certificates to trust; else {CERTIFICATES}",
    )
    group.add_argument(
        f"--{prefix}token-file",
        type=Path,
        metavar="FILE",
        help=f"file with the session token; else the text of {TOKEN}, else pachctl's",
    )
    group.add_argument(
        f"--{prefix}project", help=f"else {PROJECT}, else that of pachctl, else default"
    )


def find(
    arguments: argparse.Namespace, environment: Mapping[str, str] = os.environ, prefix: str = ""
) -> ServerTarget:
    """The server that the flags of `add_flags`, the environment or pachctl's configuration name.

    SettingError for what cannot be read or used.
    """
    named, ca, token_file, in_project = (
        getattr(arguments, f"{prefix}{name}".replace("-", "_"))
        for name in ("address", "ca", "token-file", "project")
    )
    given = named or environment.get(ADDRESS)
    context = _context(environment)
    if given and not _same(given, context):
        context = {}
    forwarded = context.get("port_forwarders", {}).get("pachd", PORT)
    address = given or context.get("pachd_address") or f"grpc://localhost:{forwarded}"
    host, port, tls = parse(address)
    certificates = _certificates(ca or environment.get(CERTIFICATES), context)
    if certificates is not None and not tls:
        raise SettingError(f"{address}: certificates need TLS; write it as grpcs://{host}:{port}")
    token = _text(token_file) if token_file else environment.get(TOKEN)
    project = in_project or environment.get(PROJECT) or context.get("project")
    project = project or environment.get(OWN_PROJECT) or "default"
    return ServerTarget(
        host, port, tls, certificates, token or context.get("session_token"), project
    )


def parse(address: str) -> tuple[str, int, bool]:
    """Host, port and whether TLS, of an address as pachctl takes it."""
    cure = f"{address}: no address of Pachyderm; write it as grpc://HOST:PORT or grpcs://HOST:PORT"
    try:
        parts = urlsplit(address if "://" in address else f"grpc://{address}")
        port = parts.port or PORT
    except ValueError as error:
        raise SettingError(cure) from error
    rest = parts.path or parts.query or parts.fragment or parts.username
    if parts.scheme not in SCHEMES or not parts.hostname or rest:
        raise SettingError(cure)
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return host, port, SCHEMES[parts.scheme]


def _same(address: str, context: Mapping[str, Any]) -> bool:
    known = context.get("pachd_address")
    return bool(known) and parse(address) == parse(str(known))


def _context(environment: Mapping[str, str]) -> Mapping[str, Any]:
    """The active context of pachctl's configuration, empty if there is none."""
    home = Path(environment.get("HOME") or "~").expanduser() / ".pachyderm" / "config.json"
    named = environment.get(CONFIGURATION)
    path = Path(named) if named else IN_PODS if IN_PODS.exists() else home
    if not named and not path.exists():
        return {}
    try:
        settings = json.loads(_text(path) or "{}").get("v2") or {}
        contexts, active = settings.get("contexts") or {}, settings.get("active_context")
        name = environment.get(CONTEXT, active)
        context = contexts.get(name, {} if CONTEXT not in environment and not active else None)
    except (ValueError, AttributeError) as error:
        raise SettingError(
            f"{path}: no configuration of pachctl ({error}); mend it, or name another with "
            f"{CONFIGURATION}"
        ) from error
    if not isinstance(context, dict):
        raise SettingError(
            f"{path}: no context {name!r} there; see `pachctl config list context`, and set one "
            f"with `pachctl config set active-context` or {CONTEXT}"
        )
    return context


def _certificates(named: Path | str | None, context: Mapping[str, Any]) -> bytes | None:
    if named:
        return _text(Path(named)).encode()
    inside = context.get("server_cas")
    try:
        return b64decode(inside, validate=True) if inside else None
    except ValueError as error:
        raise SettingError(
            "server_cas of pachctl's active context: not base64; give a file with --ca"
        ) from error


def _text(path: Path) -> str:
    try:
        return path.read_text().strip()
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else "not text"
        raise SettingError(f"{path}: cannot be read ({why}); name another file") from error
