"""Requests: their messages, and the texts and credentials in them; and what the workspace manager tells."""

from __future__ import annotations

import base64
import json
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from hypothesis import example, given
from hypothesis import strategies as st

from imgbuilder.core.errors import InvalidInputError, UnsupportedInitializerError
from imgbuilder.core.naming import base_image_ref, paths_of, workspace_image_ref
from imgbuilder.core.permissions import check_additional, decode_additional, is_ecr, workspace_auth
from imgbuilder.core.references import InvalidReferenceError, parse_reference
from imgbuilder.core.secrets import Secret
from imgbuilder.core.workspace import seen
from imgbuilder.pb.builder import BuildRequest, BuildSourceDockerfile
from imgbuilder.pb.contentservice import GitInitializer, WorkspaceInitializer
from imgbuilder.pb.wsman import SubscribeResponse
from imgbuilder.runtime.grpc.codec import REQUESTS, Codec
from imgbuilder.runtime.grpc.wire import DecodeError
from imgbuilder.wsman.target import parse_target
from tests.fuzz.inputs import LONG, bounded, fuzz, inputs, texts
from tests.unit.grpc.google import ODDITIES, contract_classes, contract_pool, google_class
from tests.unit.grpc.google import inputs as proper_or_not

VECTORS: Final = Path(__file__).parents[1] / "vectors"
CLASSES: Final = contract_classes()
POOL: Final = contract_pool()
PAIR: Final = base64.b64encode(b"user:pass:word").decode()


def samples(name: str) -> list[bytes]:
    """Some messages of the class *name*."""
    return list(proper_or_not(google_class(POOL, name), 10, f"fuzz {name}"))[:2]


SAMPLES: Final = {name: samples(name) for name in sorted(CLASSES)}


@fuzz
@given(st.data(), st.sampled_from(sorted(CLASSES)))
def test_messages(data: st.DataObject, name: str) -> None:
    """A message, which stays the same when it is written and read again, or DecodeError."""
    content = data.draw(inputs(*SAMPLES[name], b"", pieces=(*ODDITIES, b"\x0a\x00", b"\x12\x00", b"\x0b")))
    with bounded(), suppress(DecodeError):
        codec = Codec(max_messages=100_000)
        message = codec.decode(CLASSES[name], content)
        written = codec.encode(message)
        assert codec.encode(codec.decode(CLASSES[name], written)) == written


@fuzz
@given(inputs(*SAMPLES["builder.BuildRequest"], pieces=ODDITIES))
def test_build_requests(content: bytes) -> None:
    """Names and paths, or the errors of a request that is at fault."""
    with (
        bounded(),
        suppress(DecodeError, InvalidInputError, UnsupportedInitializerError, InvalidReferenceError),
    ):
        request = REQUESTS.decode(BuildRequest, content)
        if request.source is not None and request.source.file is not None:
            base_image_ref(request.source.file, repository="registry.test/base")
            paths_of(request.source.file)
        if request.source is not None and request.source.ref is not None:
            parse_reference(request.source.ref.ref)
        if request.auth is not None:
            check_additional({registry: Secret(value) for registry, value in request.auth.additional.items()})


@fuzz
@given(inputs(*SAMPLES["wsman.SubscribeResponse"], pieces=ODDITIES))
def test_statuses_of_workspaces(content: bytes) -> None:
    """What a status says of a build, or nothing, or DecodeError."""
    with bounded(), suppress(DecodeError):
        status = REQUESTS.decode(SubscribeResponse, content).status
        workspace = seen(status) if status is not None else None
        assert workspace is None or workspace.started_at >= 0


