"""Metrics: names, labels and buckets are the contract, and their number is bounded."""

from __future__ import annotations

import sys

import pytest
from prometheus_client.parser import text_string_to_metric_families

import imgbuilder
from imgbuilder.telemetry.labels import OTHER, BoundedLabel
from imgbuilder.telemetry.metrics import REGISTRIES_LIMIT, Metrics
from imgbuilder.telemetry.rpc_metrics import CODES, METHODS_LIMIT

BUILD = ("server_stream", "builder.ImageBuilder", "Build")
RPC = {"grpc_type": "server_stream", "grpc_service": "builder.ImageBuilder", "grpc_method": "Build"}


@pytest.fixture
def metrics() -> Metrics:
    """Metrics of the test's own."""
    return Metrics()


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    """One number, as a scrape would see it; None if it is not there."""
    return metrics.registry.get_sample_value(name, labels)


def series(metrics: Metrics) -> set[str]:
    """The names of everything that is shown."""
    text = metrics.exposition()[0].decode()
    return {sample.name for family in text_string_to_metric_families(text) for sample in family.samples}


def test_builds_count_once_and_both_outcomes_show_from_the_start(metrics: Metrics) -> None:
    """The names of the contract, zero before anything has happened."""
    assert value(metrics, "gitpod_image_builder_builds_started_total") == 0
    assert value(metrics, "gitpod_image_builder_builds_done_total", success="true") == 0
    assert value(metrics, "gitpod_image_builder_builds_done_total", success="false") == 0
    metrics.build_started()
    metrics.build_done(success=True, seconds=42)
    metrics.build_done(success=False, seconds=7)
    metrics.build_done(success=False, seconds=7)
    metrics.build_attached()
    assert value(metrics, "gitpod_image_builder_builds_started_total") == 1
    assert value(metrics, "gitpod_image_builder_builds_done_total", success="true") == 1
    assert value(metrics, "gitpod_image_builder_builds_done_total", success="false") == 2
    assert value(metrics, "imgbuilder_build_duration_seconds_sum", success="true") == 42
    assert value(metrics, "imgbuilder_builds_attached_total") == 1


def test_the_version_is_shown(metrics: Metrics) -> None:
    """As a label, as Prometheus has it."""
    assert value(metrics, "gitpod_server_version", version=imgbuilder.__version__) == 1


@pytest.mark.skipif(sys.platform != "linux", reason="the numbers come from /proc")
def test_the_process_is_shown(metrics: Metrics) -> None:
    """Under the names that every Prometheus client uses."""
    assert {
        "process_cpu_seconds_total",
        "process_max_fds",
        "process_open_fds",
        "process_resident_memory_bytes",
        "process_start_time_seconds",
        "process_virtual_memory_bytes",
    } <= series(metrics)


def test_rpcs_are_counted_as_go_does(metrics: Metrics) -> None:
    """Names, labels and spelling of codes are go-grpc-prometheus'."""
    metrics.rpc_started(*BUILD)
    metrics.rpc_received(*BUILD)
    metrics.rpc_sent(*BUILD)
    metrics.rpc_sent(*BUILD)
    metrics.rpc_handled(*BUILD, "NOT_FOUND", 0.3)
    assert value(metrics, "grpc_server_started_total", **RPC) == 1
    assert value(metrics, "grpc_server_msg_received_total", **RPC) == 1
    assert value(metrics, "grpc_server_msg_sent_total", **RPC) == 2
    assert value(metrics, "grpc_server_handled_total", **RPC, grpc_code="NotFound") == 1
    assert value(metrics, "grpc_server_handling_seconds_count", **RPC) == 1
    assert value(metrics, "grpc_server_handling_seconds_sum", **RPC) == pytest.approx(0.3)


def test_the_buckets_of_rpcs_are_the_contracts(metrics: Metrics) -> None:
    """Dashboards compute percentiles from them."""
    metrics.preset_rpcs([BUILD])
    text = metrics.exposition()[0].decode()
    buckets = [
        sample.labels["le"]
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == "grpc_server_handling_seconds_bucket"
    ]
    assert [float(bound) for bound in buckets] == [
        *(0.005, 0.025, 0.05, 0.1, 0.5, 1, 2.5, 5, 30, 60, 120, 240, 600),
        float("inf"),
    ]


def test_known_methods_show_from_the_start(metrics: Metrics) -> None:
    """A rate over a series that begins with one would miss the first call."""
    metrics.preset_rpcs([BUILD])
    for name in ("started_total", "msg_received_total", "msg_sent_total", "handling_seconds_count"):
        assert value(metrics, f"grpc_server_{name}", **RPC) == 0
    for code in CODES.values():
        assert value(metrics, "grpc_server_handled_total", **RPC, grpc_code=code) == 0
    assert len(CODES) == 17


def test_a_code_that_is_none_counts_as_unknown(metrics: Metrics) -> None:
    """A label has only the values it may have."""
    metrics.rpc_handled(*BUILD, "made up", 1)
    assert value(metrics, "grpc_server_handled_total", **RPC, grpc_code="Unknown") == 1


def test_methods_are_bounded(metrics: Metrics) -> None:
    """Whatever names clients call."""
    for number in range(METHODS_LIMIT + 5):
        metrics.rpc_started("unary", "service", f"Method{number}")
    assert (
        value(metrics, "grpc_server_started_total", grpc_type=OTHER, grpc_service=OTHER, grpc_method=OTHER)
        == 5
    )


