"""The codec: what goes in comes out, what is broken is refused, what is passed on stays as it is."""

from __future__ import annotations

import datetime as dt
import time
from typing import Any

import betterproto2
import pytest
from grpclib.const import Status
from grpclib.exceptions import GRPCError
from hypothesis import given
from hypothesis import strategies as st

from imgbuilder.pb.builder import (
    BuildInfo,
    BuildRegistryAuth,
    BuildRegistryAuthSelective,
    BuildRegistryAuthTotal,
    BuildRequest,
    BuildSource,
    BuildSourceDockerfile,
    BuildStatus,
    ListBuildsResponse,
    LogInfo,
    LogsResponse,
)
from imgbuilder.pb.contentservice import CompositeInitializer, GitInitializer, WorkspaceInitializer
from imgbuilder.pb.wsman import (
    StartWorkspaceRequest,
    StartWorkspaceSpec,
    WorkspaceFeatureFlag,
    WorkspaceMetadata,
)
from imgbuilder.runtime.grpc.codec import CONTRACT, Codec, ProtoCodec, decode, encode
from imgbuilder.runtime.grpc.wire import DecodeError, EncodeError, varint
from tests.unit.grpc.everything import Color, Everything
from tests.unit.grpc.google import contract_classes

CLASSES = contract_classes()
TIMES = st.datetimes(timezones=st.just(dt.UTC))
NUMBERS = {
    "int32": st.integers(-(2**31), 2**31 - 1),
    "int64": st.integers(-(2**63), 2**63 - 1),
    "uint32": st.integers(0, 2**32 - 1),
    "uint64": st.integers(0, 2**64 - 1),
    "sint32": st.integers(-(2**31), 2**31 - 1),
    "sint64": st.integers(-(2**63), 2**63 - 1),
    "fixed32": st.integers(0, 2**32 - 1),
    "fixed64": st.integers(0, 2**64 - 1),
    "sfixed32": st.integers(-(2**31), 2**31 - 1),
    "sfixed64": st.integers(-(2**63), 2**63 - 1),
    "float": st.floats(width=32, allow_nan=False),
    "double": st.floats(allow_nan=False),
    "bool": st.booleans(),
    "string": st.text(max_size=20),
    "bytes": st.binary(max_size=20),
}


def messages(cls: type[Any], depth: int = 2) -> st.SearchStrategy[Any]:
    """Messages of *cls* with any values; of each oneof one member, if any."""
    known = cls._betterproto

    @st.composite
    def build(draw: st.DrawFn) -> Any:
        left_out = set()
        for members in known.oneof_field_by_group.values():
            chosen = draw(st.sampled_from(sorted(field.name for field in members)))
            left_out |= {field.name for field in members} - {chosen}
        values = {}
        for name, meta in known.meta_by_field_name.items():
            if name in left_out or (not depth and "message" in meta.proto_type) or draw(st.booleans()):
                continue
            values[name] = draw(_values(known, name, meta, depth))
        return cls(**values)

    return build()


def _values(known: Any, name: str, meta: betterproto2.FieldMetadata, depth: int) -> st.SearchStrategy[Any]:
    if meta.map_meta is not None:
        key, value = meta.map_meta
        return st.dictionaries(
            _one(key, None, depth), _one(value, known.cls_by_field[f"{name}.value"], depth), max_size=2
        )
    one = _one(meta, known.cls_by_field[name], depth)
    return st.lists(one, max_size=2) if meta.repeated else one


def _one(meta: betterproto2.FieldMetadata, cls: Any, depth: int) -> st.SearchStrategy[Any]:
    if meta.unwrap is not None:
        return TIMES
    if meta.proto_type == "message":
        return messages(cls, depth - 1) if depth else st.builds(cls)
    if meta.proto_type == "enum":
        return NUMBERS["int32"].map(cls) | st.sampled_from(list(cls))
    return NUMBERS[meta.proto_type]


@pytest.mark.parametrize("name", sorted(CLASSES))
def test_an_empty_message_is_no_bytes(name: str) -> None:
    """Every class of the contract has a plan, and defaults are not written."""
    cls = CLASSES[name]
    assert encode(cls()) == b""
    assert decode(cls, b"") == cls()


@given(
    messages(Everything)
    | messages(StartWorkspaceRequest)
    | messages(BuildRequest)
    | messages(ListBuildsResponse)
)
def test_round_trip(message: betterproto2.Message) -> None:
    """What was encoded decodes to the same message, every kind of field included."""
    assert decode(type(message), encode(message)) == message


