"""What can go wrong when the workspace manager or a supervisor is asked for something.

Texts name the call and what came back, never a token, a header or an address with one in it.
"""

from __future__ import annotations

from imgbuilder.core.errors import ImgbuilderError


class WorkspaceManagerError(ImgbuilderError):
    """The workspace manager refused a call, or failed to answer it.

    :ivar code: name of the gRPC status, e.g. ``INTERNAL``.
    :ivar fault: the text that came with it, or what went wrong on the way.
    """

    def __init__(self, code: str, fault: str) -> None:
        super().__init__(f"{code}: {fault}" if fault else code)
        self.code = code
        self.fault = fault


class WorkspaceManagerUnavailableError(WorkspaceManagerError):
    """No connection, UNAVAILABLE, or no answer in time: asking again makes sense."""


class WorkspaceExistsError(WorkspaceManagerError):
    """There is a workspace of the id that was to be started."""


class SupervisorError(ImgbuilderError):
    """A supervisor did not answer, or not with what was asked for.

    :ivar fault: what went wrong, without secrets.
    :ivar status: the HTTP status it answered with; None if there was no answer.
    """

    def __init__(self, fault: str, *, status: int | None = None) -> None:
        super().__init__(fault)
        self.fault = fault
        self.status = status

    @property
    def denied(self) -> bool:
        """Whether it did not accept the owner token."""
        return self.status in {401, 403}
