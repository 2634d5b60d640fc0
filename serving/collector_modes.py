"""How CloudEvents come over HTTP: by content type, to one list of events whose bytes are still as they were sent.

Structured JSON and protobuf, batches of both, and binary mode (attributes in ``ce-*`` headers, the body alone in the
body). Judges nothing but the form. What bites: a ``ce-*`` header beside a structured content type is ignored, as the
HTTP binding says: the content type decides.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal
from urllib.parse import unquote_to_bytes

import msgspec

from headway.errors import InputRejected
from serving.asgi import Header
from serving.collector_protobuf import as_json, attributes_and_data, split_batch

SINGLE = "application/cloudevents+json"
BATCH = "application/cloudevents-batch+json"
PROTOBUF = "application/cloudevents+protobuf"
PROTOBUF_BATCH = "application/cloudevents-batch+protobuf"
BATCHES = frozenset({BATCH, PROTOBUF_BATCH})

Mode = Literal["structured", "batch", "binary", "protobuf", "protobuf-batch"]

# Elements stay raw: a letter keeps the bytes as they were sent.
_ELEMENTS = msgspec.json.Decoder(list[msgspec.Raw])
_MODES: dict[str, Mode] = {
    SINGLE: "structured",
    BATCH: "batch",
    PROTOBUF: "protobuf",
    PROTOBUF_BATCH: "protobuf-batch",
}


class NotAnEvent(Exception):
    """The request is in no form of CloudEvents, so there is nothing to keep: 415."""


@dataclass(frozen=True, slots=True)
class Form:
    """What a request's headers say about its body."""

    mode: Mode
    content_type: str
    ce: tuple[Header, ...] = ()

    @property
    def batched(self) -> bool:
        """Whether the body holds several events."""
        return self.mode in ("batch", "protobuf-batch")

    @property
    def letter_headers(self) -> tuple[tuple[str, bytes], ...]:
        """What a letter of this request must carry beside the bytes, so that they can be read again."""
        single = {"batch": SINGLE, "protobuf-batch": PROTOBUF}.get(self.mode, self.content_type)
        return (("content-type", single.encode()), *((f"ce_{name.decode()[3:]}", value) for name, value in self.ce))


_STRUCTURED = Form("structured", SINGLE)


def read_form(headers: Iterable[Header]) -> Form:
    """Return the form of a request.

    Raises:
        NotAnEvent: the content type is none of CloudEvents' and no ``ce-*`` header is there, or the body is encoded.
    """
    content_type = ""
    ce: list[Header] = []
    for name, value in headers:
        if name == b"content-type":
            content_type = value.decode("latin-1")
        elif name[:3] == b"ce-":
            ce.append((name, value))
        elif name == b"content-encoding" and value.lower() != b"identity":
            raise NotAnEvent(f"content-encoding: got {value.decode('latin-1')[:80]!r}, wanted none; send it plain")
    if content_type == SINGLE:
        return _STRUCTURED
    media, _, parameters = content_type.lower().partition(";")
    media = media.strip()
    if "charset" in parameters and "utf-8" not in parameters and "us-ascii" not in parameters:
        raise NotAnEvent(f"content-type: got {content_type[:80]!r}, wanted UTF-8")
    if media in _MODES:
        return Form(_MODES[media], media)
    if ce and not media.startswith("application/cloudevents"):
        return Form("binary", media, tuple(ce))
    wanted = ", ".join(_MODES)
    raise NotAnEvent(
        f"content-type: got {content_type[:80]!r}, wanted {wanted}, or ce-* headers beside application/json"
    )


def split(form: Form, body: bytes) -> Sequence[bytes]:
    """Return the bytes of each event of a batch.

    Raises:
        InputRejected: the body is no batch, so that there are no single events to keep.
    """
    return split_batch(body) if form.mode == "protobuf-batch" else split_json(body)


def split_json(body: bytes) -> Sequence[bytes]:
    """Return the bytes of each element of a JSON array.

    Raises:
        InputRejected: the body is none.
    """
    try:
        return [bytes(element) for element in _ELEMENTS.decode(body)]
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise InputRejected(f"batch: {error}; wanted a JSON array of CloudEvents") from error


def structured(form: Form, raw: bytes) -> bytes:
    """Return one event as structured JSON; what is JSON already comes back as it is.

    Raises:
        InputRejected: the event cannot be read in its form; names the field.
    """
    match form.mode:
        case "structured" | "batch":
            return raw
        case "protobuf" | "protobuf-batch":
            return as_json(*attributes_and_data(raw))
        case "binary":
            return as_json(_from_headers(form), raw)


def _from_headers(form: Form) -> dict[str, str]:
    if form.content_type and not _is_json(form.content_type):
        raise InputRejected(f"datacontenttype: got {form.content_type[:80]!r}, wanted application/json or a +json type")
    attributes: dict[str, str] = {}
    for name, value in form.ce:
        attribute = name[3:].decode("latin-1")
        if attribute in attributes or attribute in ("data", "datacontenttype"):
            raise InputRejected(f"{attribute}: header {name.decode('latin-1')!r} may not be sent, or not twice")
        attributes[attribute] = _decoded(attribute, value)
    attributes["datacontenttype"] = form.content_type or "application/json"
    return attributes


def _decoded(attribute: str, value: bytes) -> str:
    """Return a header's value: quotes off, then one round of percent-decoding, then UTF-8 (HTTP binding 3.1.3.2)."""
    if len(value) > 1 and value[:1] == value[-1:] == b'"':
        value = value[1:-1].replace(b'\\"', b'"').replace(b"\\\\", b"\\")
    try:
        return unquote_to_bytes(value).decode()
    except UnicodeDecodeError as error:
        raise InputRejected(f"{attribute}: header is not UTF-8 after percent-decoding ({error.reason})") from error


def _is_json(media: str) -> bool:
    return media in ("application/json", "text/json") or media.endswith("+json")
