"""Image references: the vectors of the contract, and the laws of a normal form."""

from __future__ import annotations

import json
import re
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from imgbuilder.core.references import InvalidReferenceError, Reference, is_digest, parse_reference

VECTORS: list[dict[str, Any]] = json.loads(
    (Path(__file__).parents[2] / "vectors" / "references.json").read_text(encoding="utf-8"),
)["cases"]
SHA256 = "sha256:" + "0123456789abcdef" * 4

components = st.from_regex(r"[a-z0-9]{1,5}((\.|_|__|-{1,3})[a-z0-9]{1,4}){0,2}", fullmatch=True)
# A first part with a dot would be taken for a host, by people as by the parser.
paths = st.builds(
    lambda first, rest: "/".join([first.replace(".", "-"), *rest]),
    components,
    st.lists(components, max_size=3),
)
hosts = st.from_regex(
    r"[a-zA-Z0-9]{1,4}(-[a-z0-9]{1,3})?(\.[a-z0-9]{1,4}){1,3}(:[0-9]{1,5})?", fullmatch=True
)
domains = st.one_of(
    st.just(""), st.sampled_from(["localhost/", "docker.io/", "index.docker.io/", "[::1]:5/"])
)
tags = st.from_regex(re.compile(r"[a-zA-Z0-9_][a-zA-Z0-9_.-]{0,20}", re.ASCII), fullmatch=True)
texts = st.builds(
    lambda domain, path, tag, digest: domain + path + tag + digest,
    st.one_of(domains, hosts.map("{}/".format)),
    paths,
    st.one_of(st.just(""), tags.map(":{}".format)),
    st.sampled_from(["", f"@{SHA256}", "@sha512:" + "ab" * 64]),
)


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["in"])
def test_a_vector(vector: dict[str, Any]) -> None:
    """Each reference of the contract has the normal form, parts and familiar form that it says, or its error."""
    if "error" in vector:
        with pytest.raises(InvalidReferenceError) as caught:
            parse_reference(vector["in"])
        assert caught.value.rule == vector["error"]
        return
    reference = parse_reference(vector["in"])
    assert {
        "in": vector["in"],
        "docker_ref": str(reference),
        "domain": reference.domain,
        "path": reference.path,
        "familiar": reference.familiar,
    } == vector


@given(texts)
def test_parsing_what_was_printed_gives_the_same(text: str) -> None:
    """Parse after print is the identity, so normalizing is idempotent."""
    assume(not re.fullmatch(r"[a-f0-9]{64}", text))
    reference = parse_reference(text)
    assert parse_reference(str(reference)) == reference
    assert str(parse_reference(str(reference))) == str(reference)


@given(texts)
def test_a_familiar_form_means_the_same_image(text: str) -> None:
    """What people write is parsed to what it was made of."""
    reference = parse_reference(text)
    assert parse_reference(reference.familiar) == reference


@given(texts)
def test_a_reference_has_a_tag_or_a_digest_and_never_both(text: str) -> None:
    """Exactly one of the two is there after parsing."""
    reference = parse_reference(text)
    assert (reference.tag is None) != (reference.digest is None)


@given(st.text(max_size=80))
def test_any_text_is_a_reference_or_an_invalid_one(text: str) -> None:
    """No text makes the parser fail in any other way."""
    with suppress(InvalidReferenceError):
        parse_reference(text)


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("", "invalid reference format"),
        ("ubuntu\n", "invalid reference format"),
        ("ubuntu:latest\n", "invalid reference format"),
        ("a" * 256, "repository name must not be more than 255 characters"),
        ("x:" + "t" * 129, "invalid reference format"),
        (f"x@{SHA256}0", "invalid checksum digest length"),
        ("x@sha256:" + "A" * 64, "invalid checksum digest format"),
        ("Ubuntu", "invalid reference format: repository name (library/Ubuntu) must be lowercase"),
    ],
)
def test_a_rule_beyond_the_vectors(text: str, rule: str) -> None:
    """The error says which rule a text breaks."""
    with pytest.raises(InvalidReferenceError) as caught:
        parse_reference(text)
    assert caught.value.rule == rule


def test_the_longest_path_is_fine() -> None:
    """Docker counts 255 characters of the path, ``library/`` included."""
    assert parse_reference("a" * 247).path == "library/" + "a" * 247


def test_an_error_names_the_text_in_bounds() -> None:
    """A huge text is shortened, in the error and in the rule."""
    with pytest.raises(InvalidReferenceError) as caught:
        parse_reference("A" * 1_000_000)
    assert len(str(caught.value)) < 1_000


def test_an_error_hides_userinfo() -> None:
    """A password in an address somebody sent instead of a reference does not get into the error."""
    with pytest.raises(InvalidReferenceError) as caught:
        parse_reference("https://user:hunter2@registry.test/a")
    assert "hunter2" not in str(caught.value)
    assert "hunter2" not in caught.value.text


@pytest.mark.parametrize(
    "text", ["a-" * 50_000, "a." * 50_000, "a/" * 50_000, "x/" + "a_" * 50_000, "1" * 99_999]
)
@pytest.mark.timeout(5)
def test_hostile_text_is_refused_quickly(text: str) -> None:
    """No text makes the parser backtrack without end."""
    with pytest.raises(InvalidReferenceError):
        parse_reference(text)


def test_a_reference_with_another_digest() -> None:
    """The digest replaces the tag; the repository stays."""
    reference = parse_reference("localhost:5000/a/b:v1")
    assert str(reference.with_digest(SHA256)) == f"localhost:5000/a/b@{SHA256}"
    assert reference.repository == "localhost:5000/a/b"
    assert Reference("docker.io", "library/x", "1").familiar == "x:1"


@pytest.mark.parametrize(
    ("text", "proper"),
    [
        (SHA256, True),
        ("sha512:" + "ab" * 64, True),
        ("sha256:ab", False),
        ("md5:" + "ab" * 16, False),
        (SHA256.upper(), False),
        ("", False),
        ("sha256:" + "é" * 64, False),
    ],
)
def test_a_digest(text: str, proper: bool) -> None:
    """Only known algorithms, of the right length, in lower case."""
    assert is_digest(text) is proper
