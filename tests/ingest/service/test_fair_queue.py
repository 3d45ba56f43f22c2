from collections.abc import Iterator
from itertools import count
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from capstan.ingest.service.fair_queue import (
    FATAL,
    PLACES,
    SUSPECT,
    Assignment,
    FairQueue,
    WorkerSlots,
)
from capstan.ingest.service.job_run import ChunkTask, JobRun

NUMBERS = count()


def work_of(chunks: int) -> JobRun:
    work = JobRun(
        str(next(NUMBERS)), "a.tsv", {}, chunks, 0.0, [ChunkTask(n, 1) for n in range(chunks)]
    )
    work.set_pending()
    return work


def given_out(fair_queue: FairQueue, bench: WorkerSlots) -> list[tuple[str, int]]:
    return [(work.id, task.number) for work, task in fair_queue.fill(bench)]


def finish(fair_queue: FairQueue, bench: WorkerSlots, seat: Assignment) -> list[ChunkTask | None]:
    """Ask for chunks until there are no more, and leave."""
    got: list[ChunkTask | None] = []
    while (task := fair_queue.more(bench, seat)) is not None:
        got.append(task)
    for task in seat.out.values():
        task.is_whole = True
    seat.out.clear()
    fair_queue.end(bench, seat)
    fair_queue.add(seat.work)
    return got


def test_a_job_alone_is_at_all_workers_and_keeps_its_places() -> None:
    fair_queue, benches, work = FairQueue(), [WorkerSlots(), WorkerSlots()], work_of(5)
    fair_queue.add(work)
    assert [given_out(fair_queue, bench) for bench in benches] == [[(work.id, 0)], [(work.id, 1)]]
    seats = [bench.seats[work.id] for bench in benches]
    for bench, seat, number in zip(benches * 2, seats * 2, (2, 3, 4, None), strict=True):
        task = fair_queue.more(bench, seat)
        assert (task and task.number) == number


def test_large_jobs_take_turns_when_there_are_more_than_places() -> None:
    fair_queue, bench = FairQueue(), WorkerSlots()
    works = [work_of(3) for _ in range(PLACES + 1)]
    for work in works:
        fair_queue.add(work)
    assert given_out(fair_queue, bench) == [(work.id, 0) for work in works[:PLACES]]
    assert fair_queue.more(bench, bench.seats[works[0].id]) is None
    assert given_out(fair_queue, bench) == [(works[PLACES].id, 0)]
    assert fair_queue.more(bench, bench.seats[works[1].id])  # nobody waits any more
    assert finish(fair_queue, bench, bench.seats[works[0].id]) == []
    assert fair_queue.more(bench, bench.seats[works[2].id]) is None  # the first one waits again


def test_a_small_job_does_not_wait_for_large_ones() -> None:
    fair_queue, bench, small = FairQueue(), WorkerSlots(), work_of(1)
    for _ in range(3 * PLACES):
        fair_queue.add(work_of(9))
    assert len(given_out(fair_queue, bench)) == PLACES
    fair_queue.add(small)
    assert given_out(fair_queue, bench) == [(small.id, 0)]


def test_a_chunk_that_was_there_at_several_crashes_is_done_alone() -> None:
    fair_queue, bench = FairQueue(), WorkerSlots()
    suspect, others = work_of(1), [work_of(1) for _ in range(3)]
    suspect.tasks[0].crashes = SUSPECT
    suspect.suspects.append(suspect.pending.popleft())
    for work in (*others, suspect):
        fair_queue.add(work)
    assert given_out(fair_queue, bench) == [(suspect.id, 0)]
    assert bench.is_alone and FATAL > SUSPECT
    finish(fair_queue, bench, bench.seats[suspect.id])
    assert given_out(fair_queue, bench) == [(work.id, 0) for work in others]


def test_what_is_out_waits_again_when_its_worker_dies() -> None:
    fair_queue, bench, work = FairQueue(), WorkerSlots(), work_of(3)
    fair_queue.add(work)
    given_out(fair_queue, bench)
    seat = bench.seats[work.id]
    fair_queue.more(bench, seat)
    fair_queue.end(bench, seat)
    fair_queue.add(work)
    assert sorted(task.number for task in work.pending) == [0, 1, 2]
    assert not bench.seats and fair_queue.seats(work) == 0


@pytest.mark.parametrize("workers", [1, 3])
@given(sizes=st.lists(st.integers(1, 7), min_size=1, max_size=40), seed=st.integers(0, 1 << 32))
def test_every_chunk_is_done_once_whatever_comes_when(
    workers: int, sizes: list[int], seed: int
) -> None:
    fair_queue, benches, lot = FairQueue(), [WorkerSlots() for _ in range(workers)], Random(seed)
    works = [work_of(size) for size in sizes]
    done: list[tuple[str, int]] = []
    for work in works:
        fair_queue.add(work)
    while steps := list(_steps(fair_queue, benches, done)):
        bench, seat = lot.choice(steps)
        task = None if seat.is_closing else fair_queue.more(bench, seat)
        if task:
            done.append((seat.work.id, task.number))
        elif lot.random() < 0.5:
            finish(fair_queue, bench, seat)
    assert sorted(done) == sorted((work.id, task.number) for work in works for task in work.tasks)


def _steps(
    fair_queue: FairQueue, benches: list[WorkerSlots], done: list[tuple[str, int]]
) -> Iterator[tuple[WorkerSlots, Assignment]]:
    for bench in benches:
        done += given_out(fair_queue, bench)
    return ((bench, seat) for bench in benches for seat in bench.seats.values())
