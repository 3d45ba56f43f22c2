"""What holds for all tests."""

import logging
import os
import signal

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


# What is slow to load is loaded by one process, and begins first.
GROUPS = {
    "train": ("tests/train/", "tests/deploy/jobset/test_training.py", "tests/report/lineage/"),
    "featurize": ("tests/featurize/", "tests/demo/"),
    "captions": ("tests/ingest/fused/", "tests/predict/"),
    "service": tuple(f"tests/ingest/service/test_{name}.py" for name in ("api", "fuzz", "metrics")),
}


def group_of(item: pytest.Item) -> str:
    """Return which tests share a process with this one: by libraries, browser or file."""
    if "browser" in getattr(item, "fixturenames", ()):
        return "captions"  # as some pages do
    file = item.nodeid.partition("::")[0]
    return next((name for name, places in GROUPS.items() if file.startswith(places)), file)


@pytest.hookimpl(tryfirst=True)  # before xdist looks at the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give each test its group; all with a browser have the same event loop too."""
    for item in items:
        item.add_marker(pytest.mark.xdist_group(group_of(item)))
        if "browser" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.asyncio(loop_scope="session"), append=False)
    items.sort(key=lambda item: group_of(item) not in GROUPS)