@given(messages(BuildInfo), messages(BuildInfo), st.binary(max_size=8))
def test_any_bytes_are_decoded_or_refused(first: BuildInfo, second: BuildInfo, noise: bytes) -> None:
    """Nothing but DecodeError is raised, and what is accepted has one form in which it stays."""
    try:
        once = encode(decode(BuildInfo, encode(first) + noise + encode(second)))
    except DecodeError:
        return
    assert encode(decode(BuildInfo, once)) == once


@given(messages(BuildInfo), messages(BuildInfo))
def test_concatenating_is_merging(first: BuildInfo, second: BuildInfo) -> None:
    """Bytes behind bytes are the second message merged into the first, in sub-messages too."""
    merged = decode(BuildInfo, encode(first) + encode(second))
    assert merged.ref == (second.ref or first.ref)
    assert merged.status == (second.status or first.status)
    headers = {**(first.log_info or LogInfo()).headers, **(second.log_info or LogInfo()).headers}
    assert (merged.log_info or LogInfo()).headers == headers


def test_the_last_member_of_a_oneof_wins() -> None:
    """And one that comes again is merged with itself only if nothing came between."""
    total, selective = BuildRegistryAuthTotal(allow_all=True), BuildRegistryAuthSelective(allow_baserep=True)
    first, second = encode(BuildRegistryAuth(total=total)), encode(BuildRegistryAuth(selective=selective))
    more = encode(BuildRegistryAuth(selective=BuildRegistryAuthSelective(any_of=["x"])))
    assert decode(BuildRegistryAuth, first + second) == BuildRegistryAuth(selective=selective)
    assert decode(BuildRegistryAuth, second + first) == BuildRegistryAuth(total=total)
    both = decode(BuildRegistryAuth, second + more).selective
    assert both == BuildRegistryAuthSelective(allow_baserep=True, any_of=["x"])
    assert decode(BuildRegistryAuth, second + first + more).selective == BuildRegistryAuthSelective(
        any_of=["x"]
    )


def test_a_oneof_of_scalars_is_told_from_its_default() -> None:
    """A member that is set to its default is set, and a later one clears it."""
    assert decode(Everything, encode(Everything(int64_choice=0))).int64_choice == 0
    data = encode(Everything(int64_choice=0)) + encode(Everything(string_choice=""))
    assert decode(Everything, data) == Everything(string_choice="")


def test_absent_and_empty_are_told_apart() -> None:
    """Optional fields and sub-messages keep whether they are there."""
    assert decode(WorkspaceMetadata, b"\x2a\x00") == WorkspaceMetadata(team="")
    assert encode(WorkspaceMetadata(team="")) == b"\x2a\x00"
    assert decode(BuildRequest, b"\x0a\x00").source == BuildSource()
    assert decode(BuildRequest, b"").source is None


def test_numbers_without_a_name_stay() -> None:
    """Enums are open: a newer peer's value is kept as a number."""
    info = decode(BuildInfo, b"\x10\x09")
    assert info.status == 9
    assert isinstance(info.status, BuildStatus)
    assert encode(info) == b"\x10\x09"


def test_repeated_numbers_come_packed_or_not() -> None:
    """Both are read, mixed too; they are written packed."""
    data = b"\x18\x0a\x1a\x02\x0b\x0c\x18\x00"
    flags = decode(StartWorkspaceSpec, data).feature_flags
    assert flags == [10, 11, 12, 0]
    assert flags[0] is WorkspaceFeatureFlag.WORKSPACE_CONNECTION_LIMITING
    assert encode(StartWorkspaceSpec(feature_flags=flags)) == b"\x1a\x04\x0a\x0b\x0c\x00"


def test_unknown_fields_are_kept() -> None:
    """Also groups, fields of another wire type, and what stands between known fields."""
    data = b"\xf8\x01\x05" + b"\x0a\x01r" + b"\xfb\x01\x08\x01\xfc\x01" + b"\x12\x00" + b"\x2a\x02id"
    info = decode(BuildInfo, data)
    assert (info.ref, info.build_id) == ("r", "id")
    assert encode(info) == b"\x0a\x01r\x2a\x02id" + b"\xf8\x01\x05\xfb\x01\x08\x01\xfc\x01\x12\x00"


def test_negative_zero_is_no_default() -> None:
    """It equals 0.0, and is written none the less."""
    assert encode(Everything(double_one=0.0)) == b""
    assert str(decode(Everything, encode(Everything(double_one=-0.0))).double_one) == "-0.0"


