"""The metrics: what the service counts, by the names that the contract gives, and ours under ``imgbuilder_``.

Counts and shows; decides nothing. The parts of the service call methods here and never see the library.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Final, cast

import prometheus_client
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.openmetrics import exposition as openmetrics
from prometheus_client.registry import Collector

import imgbuilder
from imgbuilder.telemetry.labels import BoundedLabel, Children
from imgbuilder.telemetry.rpc_metrics import RpcMetrics

# The library can only be told for the whole process. Such series only add to what is stored.
prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]  # the library left it bare

BUILD_SECONDS_BUCKETS: Final = (1, 5, 15, 30, 60, 120, 300, 600, 1200, 1800, 3600)
REQUEST_SECONDS_BUCKETS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 15, 40)
LAG_SECONDS_BUCKETS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5)

REGISTRIES_LIMIT: Final = 50
"""How many registries that are not configured have time series of their own."""

STATUSES: Final = (200, 201, 202, 206, 301, 302, 303, 307, 308, 400, 401, 403, 404, 429, 500, 502, 503, 504)
STATUSES_LIMIT: Final = 20
REQUESTS_LIMIT: Final = 2000


class Metrics(RpcMetrics):
    """Everything that is counted, in a registry of its own, so that two never share a number.

    :param registries: hosts that always have time series of their own: those of the configuration. Of others,
        which users name, only some have.
    :param clock: tells elapsed seconds.
    """

    def __init__(
        self, *, registries: Iterable[str] = (), clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.registry = CollectorRegistry()
        super().__init__(self.registry)
        self._clock = clock
        self._live = _Live(clock)
        self._registry_label = BoundedLabel(REGISTRIES_LIMIT, registries)
        self._status_label = BoundedLabel(STATUSES_LIMIT, map(str, STATUSES))
        ProcessCollector(registry=self.registry)
        self.registry.register(self._live)
        version = self._gauge("gitpod_server_version", "The running version.", "version")
        version.labels(imgbuilder.__version__).set(1)
        self._make_build_metrics()
        self._make_io_metrics()

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(name, text, labels, registry=self.registry)

    def _gauge(self, name: str, text: str, *labels: str) -> Gauge:
        return Gauge(name, text, labels, registry=self.registry)

    def _histogram(self, name: str, text: str, *labels: str, buckets: tuple[float, ...]) -> Histogram:
        return Histogram(name, text, labels, buckets=buckets, registry=self.registry)

    def _make_build_metrics(self) -> None:
        self._builds_started = self._counter(
            "gitpod_image_builder_builds_started_total", "Image builds that were started."
        )
        done = self._counter(
            "gitpod_image_builder_builds_done_total",
            "Image builds that ended: each counts once, however many wait for it.",
            "success",
        )
        seconds = self._histogram(
            "imgbuilder_build_duration_seconds",
            "How long image builds took.",
            "success",
            buckets=BUILD_SECONDS_BUCKETS,
        )
        self._builds_done = {success: done.labels(str(success).lower()) for success in (True, False)}
        self._build_seconds = {success: seconds.labels(str(success).lower()) for success in (True, False)}
        self._builds_attached = self._counter(
            "imgbuilder_builds_attached_total", "Calls that were attached to a build that ran already."
        )
        self._watcher_reconnects = self._counter(
            "imgbuilder_watcher_reconnects_total", "Times the workspace manager was subscribed to anew."
        )

    def _make_io_metrics(self) -> None:
        requests = self._counter(
            "imgbuilder_registry_requests_total",
            "Requests to image registries and their token servers; status is a number, or what went wrong.",
            "registry",
            "method",
            "status",
        )
        seconds = self._histogram(
            "imgbuilder_registry_request_seconds",
            "How long requests to image registries took.",
            "registry",
            "method",
            buckets=REQUEST_SECONDS_BUCKETS,
        )
        self._registry_requests = Children(requests, REQUESTS_LIMIT)
        self._registry_seconds = Children(seconds, REQUESTS_LIMIT)
        tokens = self._counter("imgbuilder_registry_tokens_total", "Look-ups in the token cache.", "result")
        self._tokens = {hit: tokens.labels("hit" if hit else "miss") for hit in (True, False)}
        self._log_received = self._counter(
            "imgbuilder_log_received_bytes_total", "Build output received from workspaces."
        )
        self._log_sent = self._counter("imgbuilder_log_sent_bytes_total", "Build output sent to readers.")
        self._log_skipped = self._counter(
            "imgbuilder_log_skipped_lines_total", "Lines of listen streams that could not be understood."
        )
        self._log_disk_faults = self._counter(
            "imgbuilder_log_disk_faults_total", "Times a part of a log could not be written to disk or read."
        )
        self._lag = self._histogram(
            "imgbuilder_event_loop_lag_seconds",
            "How late the event loop runs what is due, sampled every second.",
            buckets=LAG_SECONDS_BUCKETS,
        )
        self._cut_off = self._counter(
            "imgbuilder_peers_cut_off_total",
            "Connections that were closed because of what the peer did.",
            "reason",
        )

    # --- builds ---

    def build_started(self) -> None:
        """A build has been started."""
        self._builds_started.inc()

    def build_done(self, success: bool, seconds: float) -> None:
        """A build has ended, *seconds* after it started. To be called once a build, not once a client."""
        self._builds_done[success].inc()
        self._build_seconds[success].observe(seconds)

    def build_attached(self) -> None:
        """A call was attached to a build that ran already."""
        self._builds_attached.inc()

    def observe_builds(self, callback: Callable[[], Mapping[str, int]]) -> None:
        """Ask *callback* for the number of running builds by phase, whenever metrics are looked at."""
        self._live.builds = callback

    # --- registries ---

    def registry_request(self, registry: str, method: str, status: str, seconds: float) -> None:
        """A request to a registry or its token server has ended.

        :param status: the number, or a fixed word for what went wrong, e.g. ``timeout``.
        """
        host = self._registry_label(registry)
        self._registry_requests[host, method, self._status_label(status)].inc()
        self._registry_seconds[host, method].observe(seconds)

    def token_cache(self, hit: bool) -> None:
        """A token was looked for."""
        self._tokens[hit].inc()

    # --- the workspace manager ---

    def watcher_reconnected(self) -> None:
        """The workspace manager was subscribed to anew, after the first time."""
        self._watcher_reconnects.inc()

    def watcher_event(self) -> None:
        """The workspace manager has told something; how long ago that was can be seen."""
        self._live.last_event = self._clock()

    # --- logs ---

    def log_received(self, n_bytes: int) -> None:
        """Output of a build has come in."""
        self._log_received.inc(n_bytes)

    def log_sent(self, n_bytes: int) -> None:
        """Output of a build has been sent to one reader."""
        self._log_sent.inc(n_bytes)

    def log_line_skipped(self) -> None:
        """A line of a listen stream could not be understood."""
        self._log_skipped.inc()

    def log_disk_failed(self) -> None:
        """A part of a log could not be written to disk, or read from there."""
        self._log_disk_faults.inc()

    def observe_spool(self, callback: Callable[[], int]) -> None:
        """Ask *callback* for the bytes on disk, whenever metrics are looked at."""
        self._live.numbers["imgbuilder_log_spool_bytes"] = ("Build output kept on disk.", callback)

    def observe_subscribers(self, callback: Callable[[], int]) -> None:
        """Ask *callback* how many wait for builds or read logs, whenever metrics are looked at."""
        self._live.numbers["imgbuilder_subscribers"] = (
            "Streams that wait for something to change.",
            callback,
        )

    # --- the process ---

    def loop_lagged(self, seconds: float) -> None:
        """The event loop ran something this much later than it was due."""
        self._lag.observe(max(0.0, seconds))

    def peer_cut_off(self, reason: str) -> None:
        """A connection was closed because of what the peer did; *reason* is one of a few fixed words."""
        self._cut_off.labels(reason).inc()

    # --- what is shown ---

    def exposition(self, accept: str = "") -> tuple[bytes, str]:
        """All metrics as text, and its content type: OpenMetrics where an Accept header asks for it.

        Runs the observed callbacks, so call it where those may run: in the event loop.
        """
        if "application/openmetrics-text" in accept:
            generate = cast("Callable[..., bytes]", openmetrics.generate_latest)
            return generate(self.registry, version="1.0.0"), openmetrics.CONTENT_TYPE_LATEST
        return prometheus_client.generate_latest(self.registry), prometheus_client.CONTENT_TYPE_PLAIN_0_0_4


class _Live(Collector):
    """The numbers that are not counted but asked for."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self.builds: Callable[[], Mapping[str, int]] = dict
        self.numbers: dict[str, tuple[str, Callable[[], int]]] = {}
        self.last_event: float | None = None

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """What holds at this moment."""
        builds = GaugeMetricFamily("imgbuilder_builds_running", "Builds that run.", labels=["phase"])
        for phase, number in sorted(self.builds().items()):
            builds.add_metric([phase], number)
        yield builds
        for name, (text, callback) in self.numbers.items():
            yield GaugeMetricFamily(name, text, value=callback())
        if self.last_event is not None:
            yield GaugeMetricFamily(
                "imgbuilder_watcher_last_event_age_seconds",
                "How long ago the workspace manager told something.",
                value=self._clock() - self.last_event,
            )
