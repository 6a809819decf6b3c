"""What can be configured, as it is spelled in the file: sections, settings, defaults.

Names, and what is there at all outside of the sections that are said to be new, are the contract: files of
the system this one replaces must load. ``docs/`` and the JSON schema are made of what stands here.
"""

from __future__ import annotations

from typing import Annotated, Any, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from pydantic.alias_generators import to_camel

from imgbuilder.config.values import (
    Image,
    ListenAddress,
    MirrorUrl,
    NonEmpty,
    OptionalListenAddress,
    Platform,
    PositiveSeconds,
    Registry,
    Repository,
    Seconds,
    Size,
)

Count = Annotated[int, Field(ge=1)]


def _spelled(default: str) -> Any:
    """A default as a file spells it, so that the JSON schema shows it like that."""
    return Field(default=default)


class Section(BaseModel):
    """Part of a configuration: can't be changed, and takes values only of the type that is asked for."""

    model_config = ConfigDict(
        alias_generator=to_camel,
        extra="allow",
        frozen=True,
        populate_by_name=True,
        strict=True,
        validate_default=True,
    )


class WorkspaceManagerTls(Section):
    """The service's side of TLS to the workspace manager. All three or none; empty for none."""

    ca: str = ""
    """File with the certificates of the authorities that sign the workspace manager's certificate."""
    crt: str = ""
    """File with the certificate that the service shows."""
    key: str = ""
    """File with the key of that certificate."""

    @property
    def enabled(self) -> bool:
        """Whether TLS is on."""
        return bool(self.crt)

    @model_validator(mode="after")
    def _complete(self) -> Self:
        _all_or_none(ca=self.ca, crt=self.crt, key=self.key)
        return self


class WorkspaceManager(Section):
    """The workspace manager that runs the builds."""

    address: NonEmpty
    """Host and port, as a gRPC client takes them."""
    tls: WorkspaceManagerTls = Field(default_factory=WorkspaceManagerTls)


class Orchestrator(Section):
    """What is built, where it goes, and who runs it."""

    wsman: WorkspaceManager
    pull_secret: str = ""
    """Name of the Kubernetes secret that build workspaces get credentials from."""
    pull_secret_file: str = ""
    """File with the service's own registry credentials, in the form of Docker's config.json."""
    base_image_repository: Repository
    """Where base images that are made from Dockerfiles go."""
    workspace_image_repository: Repository
    """Where workspace images go."""
    builder_image: Image
    """The image that builds run in."""
    enable_additional_ecr_auth: bool = Field(default=False, alias="enableAdditionalECRAuth")
    """Whether to ask AWS for credentials of ECR registries."""
    subassembly_bucket_name: str = ""
    """Accepted and not used."""
    subassembly_bucket_prefix: str = ""
    """Accepted and not used."""


def _default_interval(value: Any) -> Any:
    return "6h0m0s" if value == "" else value


class RefCache(Section):
    """References that are kept resolved."""

    interval: Annotated[PositiveSeconds, BeforeValidator(_default_interval)] = _spelled("6h0m0s")
    """How often they are resolved anew."""
    refs: tuple[Image, ...] = ()
    """The references, as requests spell them."""


class ServerTls(Section):
    """The service's side of TLS with its clients. Off without certPath and keyPath."""

    ca_path: str = ""
    """File with the certificates of the authorities that sign the certificates of clients."""
    cert_path: str = ""
    """File with the certificate that the service shows."""
    key_path: str = ""
    """File with the key of that certificate."""
    require_client_cert: bool = False
    """Whether clients must show a certificate. Otherwise one that is shown is checked."""

    @property
    def enabled(self) -> bool:
        """Whether TLS is on."""
        return bool(self.cert_path)

    @model_validator(mode="after")
    def _complete(self) -> Self:
        _all_or_none(certPath=self.cert_path, keyPath=self.key_path)
        if self.ca_path and not self.cert_path:
            raise ValueError("caPath is of no use without certPath and keyPath")
        if self.require_client_cert and not self.ca_path:
            raise ValueError("requireClientCert needs caPath")
        return self