@pytest.mark.parametrize(
    ("data", "fault"),
    [
        (b"\x0a", "truncated"),
        (b"\x0a\x05ab", "truncated"),
        (b"\x18", "truncated"),
        (b"\x18\x80", "truncated"),
        (b"\x80", "truncated"),
        (b"\x32\x03\x0a\x02a", "truncated"),
        (b"\x32\x01\x0a\x01", "truncated"),
        (b"\xfd\x01abc", "truncated"),
        (b"\xfb\x01\x08\x01", "truncated"),
        (b"\x32\x02\xfb\x01\xfc\x01", "truncated"),
        (b"\x00\x01", "number 0"),
        (b"\x0f", "wire type"),
        (b"\x0e", "wire type"),
        (b"\xfc\x01", "wire type"),
        (b"\xfb\x01\xf4\x01", "wire type"),
        (b"\x0a\x02\xff\xfe", "UTF-8"),
        (b"\x18" + b"\xff" * 10 + b"\x01", "ten bytes"),
        (b"\x88\x80\x80\x80\x80\x00\x01", "32 bits"),
        (b"\x88\x80\x80\x80\x10\x01", "32 bits"),
        (b"\x0a\x80\x80\x80\x80\x80\x00", "32 bits"),
    ],
)
def test_broken_data_is_refused(data: bytes, fault: str) -> None:
    """Each kind of fault by its name, and never with the contents."""
    with pytest.raises(DecodeError, match=fault):
        decode(BuildInfo, data)


def test_fixed_numbers_are_not_cut_short() -> None:
    """Of four and of eight bytes, alone and packed."""
    for data in (b"\x3d\x01\x02", b"\x31\x01", b"\xda\x01\x03\x01\x02\x03"):
        with pytest.raises(DecodeError, match="truncated"):
            decode(Everything, data)


def test_times_have_a_place_in_datetime() -> None:
    """Nanoseconds are cut to microseconds, and a time that datetime can't hold is its first or last."""
    assert decode(WorkspaceMetadata, b"\x1a\x05\x08\x01\x10\xff\x0f").started_at == dt.datetime(
        1970, 1, 1, 0, 0, 1, 2, tzinfo=dt.UTC
    )
    late = decode(WorkspaceMetadata, b"\x1a\x0a\x08" + varint(2**62)).started_at
    early = decode(WorkspaceMetadata, b"\x1a\x0b\x08" + varint(2**64 - 2**62)).started_at
    assert late == dt.datetime.max.replace(tzinfo=dt.UTC)
    assert early == dt.datetime.min.replace(tzinfo=dt.UTC)


@pytest.mark.parametrize(
    "message",
    [
        BuildInfo(ref=5),  # type: ignore[arg-type]  # that is the point
        BuildInfo(started_at="now"),  # type: ignore[arg-type]
        BuildInfo(started_at=2**63),
        BuildInfo(ref="\ud800"),
        Everything(uint32_one=-1),
        Everything(sint32_one=2**31),
        Everything(fixed32_one=2**32),
        Everything(string_list=[None]),  # type: ignore[list-item]
        Everything(enum_one=Color(2**31)),
        BuildInfo(log_info=BuildInfo()),  # type: ignore[arg-type]
        ListBuildsResponse(builds=[None]),  # type: ignore[list-item]
        WorkspaceMetadata(started_at=dt.datetime(2020, 1, 1)),  # noqa: DTZ001  # that is the point
    ],
)
def test_values_that_do_not_fit_are_refused(message: betterproto2.Message) -> None:
    """With the field's name, and without its value."""
    with pytest.raises(EncodeError, match=r"^\w+\.\w+: the value does not fit the field$"):
        encode(message)


def test_a_large_text_is_no_bytes() -> None:
    """Also where a large value would be handed out as it is."""
    message = LogsResponse(content="x" * 5000)  # type: ignore[arg-type]  # that is the point
    with pytest.raises(EncodeError, match=r"^LogsResponse.content: the value does not fit the field$"):
        CONTRACT.encode_parts(message)


# --- what is passed on ------------------------------------------------------------------------------------

ODD_INITIALIZER = (
    b"\xfa\x07\x03new"  # unknown
    b"\x2a\x08\x0a\x06\x12\x04\x0a\x02hi"  # a composite of a git initializer
    b"\x12\x03\x0a\x01u"  # git, which takes the place of the composite
    b"\x12\x80\x00"  # git again, empty, its length written in a long way
    b"\xfb\x07\x08\x01\xfc\x07"  # a group
)


def test_an_initializer_is_passed_on_byte_for_byte() -> None:
    """Unknown fields, order, members of a oneof that lost, and spellings that nobody uses included."""
    request = decode(
        BuildRequest, b"\x0a" + varint(len(ODD_INITIALIZER) + 4) + b"\x12" + varint(len(ODD_INITIALIZER) + 2) + b"\x0a"
        + varint(len(ODD_INITIALIZER)) + ODD_INITIALIZER,
    )  # fmt: skip
    assert request.source is not None
    assert request.source.file is not None
    initializer = request.source.file.source
    assert initializer is not None
    assert initializer.git == GitInitializer(remote_uri="u")
    assert initializer.composite is None
    assert encode(initializer) == ODD_INITIALIZER
    started = encode(StartWorkspaceRequest(spec=StartWorkspaceSpec(initializer=initializer)))
    assert started.endswith(b"\x22" + varint(len(ODD_INITIALIZER)) + ODD_INITIALIZER)


