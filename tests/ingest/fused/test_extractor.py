"""Ingest processes and the extractor's, without TensorFlow."""

import asyncio
import hashlib
from queue import SimpleQueue
from socket import socketpair

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from capstan.featurize.pictures import decode
from capstan.ingest.fused import remote
from capstan.ingest.fused.remote import AHEAD, RemoteExtractor
from capstan.ingest.fused.serve import Inbox, Request, gather
from capstan.records import Failure, Image, Reason
from tests.examples import examples
from tests.ingest.conftest import encode, gradient
from tests.ingest.fused.conftest import NETWORK, SIZE, Fake, fingerprints, settle

JPEGS = [encode(gradient(SIZE + n, SIZE)) for n in range(12)]


def image(data: bytes) -> Image:
    return Image(data, SIZE, SIZE, SIZE, SIZE, hashlib.sha256(data).hexdigest())


def expected(jpeg: bytes) -> bytes:
    pixels = decode(jpeg, SIZE)
    assert not isinstance(pixels, Failure)
    return fingerprints(pixels[None]).tobytes()


async def extract(extractor: RemoteExtractor, jpegs: list[bytes]) -> list[bytes | Failure]:
    async def one(jpeg: bytes) -> bytes | Failure:
        await extractor.room()
        return await extractor.extract(image(jpeg))

    async with extractor.opened():
        return await asyncio.gather(*map(one, jpegs))


@examples(25)
@given(
    st.lists(st.lists(st.sampled_from(JPEGS), max_size=20), min_size=1, max_size=3),
    st.integers(1, 9),
)
def test_every_client_gets_the_vectors_of_its_own_pictures(
    shares: list[list[bytes]], batch_size: int
) -> None:
    fake = Fake(batch_size)

    async def all_clients() -> list[list[bytes | Failure]]:
        return await asyncio.gather(*map(extract, extractors, shares))

    with fake.serving(len(shares)) as extractors:
        answers = asyncio.run(all_clients())
    assert answers == [[expected(jpeg) for jpeg in share] for share in shares]
    assert max(fake.sizes, default=0) <= batch_size
    assert all(extractor.identity == fake.identity for extractor in extractors)


async def test_what_does_not_decode_is_a_failure_among_the_others() -> None:
    with Fake().serving(1) as (extractor,):
        jpegs = [JPEGS[0], b"no picture", JPEGS[1], JPEGS[2][:400], JPEGS[3]]
        answers = await extract(extractor, jpegs)
    assert answers[1] == Failure(Reason.NOT_AN_IMAGE)
    assert answers[3] == Failure(Reason.CORRUPT_IMAGE)
    assert [answers[n] for n in (0, 2, 4)] == [expected(JPEGS[n]) for n in (0, 1, 3)]


async def test_a_picture_that_comes_again_is_not_computed_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(remote, "REMEMBERED", 2)
    fake = Fake()
    with fake.serving(1) as (extractor,):
        async with extractor.opened():
            for jpeg in [JPEGS[0]] * 3 + JPEGS[1:3] + [JPEGS[0]]:
                await extractor.room()
                assert await extractor.extract(image(jpeg)) == expected(jpeg)
    assert sum(fake.sizes) == 4  # the first was forgotten for the last of two others


async def test_few_pictures_wait_for_the_network() -> None:
    with Fake().serving(1) as (extractor,):
        async with extractor.opened():
            for _ in range(AHEAD * 4):
                await extractor.room()
            another = asyncio.create_task(extractor.room())
            await settle()
            assert not another.done()
            await extractor.extract(image(JPEGS[0]))
            await another


async def test_an_extractor_that_died_leaves_its_clients_to_their_parent() -> None:
    ours, theirs = socketpair()
    extractor = RemoteExtractor(ours, NETWORK)
    waiting = asyncio.create_task(extract(extractor, [JPEGS[0]]))
    theirs.close()
    await settle()
    assert not waiting.done()
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    ours.close()


def requests(count: int) -> list[Request]:
    ours, theirs = socketpair()
    theirs.close()
    ours.close()
    return [(ours, np.full((1, 1, 3), n, np.uint8)) for n in range(count)]


def filled(*items: Request | None) -> Inbox:
    inbox: Inbox = SimpleQueue()
    for item in items:
        inbox.put(item)
    return inbox


def test_a_batch_is_what_is_there_when_patience_ends() -> None:
    first, second, third = requests(3)
    inbox = filled(first, second, third)
    assert gather(inbox, 2, 60.0) == [first, second]  # full: no need to wait
    assert gather(inbox, 2, 0.0) == [third]
    inbox.put(first)
    inbox.put(second)
    assert gather(inbox, 9, 0.0) == [first, second]


def test_there_are_no_batches_once_all_clients_are_gone() -> None:
    (request,) = requests(1)
    assert gather(filled(None), 2, 0.0) == []
    assert gather(filled(request, None), 2, 60.0) == []
