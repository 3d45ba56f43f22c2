"""Why a picture gets no caption, said to its client."""

from capstan.http.errors import RequestError
from capstan.records import Reason

SAID = {
    Reason.EMPTY_BODY: "it is empty; send the bytes of a picture",
    Reason.NOT_AN_IMAGE: "it is no JPEG, PNG, WebP, GIF or BMP; send one of these",
    Reason.CORRUPT_IMAGE: "it is damaged or cut short and does not decode; send it whole",
    Reason.TOO_MANY_PIXELS: "it has too many pixels; make it smaller",
    Reason.TOO_SMALL: "it has too few pixels; send a larger one",
}


def no_picture(place: str, reason: Reason) -> RequestError:
    """The refusal of what is no picture; `place` says which one of the request."""
    return RequestError(422, f"{place}: {reason}: {SAID.get(reason, 'send another')}", reason)
