"""When a row is tried again, after how long, and when it is given up: pure policy by reason.

Built of tenacity's strategies; its loop would need a task for each row that waits, and a million
rows wait as entries of the frontier instead.
"""

from dataclasses import dataclass

from tenacity import RetryCallState, Retrying, retry_if_result, stop_after_attempt
from tenacity.stop import stop_base
from tenacity.wait import wait_base, wait_exponential, wait_random

from capstan.ingest.config import RetryPolicy
from capstan.ingest.scheduling.host import RETRYABLE
from capstan.records import Answer, Failure, Image


@dataclass(frozen=True, slots=True)
class Attempt:
    """How an attempt at a row ended."""

    answer: Answer  # attempts: how many it were so far
    result: Image | Failure
    retry_after: float | None = None  # seconds that the host asked for
    seconds: float = 0.0  # since the row's first attempt began


def policy(patience: RetryPolicy) -> Retrying:
    """The policy for all rows."""
    growing = wait_exponential(patience.first_wait, max=patience.longest_wait)
    jitter = wait_random(0, patience.first_wait)  # rows that failed together come back apart
    return Retrying(
        retry=retry_if_result(is_retryable),
        wait=wait_as_asked(growing + jitter),
        stop=stop_after_attempt(patience.attempts) | stop_at_deadline(patience.deadline),
    )


def pause_before_next(policy: Retrying, attempt: Attempt) -> float | None:
    """Seconds until a row should be tried again, None when it has ended."""
    state = RetryCallState(policy, None, (), {})
    state.attempt_number = attempt.answer.attempts
    state.set_result(attempt)
    if not policy.retry(state):
        return None
    state.upcoming_sleep = policy.wait(state)
    return None if policy.stop(state) else state.upcoming_sleep


def is_retryable(attempt: Attempt) -> bool:
    """Whether another attempt could end better."""
    return isinstance(attempt.result, Failure) and attempt.result.reason in RETRYABLE


def last_attempt(state: RetryCallState) -> Attempt:
    """The Attempt that a retry state has just seen."""
    assert state.outcome is not None
    attempt: Attempt = state.outcome.result()
    return attempt


class wait_as_asked(wait_base):  # noqa: N801 - named like tenacity's own
    """Wait as long as the host asks, in full, or else as another strategy says."""

    def __init__(self, otherwise: wait_base) -> None:
        self.otherwise = otherwise

    def __call__(self, retry_state: RetryCallState) -> float:
        """Seconds to wait."""
        asked = last_attempt(retry_state).retry_after
        return self.otherwise(retry_state) if asked is None else asked


class stop_at_deadline(stop_base):  # noqa: N801 - named like tenacity's own
    """Stop when the next attempt would begin after the row's deadline.

    So a host that asks for a longer wait is not asked again too early, but never.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def __call__(self, retry_state: RetryCallState) -> bool:
        """Whether to stop."""
        return last_attempt(retry_state).seconds + retry_state.upcoming_sleep >= self.seconds
