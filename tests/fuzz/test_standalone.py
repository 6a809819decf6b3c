"""What the standalone workspace manager reads: Dockerfiles, addresses, settings, the output of engines."""

from __future__ import annotations

import base64
import json
from contextlib import suppress
from typing import Final

from hypothesis import example, given
from hypothesis import strategies as st

from imgbuilder.core.errors import InvalidInputError
from imgbuilder.standalone.buildtask import _additional
from imgbuilder.standalone.dockerfile import DockerfileError, parse_dockerfile, without_syntax
from imgbuilder.standalone.engines.failures import failure, last_words
from imgbuilder.standalone.engines.progress import ProgressText
from imgbuilder.standalone.git.addresses import parse_address, without_credentials
from imgbuilder.standalone.git.errors import ContentError
from imgbuilder.standalone.processes import Exit
from imgbuilder.standalone.words import UnknownSubstitutionError, expand
from imgbuilder.telemetry.redaction import redacted_text
from tests.fuzz.inputs import DEEP, LONG, bounded, documents, fuzz, texts

DOCKERFILE: Final = """\
# syntax=docker/dockerfile:1
# escape=`
ARG VERSION=24.04
ARG NAME="a b"
FROM --platform=$BUILDPLATFORM ubuntu:${VERSION:-22.04} AS build
ONBUILD RUN echo hello
RUN --mount=type=bind,from=build,target=/a `
    cat <<EOF > /file
FROM not an instruction
EOF
COPY --from=build /file /file
"""


@fuzz
@given(
    texts(
        DOCKERFILE,
        "ONBUILD RUN true",
        "FROM base AS build",
        "RUN --mount=type=bind,from=build,target=/a true",
        "ARG a=\"b\" c='d' e\nARG f=$a${c:-d}",
        pieces=("\n", " ", "\t", "FROM ", "ONBUILD ", "ARG a=", "--mount=", ",from=", "${", "}", "'", '"', "\\", "#",
                " as ", "<<", "RUN --from=a ", "0", "`", 'a="'),
    )
)  # fmt: skip
@example("ONBUILD " * 2000 + "RUN true")
@example("FROM a" + " " * LONG + "b")
@example("RUN " + "--mount=" * (LONG // 8))
@example("ARG a=aaaa\n" + "ARG a=$a$a\n" * 40)
@example("".join(f"ARG a{number}={number}\n" for number in range(2000)))
def test_dockerfiles(text: str) -> None:
    """What it builds on, or DockerfileError; a line that names a frontend goes, and all other lines stay."""
    with bounded():
        with suppress(DockerfileError):
            parse_dockerfile(text)
        assert len(without_syntax(text).splitlines()) == len(text.splitlines())


@fuzz
@given(
    texts(
        "$NAME",
        "${NAME:-a${b}c}",
        "'a'\"$b\"\\$c",
        pieces=("$", "{", "}", ":", "-", "+", "'", '"', "\\", "${a:-", "a"),
    ),
    st.dictionaries(st.sampled_from(["NAME", "a", "b"]), st.text(max_size=5)),
)
def test_words_with_variables(word: str, values: dict[str, str]) -> None:
    """The word it stands for, or UnknownSubstitutionError."""
    with bounded(), suppress(UnknownSubstitutionError):
        expand(word, values)


@fuzz
@given(
    texts(
        "https://user:password@git.test:8080/a/b.git",
        "file:///srv/a.git",
        "git@git.test:a/b.git",
        "ext::sh -c",
        pieces=(":", "/", "@", "[", "]", "%", "é", " ", "?", "\\", "-"),
    ),
    st.booleans(),
)
def test_addresses_of_repositories(text: str, allow_file_urls: bool) -> None:
    """An address without its password, or ContentError."""
    with bounded():
        without_credentials(text)
        with suppress(ContentError):
            address = parse_address(text, allow_file_urls=allow_file_urls)
            assert address.text.partition("://")[0] in {
                "https",
                "http",
                *(["file"] if allow_file_urls else []),
            }
            assert "@" not in address.text.partition("://")[2].partition("/")[0].partition("?")[0]


PAIR: Final = base64.b64encode(b"user:password").decode()


@fuzz
@given(
    documents(
        {
            "registry.test": {"username": "user", "password": "password", "auth": PAIR},
            "b.test": {"auth": PAIR},
        }
    )
)
def test_credentials_in_the_environment(text: bytes) -> None:
    """Credentials by registry, or InvalidInputError."""
    with bounded(), suppress(InvalidInputError):
        _additional(text.decode(errors="replace"))


STATUS: Final = {"vertex": "sha256:a", "id": "layer", "total": 1000, "completed": "2026-11-24T10:00:01Z"}
EVENT: Final = {
    "vertexes": [
        {
            "digest": "sha256:a",
            "name": "[1/2] FROM base",
            "started": "2026-11-24T10:00:00Z",
            "completed": "2026-11-24T10:00:01.5Z",
        }
    ],
    "statuses": [STATUS],
    "logs": [{"vertex": "sha256:a", "data": base64.b64encode(b"hello\n").decode()}],
    "warnings": [{"short": base64.b64encode(b"old").decode()}],
}


@fuzz
@given(st.lists(documents(EVENT), max_size=3))
@example([b'{"vertexes":[{"digest":"a","started":1,"name":%b}]}' % DEEP])
@example([json.dumps({**EVENT, "statuses": [{**STATUS, "total": "9" * 400}]}).encode()])
def test_progress_of_buildkit(lines: list[bytes]) -> None:
    """Text to be read, whatever the lines are."""
    progress = ProgressText()
    with bounded():
        for line in lines:
            progress.feed(line + b"\n")
        progress.finish()


@fuzz
@given(
    texts(
        '\x1b[31mError: building at STEP "RUN false": while running runtime: exit status 1\n',
        "ERROR: failed to solve: exit code: 137\n",
        "The command '/bin/sh -c false' returned a non-zero code: 1",
        pieces=("\x1b[", "1;", "\n", " ", "Error: ", "exit code: ", "9", "The command "),
    ),
    st.integers(-9, 255),
)
def test_last_words_of_engines(said: str, status: int) -> None:
    """An error for whoever wrote the Dockerfile, or for whoever runs the machine, of bounded length."""
    with bounded():
        error = failure("podman", Exit(status=status), said)
        words = last_words(said)
    assert len(words) <= 601
    assert len(str(error)) < 800


@fuzz
@given(
    texts(
        "Authorization: Bearer abcdefgh",
        "https://user:password@registry.test/v2/?token=abcdefgh&x=y",
        '{"password": "hunter22", "auth": "dXNlcjpwYXNz"}',
        pieces=(
            '"',
            "'",
            "\\",
            ":",
            "=",
            " ",
            "password",
            "token",
            "?",
            "&",
            "://",
            "@",
            "Bearer ",
            "a",
            "_",
            "-",
        ),
    )
)
def test_texts_that_are_logged(text: str) -> None:
    """They get no longer than they are and a mark for each secret."""
    with bounded():
        assert len(redacted_text(text)) <= 4 * len(text) + 3
