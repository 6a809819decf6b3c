"""Puts together what every use of registries needs: connections, retries, tokens, a client."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from dataclasses import dataclass

from imgbuilder.registry.client import RegistryClient
from imgbuilder.registry.endpoints import Endpoints
from imgbuilder.registry.http import Http, RegistryMetrics
from imgbuilder.registry.retrying import Retrying
from imgbuilder.registry.settings import RegistrySettings
from imgbuilder.registry.tokens import Tokens
from imgbuilder.runtime.tasks import Tasks
from imgbuilder.telemetry.tracing import NO_TRACER, Tracer


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """Parts that fit each other. *http* is to be entered, and left last."""

    http: Http
    endpoints: Endpoints
    retrying: Retrying
    client: RegistryClient


def assemble(
    settings: RegistrySettings,
    *,
    metrics: RegistryMetrics,
    tasks: Tasks,
    wall_clock: Callable[[], float],
    jitter: Callable[[], float],
    ssl_context: ssl.SSLContext | None = None,
    tracer: Tracer = NO_TRACER,
) -> Parts:
    """The parts for *settings*.

    :param tasks: where tokens are fetched.
    :param ssl_context: by default the system's trust store, or what ``SSL_CERT_FILE`` names.
    """
    endpoints = Endpoints(insecure=settings.insecure, mirrors=settings.mirrors)
    http = Http(
        timeout=settings.timeout,
        connections_per_host=settings.connections_per_host,
        metrics=metrics,
        may_go=endpoints.allows,
        ssl_context=ssl_context,
        tracer=tracer,
    )
    retrying = Retrying(backoff=settings.backoff, wall_clock=wall_clock, jitter=jitter)
    tokens = Tokens(
        http=http,
        endpoints=endpoints,
        retrying=retrying,
        metrics=metrics,
        tasks=tasks,
        time_limit=settings.lookup_timeout,
    )
    client = RegistryClient(http=http, tokens=tokens, retrying=retrying)
    return Parts(http=http, endpoints=endpoints, retrying=retrying, client=client)
