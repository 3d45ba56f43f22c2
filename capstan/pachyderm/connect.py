"""Connect to a Pachyderm by `pachyderm-sdk` or, in an environment that has only that, by
`python-pachyderm`.
"""

from collections.abc import Iterator
from contextlib import closing, contextmanager
from importlib.util import find_spec

from capstan.pachyderm.connection import ServerTarget
from capstan.pachyderm.server import Server


@contextmanager
def open_server(target: ServerTarget) -> Iterator[Server]:
    """A server that answers. Inside, what it refuses is raised as CapstanError."""
    from capstan.pachyderm.calls import plain_errors

    with plain_errors(target), closing(_connect(target)) as server:
        server.check()
        yield server


def _connect(target: ServerTarget) -> Server:
    if find_spec("pachyderm_sdk") or not find_spec("python_pachyderm"):
        from capstan.pachyderm.sdk import SdkServer

        return SdkServer(target)
    from capstan.pachyderm.legacy import OldServer

    return OldServer(target)
