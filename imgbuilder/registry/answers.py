"""What the answer of a registry means: the error of each status that is no success."""

from __future__ import annotations

import re
from typing import Any, Final

import orjson

from imgbuilder.registry.errors import (
    ManifestUnknownError,
    RegistryDeniedError,
    RegistryError,
    RegistryFaultError,
    RegistryRateLimitedError,
)
from imgbuilder.registry.http import Answer
from imgbuilder.registry.retrying import Retrying

_CODE: Final = re.compile(r"[A-Z][A-Z_]{0,63}")


def check(registry: str, answer: Answer, retrying: Retrying) -> None:
    """Let only an answer through whose status is 200.

    :raises RegistryError: the subclass for its status.
    """
    if answer.status != 200:
        raise refusal(registry, answer, retrying)


def refusal(registry: str, answer: Answer, retrying: Retrying) -> RegistryError:
    """What *answer*, which is not the one that was wanted, means."""
    match answer.status:
        case 404:
            return ManifestUnknownError(registry)
        case 401 | 403:
            return RegistryDeniedError(registry)
        case 429:
            return RegistryRateLimitedError(registry, retry_after=retrying.retry_after(answer))
        case status:
            return RegistryFaultError(registry, f"answers with status {status}{_code(answer.body)}")


def _code(body: bytes) -> str:
    """The code of a registry's error, the one part of it that can't hold anything else."""
    try:
        document: Any = orjson.loads(body)
        code = document["errors"][0]["code"]
    except (orjson.JSONDecodeError, LookupError, TypeError):
        return ""
    return f" ({code})" if isinstance(code, str) and _CODE.fullmatch(code) else ""