@fuzz
@given(
    st.dictionaries(
        texts("registry.test:5000", "000000000000.dkr.ecr.dummy-host-zone.amazonaws.com"),
        texts(PAIR, "bm90aGluZw==", pieces=("=", "\n", "A", "/", "é")),
        max_size=2,
    )
)
def test_additional_credentials(values: dict[str, str]) -> None:
    """They are split, kept as they are, or refused with InvalidInputError; the workspace gets JSON."""
    additional = {registry: Secret(value) for registry, value in values.items()}
    with bounded():
        with suppress(InvalidInputError):
            check_additional(additional)
        for registry, value in additional.items():
            assert decode_additional(value).auth == value
            is_ecr(registry)
        document = json.loads(workspace_auth(additional, workspace_registry="registry.test", own={}))
    assert document.keys() == values.keys() - {"registry.test"}


@fuzz
@given(
    texts(
        "dns:///ws-manager:8080",
        "[::1]:80",
        "::1",
        "host",
        pieces=(":", "[", "]", "/", "dns:", "\u0663", "0"),
    )
)
@example(":" * LONG + "g")
def test_addresses_of_workspace_managers(text: str) -> None:
    """A host and a port, or InvalidInputError."""
    with bounded(), suppress(InvalidInputError):
        target = parse_target(text)
        assert target.host
        assert 0 < target.port < 65536


# --- the vectors, changed ------------------------------------------------------------------------------------


def vectors(name: str) -> list[dict[str, Any]]:
    """The cases of a file of vectors."""
    cases: list[dict[str, Any]] = json.loads((VECTORS / name).read_bytes())["cases"]
    return cases


@fuzz
@given(texts(*(case["in"] for case in vectors("references.json")), pieces=("a", ":", "/", "@", ".", "-")))
def test_references_of_the_vectors(text: str) -> None:
    """A reference in its normal form, with a familiar one, or InvalidReferenceError."""
    with bounded(), suppress(InvalidReferenceError):
        reference = parse_reference(text)
        assert parse_reference(str(reference)) == reference
        parse_reference(
            reference.familiar
        )  # docker.io/0.0/a is 0.0/a, which means another: so it is in Docker


@fuzz
@given(st.data(), st.sampled_from(vectors("dockerfile_sources.json")))
def test_sources_of_the_vectors(data: st.DataObject, case: dict[str, Any]) -> None:
    """A name and paths below /workspace, or InvalidInputError; the name is a reference that has a name itself."""
    names = ("dockerfile_path", "context_path", "dockerfile_version", "remote_uri", "clone_target")
    changed = {name: case[name] for name in names}
    name = data.draw(st.sampled_from(names))
    changed[name] = data.draw(texts(case[name], pieces=("../", "/", ".", "\n", "\x85", "workspace", "é")))
    git = GitInitializer(remote_uri=changed.pop("remote_uri"), clone_taget=changed.pop("clone_target"))
    source = BuildSourceDockerfile(source=WorkspaceInitializer(git=git), **changed)
    with bounded(), suppress(InvalidInputError):
        base_ref = base_image_ref(source, repository="registry.example.com/base-images")
        parse_reference(workspace_image_ref(base_ref, repository="registry.example.com/workspace-images"))
        paths = paths_of(source)
        assert all(f"{path}/".startswith("/workspace/") for path in (paths.dockerfile, paths.context))
        assert "/../" not in f"{paths.dockerfile}/{paths.context}/"


@fuzz
@given(st.data(), st.sampled_from(vectors("additional_auth.json")))
def test_credentials_of_the_vectors(data: st.DataObject, case: dict[str, Any]) -> None:
    """Whatever a value is, the others are passed on as before."""
    additional = {**case["additional"], "last.test": data.draw(texts(*case["additional"].values(), PAIR))}
    with bounded():
        told = workspace_auth(
            {registry: Secret(value) for registry, value in additional.items()},
            workspace_registry="TARGET",
            own={},
        )
    changed, unchanged = json.loads(told), json.loads(case["WORKSPACEKIT_BOBPROXY_ADDITIONALAUTH"])
    assert changed.pop("last.test").get("auth", "") == additional["last.test"]
    assert changed == unchanged
