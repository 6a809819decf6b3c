"""Messages in the JSON of protocol buffers, as other tools write it."""

from __future__ import annotations

import random
from typing import Any

import pytest
from google.protobuf import json_format

from imgbuilder.client.protojson import parse_json, read_message
from imgbuilder.core.errors import InvalidInputError
from imgbuilder.pb.builder import BuildInfo, BuildRequest, BuildSource, LogsResponse
from imgbuilder.pb.contentservice import CloneTargetMode, GitAuthMethod, GitInitializer
from imgbuilder.runtime.grpc.codec import Codec
from tests.unit.grpc.google import contract_classes, contract_pool, google_class, random_message

POOL = contract_pool()


@pytest.mark.parametrize(
    "name", ["builder.BuildRequest", "builder.ListBuildsResponse", "builder.LogsResponse"]
)
@pytest.mark.parametrize("proto_names", [True, False])
def test_what_google_writes_is_read(name: str, proto_names: bool) -> None:
    """In both spellings, it means the same."""
    reference, ours = google_class(POOL, name), contract_classes()[name]
    rng, read = random.Random(name), 0
    for _ in range(150):
        message = random_message(reference, rng)
        document = json_format.MessageToDict(message, preserving_proto_field_name=proto_names)
        try:
            returned = Codec().encode(read_message(ours, document))
        except InvalidInputError as error:
            if "must be one of" not in str(error):
                raise
            continue  # a number that no name stands for
        read += 1
        assert reference.FromString(returned) == message
    assert read >= 30


def test_fields_are_spelled_as_anybody_does() -> None:
    """In snake case, camel case, and with the contract's odd capitals."""
    for key in ("upstream_Remote_uri", "upstreamRemoteUri", "upstream_remote_uri"):
        assert read_message(GitInitializer, {key: "u"}).upstream_Remote_uri == "u"
    git = {"target_mode": "REMOTE_COMMIT", "config": {"authentication": 1, "customConfig": {"a.b": "c"}}}
    initializer = read_message(GitInitializer, git)
    assert initializer.target_mode == CloneTargetMode.REMOTE_COMMIT
    assert initializer.config is not None
    assert initializer.config.authentication == GitAuthMethod.BASIC_AUTH
    assert initializer.config.custom_config == {"a.b": "c"}
    assert read_message(BuildInfo, {"startedAt": "12"}) == read_message(BuildInfo, {"started_at": 12})
    assert read_message(LogsResponse, {"content": "aGk="}).content == b"hi"
    assert read_message(BuildRequest, {"auth": None}) == BuildRequest()


@pytest.mark.parametrize(
    ("cls", "document", "fault"),
    [
        (BuildSource, [], "source: must be a JSON object, not a list"),
        (BuildSource, {"reff": {}}, "reff: there is no such field; those there are: ref, file"),
        (BuildSource, {"ref": "ubuntu"}, "ref: must be a JSON object, not a text"),
        (BuildSource, {"ref": {"ref": "\ud800"}}, "ref.ref: has half of a character"),
        (BuildSource, {"ref": {"ref": 7}}, "ref.ref: must be a text, not a number"),
        (BuildSource, {"ref": {}, "file": {}}, "file: can't be given beside ref: only one of them is used"),
        (BuildRequest, {"forceRebuild": "yes"}, "forceRebuild: must be true or false, not a text"),
        (
            BuildRequest,
            {"forceRebuild": True, "force_rebuild": True},
            "force_rebuild: is given twice, in two spellings",
        ),
        (
            BuildSource,
            {"file": {"source": {"git": {"targetMode": "HEAD"}}}},
            (
                "file.source.git.targetMode: must be one of"
                " REMOTE_HEAD, REMOTE_COMMIT, REMOTE_BRANCH, LOCAL_BRANCH"
            ),
        ),
        (
            BuildSource,
            {"file": {"source": {"composite": {"initializer": [{}, {"gitt": {}}]}}}},
            (
                "file.source.composite.initializer[1].gitt: there is no such field; those there are:"
                " empty, git, snapshot, prebuild, composite, download, backup"
            ),
        ),
        (BuildRequest, {"auth": {"additional": {"a": 1}}}, "auth.additional.a: must be a text, not a number"),
        (
            BuildRequest,
            {"auth": {"selective": {"anyOf": "a"}}},
            "auth.selective.anyOf: must be a list, not a text",
        ),
        (BuildInfo, {"startedAt": "soon"}, "startedAt: must be a whole number from"),
        (BuildInfo, {"startedAt": True}, "startedAt: must be a whole number from"),
        (LogsResponse, {"content": "*"}, "content: must be a text in base64"),
    ],
)
def test_what_is_wrong_is_named_by_its_place(cls: Any, document: Any, fault: str) -> None:
    """And never by its value, which may be a secret."""
    with pytest.raises(InvalidInputError) as caught:
        read_message(cls, document)
    assert str(caught.value).startswith(fault)


@pytest.mark.parametrize(
    ("contents", "fault"),
    [
        (b'{"a": hunter2}', "f: is not JSON: Expecting value in line 1, column 7"),
        (b"\xff\xfe\xfd", "f: is not JSON: it is no UTF-8"),
        (b"[" * 100_000, "f: is nested too deeply"),
    ],
)
def test_what_is_no_json(contents: bytes, fault: str) -> None:
    """With the place where it ends to be some."""
    with pytest.raises(InvalidInputError) as caught:
        parse_json(contents, "f")
    assert str(caught.value) == fault
