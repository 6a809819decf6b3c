"""Where a Dockerfile is, what it builds on, and what is refused."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imgbuilder.standalone.dockerfile import (
    LONGEST_DOCKERFILE,
    DockerfileError,
    find_build_files,
    parse_dockerfile,
    read_dockerfile,
    without_syntax,
)
from imgbuilder.standalone.words import UnknownSubstitutionError, expand


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    """A workspace with a Dockerfile in a folder, and a secret beside it."""
    workspace = tmp_path / "workspace"
    (workspace / "project" / "sub").mkdir(parents=True)
    (workspace / "project" / "Dockerfile").write_text("FROM scratch\n")
    (tmp_path / "secret").write_text("FROM secret\n")
    return workspace


# --- where it is ---


def test_finds_dockerfile_and_context(workspace: Path) -> None:
    """By the paths of the contract."""
    files = find_build_files(workspace, "/workspace/project/Dockerfile", "/workspace/project/sub/..")
    assert files.dockerfile == workspace / "project" / "Dockerfile"
    assert files.context == workspace / "project"
    assert find_build_files(workspace, "/workspace/project/Dockerfile", "/workspace").context == workspace
    assert find_build_files(workspace, "/workspace/project/Dockerfile", "/workspace/.").context == workspace


def test_follows_links_inside(workspace: Path) -> None:
    """They are part of what was cloned."""
    (workspace / "link").symlink_to("project/Dockerfile")
    (workspace / "folder").symlink_to("project")
    files = find_build_files(workspace, "/workspace/link", "/workspace/folder")
    assert files.dockerfile == workspace / "project" / "Dockerfile"
    assert files.context == workspace / "project"


@pytest.mark.parametrize(
    "path", ["/workspace/Dockerfile", "/workspace/project", "/workspace/project/Dockerfile/x"]
)
def test_says_when_there_is_no_dockerfile(workspace: Path, path: str) -> None:
    """A folder is none, either."""
    with pytest.raises(DockerfileError) as failed:
        find_build_files(workspace, path, "/workspace")
    assert str(failed.value) == f"Dockerfile not found: {path}"


@pytest.mark.parametrize("path", ["/workspace/nowhere", "/workspace/project/Dockerfile"])
def test_says_when_there_is_no_context(workspace: Path, path: str) -> None:
    """A file is none, either."""
    with pytest.raises(DockerfileError) as failed:
        find_build_files(workspace, "/workspace/project/Dockerfile", path)
    assert str(failed.value) == f"build context not found: {path}"


@pytest.mark.parametrize(
    "path",
    [
        "/workspace/../secret",
        "/etc/passwd",
        "secret",
        "",
        "/workspace/absolute",
        "/workspace/relative",
        "/workspace/up/secret",
        "/workspace/project/Dockerfile\0",
        "/workspacesecret",
    ],
)
def test_nothing_outside_is_read(workspace: Path, path: str) -> None:
    """Neither by a path nor by a link, of a file or of a folder on the way."""
    (workspace / "absolute").symlink_to(workspace.parent / "secret")
    (workspace / "relative").symlink_to("../secret")
    (workspace / "up").symlink_to("..")
    with pytest.raises(DockerfileError, match="leads out of the workspace"):
        find_build_files(workspace, path, "/workspace")
    with pytest.raises(DockerfileError, match="leads out of the workspace"):
        find_build_files(workspace, "/workspace/project/Dockerfile", path)


def test_links_in_a_circle_lead_nowhere(workspace: Path) -> None:
    """They are not followed for ever."""
    (workspace / "one").symlink_to("two")
    (workspace / "two").symlink_to("one")
    with pytest.raises(DockerfileError, match="Dockerfile not found: /workspace/one"):
        find_build_files(workspace, "/workspace/one", "/workspace")


def test_a_dockerfile_is_a_regular_file(workspace: Path) -> None:
    """Reading a pipe would wait for ever."""
    os.mkfifo(workspace / "pipe")
    with pytest.raises(DockerfileError, match="Dockerfile not found: /workspace/pipe"):
        find_build_files(workspace, "/workspace/pipe", "/workspace")


def test_a_dockerfile_has_a_largest_size(workspace: Path) -> None:
    """It is read into memory."""
    file = workspace / "project" / "Dockerfile"
    file.write_bytes(b"#" * (LONGEST_DOCKERFILE + 1))
    with pytest.raises(DockerfileError, match="larger than 1024 KiB"):
        read_dockerfile(file)
    file.write_bytes(b"FROM \xff\xfe\n")
    assert read_dockerfile(file).base_images == ()


# --- what it builds on ---


@pytest.mark.parametrize(
    ("text", "images"),
    [
        ("FROM ubuntu", ["docker.io/library/ubuntu:latest"]),
        ("from --platform=linux/amd64 ghcr.io/a/b:1 as x\nFROM x", ["ghcr.io/a/b:1"]),
        ("FROM scratch", []),
        ("# FROM no\n\nFROM \\\n  # between\n\n  yes:1", ["docker.io/library/yes:1"]),
        ("ARG V=1\nARG B=base:$V\nFROM ${B}", ["docker.io/library/base:1"]),
        ("ARG V\nFROM base:${V:-2}", ["docker.io/library/base:2"]),
        ("ARG A='quay.io/x' B=\"y\"\nFROM $A/$B", ["quay.io/x/y:latest"]),
        ("FROM a AS One\nFROM b\nCOPY --from=one /x /y\nCOPY --from=0 /x /y", ["a", "b"]),
        ("FROM a\nCOPY --chown=1:1 --from=quay.io/c/d:3 / /", ["a", "quay.io/c/d:3"]),
        ("FROM a\nRUN --mount=type=bind,from=c,target=/c true", ["a", "c"]),
        ("FROM a\nONBUILD COPY --from=c / /", ["a", "c"]),
        ("FROM a\nFROM a", ["a"]),
        ("FROM docker://quay.io/c/d", ["quay.io/c/d:latest"]),
        ("# escape=`\nFROM `\n quay.io/c/d", ["quay.io/c/d:latest"]),
        ("\ufeffFROM a", ["a"]),
        ("FROM a\nRUN echo FROM b", ["a"]),
        ("FROM UPPER", []),
        ("FROM", []),
        ("", []),
        ("what is this?", []),
    ],
)
def test_finds_the_base_images(text: str, images: list[str]) -> None:
    """Those of FROM, COPY --from and mounts, in order, each once; stages are none."""
    found = [str(image) for image in parse_dockerfile(text).base_images]
    assert found == [name if "/" in name else f"docker.io/library/{name}:latest" for name in images]


@pytest.mark.parametrize("transport", ["oci", "oci-archive", "docker-archive", "dir", "containers-storage"])
@pytest.mark.parametrize(
    "text",
    [
        "FROM LOCAL:/etc/x",
        "FROM --platform=linux/amd64 LOCAL:/etc/x AS a",
        'FROM "LOCAL":/etc/x',
        "FROM \\\n  LOCAL:/etc/x",
        "ARG X=LOCAL\nFROM $X:/etc/x",
        "ARG X=LOCAL\nARG Y=${X}:/etc\nFROM ${Y}/x",
        "FROM ${X:-LOCAL:/etc/x}",
        "FROM a\nCOPY --from=LOCAL:/etc/x / /",
        "FROM a\nADD --from=LOCAL:/etc/x / /",
        "FROM a\nRUN --mount=type=bind,from=LOCAL:/etc/x,target=/x ls",
        "FROM a\nRUN --mount=from=LOCAL:/etc/x ls",
        "FROM a\nONBUILD COPY --from=LOCAL:/etc/x / /",
        # an engine that knows no here-documents sees an instruction in one
        "FROM a\nRUN <<EOF\nCOPY --from=LOCAL:/etc/x / /\nEOF",
    ],
)
def test_images_on_this_machine_are_refused(text: str, transport: str) -> None:
    """Some engines read them from any path."""
    with pytest.raises(DockerfileError, match="only images in a registry can be built on"):
        parse_dockerfile(text.replace("LOCAL", transport))


@pytest.mark.parametrize(
    "text",
    ["FROM ${X%y}", "FROM ${X", "FROM 'a", "FROM a\nCOPY --from=$X / /", "FROM a\nCOPY --from=d\\ir:/x / /"],
)
def test_what_cant_be_checked_is_refused(text: str) -> None:
    """It could be anything."""
    with pytest.raises(DockerfileError):
        parse_dockerfile(text)


@pytest.mark.parametrize(
    ("text", "heredocs"),
    [
        ("FROM a\nRUN <<EOF\ntrue\nEOF", True),
        ("FROM a\nRUN python3 <<-'EOF' && true\n\tpass\n\tEOF", True),
        ("FROM a\nCOPY <<EOF /x\nEOF", True),
        ("FROM a\nRUN echo $((1<<2)) && cat <<<word", False),
        ("FROM a\nENV X=<<EOF", False),
    ],
)
def test_sees_here_documents(text: str, heredocs: bool) -> None:
    """And only those."""
    assert parse_dockerfile(text).heredocs is heredocs


def test_the_syntax_line_is_blanked() -> None:
    """And nothing else: not its line number, not other directives, not a comment that looks like it."""
    text = "# escape=`\n#syntax = docker/dockerfile:1\nFROM a\n# syntax=b\n"
    assert parse_dockerfile(text).syntax == "docker/dockerfile:1"
    assert without_syntax(text) == "# escape=`\n#\nFROM a\n# syntax=b\n"
    assert parse_dockerfile("FROM a\n# syntax=b\n").syntax is None


@given(st.text(alphabet="FROMCPYADUNBILGfrom \n\t\\$\"'{}=:-/`#<>aEO0", max_size=200))
def test_any_text_is_answered(text: str) -> None:
    """With what it builds on, or a refusal."""
    with suppress(DockerfileError):
        parse_dockerfile(text)


# --- words ---


@pytest.mark.parametrize(
    ("word", "expanded"),
    [
        ("plain", "plain"),
        ("$A-${A}", "1-1"),
        ("${B:-x}${A:-x}", "x1"),
        ("${E:-x}${E-x}", "x"),
        ("${A:+x}${B:+x}${E+y}", "xy"),
        ("${B:-${A}}", "1"),
        ("'$A'", "$A"),
        ('"$A b"', "1 b"),
        (r"\$A", "$A"),
        ("$", "$"),
        ("$1", ""),
        ("\\", ""),
    ],
)
def test_variables_are_expanded(word: str, expanded: str) -> None:
    """As shells do it."""
    assert expand(word, {"A": "1", "E": ""}) == expanded


@pytest.mark.parametrize(
    "word", ["${A#x}", "${A/x/y}", "${", "${}", "${A:?no}", "'", "${A:-" * 30 + "}" * 30]
)
def test_unknown_substitutions_are_told(word: str) -> None:
    """Rather than guessed."""
    with pytest.raises(UnknownSubstitutionError):
        expand(word, {"A": "1"} if "#" in word or "/" in word else {})


@given(st.text(alphabet="ab$", max_size=20), st.dictionaries(st.sampled_from("ab"), st.just("v")))
def test_expanding_is_the_identity_on_words_without_variables(word: str, values: dict[str, str]) -> None:
    """And never fails on plain variables."""
    expanded = expand(word, values)
    if "$" not in word:
        assert expanded == word


def test_a_variable_that_doubles_with_each_line_is_refused() -> None:
    """A few lines could fill the memory of this machine."""
    with pytest.raises(DockerfileError, match="the value is too long"):
        parse_dockerfile("ARG a=aaaa\n" + "ARG a=$a$a\n" * 15)


def test_more_arguments_than_anybody_needs_are_refused() -> None:
    """Each may be as long as is allowed."""
    lines = [f"ARG a{number}\n" for number in range(1001)]
    with pytest.raises(DockerfileError, match="more than 1000 arguments"):
        parse_dockerfile("".join(lines))
