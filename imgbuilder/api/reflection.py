"""The standard reflection service of gRPC, under both of its names: tools can call this server without its protos.

It lists the services that are really served, and hands out the descriptors of the contract, which are
committed as bytes (`imgbuilder.api.descriptors`). There are no extensions in it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from types import ModuleType
from typing import Any, Final

import betterproto2
import grpclib.server
from grpclib.const import Cardinality, Handler, Status

import imgbuilder.pb.grpc.reflection.v1
import imgbuilder.pb.grpc.reflection.v1alpha
from imgbuilder.api.descriptors import Descriptors, FileDescriptor, contract

SERVICES: Final = {
    "grpc.reflection.v1.ServerReflection": imgbuilder.pb.grpc.reflection.v1,
    "grpc.reflection.v1alpha.ServerReflection": imgbuilder.pb.grpc.reflection.v1alpha,
}
"""The names of the service, and where the messages of each are. They are the same but for their package."""


class Reflection:
    """Serves reflection, in both versions.

    :param services: the full names of the services that are served beside it.
    """

    def __init__(self, services: Collection[str], *, descriptors: Descriptors | None = None) -> None:
        self._services = sorted({*services, *SERVICES})
        self._descriptors = descriptors or contract()

    def __mapping__(self) -> Mapping[str, Handler]:
        return {
            f"/{service}/ServerReflectionInfo": Handler(
                _Answering(self, messages).serve,
                Cardinality.STREAM_STREAM,
                messages.ServerReflectionRequest,
                messages.ServerReflectionResponse,
            )
            for service, messages in SERVICES.items()
        }

    def answer(self, request: Any, messages: ModuleType) -> dict[str, Any]:
        """The one field of the response that answers *request*, with its value."""
        asked: str
        value: Any
        asked, value = betterproto2.which_one_of(request, "message_request")
        match asked:
            case "list_services":
                services = [messages.ServiceResponse(name=name) for name in self._services]
                return {"list_services_response": messages.ListServiceResponse(service=services)}
            case "file_by_filename":
                return self._files(self._descriptors.named(value), f"unknown file {value}", messages)
            case "file_containing_symbol":
                symbol = value.removeprefix(".")
                return self._files(self._descriptors.declaring(symbol), f"unknown symbol {symbol}", messages)
            case "file_containing_extension" | "all_extension_numbers_of_type":
                return _error(Status.NOT_FOUND, "there are no extensions", messages)
            case _:
                return _error(Status.INVALID_ARGUMENT, "nothing that is known was asked for", messages)

    def _files(self, file: FileDescriptor | None, fault: str, messages: ModuleType) -> dict[str, Any]:
        if file is None:
            return _error(Status.NOT_FOUND, fault, messages)
        encoded = [needed.data for needed in self._descriptors.with_imports(file)]
        return {"file_descriptor_response": messages.FileDescriptorResponse(file_descriptor_proto=encoded)}


class _Answering:
    """Answers the requests of a stream with the *messages* of one version."""

    def __init__(self, reflection: Reflection, messages: ModuleType) -> None:
        self._reflection = reflection
        self._messages = messages

    async def serve(self, stream: grpclib.server.Stream[Any, Any]) -> None:
        async for request in stream:
            answer = self._reflection.answer(request, self._messages)
            await stream.send_message(
                self._messages.ServerReflectionResponse(
                    valid_host=request.host,
                    original_request=request,
                    **answer,
                ),
            )


def _error(status: Status, message: str, messages: ModuleType) -> dict[str, Any]:
    return {"error_response": messages.ErrorResponse(error_code=status.value, error_message=message)}
