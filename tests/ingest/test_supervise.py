import asyncio
import logging

import pytest

from capstan.ingest.supervise import report


async def test_only_tls_that_was_given_up_midway_is_not_reported(
    caplog: pytest.LogCaptureFixture,
) -> None:
    loop = asyncio.get_running_loop()
    given_up = "Fatal error on SSL protocol"
    report(loop, {"message": given_up, "exception": RuntimeError("unable to perform operation")})
    assert not caplog.records
    for message, error in ((given_up, ValueError("a defect")), ("other", RuntimeError("a defect"))):
        report(loop, {"message": message, "exception": error})
    assert [record.levelno for record in caplog.records] == [logging.ERROR] * 2