def test_an_initializer_that_comes_in_parts_is_their_concatenation() -> None:
    """Merging messages is putting their bytes one behind the other."""
    first, second = encode(WorkspaceInitializer(git=GitInitializer(remote_uri="u"))), b"\xf8\x07\x01"
    source = decode(
        BuildSourceDockerfile,
        b"\x0a" + varint(len(first)) + first + b"\x12\x01v" + b"\x0a" + varint(len(second)) + second,
    ).source
    assert source is not None
    assert encode(source) == first + second


def test_an_initializer_of_our_own_is_encoded() -> None:
    """Only what was received is passed on as it was."""
    own = WorkspaceInitializer(composite=CompositeInitializer(initializer=[WorkspaceInitializer()]))
    assert encode(own) == b"\x2a\x02\x0a\x00"


def test_only_preserved_classes_keep_their_bytes() -> None:
    """A codec without them writes everything in the canonical form."""
    data = b"\x12\x80\x00"
    assert Codec().encode(Codec().decode(WorkspaceInitializer, data)) == b"\x12\x00"
    assert encode(decode(WorkspaceInitializer, data)) == data


# --- hostile input ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cls", "data"),
    [
        (BuildInfo, b"\xf8\x01\x01" * 40_000),
        (BuildInfo, b"\xf8\x01\x01\x10\x01" * 20_000),
        (BuildInfo, b"\x32\x03\xf8\x01\x01" * 20_000),
        (BuildInfo, b"\x32\x00" * 50_000),
        (WorkspaceMetadata, b"\x1a\x02\x08\x01" * 25_000),
        (BuildRegistryAuth, b"\x1a\x02\x18\x01" * 25_000),
        (WorkspaceInitializer, b"\x12\x00" * 50_000),
        (WorkspaceInitializer, b"\x12\x00\x1a\x00" * 25_000),
    ],
    ids=[
        "unknown",
        "alternating",
        "unknown in merged",
        "merged",
        "times",
        "odd map entries",
        "preserved",
        "oneof",
    ],
)
def test_time_grows_with_the_length(cls: type[betterproto2.Message], data: bytes) -> None:
    """Ten times the input takes about ten times as long, where a hundred times would hold up everybody."""

    def seconds(data: bytes) -> float:
        start = time.perf_counter()
        encode(decode(cls, data))
        return time.perf_counter() - start

    small = min(seconds(data[: len(data) // 10 // 20 * 20]) for _ in range(3))
    assert min(seconds(data) for _ in range(3)) < 40 * small + 0.05


def test_sub_messages_are_counted() -> None:
    """An object costs some hundred times its two bytes: there is a limit of its own."""
    codec = Codec(max_messages=1000)
    data = b"\x0a\x00" * 1000
    assert len(codec.decode(ListBuildsResponse, data).builds) == 1000
    with pytest.raises(DecodeError, match="too many messages"):
        codec.decode(ListBuildsResponse, data + b"\x0a\x00")


# --- as grpclib sees it -----------------------------------------------------------------------------------


def test_grpclib_gets_a_status_for_what_it_can_not_decode() -> None:
    """INTERNAL, as other gRPC libraries answer, and the name of the message."""
    with pytest.raises(GRPCError) as caught:
        ProtoCodec().decode(b"\x0a", LogsResponse)
    assert caught.value.status is Status.INTERNAL
    assert caught.value.message == "can't decode LogsResponse: the data is truncated"


def test_grpclib_may_send_what_is_encoded_already() -> None:
    """Bytes go out as they are; a message of another class does not."""
    codec, message = ProtoCodec(), LogsResponse(content=b"x")
    assert codec.encode(message, LogsResponse) == b"\x0a\x01x"
    ready = b"\x0a\x01x"
    assert codec.encode(ready, LogsResponse) is ready
    assert codec.decode(ready, LogsResponse) == message
    with pytest.raises(TypeError, match="a LogsResponse was to be sent, not a BuildInfo"):
        codec.encode(BuildInfo(), LogsResponse)


def test_a_large_value_at_the_end_is_not_copied() -> None:
    """What many are sent is shared by all that wait; together the parts are the message."""
    content = bytes(100_000)
    message = LogsResponse(content=content)
    head, body = CONTRACT.encode_parts(message)
    assert body is content
    assert head + body == CONTRACT.encode(message)
    for small in (LogsResponse(), LogsResponse(content=b"x" * 100), BuildRequest()):
        assert CONTRACT.encode_parts(small) == (CONTRACT.encode(small), b"")
