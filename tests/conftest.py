"""What holds for all tests."""

import logging
import os
import signal
from collections.abc import Iterator

import pytest
from hypothesis import settings

from tests.chromium import browser, go

__all__ = ["browser", "go"]  # fixtures

# A shell that starts tests in the background has SIGINT ignored by them and by what they start.
signal.signal(signal.SIGINT, signal.default_int_handler)

# A timing is no test: on a busy machine any example may take long.
settings.register_profile("full", deadline=None)
settings.register_profile("ci", deadline=None, max_examples=25)


def pytest_addoption(parser: pytest.Parser) -> None:
    """--full."""
    parser.addoption("--full", action="store_true", help="four times as many examples of each kind")


def pytest_configure(config: pytest.Config) -> None:
    """Examples are few unless many are asked for."""
    full = "full" if config.getoption("--full") else "ci"
    settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", full))


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown() -> None:
    """A command logs to the stderr that it finds, which here is closed soon after it."""
    root = logging.getLogger()
    for handler in [each for each in root.handlers if type(each) is logging.StreamHandler]:
        root.removeHandler(handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """All tests with a browser have the same: in one process, in one event loop."""
    for item in items:
        if "browser" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.xdist_group("browser"))
            item.add_marker(pytest.mark.asyncio(loop_scope="session"), append=False)


@pytest.hookimpl(wrapper=True)
def pytest_collection_finish(session: pytest.Session) -> Iterator[None]:
    """Tell xdist of the groups, behind names: with pytest 9.2 it cannot itself (its issue 1386)."""
    ids = {}
    if getattr(session.config.option, "loadgroup", False) and hasattr(session, "_id"):
        for item in session.items:
            if group := item.get_closest_marker("xdist_group"):
                ids[item] = item._id
                item._id = type(item._id).parse(f"{item.nodeid}@{group.args[0]}")
    yield
    for item, own in ids.items():
        item._id = own
