"""Why a request gets no captions, said to its client: a status, a line, and a picture's reason."""

from pipeline.records import Reason

SAID = {
    Reason.EMPTY_BODY: "it is empty; send the bytes of a picture",
    Reason.NOT_AN_IMAGE: "it is no JPEG, PNG, WebP, GIF or BMP; send one of these",
    Reason.CORRUPT_IMAGE: "it is damaged or cut short and does not decode; send it whole",
    Reason.TOO_MANY_PIXELS: "it has too many pixels; make it smaller",
    Reason.TOO_SMALL: "it has too few pixels; send a larger one",
}


class RefusedError(Exception):
    """A request that is not answered as asked. `status` is 4xx, or 503 where time ran out."""

    def __init__(
        self,
        status: int,
        message: str,
        reason: Reason | None = None,
        retry_after: int | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.reason, self.retry_after = status, reason, retry_after


def no_picture(place: str, reason: Reason) -> RefusedError:
    """The refusal of what is no picture; `place` says which one of the request."""
    return RefusedError(422, f"{place}: {reason}: {SAID.get(reason, 'send another')}", reason)
