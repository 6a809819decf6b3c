"""Image references: parse, normalize and print them, by Docker's rules.

Decides what a text names, never whether there is such an image. The vectors in ``tests/vectors`` are the
contract, the texts of the rules included: clients show them to their users.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Final

from imgbuilder.core.errors import ImgbuilderError

DOCKER_HUB: Final = "docker.io"
LEGACY_DOCKER_HUB: Final = "index.docker.io"
OFFICIAL: Final = "library/"
"""Where Docker Hub keeps the images whose name has one part."""

DEFAULT_TAG: Final = "latest"
LONGEST_PATH: Final = 255
LONGEST_QUOTE: Final = 256
"""How much of a text that is no reference an error repeats."""

INVALID_FORMAT: Final = "invalid reference format"

_HEX_LENGTHS: Final = {"sha256": 64, "sha384": 96, "sha512": 128}

_REFERENCE: Final = re.compile(
    r"""
    (?P<domain>
        (?: [a-zA-Z0-9] (?: [a-zA-Z0-9-]* [a-zA-Z0-9] )?
            (?: \. [a-zA-Z0-9] (?: [a-zA-Z0-9-]* [a-zA-Z0-9] )? )*
          | \[ [a-fA-F0-9:]+ \]
        )
        (?: : [0-9]+ )?
    )
    / (?P<path>
        [a-z0-9]+ (?: (?: [._] | __ | -+ ) [a-z0-9]+ )*
        (?: / [a-z0-9]+ (?: (?: [._] | __ | -+ ) [a-z0-9]+ )* )*
    )
    (?: : (?P<tag> [a-zA-Z0-9_] [a-zA-Z0-9_.-]{0,127} ) )?
    (?: @ (?P<digest>
        [A-Za-z] [A-Za-z0-9]* (?: [-_+.] [A-Za-z] [A-Za-z0-9]* )* : [0-9a-fA-F]{32,}
    ) )?
    """,
    re.VERBOSE,
)
_IDENTIFIER: Final = re.compile(r"[a-f0-9]{64}")
_USERINFO: Final = re.compile(r"//[^/@]*@")


class InvalidReferenceError(ImgbuilderError):
    """A text is no image reference.

    :ivar text: what was to be parsed, shortened, and without the userinfo of an address.
    :ivar rule: the rule it breaks.
    """

    def __init__(self, text: str, rule: str) -> None:
        shown = _USERINFO.sub("//***@", text)
        if len(shown) > LONGEST_QUOTE:
            shown = shown[:LONGEST_QUOTE] + "…"
        super().__init__(f"cannot parse image reference {shown!r}: {rule}")
        self.text = shown
        self.rule = rule


@dataclass(frozen=True, slots=True)
class Reference:
    """An image by name: what `parse_reference` makes has a tag or a digest, and never both.

    ``str()`` is the normal form, and parsing that gives an equal reference.

    :ivar domain: the registry as references spell it (``docker.io``), with a port where one is given.
    :ivar path: the repository in that registry, e.g. ``library/ubuntu``.
    :ivar digest: ``<algorithm>:<hex>``.
    :ivar familiar: how people write it. The only part that depends on the spelling it was parsed from; it is
        not compared.
    """

    domain: str
    path: str
    tag: str | None = None
    digest: str | None = None
    familiar: str = field(default="", compare=False, repr=False)

    def __post_init__(self) -> None:
        if not self.familiar:
            familiar = _familiar_name(self.domain, self.path) + _suffix(self.tag, self.digest)
            object.__setattr__(self, "familiar", familiar)

    @property
    def repository(self) -> str:
        """The reference less tag and digest."""
        return f"{self.domain}/{self.path}"

    def with_digest(self, digest: str) -> Reference:
        """The image of this repository that has *digest*."""
        return Reference(self.domain, self.path, None, digest)

    def __str__(self) -> str:
        return self.repository + _suffix(self.tag, self.digest)


def parse_reference(text: str) -> Reference:
    """The reference that *text* names, in its normal form.

    Without a domain it is Docker Hub's; without tag and digest it is ``latest``; of both, the digest counts.

    :raises InvalidReferenceError: if it names none.
    """
    if _IDENTIFIER.fullmatch(text):
        raise InvalidReferenceError(
            text,
            f"invalid repository name ({text}), cannot specify 64-byte hexadecimal strings",
        )
    domain, remainder = _split_domain(text)
    name = remainder.partition(":")[0]
    if name != name.lower():
        shown = name if len(name) <= LONGEST_QUOTE else name[:LONGEST_QUOTE] + "…"
        raise InvalidReferenceError(text, f"{INVALID_FORMAT}: repository name ({shown}) must be lowercase")
    match = _REFERENCE.fullmatch(f"{domain}/{remainder}")
    if match is None:
        raise InvalidReferenceError(text, INVALID_FORMAT)
    path, tag, digest = match["path"], match["tag"], match["digest"]
    if len(path) > LONGEST_PATH:
        raise InvalidReferenceError(text, f"repository name must not be more than {LONGEST_PATH} characters")
    if digest is not None:
        _check_digest(text, digest)
    return Reference(
        domain,
        path,
        None if digest is not None else tag or DEFAULT_TAG,
        digest,
        _familiar_name(domain, path) + (f":{tag}" if tag else "") + (f"@{digest}" if digest else ""),
    )


def is_digest(text: str) -> bool:
    """Whether *text* is a digest of an algorithm that references may use."""
    algorithm, _, encoded = text.partition(":")
    return _HEX_LENGTHS.get(algorithm) == len(encoded) and re.fullmatch(r"[0-9a-f]+", encoded) is not None


def _split_domain(text: str) -> tuple[str, str]:
    """The registry and the rest. A first part that can't be a host belongs to a path on Docker Hub."""
    first, slash, rest = text.partition("/")
    if not slash:
        return DOCKER_HUB, OFFICIAL + text
    is_host = first == "localhost" or "." in first or ":" in first or first != first.lower()
    domain, remainder = (first, rest) if is_host else (DOCKER_HUB, text)
    if domain == LEGACY_DOCKER_HUB:
        domain = DOCKER_HUB
    if domain == DOCKER_HUB and "/" not in remainder:
        remainder = OFFICIAL + remainder
    return domain, remainder


def _check_digest(text: str, digest: str) -> None:
    algorithm, _, encoded = digest.partition(":")
    if algorithm not in _HEX_LENGTHS:
        raise InvalidReferenceError(text, "unsupported digest algorithm")
    if len(encoded) != _HEX_LENGTHS[algorithm]:
        raise InvalidReferenceError(text, "invalid checksum digest length")
    if not is_digest(digest):
        raise InvalidReferenceError(text, "invalid checksum digest format")


def _familiar_name(domain: str, path: str) -> str:
    if domain != DOCKER_HUB:
        return f"{domain}/{path}"
    short = path.removeprefix(OFFICIAL)
    return path if "/" in short else short


def _suffix(tag: str | None, digest: str | None) -> str:
    if digest:
        return f"@{digest}"
    return f":{tag}" if tag else ""
