"""Where the Dockerfile and its context are in a clone, and what a Dockerfile builds on.

Refuses what would read files of this machine that are not in the clone: paths that lead out of it, links
included, and base images that name a local file instead of a registry. This is no parser of Dockerfiles, that
is the engine's; a text that is none passes, and fails there.
"""

from __future__ import annotations

import os
import platform
import re
import stat
from collections import ChainMap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Final

from imgbuilder.core.errors import ImgbuilderError
from imgbuilder.core.references import InvalidReferenceError, Reference, parse_reference
from imgbuilder.standalone.words import UnknownSubstitutionError, expand

WORKSPACE: Final = PurePosixPath("/workspace")
"""What the contract's paths call the folder with the clone."""

LONGEST_DOCKERFILE: Final = 1 << 20
MOST_ARGUMENTS: Final = 1000
"""Before the first stage; each may stand for much more than was written."""

_DIRECTIVE: Final = re.compile(r"#\s*(?P<name>[a-zA-Z]+)\s*=\s*(?P<value>\S+)\s*")
_HEREDOC: Final = re.compile(r"\s\d*<<-?([\"']?)[A-Za-z_][A-Za-z0-9_.]*\1(?:\s|$)")
_LOCAL: Final = re.compile(
    r"(?:oci|oci-archive|docker-archive|docker-daemon|dir|containers-storage|ostree|sif|tarball|atomic):",
    re.IGNORECASE,
)
"""How buildah and podman are told that an image is a local file. BuildKit knows no such thing."""

_ARCHITECTURES: Final = {"x86_64": "amd64", "aarch64": "arm64"}


