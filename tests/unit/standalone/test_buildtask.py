"""What a start request asks for."""

from __future__ import annotations

import base64

import pytest

from imgbuilder.core.errors import InvalidInputError
from imgbuilder.core.permissions import ECR_STAND_IN, basic_credentials
from imgbuilder.pb.contentservice import GitInitializer, WorkspaceInitializer
from imgbuilder.standalone.buildtask import read_build_task
from tests.unit.standalone.requests import BASE, TARGET, build_request, with_variable


def test_a_dockerfile_build_is_read_from_the_variables() -> None:
    """What the image builder sends is what is understood."""
    initializer = WorkspaceInitializer(git=GitInitializer(remote_uri="https://example.com/x.git"))
    task = read_build_task(
        build_request(initializer=initializer, dockerfile="/workspace/a/Dockerfile", context="/workspace/a")
    )
    assert task.build_base
    assert (task.dockerfile, task.context) == ("/workspace/a/Dockerfile", "/workspace/a")
    assert (str(task.base), str(task.target)) == (BASE, TARGET)
    assert task.initializer == initializer
    assert task.pull_secret
    assert (task.timeout, task.timeout_text) == (3600, "1h0m0s")


def test_a_reference_build_builds_no_base() -> None:
    """Without a Dockerfile the base image is there already."""
    assert not read_build_task(build_request()).build_base


def test_credentials_that_come_along_are_understood() -> None:
    """Fields, or base64 of user and password split at the last colon; empty fields are fine."""
    pair = base64.b64encode(b"bob:with:colon").decode()
    task = read_build_task(
        build_request(
            additional={
                "one.example": {"username": "ann", "password": "x", "identitytoken": "y"},
                "two.example": {"auth": pair},
            }
        )
    )
    one, two = task.additional_credentials("one.example"), task.additional_credentials("two.example")
    assert one is not None
    assert (one.username, one.password.reveal(), one.identity_token.reveal()) == ("ann", "x", "y")
    assert one.auth == basic_credentials("ann", "x").auth
    assert two is not None
    assert (two.username, two.password.reveal()) == ("bob:with", "colon")
    assert task.additional_credentials("three.example") is None


def test_the_stand_in_is_for_every_ecr_registry() -> None:
    """Credentials under the name that stands for all of Amazon's registries are used for each of them."""
    task = read_build_task(build_request(additional={ECR_STAND_IN: {"username": "AWS", "password": "x"}}))
    found = task.additional_credentials("123456789012.dkr.ecr.eu-west-1.amazonaws.com")
    assert found is not None
    assert found.username == "AWS"
    assert task.additional_credentials("example.com") is None


def test_without_a_reference_to_the_secret_it_is_not_used() -> None:
    """The own credentials are only for requests that refer to them."""
    request = with_variable(build_request(), "WORKSPACEKIT_BOBPROXY_AUTH", None)
    assert not read_build_task(request).pull_secret


@pytest.mark.parametrize(
    ("name", "value", "fault"),
    [
        ("BOB_BUILD_BASE", "yes", "must be true or false"),
        ("WORKSPACEKIT_BOBPROXY_BASEREF", None, "is missing"),
        ("WORKSPACEKIT_BOBPROXY_BASEREF", "NO", "is no image reference"),
        ("WORKSPACEKIT_BOBPROXY_TARGETREF", "", "is missing"),
        ("WORKSPACEKIT_BOBPROXY_ADDITIONALAUTH", "s3cret", "is not a JSON object"),
        ("WORKSPACEKIT_BOBPROXY_ADDITIONALAUTH", '["s3cret"]', "is not a JSON object"),
        ("WORKSPACEKIT_BOBPROXY_ADDITIONALAUTH", '{"a.example": "s3cret"}', "is not a JSON object"),
        ("WORKSPACEKIT_BOBPROXY_ADDITIONALAUTH", '{"a.example": {"auth": 7}}', "is not a JSON object"),
    ],
)
def test_a_variable_that_can_not_be_used_is_named(name: str, value: str | None, fault: str) -> None:
    """The error says which and why, and repeats no secret."""
    with pytest.raises(InvalidInputError, match=fault) as refused:
        read_build_task(with_variable(build_request(), name, value))
    assert refused.value.field == name
    assert "s3cret" not in str(refused.value)


@pytest.mark.parametrize("timeout", ["soon", "0s", "-1h"])
def test_a_timeout_is_a_duration(timeout: str) -> None:
    """A time limit that is none is refused rather than ignored."""
    request = build_request()
    assert request.spec is not None
    request.spec.timeout = timeout
    with pytest.raises(InvalidInputError) as refused:
        read_build_task(request)
    assert refused.value.field == "spec.timeout"


def test_credentials_are_not_in_the_repr() -> None:
    """A task may be logged."""
    task = read_build_task(build_request(additional={"a.example": {"username": "u", "password": "s3cret"}}))
    assert "s3cret" not in repr(task)
