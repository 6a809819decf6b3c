"""Censoring: no word ever goes out, however the stream is cut, and nothing else is lost or kept back."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from imgbuilder.core.censoring import Censor, repository_of, words_of

REF = "registry.example.com/workspace-images:0123abcd"
BASE_REF = "docker.io/library/ubuntu@sha256:" + "0" * 64


def censor(words: list[bytes], chunks: list[bytes]) -> bytes:
    """All that goes out of a stream."""
    it = Censor(words)
    return b"".join([*map(it.feed, chunks), it.flush()])


def simple(words: list[bytes], text: bytes) -> bytes:
    """The same, slowly: byte by byte, seeing all that comes later."""
    words = sorted(filter(None, words), key=len, reverse=True)
    out, place = b"", 0
    while place < len(text):
        for begin in range(max(0, len(out) - 20), len(out) + 1):
            rest = out[begin:] + text[place:]
            word = next((word for word in words if rest.startswith(word)), None)
            if word is not None:
                place += len(word) - (len(out) - begin)
                break
        else:
            out += text[place : place + 1]
            place += 1
    return out


@pytest.mark.parametrize(
    ("ref", "repository"),
    [
        ("docker.io/library/ubuntu:latest", "docker.io/library/ubuntu"),
        ("localhost:5000/x:tag", "localhost:5000/x"),
        ("localhost:5000/x", "localhost:5000/x"),
        ("localhost:5000/a/b@sha256:00", "localhost:5000/a/b"),
        ("localhost:5000/a/b:tag@sha256:00", "localhost:5000/a/b"),
        ("ubuntu:22.04", "ubuntu"),
        ("", ""),
    ],
)
def test_the_repository_name_is_the_reference_less_tag_and_digest(ref: str, repository: str) -> None:
    """The port of a registry is part of the name."""
    assert repository_of(ref) == repository


def test_references_and_their_repositories_are_censored_longest_first() -> None:
    """Both references and both repository names are words, equal ones once, empty ones never."""
    assert words_of(REF, BASE_REF) == [
        BASE_REF.encode(),
        REF.encode(),
        b"registry.example.com/workspace-images",
        b"docker.io/library/ubuntu",
    ]
    assert words_of("a/b:c", "") == [b"a/b:c", b"a/b"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f"pushing {REF} now\n", "pushing  now\n"),
        (f"pushing {REF[:-4]} now\n", "pushing :0123 now\n"),
        (f"FROM {BASE_REF}\n", "FROM \n"),
        ("FROM docker.io/library/ubuntu:22.04\n", "FROM :22.04\n"),
        ("docker.io/library/debian\n", "docker.io/library/debian\n"),
        (f"{REF}{REF}", ""),
        ("", ""),
    ],
)
def test_words_are_removed_the_longest_first(text: str, expected: str) -> None:
    """A reference is removed with its tag; another reference of the repository loses the repository's name."""
    assert censor(words_of(REF, BASE_REF), [text.encode()]) == expected.encode()
    assert censor(words_of(REF, BASE_REF), [bytes([byte]) for byte in text.encode()]) == expected.encode()


def test_only_what_may_become_a_word_is_held_back() -> None:
    """Output goes out at once, less an end that a word begins with."""
    it = Censor([b"secret/word"])
    assert it.feed(b"building se") == b"building "
    assert it.feed(b"cret/wo") == b""
    assert it.feed(b"ods\n") == b"secret/woods\n"
    assert it.feed(b"line without\n") == b"line without\n"
    assert it.feed(b"secret/") == b""
    assert it.flush() == b"secret/"


def test_a_word_that_is_the_beginning_of_a_longer_one_waits_for_the_next_bytes() -> None:
    """Whether the tag goes, too, is known only when it is there."""
    it = Censor([b"a/b", b"a/b:tag"])
    assert it.feed(b"a/b") == b""
    assert it.feed(b":tag.") == b"."
    assert it.feed(b"a/b:t") == b""
    assert it.feed(b"op") == b":top"
    assert it.feed(b"a/b") == b""
    assert it.flush() == b""


def test_a_word_made_by_removing_another_is_removed_as_far_as_it_is_held() -> None:
    """What has gone out can't be taken back: the rest of the word does not follow."""
    assert censor([b"abc"], [b"aabcbc."]) == b"a."
    assert censor([b"abc"], [b"ababcc abc"]) == b"ab "


def test_without_words_nothing_changes() -> None:
    """A build that has no references yet has nothing to hide."""
    assert censor([b""], [b"any", b"thing"]) == b"anything"


WORDS = st.lists(st.text("ab", min_size=1, max_size=9).map(str.encode), max_size=4)
TEXTS = st.lists(st.text("ab\n", max_size=9).map(str.encode), max_size=8)


@st.composite
def nested(draw: st.DrawFn) -> tuple[list[bytes], bytes]:
    """Words, and a text with words within words."""
    words = draw(WORDS)
    text = draw(st.sampled_from([*words, b""]))
    for _ in range(draw(st.integers(0, 8))):
        place = draw(st.integers(0, len(text)))
        text = text[:place] + draw(st.sampled_from([*words, b"a", b"b", b"\n"])) + text[place:]
    return words, text


@given(case=nested(), cuts=st.lists(st.integers(0, 80), max_size=8))
def test_the_result_is_the_same_under_any_chunking_and_contains_no_word(
    case: tuple[list[bytes], bytes], cuts: list[int]
) -> None:
    """Words next to one another, within one another, and made by removing one: none goes out."""
    words, text = case
    bounds = sorted({0, len(text), *(cut for cut in cuts if cut < len(text))})
    result = censor(words, [text])
    assert result == simple(words, text)
    assert not any(word in result for word in words)
    assert result == censor(words, [text[start:end] for start, end in pairwise(bounds)])
    assert result == censor(words, [text[index : index + 1] for index in range(len(text))])


@given(words=WORDS, texts=TEXTS)
def test_nothing_but_words_is_lost(words: list[bytes], texts: list[bytes]) -> None:
    """A stream without a word comes out whole, and of any stream at most the end of a word is missing before."""
    longest = max(map(len, words), default=0)
    it = Censor(words)
    out = b""
    for text in texts:
        out += it.feed(text)
    whole = out + it.flush()
    assert len(whole) - len(out) < max(1, longest)
    if not any(word in b"".join(texts) for word in words):
        assert whole == b"".join(texts)


def test_the_pattern_is_made_when_a_word_comes() -> None:
    """Most builds never print a reference, and 256 may start at once."""
    censor = Censor([b"registry.test/image:1"])
    for _ in range(3):
        censor.feed(b"Step 1: registry.test is asked\n")
    assert censor._compiled is None
    assert censor.feed(b"pushing registry.test/image:1 now\n") == b"pushing  now\n"
    assert censor._compiled is not None