class Grpc(Section):
    """The gRPC service."""

    address: ListenAddress
    """Where it listens."""
    tls: ServerTls = Field(default_factory=ServerTls)


class Services(Section):
    """What is served."""

    grpc: Grpc


class Server(Section):
    """The server."""

    services: Services


class Registries(Section):
    """How image registries are spoken to."""

    insecure: tuple[Registry, ...] = ()
    """Registries that are spoken to without TLS."""
    mirrors: dict[Registry, MirrorUrl] = Field(default_factory=dict)
    """By registry, the address that is asked instead."""
    platform: Platform = "linux/amd64"
    """Which image of a multi-platform image is meant: os/architecture, or os/architecture/variant."""
    timeout: PositiveSeconds = _spelled("15s")
    """Time limit of one request."""
    lookup_timeout: PositiveSeconds = _spelled("40s")
    """Time limit of a look-up with all its requests."""
    connections_per_host: Count = 8
    """How many requests to one host are under way at the same time."""


class Logs(Section):
    """How the output of builds is kept."""

    folder: str = ""
    """Where; what earlier runs left there is removed. Empty: one of the service's own among temporary files."""
    memory: Size = _spelled("256KiB")
    """How much of a build's output is kept in memory: its end."""
    max_size: Size = _spelled("64MiB")
    """How much of a build's output is kept in all."""
    max_total: Size = _spelled("4GiB")
    """How much of all builds' output is kept on disk; beyond that, the oldest of ended builds goes."""
    retention: Seconds = _spelled("1h0m0s")
    """How long it is kept after the build has ended."""
    followed: Annotated[int, Field(ge=0)] = 256
    """How many builds' output is read while nobody asks for it."""


class Builds(Section):
    """How builds are run."""

    maximum_duration: PositiveSeconds = _spelled("1h0m0s")
    """After that a build has failed, and its workspace is stopped."""
    keep_ended: Annotated[int, Field(ge=0)] = 1000
    """How many ended builds are remembered."""


class Limits(Section):
    """What clients may do."""

    message_size: Size = _spelled("4MiB")
    """How large a request may be."""
    connections: Count = 1_000
    """How many may be open, four fifths from one host. For one more, that without calls for longest is closed."""
    streams: Count = 20_000
    """How many calls may be open in all. More are refused, to whoever has many first; large headers count extra."""
    streams_per_connection: Count = 10_000
    """How many calls may be open on one connection. More are refused."""
    handshake: PositiveSeconds = _spelled("10s")
    """How long a new connection may take for TLS, and until it speaks HTTP/2."""
    idle: PositiveSeconds = _spelled("30m0s")
    """How long a connection may have no calls until it is closed; clients connect again when they need to."""
    keepalive: PositiveSeconds = _spelled("30s")
    """How long a client may be silent until it is asked for a sign of life."""
    keepalive_timeout: PositiveSeconds = _spelled("20s")
    """How long it may take to give one until its connection is closed."""


class Telemetry(Section):
    """Where others look at the service. An empty address turns one off."""

    metrics_address: OptionalListenAddress = _spelled("127.0.0.1:9500")
    """/metrics"""
    probes_address: OptionalListenAddress = _spelled(":9501")
    """/ready and /live"""


class Shutdown(Section):
    """How the service ends."""

    drain: Seconds = _spelled("10s")
    """How long open streams have to end."""


class Config(Section):
    """Configuration of the image builder."""

    orchestrator: Orchestrator
    server: Server
    ref_cache: RefCache = Field(default_factory=RefCache)
    registries: Registries = Field(default_factory=Registries)
    logs: Logs = Field(default_factory=Logs)
    builds: Builds = Field(default_factory=Builds)
    limits: Limits = Field(default_factory=Limits)
    telemetry: Telemetry = Field(default_factory=Telemetry)
    shutdown: Shutdown = Field(default_factory=Shutdown)


def _all_or_none(**settings: str) -> None:
    missing = [name for name, value in settings.items() if not value]
    if missing and len(missing) < len(settings):
        raise ValueError(f"{', '.join(settings)} belong together; missing: {', '.join(missing)}")
