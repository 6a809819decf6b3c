"""Names of images and paths in the workspace, as the contract's vectors have them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imgbuilder.core import naming
from imgbuilder.core.errors import InvalidInputError, UnsupportedInitializerError
from imgbuilder.core.naming import WORKSPACE
from imgbuilder.pb.builder import BuildSourceDockerfile
from imgbuilder.pb.contentservice import EmptyInitializer, GitInitializer, WorkspaceInitializer

VECTORS = json.loads((Path(__file__).parents[2] / "vectors" / "dockerfile_sources.json").read_text())["cases"]
REPOSITORY = "registry.example.com/base-images"


def dockerfile(
    *,
    remote_uri: str = "https://git.example.com/a",
    clone_target: str = "main",
    version: str = "1",
    path: str = "Dockerfile",
    context: str = "",
) -> BuildSourceDockerfile:
    """A Dockerfile source in a git repository."""
    return BuildSourceDockerfile(
        source=WorkspaceInitializer(git=GitInitializer(remote_uri=remote_uri, clone_taget=clone_target)),
        dockerfile_version=version,
        dockerfile_path=path,
        context_path=context,
    )


@pytest.mark.parametrize("case", VECTORS, ids=lambda case: case["base_ref"][-8:])
def test_vectors(case: dict[str, Any]) -> None:
    """Names and paths are those that other implementations derive."""
    source = dockerfile(
        remote_uri=case["remote_uri"],
        clone_target=case["clone_target"],
        version=case["dockerfile_version"],
        path=case["dockerfile_path"],
        context=case["context_path"],
    )
    base_ref = naming.base_image_ref(source, repository=REPOSITORY)
    paths = naming.paths_of(source)
    assert base_ref == case["base_ref"]
    assert paths.dockerfile == case["BOB_DOCKERFILE_PATH"]
    assert paths.context == case["BOB_CONTEXT_DIR"]
    assert naming.workspace_image_ref(base_ref, repository="r").removeprefix("r:") == case["workspace_tag"]


def test_a_reference_source_has_the_usual_paths() -> None:
    """The builder image is told the same paths, though nothing is there."""
    paths = naming.paths_of_a_reference()
    assert (paths.dockerfile, paths.context) == ("/workspace/Dockerfile", "/workspace")


@pytest.mark.parametrize(
    ("source", "field"),
    [
        (dockerfile(path="../Dockerfile"), "source.file.dockerfile_path"),
        (dockerfile(path="a/../../workspacex/Dockerfile"), "source.file.dockerfile_path"),
        (dockerfile(context="../x"), "source.file.context_path"),
        (dockerfile(context="/workspace/../etc"), "source.file.context_path"),
    ],
)
def test_paths_stay_in_the_workspace(source: BuildSourceDockerfile, field: str) -> None:
    """The error names the field."""
    with pytest.raises(InvalidInputError, match="leaves /workspace") as caught:
        naming.paths_of(source)
    assert caught.value.field == field


@pytest.mark.parametrize(
    ("source", "field"),
    [
        (dockerfile(remote_uri="https://x\nSource: git"), "source.file.source.git.remote_uri"),
        (dockerfile(clone_target="a\x00"), "source.file.source.git.clone_taget"),
        (dockerfile(version="\x7f"), "source.file.dockerfile_version"),
        (dockerfile(path="a\tb"), "source.file.dockerfile_path"),
        (dockerfile(context="\x85"), "source.file.context_path"),
    ],
)
def test_control_characters_are_refused(source: BuildSourceDockerfile, field: str) -> None:
    """Otherwise two sources could share a name."""
    with pytest.raises(InvalidInputError, match=r"control character U\+00") as caught:
        naming.base_image_ref(source, repository=REPOSITORY)
    assert caught.value.field == field


@pytest.mark.parametrize(
    "initializer",
    [None, WorkspaceInitializer(), WorkspaceInitializer(empty=EmptyInitializer())],
)
def test_only_git_sources_have_a_name(initializer: WorkspaceInitializer | None) -> None:
    """The text is part of the contract."""
    source = BuildSourceDockerfile(source=initializer, dockerfile_path="Dockerfile")
    with pytest.raises(UnsupportedInitializerError, match=r"^unsupported context initializer$"):
        naming.base_image_ref(source, repository=REPOSITORY)


TEXT = st.text(alphabet=st.characters(exclude_categories=["Cs", "Cc"]), max_size=12)


@given(st.tuples(TEXT, TEXT, TEXT, TEXT, TEXT), st.tuples(TEXT, TEXT, TEXT, TEXT, TEXT))
def test_different_sources_have_different_names(
    one: tuple[str, str, str, str, str],
    other: tuple[str, str, str, str, str],
) -> None:
    """Fields do not run into each other."""
    names = {
        naming.base_image_ref(
            dockerfile(remote_uri=a, clone_target=b, version=c, path=d, context=e),
            repository=REPOSITORY,
        )
        for a, b, c, d, e in (one, other)
    }
    assert len(names) == len({one, other})


@given(TEXT, TEXT)
def test_paths_are_clean_and_inside_or_refused(path: str, context: str) -> None:
    """No third way."""
    try:
        paths = naming.paths_of(dockerfile(path=path, context=context))
    except InvalidInputError:
        return
    for result in (paths.dockerfile, paths.context):
        assert result == WORKSPACE or result.startswith(f"{WORKSPACE}/")
        assert ".." not in result.split("/")
        assert "//" not in result
