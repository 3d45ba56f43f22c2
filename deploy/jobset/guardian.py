"""Deletes the JobSet of a launcher that was killed.

Pachyderm stops a job with SIGKILL to the process group of its program, which then can delete
nothing: so this process, in a session of its own, waits for the launcher's end and does it.
"""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from capstan.deploy.jobset.jobset import Json

GOODBYE = b"\ndone"


@contextmanager
def guarded(jobset: "Json") -> Iterator[Callable[[], None]]:
    """Have a JobSet deleted should this process end in the block before it calls what it is given.

    One of the same name that another made with another spec is left alone.
    """
    guardian = subprocess.Popen(
        [sys.executable, "-m", "capstan.deploy.jobset.guardian"],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,  # who waits for the end of ours must not wait for this one's
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    assert guardian.stdin is not None
    guardian.stdin.write(json.dumps(jobset).encode())
    guardian.stdin.flush()

    def dismiss() -> None:
        guardian.communicate(GOODBYE)

    try:
        yield dismiss
    finally:
        guardian.stdin.close()


def main() -> None:
    """Wait for the end of the launcher that holds the other end of standard input."""
    told, _, goodbye = sys.stdin.buffer.read().partition(b"\n")
    if goodbye:
        return
    from capstan.deploy.jobset.api import Api
    from capstan.deploy.jobset.start import is_same

    api, jobset = Api(), json.loads(told)
    there = api.get(jobset["metadata"]["name"])
    if there is not None and is_same(there, jobset):
        api.delete(jobset["metadata"]["name"])


if __name__ == "__main__":
    main()
