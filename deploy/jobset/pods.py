"""What pods of a JobSet say: which worker each is, what it waits for, and how it failed."""

import json
import signal
from collections.abc import Sequence
from dataclasses import dataclass

from capstan.deploy.jobset.jobset import ATTEMPT_LABEL, INDEX_ANNOTATION, Json
from capstan.train.workers import LostWorkerError

SIGNALLED = 128  # an exit status above is that and a signal's number
UNREMARKABLE = ("Error", "Completed")  # reasons that add nothing to the exit status
LONGEST = 300  # letters of a worker's last words
BEGINNING = (None, "ContainerCreating", "PodInitializing")  # what every pod waits for


@dataclass(frozen=True)
class PodFailure:
    """How a worker failed, in one line."""

    rank: int
    attempt: int  # the JobSet's, 0 the first
    status: int | None  # of exit; None where the container never said
    reason: str  # Kubernetes': OOMKilled, Evicted, ...; empty where it has none
    when: str = ""  # RFC 3339
    words: str = ""  # the last of its log

    @property
    def is_lost(self) -> bool:
        """Whether it only suffered what another did."""
        return self.status == LostWorkerError.exit_status

    def __str__(self) -> str:
        if self.status is None:
            how = "failed"
        elif SIGNALLED < self.status < SIGNALLED + signal.NSIG:
            how = f"was killed by {signal.Signals(self.status - SIGNALLED).name}"
        else:
            how = f"ended with status {self.status}"
        reason = f" ({self.reason})" if self.reason else ""
        return f"worker {self.rank} {how}{reason}" + (f": {self.words}" if self.words else "")


def rank(pod: Json) -> int:
    """The worker that a pod is."""
    return int(pod["metadata"].get("annotations", {}).get(INDEX_ANNOTATION, -1))


def has_begun(pod: Json) -> bool:
    """Whether there is a log to read."""
    return _phase(pod) not in ("Pending", "Unknown")


def is_over(pod: Json) -> bool:
    """Whether nothing more comes of a pod."""
    return _phase(pod) in ("Succeeded", "Failed")


def why_pending(pod: Json) -> str:
    """Why a pod does not start, as far as anyone says: no room for it, no image, ..."""
    if _phase(pod) != "Pending":
        return ""
    for container in pod["status"].get("containerStatuses", ()):
        waiting = container.get("state", {}).get("waiting", {})
        if waiting.get("reason") not in BEGINNING:
            return _said(waiting)
    for condition in pod["status"].get("conditions", ()):
        if (condition["type"], condition["status"]) == ("PodScheduled", "False"):
            return _said(condition)
    return ""


def failure_of(pod: Json, container: str) -> PodFailure | None:
    """How a pod failed; None for one that did not, or that is being deleted for another's sake."""
    metadata = pod["metadata"]
    if metadata.get("deletionTimestamp"):
        return None
    attempt = int(metadata.get("labels", {}).get(ATTEMPT_LABEL, 0))
    for each in pod.get("status", {}).get("containerStatuses", ()):
        end = each.get("state", {}).get("terminated", {})
        if each["name"] == container and end.get("exitCode"):
            reason = end.get("reason", "")
            reason = "" if reason in UNREMARKABLE else reason
            return PodFailure(
                rank(pod), attempt, end["exitCode"], reason, end.get("finishedAt", "")
            )
    if _phase(pod) != "Failed":
        return None
    return PodFailure(rank(pod), attempt, None, _said(pod["status"]))


def _phase(pod: Json) -> str:
    return str(pod.get("status", {}).get("phase", "Unknown"))


def _said(what: Json) -> str:
    return ": ".join(what[name] for name in ("reason", "message") if what.get(name))


def to_blame(failures: Sequence[PodFailure]) -> PodFailure | None:
    """The failure that brought the last attempt down: the first that was not another's doing."""
    return min(failures, key=lambda each: (-each.attempt, each.is_lost, each.when), default=None)


def last_words(lines: Sequence[str]) -> str:
    """The last line of a log, or its message where it is JSON as capstan writes it."""
    line = lines[-1].strip() if lines else ""
    try:
        entry = json.loads(line)
    except ValueError:
        entry = None
    message = entry.get("message") if isinstance(entry, dict) else None
    words = " ".join(str(message or line).split())
    return words if len(words) <= LONGEST else f"{words[:LONGEST]}…"