class DockerfileError(ImgbuilderError):
    """There is no Dockerfile or context where they should be, or what is there must not be built."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BuildFiles:
    """What a build reads, both of it existing and inside the clone, links resolved."""

    dockerfile: Path
    context: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Dockerfile:
    """What is to be known of a Dockerfile before it is built.

    :ivar base_images: the images that it takes files from, in the order they are met, each once.
    :ivar heredocs: whether it has here-documents, which older engines take for nonsense.
    :ivar syntax: the frontend that it asks for with ``# syntax=``.
    """

    base_images: tuple[Reference, ...]
    heredocs: bool
    syntax: str | None


def find_build_files(workspace: Path, dockerfile_path: str, context_dir: str) -> BuildFiles:
    """The files that the contract's paths (below ``/workspace``) name in the folder *workspace*.

    :raises DockerfileError: if they are not there, or lead out of it.
    """
    dockerfile = _inside(workspace, dockerfile_path)
    if dockerfile is None or not stat.S_ISREG(dockerfile.stat().st_mode):
        raise DockerfileError(f"Dockerfile not found: {dockerfile_path}")
    context = _inside(workspace, context_dir)
    if context is None or not context.is_dir():
        raise DockerfileError(f"build context not found: {context_dir}")
    return BuildFiles(dockerfile=dockerfile, context=context)


def read_dockerfile(path: Path) -> Dockerfile:
    """What is to be known of the Dockerfile *path*.

    :raises DockerfileError: if it is too large, or builds on a local file.
    """
    with path.open("rb") as file:
        content = file.read(LONGEST_DOCKERFILE + 1)
    if len(content) > LONGEST_DOCKERFILE:
        raise DockerfileError(f"the Dockerfile is larger than {LONGEST_DOCKERFILE // 1024} KiB")
    return parse_dockerfile(content.decode(errors="replace"))


def parse_dockerfile(text: str) -> Dockerfile:
    """What is to be known of a Dockerfile.

    The lines of here-documents are looked at like all others: what one engine takes for text, another may
    take for an instruction.

    :raises DockerfileError: if it builds on a local file, or it can't be told whether it does.
    """
    directives = dict(_directives(text))
    images: dict[Reference, None] = {}
    arguments: dict[str, str] = {}
    known = ChainMap(arguments, _platform_arguments())
    stages: set[str] = set()
    heredocs = False
    for keyword, rest in _instructions(text, directives.get("escape", "\\")):
        if keyword == "ARG" and not stages:
            arguments.update(_defaults(rest, arguments))
            if len(arguments) > MOST_ARGUMENTS:
                raise DockerfileError(f"it has more than {MOST_ARGUMENTS} arguments before its first stage")
        heredocs |= keyword in {"RUN", "COPY", "ADD"} and _HEREDOC.search(f" {rest}") is not None
        for name in _sources(keyword, rest, known):
            if _LOCAL.match(name):
                raise DockerfileError(f"{keyword} {name}: only images in a registry can be built on")
            if name.lower() not in stages and name != "scratch" and not name.isdecimal():
                images.update(_reference(name))
        stages.update(_stage(keyword, rest))
    return Dockerfile(base_images=tuple(images), heredocs=heredocs, syntax=directives.get("syntax"))


def without_syntax(text: str) -> str:
    """A Dockerfile without its ``# syntax=`` line, for which BuildKit would pull a frontend from a registry.

    The line stays, as an empty comment, so that the numbers of the others in messages are right.
    """
    lines = text.splitlines(keepends=True)
    for number, line in enumerate(lines):
        directive = _DIRECTIVE.fullmatch(line.strip("\ufeff"))
        if directive is None:
            break
        if directive["name"].lower() == "syntax":
            lines[number] = "#\n"
    return "".join(lines)


def _inside(workspace: Path, text: str) -> Path | None:
    """Where *text* leads, or None if nothing is there.

    :raises DockerfileError: if that is outside of *workspace*.
    """
    outside = DockerfileError(f"{text}: leads out of the workspace")
    path = PurePosixPath(os.path.normpath(text))
    if "\0" in text or not path.is_relative_to(WORKSPACE):
        raise outside
    root = workspace.resolve(strict=True)
    try:
        found = root.joinpath(path.relative_to(WORKSPACE)).resolve(strict=True)
    except (OSError, RuntimeError):  # the latter for links in a circle
        return None
    if not found.is_relative_to(root):
        raise outside
    return found


def _directives(text: str) -> Iterator[tuple[str, str]]:
    for line in text.lstrip("\ufeff").splitlines():
        directive = _DIRECTIVE.fullmatch(line.strip())
        if directive is None:
            return
        yield directive["name"].lower(), directive["value"]


def _instructions(text: str, escape: str) -> Iterator[tuple[str, str]]:
    """Each instruction: its keyword, and all after it in one line. ONBUILD stands for what follows it."""
    joined = ""
    for line in text.lstrip("\ufeff").splitlines():
        stripped = line.strip()
        if not stripped or stripped.startswith("#"):
            continue
        if stripped.endswith(escape):
            joined += stripped.removesuffix(escape) + " "
            continue
        yield _instruction(joined + stripped)
        joined = ""
    if joined:
        yield _instruction(joined)


def _instruction(line: str) -> tuple[str, str]:
    keyword, rest = "ONBUILD", line.strip()
    while keyword == "ONBUILD" and rest:
        keyword, *others = rest.split(maxsplit=1)
        keyword, rest = keyword.upper(), others[0].strip() if others else ""
    return keyword, rest


def _defaults(rest: str, known: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    for match in re.finditer(r"([A-Za-z_]\w*)(?:=((?:\"[^\"]*\"|'[^']*'|\\.|[^\s\"'\\])*))?", rest):
        name, value = match.groups()
        yield name, _expand("ARG", value, known) if value is not None else known.get(name, "")


def _sources(keyword: str, rest: str, known: Mapping[str, str]) -> Iterator[str]:
    """The names of what an instruction takes files from: images, stages and numbers of stages."""
    words = rest.split()
    flags = [word for word in words if word.startswith("--")]
    if keyword == "FROM":
        named = [word for word in words if not word.startswith("--")]
        if named:
            yield _expand(keyword, named[0], known)
    elif keyword in {"COPY", "ADD", "RUN"}:
        for flag in flags:
            for text in _named_by(flag):
                name = text.strip("\"'")
                if "$" in name or "\\" in name:
                    raise DockerfileError(f"{keyword} {flag}: variables can't be used here")
                yield name


def _named_by(flag: str) -> Iterator[str]:
    """What a flag says that files are taken from."""
    _, is_from, name = flag.partition("--from=")
    if is_from:
        yield name
    _, _, options = flag.partition("--mount=")
    for option in options.split(","):
        if option.startswith("from="):
            yield option.removeprefix("from=")


def _stage(keyword: str, rest: str) -> Iterator[str]:
    """The name of the stage that an instruction begins, and one by which it is known that there is one."""
    if keyword == "FROM":
        words = rest.lower().split()
        yield words[-1] if len(words) > 2 and words[-2] == "as" else ""


def _reference(name: str) -> dict[Reference, None]:
    try:
        return {parse_reference(name.removeprefix("docker://")): None}
    except InvalidReferenceError:
        return {}  # the engine will say so, and better; or it is no instruction at all


def _expand(keyword: str, word: str, known: Mapping[str, str]) -> str:
    try:
        return expand(word, known)
    except UnknownSubstitutionError as error:
        raise DockerfileError(f"{keyword} {word}: {error}") from error


def _platform_arguments() -> dict[str, str]:
    machine = platform.machine()
    architecture = _ARCHITECTURES.get(machine, machine)
    values = {"PLATFORM": f"linux/{architecture}", "OS": "linux", "ARCH": architecture}
    return {side + name: value for side in ("TARGET", "BUILD") for name, value in values.items()}
