"""Reflection: what tools need to know to call the service without its protos."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import betterproto2
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool
from grpclib.const import Cardinality, Status

from imgbuilder.api.descriptors import Descriptors, contract
from imgbuilder.api.reflection import SERVICES, Reflection
from imgbuilder.runtime.grpc.channel import open_channel
from imgbuilder.runtime.grpc.server import Server

VERSIONS = sorted(SERVICES)


@asynccontextmanager
async def _conversation(version: str) -> AsyncIterator[Any]:
    """A function that asks one thing on a stream and gives the answer, as its name and value."""
    messages = SERVICES[version]
    async with Server([Reflection(["builder.ImageBuilder"])]) as server:
        address = await server.listen("127.0.0.1:0")
        channel = open_channel(address.host, address.port)
        request = channel.request(
            f"/{version}/ServerReflectionInfo",
            Cardinality.STREAM_STREAM,
            messages.ServerReflectionRequest,
            messages.ServerReflectionResponse,
        )

        async def ask(**question: Any) -> tuple[str, Any]:
            asked = messages.ServerReflectionRequest(host="here", **question)
            await stream.send_message(asked)
            response = await stream.recv_message()
            assert response is not None
            assert response.valid_host == "here"
            assert response.original_request == asked
            return betterproto2.which_one_of(response, "message_response")

        try:
            async with request as stream:
                yield ask
                await stream.end()
        finally:
            channel.close()


def _pool(response: Any) -> Any:
    """A pool of the files in a response; it refuses files whose imports it does not have."""
    pool = descriptor_pool.DescriptorPool()
    files = [descriptor_pb2.FileDescriptorProto.FromString(data) for data in response.file_descriptor_proto]
    for file in reversed(_sorted(files)):
        pool.Add(file)
    return pool


def _sorted(files: list[Any]) -> list[Any]:
    """*files*, each before what it imports."""
    done: list[Any] = []
    by_name = {file.name: file for file in files}

    def visit(file: Any) -> None:
        if file not in done:
            for name in file.dependency:
                visit(by_name[name])
            done.append(file)

    for file in files:
        visit(file)
    return done[::-1]


@pytest.mark.parametrize("version", VERSIONS)
async def test_list(version: str) -> None:
    """The services that are served, reflection's own names included, and no others."""
    async with _conversation(version) as ask:
        name, value = await ask(list_services="")
    assert name == "list_services_response"
    assert [service.name for service in value.service] == [
        "builder.ImageBuilder",
        "grpc.reflection.v1.ServerReflection",
        "grpc.reflection.v1alpha.ServerReflection",
    ]


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(
    ("symbol", "find"),
    [
        ("builder.ImageBuilder", "FindServiceByName"),
        ("builder.ImageBuilder.Build", "FindMethodByName"),
        ("builder.BuildRequest", "FindMessageTypeByName"),
        ("builder.BuildRequest.source", "FindFieldByName"),
        ("builder.BuildSource.from", "FindOneofByName"),
        ("builder.BuildStatus", "FindEnumTypeByName"),
        ("builder.done_success", None),
        (".builder.BuildInfo", None),
        ("wsman.EnvironmentVariable.SecretKeyRef", "FindMessageTypeByName"),
        ("contentservice.GitConfig.CustomConfigEntry", "FindMessageTypeByName"),
        ("grpc.health.v1.HealthCheckResponse.ServingStatus", "FindEnumTypeByName"),
        ("grpc.health.v1.HealthCheckResponse.SERVING", None),
        ("google.protobuf.Timestamp", "FindMessageTypeByName"),
    ],
)
async def test_symbols(version: str, symbol: str, find: str | None) -> None:
    """Everything that has a name, with all that is needed to understand it."""
    async with _conversation(version) as ask:
        name, value = await ask(file_containing_symbol=symbol)
    assert name == "file_descriptor_response"
    pool = _pool(value)
    if find is not None:
        assert getattr(pool, find)(symbol).full_name == symbol


def test_all_symbols() -> None:
    """The index knows what Google's own pool knows, and nothing else."""
    declared: set[str] = set()
    for file in contract()._by_name.values():
        pool_file = descriptor_pb2.FileDescriptorProto.FromString(file.data)
        scope = pool_file.package
        for message in pool_file.message_type:
            declared |= _names(message, scope)
        for enum in pool_file.enum_type:
            declared |= {f"{scope}.{one.name}" for one in (enum, *enum.value)}
        for service in pool_file.service:
            declared.add(f"{scope}.{service.name}")
            declared |= {f"{scope}.{service.name}.{method.name}" for method in service.method}
    assert set(contract()._by_symbol) == declared


def _names(message: Any, scope: str) -> set[str]:
    name = f"{scope}.{message.name}"
    names = {name, *(f"{name}.{one.name}" for one in (*message.field, *message.oneof_decl))}
    for enum in message.enum_type:
        names |= {f"{name}.{one.name}" for one in (enum, *enum.value)}
    for nested in message.nested_type:
        names |= _names(nested, name)
    return names


@pytest.mark.parametrize("version", VERSIONS)
async def test_files(version: str) -> None:
    """By their names, the one that was asked for first, then what it needs."""
    async with _conversation(version) as ask:
        name, value = await ask(file_by_filename="builder/imgbuilder.proto")
    assert name == "file_descriptor_response"
    files = [descriptor_pb2.FileDescriptorProto.FromString(data) for data in value.file_descriptor_proto]
    assert [file.name for file in files] == ["builder/imgbuilder.proto", "contentservice/initializer.proto"]


@pytest.mark.parametrize("version", VERSIONS)
async def test_errors(version: str) -> None:
    """Are answers like others: the stream goes on after each."""
    messages = SERVICES[version]
    extension = messages.ExtensionRequest(containing_type="builder.BuildInfo", extension_number=1)
    async with _conversation(version) as ask:
        for question, code in (
            ({"file_containing_symbol": "builder.Nothing"}, Status.NOT_FOUND),
            ({"file_by_filename": "nothing.proto"}, Status.NOT_FOUND),
            ({"file_containing_extension": extension}, Status.NOT_FOUND),
            ({"all_extension_numbers_of_type": "builder.BuildInfo"}, Status.NOT_FOUND),
            ({}, Status.INVALID_ARGUMENT),
        ):
            name, value = await ask(**question)
            assert name == "error_response"
            assert value.error_code == code.value
            assert value.error_message
        assert (await ask(list_services=""))[0] == "list_services_response"


def test_damaged_descriptors() -> None:
    """Are noticed when they are read."""
    with pytest.raises(TypeError, match="damaged"):
        Descriptors(b"\x08\x01")
