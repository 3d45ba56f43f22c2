"""The order of the data: pipelines after those that they read from."""

from collections.abc import Iterable, Mapping
from graphlib import CycleError, TopologicalSorter

from capstan.errors import SettingError


def in_order(inputs: Mapping[str, Iterable[str]]) -> list[str]:
    """Names after all those that they read from, which need not be among them."""
    graph = {
        name: sorted(repo for repo in repos if repo in inputs) for name, repos in inputs.items()
    }
    try:
        return list(TopologicalSorter(graph).static_order())
    except CycleError as error:
        raise SettingError(f"pipelines read each other: {' <- '.join(error.args[1])}") from error
