"""Addresses of git repositories: which may be cloned, and which part of one is a secret."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import SplitResult, unquote, urlsplit

from imgbuilder.core.secrets import Secret
from imgbuilder.standalone.git.errors import ContentError


@dataclass(frozen=True, slots=True, kw_only=True)
class Login:
    """What a git server is shown."""

    user: str
    password: Secret


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """Where a repository is.

    :ivar text: the address without credentials: for command lines, logs and errors.
    :ivar origin: scheme, host and port: whom the credentials are for.
    :ivar login: the credentials that the address contained.
    """

    text: str
    origin: str
    login: Login | None


def parse_address(text: str, *, allow_file_urls: bool) -> Address:
    """The repository that *text* names.

    :raises ContentError: if it is none that may be cloned: only ``https://``, ``http://`` and, where allowed,
        ``file://`` addresses are. Others use this user's keys (ssh) or run programs (ext).
    """
    parts = _split(text)
    allowed = {"http", "https"} | ({"file"} if allow_file_urls else set())
    if parts is None or parts.scheme not in allowed or not (parts.hostname or parts.scheme == "file"):
        kinds = "https, http and file" if allow_file_urls else "https and http"
        shown = without_credentials(text) or "the repository"
        how = ", unless with --allow-file-urls" if parts is not None and parts.scheme == "file" else ""
        raise ContentError(f"cannot clone {shown}: only {kinds} addresses can be cloned{how}")
    login = None
    if parts.username is not None:
        password = Secret(unquote(parts.password or ""))
        login = Login(user=unquote(parts.username), password=password)
    host = parts.netloc.rpartition("@")[2]
    return Address(text=_join(parts), origin=f"{parts.scheme}://{host}", login=login)


def without_credentials(text: str) -> str:
    """*text* as far as it may be shown; empty where it is no address."""
    parts = _split(text)
    return _join(parts) if parts is not None and parts.scheme else ""


def _split(text: str) -> SplitResult | None:
    if not text.isprintable() or " " in text:
        return None
    try:
        parts = urlsplit(text)
        _ = parts.port  # raises if it is no number
    except ValueError:
        return None
    return parts


def _join(parts: SplitResult) -> str:
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
