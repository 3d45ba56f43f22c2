"""Each extra of setup.cfg names what its commands import, so that none needs luck."""

import ast
import sys
from collections.abc import Iterator
from functools import cache
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.utils import canonicalize_name

from capstan.cli import COMMANDS
from tests.paths import ROOT
from tests.requirements import requirements

# What a command imports only when a flag or the environment asks for it, and the extra that has it.
ASKED_FOR = {
    "ingest": ("fused", "openvino"),
    "featurize": ("openvino",),
    "predict": ("openvino",),
    "serve": ("openvino",),
    "run": ("featurize",),  # `capstan.cli` imports TensorFlow for others
} | dict.fromkeys(
    ("up", "load", "status", "logs", "caption", "fetch", "down", "ingest serve"),
    ("python-pachyderm",),
)


def declared(extra: str | None) -> set[str]:
    """Return the names of the distributions that an extra asks for."""
    return {canonicalize_name(wanted.name) for wanted in requirements(extra)}


def source(module: str) -> Path | None:
    """Return the file of a module of Capstan, None if there is no such module."""
    path = ROOT / module.replace(".", "/")
    files = (path / "__init__.py", path.with_suffix(".py"))
    return next((file for file in files if file.is_file()), None)


@cache
def imports(module: str) -> frozenset[str]:
    """Return all names that a module imports when it runs, those inside functions too."""
    file = source(module)
    assert file is not None
    return frozenset(_imports(ast.parse(file.read_text())))


def _imports(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
        return
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom) and node.module:
        yield node.module
        yield from (f"{node.module}.{alias.name}" for alias in node.names)
    for child in ast.iter_child_nodes(node):
        yield from _imports(child)


def reached(module: str) -> dict[str, str]:
    """Return the foreign packages that a module leads to, each with a module that imports it."""
    seen: set[str] = set()
    found: dict[str, str] = {}
    waiting = [module]
    while waiting:
        here = waiting.pop()
        if here in seen:
            continue
        seen.add(here)
        for name in imports(here):
            top = name.partition(".")[0]
            if top == "capstan" and source(name):
                waiting.append(name)
            elif top not in sys.stdlib_module_names and top != "capstan":
                found.setdefault(top, here)
    return found


@pytest.mark.parametrize("name", COMMANDS)
def test_an_extra_names_all_that_its_command_imports(name: str) -> None:
    command = COMMANDS[name]
    known = declared(command.extra)
    known |= {found for extra in ASKED_FOR.get(name, ()) for found in declared(extra)}
    distributions = {**packages_distributions(), "python_pachyderm": ["python-pachyderm"]}
    missing = {
        package: importer
        for package, importer in reached(command.module).items()
        if not {canonicalize_name(each) for each in distributions.get(package, [package])} & known
    }
    assert missing == {}