def test_registries_that_users_name_are_bounded() -> None:
    """Those of the configuration always have their own series."""
    metrics = Metrics(registries=["registry.example.com"])
    for number in range(REGISTRIES_LIMIT + 7):
        metrics.registry_request(f"host{number}.example.com", "GET", "404", 0.1)
    metrics.registry_request("registry.example.com", "HEAD", "200", 0.1)
    requests = "imgbuilder_registry_requests_total"
    assert value(metrics, requests, registry="host0.example.com", method="GET", status="404") == 1
    assert value(metrics, requests, registry=OTHER, method="GET", status="404") == 7
    assert value(metrics, requests, registry="registry.example.com", method="HEAD", status="200") == 1
    seconds = "imgbuilder_registry_request_seconds_count"
    assert value(metrics, seconds, registry=OTHER, method="GET") == 7


def test_statuses_that_registries_make_up_are_bounded(metrics: Metrics) -> None:
    """A registry can answer with any number; the usual ones are always told apart."""
    for status in range(600, 900):
        metrics.registry_request("r", "GET", str(status), 0.1)
    metrics.registry_request("r", "GET", "503", 0.1)
    requests = "imgbuilder_registry_requests_total"
    assert value(metrics, requests, registry="r", method="GET", status="503") == 1
    other = value(metrics, requests, registry="r", method="GET", status=OTHER)
    assert other is not None
    assert other > 250


def test_what_is_known_does_not_use_up_room() -> None:
    """Room is for the others."""
    label = BoundedLabel(1, ["known"])
    assert [label(name) for name in ("known", "a", "b", "a", "known")] == ["known", "a", OTHER, "a", "known"]


def test_what_holds_now_is_asked_when_it_is_looked_at(metrics: Metrics) -> None:
    """Builds by phase, bytes on disk, subscribers."""
    builds = {"RUNNING": 2, "starting": 1}
    metrics.observe_builds(lambda: builds)
    metrics.observe_spool(lambda: 4096)
    metrics.observe_subscribers(lambda: 5)
    assert value(metrics, "imgbuilder_builds_running", phase="RUNNING") == 2
    builds["RUNNING"] = 3
    assert value(metrics, "imgbuilder_builds_running", phase="RUNNING") == 3
    assert value(metrics, "imgbuilder_log_spool_bytes") == 4096
    assert value(metrics, "imgbuilder_subscribers") == 5


def test_the_age_of_the_last_event_grows() -> None:
    """There is none before the first event."""
    now = [100.0]
    metrics = Metrics(clock=lambda: now[0])
    assert value(metrics, "imgbuilder_watcher_last_event_age_seconds") is None
    metrics.watcher_event()
    now[0] = 130
    assert value(metrics, "imgbuilder_watcher_last_event_age_seconds") == 30
    metrics.watcher_event()
    metrics.watcher_reconnected()
    assert value(metrics, "imgbuilder_watcher_last_event_age_seconds") == 0
    assert value(metrics, "imgbuilder_watcher_reconnects_total") == 1


def test_the_rest_is_counted(metrics: Metrics) -> None:
    """Tokens, log bytes, lines that were skipped, peers, lag."""
    metrics.token_cache(hit=True)
    metrics.token_cache(hit=False)
    metrics.log_received(10)
    metrics.log_sent(20)
    metrics.log_line_skipped()
    metrics.peer_cut_off("rapid resets")
    metrics.loop_lagged(-0.001)
    assert value(metrics, "imgbuilder_registry_tokens_total", result="hit") == 1
    assert value(metrics, "imgbuilder_registry_tokens_total", result="miss") == 1
    assert value(metrics, "imgbuilder_log_received_bytes_total") == 10
    assert value(metrics, "imgbuilder_log_sent_bytes_total") == 20
    assert value(metrics, "imgbuilder_log_skipped_lines_total") == 1
    assert value(metrics, "imgbuilder_peers_cut_off_total", reason="rapid resets") == 1
    assert value(metrics, "imgbuilder_event_loop_lag_seconds_sum") == 0


def test_no_created_series(metrics: Metrics) -> None:
    """Neither in the plain form nor in OpenMetrics: nobody reads them."""
    metrics.preset_rpcs([BUILD])
    for accept in ("", "application/openmetrics-text"):
        assert b"_created" not in metrics.exposition(accept)[0]


@pytest.mark.parametrize(
    ("accept", "kind", "end"),
    [
        ("", "text/plain; version=0.0.4", b"\n"),
        ("text/plain;version=0.0.4;q=0.5,*/*;q=0.1", "text/plain; version=0.0.4", b"\n"),
        (
            "application/openmetrics-text;version=1.0.0;q=0.8,text/plain",
            "application/openmetrics-text",
            b"# EOF\n",
        ),
        ("application/openmetrics-text; version=nonsense", "application/openmetrics-text", b"# EOF\n"),
    ],
)
def test_the_form_is_the_one_that_is_asked_for(metrics: Metrics, accept: str, kind: str, end: bytes) -> None:
    """Prometheus asks for OpenMetrics, people and older scrapers do not."""
    text, content_type = metrics.exposition(accept)
    assert content_type.startswith(kind)
    assert text.endswith(end)


def test_two_do_not_share_numbers(metrics: Metrics) -> None:
    """Each test, and each service in a process, has its own."""
    metrics.build_started()
    assert value(Metrics(), "gitpod_image_builder_builds_started_total") == 0
