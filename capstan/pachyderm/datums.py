"""Pachyderm's datum batching: one process asks its worker for datum after datum.

From the server's source (`src/server/worker/pipeline/transform`, 2.12): `NextDatum` says that the
present datum is done, or why it failed, and returns once the next one's files are linked. After a
failure, and after the last datum, the process is killed; one that ends by itself has failed.
"""

import logging
import os
from collections.abc import Callable
from typing import NoReturn

from capstan.errors import CapstanError

logger = logging.getLogger(__name__)

WORKER_PORT = "PPS_WORKER_GRPC_PORT"  # set in every worker, with batching or without


def for_each_datum(process: Callable[[], None]) -> NoReturn:
    """Call `process` for every datum until the worker kills this process.

    A CapstanError is reported as the datum's failure, other errors end the process. Raises
    CapstanError if the worker cannot be reached or batches no datums.
    """
    import grpc
    from pachyderm_sdk.api.worker import WorkerStub

    with grpc.insecure_channel(f"localhost:{os.environ[WORKER_PORT]}") as channel:
        worker, failure = WorkerStub(channel), ""
        while True:
            try:
                following = worker.next_datum(error=failure)
            except grpc.RpcError as error:
                raise CapstanError(
                    f"the worker gives no datum ({error.details()}); does the pipeline's transform "
                    "have datum_batching?"
                ) from error
            os.environ.update(variable.split("=", 1) for variable in following.env)
            try:
                process()
                failure = ""
            except CapstanError as error:
                failure = str(error)
                logger.error("datum %s: %s", os.environ.get("PACH_DATUM_ID", "?"), failure)
