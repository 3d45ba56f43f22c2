"""Follows a JobSet to its end: its states, what its pods wait for, worker 0's log, who failed."""

import logging
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from queue import Empty, SimpleQueue
from typing import Any

from capstan.deploy.jobset.api import Api
from capstan.deploy.jobset.jobset import JobSetState, Json, state_of
from capstan.deploy.jobset.log import PodLog
from capstan.deploy.jobset.pods import (
    PodFailure,
    failure_of,
    has_begun,
    last_words,
    rank,
    to_blame,
    why_pending,
)
from capstan.errors import CapstanError, SettingError

logger = logging.getLogger(__name__)

LOOK_SECONDS = 30.0  # a watch may fall silent unnoticed: then it is asked
MOST_LOGS = 64  # read at a time: each takes a connection, of which the client has 100
Happening = tuple[Callable[[Any], None], Any]  # what to do with what came


class Following:
    """A JobSet that is followed, and what is known of it so far."""

    def __init__(self, api: Api, name: str, container: str) -> None:
        self._api, self._name, self._container = api, name, container
        self._happenings: SimpleQueue[Happening] = SimpleQueue()
        self._state = JobSetState("unknown")
        self._waiting: dict[int, str] = {}
        self._failures: dict[str, PodFailure] = {}  # by pod
        self._logs: dict[str, PodLog] = {}  # by pod

    def to_the_end(self) -> None:
        """Wait until the JobSet is done; CapstanError when it is not done well."""
        self._listen(self._see, self._api.watch(self._name))
        self._listen(self._see_pod, self._api.watch_pods(self._name))
        while not self._state.is_over:
            try:
                see, what = self._happenings.get(timeout=LOOK_SECONDS)
            except Empty:
                see, what = self._see, self._api.get(self._name)
            see(what)
        for pod in self._api.pods(self._name):  # whose watch may be behind
            self._see_pod(pod)
        for uid in self._logs:
            self._logs[uid].end()
        if self._state.phase == "failed":
            raise self._error()

    def _listen(self, see: Callable[[Any], None], changes: Iterator[Any]) -> None:
        def listen() -> None:
            try:
                for change in changes:
                    self._happenings.put((see, change))
            except CapstanError as error:
                self._happenings.put((_fail, error))

        threading.Thread(target=listen, daemon=True).start()

    def _see(self, jobset: Json | None) -> None:
        if jobset is None or jobset["metadata"].get("deletionTimestamp"):
            raise CapstanError(
                f"JobSet {self._name} was deleted by another; run the same command again to go on "
                "from the last checkpoint"
            )
        state = state_of(jobset)
        if state != self._state and not self._state.is_over:
            event = {"jobset": self._name, **vars(state)}
            logger.info("JobSet %s: %s", self._name, state, extra={"event": event})
            self._state = state

    def _see_pod(self, pod: Json) -> None:
        number, uid = rank(pod), pod["metadata"]["uid"]
        why = why_pending(pod)
        if why and why != self._waiting.get(number):
            logger.info("worker %d waits: %s", number, why)
        self._waiting[number] = why
        if has_begun(pod) and number < MOST_LOGS and uid not in self._logs:
            name = pod["metadata"]["name"]
            self._logs[uid] = PodLog(self._api, name, self._container, show=number == 0)
        failure = failure_of(pod, self._container)
        if failure is not None and uid not in self._failures:
            lines = self._logs[uid].end() if uid in self._logs else []
            self._failures[uid] = replace(failure, words=last_words(lines))
            self._tell(self._failures[uid], lines)

    def _tell(self, failure: PodFailure, lines: Sequence[str]) -> None:
        """Tell of a failure that is not another's doing, with the log unless it was shown."""
        if failure.is_lost:
            return
        if failure.rank:
            sys.stderr.writelines(f"worker {failure.rank} | {line}\n" for line in lines)
        logger.warning("%s", failure)

    def _error(self) -> CapstanError:
        """What to say of a JobSet that failed, in one line."""
        failure = to_blame(list(self._failures.values()))
        what = f"JobSet {self._name} failed ({self._state.why})"
        if failure is None:
            return CapstanError(f"{what}; run the same command again to go on")
        if failure.status == SettingError.exit_status:
            return SettingError(f"{failure}; {what}")
        return CapstanError(f"{failure}; {what}, its checkpoints are kept")


def _fail(error: CapstanError) -> None:
    raise error
