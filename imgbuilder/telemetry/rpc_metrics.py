"""The metrics of served RPCs, by the names, labels and buckets of go-grpc-prometheus.

Dashboards and alerts of the system this one replaces read them, so they are part of the contract.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Histogram

from imgbuilder.telemetry.labels import Children

HANDLING_SECONDS_BUCKETS: Final = (0.005, 0.025, 0.05, 0.1, 0.5, 1, 2.5, 5, 30, 60, 120, 240, 600)

CODES: Final = {
    "OK": "OK",
    "CANCELLED": "Canceled",
    "UNKNOWN": "Unknown",
    "INVALID_ARGUMENT": "InvalidArgument",
    "DEADLINE_EXCEEDED": "DeadlineExceeded",
    "NOT_FOUND": "NotFound",
    "ALREADY_EXISTS": "AlreadyExists",
    "PERMISSION_DENIED": "PermissionDenied",
    "RESOURCE_EXHAUSTED": "ResourceExhausted",
    "FAILED_PRECONDITION": "FailedPrecondition",
    "ABORTED": "Aborted",
    "OUT_OF_RANGE": "OutOfRange",
    "UNIMPLEMENTED": "Unimplemented",
    "INTERNAL": "Internal",
    "UNAVAILABLE": "Unavailable",
    "DATA_LOSS": "DataLoss",
    "UNAUTHENTICATED": "Unauthenticated",
}
"""Go's names of the gRPC codes, which the label ``grpc_code`` has, by the names of the specification."""

METHODS_LIMIT: Final = 200
"""How many methods have time series of their own. Only served methods should get here; this makes it sure."""

_RPC: Final = ("grpc_type", "grpc_service", "grpc_method")


class RpcMetrics:
    """Counts and times RPCs. *type* is ``unary``, ``client_stream``, ``server_stream`` or ``bidi_stream``."""

    def __init__(self, registry: CollectorRegistry) -> None:
        def counter(name: str, text: str, *more: str) -> Children[Counter]:
            limit = METHODS_LIMIT * (len(CODES) if more else 1)
            return Children(Counter(name, text, (*_RPC, *more), registry=registry), limit)

        self._started = counter("grpc_server_started_total", "RPCs started on the server.")
        self._handled = counter(
            "grpc_server_handled_total",
            "RPCs completed on the server, whether they succeeded or not.",
            "grpc_code",
        )
        self._received = counter(
            "grpc_server_msg_received_total",
            "Messages received on streams by the server.",
        )
        self._sent = counter("grpc_server_msg_sent_total", "Messages sent on streams by the server.")
        handling = Histogram(
            "grpc_server_handling_seconds",
            "How long RPCs took until the server had handled them.",
            _RPC,
            buckets=HANDLING_SECONDS_BUCKETS,
            registry=registry,
        )
        self._handling = Children(handling, METHODS_LIMIT)

    def preset_rpcs(self, methods: Iterable[tuple[str, str, str]]) -> None:
        """Show every series of *methods*, each a (type, service, method), from the start, as zero."""
        for rpc in methods:
            for family in (self._started, self._received, self._sent, self._handling):
                _ = family[rpc]
            for code in CODES.values():
                _ = self._handled[(*rpc, code)]

    def rpc_started(self, type: str, service: str, method: str) -> None:  # noqa: A002  # the label's name
        """A call has come in."""
        self._started[type, service, method].inc()

    def rpc_handled(self, type: str, service: str, method: str, code: str, seconds: float) -> None:  # noqa: A002
        """A call has ended.

        :param code: the status as the specification spells it, e.g. ``NOT_FOUND``; others count as unknown.
        :param seconds: since it started.
        """
        self._handled[type, service, method, CODES.get(code, CODES["UNKNOWN"])].inc()
        self._handling[type, service, method].observe(seconds)

    def rpc_received(self, type: str, service: str, method: str) -> None:  # noqa: A002
        """A message has been received."""
        self._received[type, service, method].inc()

    def rpc_sent(self, type: str, service: str, method: str) -> None:  # noqa: A002
        """A message has been sent."""
        self._sent[type, service, method].inc()
