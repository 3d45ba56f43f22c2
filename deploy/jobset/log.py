"""A container's log as it is written: to our standard error, or its last lines alone."""

import logging
import sys
import threading
from collections import deque

from capstan.deploy.jobset.api import Api
from capstan.deploy.jobset.pods import is_over
from capstan.errors import CapstanError

logger = logging.getLogger(__name__)

TAIL = 20  # lines that are kept
LAST_LINES_SECONDS = 10.0  # for those of a container that has ended to arrive
PAUSE_SECONDS = 2.0  # before a log that broke off is asked for again


class PodLog:
    """Reads a pod's log in the background, from its begin to its end, each line once."""

    def __init__(self, api: Api, pod: str, container: str, show: bool) -> None:
        self._api, self._pod, self._container, self._show = api, pod, container, show
        self._tail: deque[str] = deque(maxlen=TAIL)
        self._last = ""  # when the last line was
        self._enough = threading.Event()
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def end(self) -> list[str]:
        """The last lines of a container that has ended; does not wait for them for ever."""
        self._enough.set()
        self._thread.join(LAST_LINES_SECONDS)
        return list(self._tail)

    def _read(self) -> None:
        """Also through breaks: a log is not what a training should end for."""
        over = False
        while not over:
            try:
                pod = self._api.pod(self._pod)
                over = pod is None or is_over(pod)  # looked at first: what comes after is all
                if pod is not None:
                    self._forward()
            except CapstanError as error:
                over = self._enough.is_set()
                logger.warning("log of %s: %s", self._pod, error)
            if not over:
                self._enough.wait(PAUSE_SECONDS)

    def _forward(self) -> None:
        told = self._last
        for when, line in self._api.log(self._pod, self._container):
            if when > told:  # else before the connection broke off
                self._last = when
                self._take(line)

    def _take(self, line: str) -> None:
        if line.strip():
            self._tail.append(line)
        if self._show:
            sys.stderr.write(f"{line}\n")
            sys.stderr.flush()
