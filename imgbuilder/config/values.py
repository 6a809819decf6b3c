"""The kinds of values that a configuration has beside JSON's own: durations, sizes, addresses, references.

Each parser takes what a file says and raises ValueError with words that can follow the name of the field.
"""

from __future__ import annotations

import json
import re
from typing import Annotated, Any, Final
from urllib.parse import urlsplit

from pydantic import AfterValidator, PlainValidator, WithJsonSchema

from imgbuilder.core.manifests import InvalidPlatformError, parse_platform
from imgbuilder.core.references import InvalidReferenceError, parse_reference
from imgbuilder.runtime.grpc import addresses
from imgbuilder.runtime.grpc.addresses import Address

_NANOSECONDS: Final = {
    "ns": 1,
    "us": 10**3,
    "µs": 10**3,  # micro sign
    "μs": 10**3,  # Greek mu; Go takes both
    "ms": 10**6,
    "s": 10**9,
    "m": 60 * 10**9,
    "h": 3600 * 10**9,
}
_DURATION_PART: Final = re.compile(r"([0-9]+(?:\.[0-9]*)?|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h)")
_DURATION: Final = re.compile(rf"[+-]?(?:0|(?:{_DURATION_PART.pattern})+)")
_LONGEST: Final = 2**63 - 1
"""Nanoseconds in Go's longest duration."""

_SIZE: Final = re.compile(r"([0-9]+(?:\.[0-9]+)?) ?([A-Za-z]*)")
_BYTES: Final = {
    "": 1,
    "b": 1,
    **{unit: 1024**power for power, prefix in enumerate("kmgt", 1) for unit in (f"{prefix}ib", f"{prefix}i")},
    **{f"{prefix}b": 1000**power for power, prefix in enumerate("kmgt", 1)},
}


def parse_duration(value: Any) -> float:
    """Seconds of a Go duration, e.g. ``1h30m``, ``6h0m0s``, ``100ms``, ``0``."""
    if not isinstance(value, str):
        raise ValueError('must be a duration in quotes, such as "1h30m"')  # noqa: TRY004  # pydantic's way
    if not _DURATION.fullmatch(value):
        raise ValueError(f'{_quoted(value)} is not a duration such as "1h30m"')
    nanoseconds = sum(float(number) * _NANOSECONDS[unit] for number, unit in _DURATION_PART.findall(value))
    if nanoseconds > _LONGEST:
        raise ValueError(f"{_quoted(value)} is longer than a duration can be")
    return (-nanoseconds if value.startswith("-") else nanoseconds) / 10**9


def _not_negative(seconds: float) -> float:
    if seconds < 0:
        raise ValueError("must not be negative")
    return seconds


def _positive(number: float) -> float:
    if number <= 0:
        raise ValueError("must be more than 0")
    return number


def parse_size(value: Any) -> int:
    """Bytes of a number, or of a text such as ``64MiB`` or ``10MB``."""
    if isinstance(value, int) and not isinstance(value, bool):
        size = value
    else:
        match = _SIZE.fullmatch(value) if isinstance(value, str) else None
        unit = _BYTES.get(match[2].lower()) if match else None
        if match is None or unit is None:
            raise ValueError(f'{_quoted(value)} is not a size such as "64MiB"')
        size = int(min(float(match[1]) * unit, 2**63))  # of enough digits, a float is infinite
    if not 0 < size < 2**63:
        raise ValueError("must be more than 0 bytes, and less than 8 EiB")
    return size


def parse_address(value: Any) -> Address:
    """The address of ``host:port``, ``:port`` or ``[IPv6 address]:port``."""
    if not isinstance(value, str):
        raise ValueError('must be an address in quotes, such as "127.0.0.1:8080"')  # noqa: TRY004
    try:
        return addresses.parse_address(value)
    except addresses.InvalidAddressError as error:
        raise ValueError(
            f'{_quoted(value)} is not an address such as "127.0.0.1:8080", ":8080" or "[::1]:8080"'
        ) from error


def _optional_address(value: Any) -> Address | None:
    return None if value == "" else parse_address(value)


def _not_empty(text: str) -> str:
    if not text.strip():
        raise ValueError("must not be empty")
    return text


def _image(text: str) -> str:
    try:
        parse_reference(_not_empty(text))
    except InvalidReferenceError as error:
        raise ValueError(f"{_quoted(text)} is not an image reference: {error.rule}") from error
    return text


def _repository(text: str) -> str:
    if "@" in _image(text) or ":" in text.rpartition("/")[2]:
        raise ValueError(f"{_quoted(text)} is not a repository: it has a tag or a digest")
    return text


def _registry(text: str) -> str:
    try:
        fits = parse_reference(f"{text}/image").domain == text
    except InvalidReferenceError:
        fits = False
    if not fits:
        raise ValueError(f"{_quoted(text)} is not a registry as references spell it, such as localhost:5000")
    return text


def _mirror(text: str) -> str:
    # Not quoted in errors: it may hold a password.
    fault = "is not an address such as https://mirror.example.com"
    try:
        url = urlsplit(text)
        _ = url.port
    except ValueError as error:
        raise ValueError(fault) from error
    if url.scheme not in ("http", "https") or not url.hostname:
        raise ValueError(fault)
    if url.username is not None or url.query or url.fragment:
        raise ValueError("must be an address without credentials, query or fragment")
    return text.rstrip("/")


def _platform(text: str) -> str:
    try:
        parse_platform(text)
    except InvalidPlatformError as error:
        raise ValueError(f"{_quoted(text)} is not a platform such as linux/amd64") from error
    return text


def _quoted(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 80 else text[:79] + "…"


_DURATION_SCHEMA: Final = WithJsonSchema(
    {
        "type": "string",
        "pattern": r"^\+?(0|(([0-9]+(\.[0-9]*)?|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h))+)$",
        "examples": ["1h30m"],
    }
)
_ADDRESS: Final = {"type": "string", "pattern": r"^(\[[^\]]+\]|[^:]*):[0-9]+$", "examples": [":8080"]}

Seconds = Annotated[float, PlainValidator(parse_duration), AfterValidator(_not_negative), _DURATION_SCHEMA]
PositiveSeconds = Annotated[
    float, PlainValidator(parse_duration), AfterValidator(_positive), _DURATION_SCHEMA
]
Size = Annotated[
    int,
    PlainValidator(parse_size),
    WithJsonSchema({"type": ["integer", "string"], "minimum": 1, "examples": ["64MiB"]}),
]
ListenAddress = Annotated[Address, PlainValidator(parse_address), WithJsonSchema(_ADDRESS)]
OptionalListenAddress = Annotated[
    Address | None,
    PlainValidator(_optional_address),
    WithJsonSchema({"anyOf": [_ADDRESS, {"type": "string", "const": ""}]}),
]
NonEmpty = Annotated[str, AfterValidator(_not_empty)]
Image = Annotated[str, AfterValidator(_image)]
Repository = Annotated[str, AfterValidator(_repository)]
Registry = Annotated[str, AfterValidator(_registry)]
Platform = Annotated[str, AfterValidator(_platform)]
MirrorUrl = Annotated[str, AfterValidator(_mirror)]
