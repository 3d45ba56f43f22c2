"""Where the processes of a run come from: a server that has imported what they need and forks.

Each would import the same for itself otherwise, which took a second of processor time and tens of
megabytes of memory a process. The server starts while its parent is still importing, and it lives
as long as that.
"""

import multiprocessing
from multiprocessing import forkserver
from multiprocessing.context import ForkServerContext

IMPORTED = ["capstan.ingest.work"]


def start_server() -> ForkServerContext:
    """Start the server, if it does not run, and return the context that has it fork."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(IMPORTED)
    forkserver.ensure_running()
    return context
