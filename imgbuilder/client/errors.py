"""What can go wrong when an image builder is asked for something: each is one line that says what to do.

No text has a password, a token or an address with one in it.
"""

from __future__ import annotations

from imgbuilder.core.errors import ImgbuilderError


class ClientError(ImgbuilderError):
    """Base of the errors of this package."""


class InvalidOptionError(ClientError):
    """An option, or a file that it names, can't be used.

    :ivar option: as it is written on a command line.
    :ivar fault: what is wrong, as words that can follow its name.
    """

    def __init__(self, option: str, fault: str) -> None:
        super().__init__(f"{option}: {fault}")
        self.option = option
        self.fault = fault


class UnreachableError(ClientError):
    """There is no connection to the image builder.

    :ivar address: where it was looked for.
    :ivar fault: why not, and what to do about it.
    """

    def __init__(self, address: str, fault: str) -> None:
        super().__init__(f"cannot reach an image builder at {address}: {fault}")
        self.address = address
        self.fault = fault


class ConnectionLostError(ClientError):
    """There was a connection, and it broke while an answer was awaited."""

    def __init__(self, address: str, fault: str) -> None:
        super().__init__(f"lost the connection to {address}: {fault}")


class CallError(ClientError):
    """The server answered a call with an error.

    :ivar method: the call, as ``builder.ImageBuilder/Build``.
    :ivar code: name of the gRPC status, e.g. ``NOT_FOUND``.
    :ivar fault: the text that came with it.
    """

    def __init__(self, method: str, code: str, fault: str) -> None:
        super().__init__(f"{fault} ({code})" if fault else code)
        self.method = method
        self.code = code
        self.fault = fault

    @property
    def at_fault_is_what_was_asked_for(self) -> bool:
        """Whether this is an answer: there is no such image or build, or the image can't be used."""
        # The text is the contract's way to say that the caller's image is at fault.
        return self.code == "NOT_FOUND" or self.fault.startswith("cannot resolve image")


class UnknownCallError(CallError):
    """Something answers, and does not know the call."""

    def __init__(self, method: str, address: str, fault: str) -> None:
        super().__init__(method, "UNIMPLEMENTED", fault)
        self.args = (f"what answers at {address} does not know {method}: is it an image builder? ({fault})",)


class OutcomeUnknownError(ClientError):
    """A build ended while nobody watched, and nothing says how."""

    def __init__(self, build_id: str) -> None:
        super().__init__(
            f"build {build_id} ended while the connection was lost, and how is not known: it was forced, so its image"
            " may be the one from before"
        )
        self.build_id = build_id


class OutputError(ClientError):
    """What was asked for could not be put into the form that was asked for."""
