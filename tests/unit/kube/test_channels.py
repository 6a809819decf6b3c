"""What a port-forward's websocket carries."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from imgbuilder.kube.channels import DATA, ERROR, LONGEST_ERROR, Channels, packed

PORT = (8080).to_bytes(2, "little")


@given(st.lists(st.tuples(st.sampled_from([DATA, ERROR]), st.binary(max_size=8))))
def test_messages_may_be_cut_anywhere(messages: list[tuple[int, bytes]]) -> None:
    """What comes after the port is data or error, whatever the messages are cut into."""
    channels = Channels()
    data = b"".join(channels.feed(bytes((channel,)) + content) for channel, content in messages)
    whole = {
        channel: b"".join(content for to, content in messages if to == channel) for channel in (DATA, ERROR)
    }
    assert data == whole[DATA][2:]
    assert channels.error == " ".join(whole[ERROR][2:].decode(errors="replace").split())


def test_what_means_nothing_is_passed_over() -> None:
    """Messages without a channel, and those of channels that there are not."""
    channels = Channels()
    assert [channels.feed(message) for message in (b"", b"\x00" + PORT, b"\x07data", b"\x00data")] == [
        b"",
        b"",
        b"",
        b"data",
    ]


def test_an_error_is_one_line_of_some_length() -> None:
    """Whatever the cluster says."""
    channels = Channels()
    channels.feed(b"\x01" + PORT + b"first\n  second" + b"x" * 2 * LONGEST_ERROR)
    assert channels.error.startswith("first second")
    assert len(channels.error) <= LONGEST_ERROR


def test_data_for_the_pod_has_its_channel() -> None:
    """In front, once a message."""
    assert packed(b"data") == b"\x00data"
