"""The dashboard and the alerts: they ask for what the service shows, and say what they should."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any, Final

import pytest
import yaml  # type: ignore[import-untyped]  # comes without types

from imgbuilder.config.loading import parse
from imgbuilder.core.builds import BuildState
from imgbuilder.pb.wsman import WorkspacePhase
from imgbuilder.runtime.grpc.limits import CutOff
from imgbuilder.telemetry.metrics import Metrics
from tests.deploy.documents import Document, documents
from tests.deploy.promql import labels_in, metrics_in
from tests.deploy.rendering import KUBERNETES, LABELS, ROOT, Rendered
from tests.interop.conftest import program

ALERTS: Final = ROOT / "config/monitoring/alerts.yaml"
ALERT_TESTS: Final = Path(__file__).parent / "alerts.test.yaml"
DASHBOARD: Final = ROOT / "config/monitoring/dashboard.json"
PROMETHEUS_OWN: Final = {"up"}
TARGET_LABELS: Final = {"job", "namespace", "pod", "le"}
"""Those that Prometheus adds, or the type of a metric brings along."""


def shown() -> dict[str, set[str]]:
    """The names of all time series that the service shows, with their labels."""
    metrics = Metrics()
    metrics.observe_spool(lambda: 0)
    metrics.observe_subscribers(lambda: 0)
    metrics.observe_builds(lambda: {"running": 1})
    metrics.watcher_event()
    metrics.registry_request("r.test", "GET", "200", 1)
    metrics.peer_cut_off("too many connections")
    metrics.rpc_started("unary", "s", "m")
    metrics.rpc_handled("unary", "s", "m", "OK", 1)
    return {
        sample.name: set(sample.labels) for family in metrics.registry.collect() for sample in family.samples
    }


def rules() -> list[Document]:
    """The alerts."""
    (file,) = documents(ALERTS.read_text())
    return [rule for group in file["groups"] for rule in group["rules"]]


def panels() -> list[Document]:
    """The dashboard's panels, without the rows' titles."""
    dashboard = json.loads(DASHBOARD.read_text())
    return [panel for panel in dashboard["panels"] if panel["type"] != "row"]


def expressions() -> list[tuple[str, str]]:
    """What is asked for, with the name of what asks."""
    from_panels = [(panel["title"], target["expr"]) for panel in panels() for target in panel["targets"]]
    return [*((rule["alert"], rule["expr"]) for rule in rules()), *from_panels]


@pytest.mark.parametrize(
    ("expression", "names", "labels"),
    [
        ("up", {"up"}, set()),
        ("sum by (a, b) (rate(m_total[5m])) > 0.5", {"m_total"}, {"a", "b"}),
        ('absent(up{job="x {y} by (z)"} == 1)', {"up"}, {"job"}),
        ('a{b=~"c|d", e!="f"} / on (g) group_left (h) b', {"a", "b"}, {"b", "e", "g", "h"}),
        ("max(sum without (x) (increase(a[1h]))) and on () b unless c offset 5m", {"a", "b", "c"}, {"x"}),
        ("min_over_time(sum(max by (p) (m))[75m:1m]) > 2 * 1024 ^ 3", {"m"}, {"p"}),
        ("rate(m{$label}[$__rate_interval])", {"m"}, set()),
    ],
)
def test_expressions_are_understood(expression: str, names: set[str], labels: set[str]) -> None:
    """The checks below see every metric and every label."""
    assert metrics_in(expression) == names
    assert labels_in(expression) == labels


@pytest.mark.parametrize(("asked_by", "expression"), expressions())
def test_what_is_asked_for_is_shown(asked_by: str, expression: str) -> None:
    """Every metric exists, and every label is one of its metric's or of Prometheus'."""
    series = shown()
    names = metrics_in(expression) - PROMETHEUS_OWN
    assert names <= series.keys(), asked_by
    assert names or asked_by == "ImageBuilderDown"
    known = set().union(*(series[name] for name in names)) | TARGET_LABELS
    assert labels_in(expression) <= known, asked_by


def test_the_alerts_are_well_formed() -> None:
    """As Prometheus itself sees it."""
    done = subprocess.run(
        [program("promtool"), "check", "rules", str(ALERTS)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_the_alerts_fire_when_they_should() -> None:
    """And only then: `alerts.test.yaml` has a case for each, and days on which none should."""
    done = subprocess.run(
        [program("promtool"), "test", "rules", str(ALERT_TESTS)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_has_a_case() -> None:
    """One in which it fires, and nothing else does."""
    (file,) = documents(ALERT_TESTS.read_text())
    fired = set()
    for case in file["tests"]:
        found = {
            label
            for check in case["promql_expr_test"]
            for sample in check.get("exp_samples", [])
            for label in sample["labels"].strip("{}").split(", ")
            if label.startswith("alertname=")
        }
        assert found == (set() if case["name"] == "quiet" else {f'alertname="{case["name"]}"'})
        fired.add(case["name"])
    assert fired - {"quiet"} == {rule["alert"] for rule in rules()}


def test_alerts_tell_what_to_do() -> None:
    """A line for the phone, and a paragraph for who gets up; how urgent it is."""
    for rule in rules():
        assert rule["alert"].startswith("ImageBuilder")
        assert rule["labels"]["severity"] in {"page", "ticket"}
        assert 0 < len(rule["annotations"]["summary"]) <= 100
        assert len(rule["annotations"]["description"]) > 80


def test_reasons_that_are_left_out_exist() -> None:
    """A reason that is spelled otherwise would leave nothing out."""
    left_out = {reason for rule in rules() for reason in re.findall(r'reason!="([^"]*)"', rule["expr"])}
    assert left_out
    assert left_out <= {each.value for each in CutOff}


def test_phases_that_are_watched_exist() -> None:
    """Those of a workspace, and of a build that has none yet."""
    known = {phase.name.lower() for phase in WorkspacePhase if phase.name} | {
        state.value for state in BuildState
    }
    (phases,) = {found for rule in rules() for found in re.findall(r'phase=~"([^"]*)"', rule["expr"])}
    assert set(phases.split("|")) <= known


def test_the_job_is_the_one_that_is_scraped(rendered: Rendered) -> None:
    """Prometheus' operator names it by the label that the monitor names."""
    for monitor in rendered.all("ServiceMonitor"):
        job = rendered.one("Service")["metadata"]["labels"][monitor["spec"]["jobLabel"]]
        assert job == LABELS["component"]
        down = next(rule for rule in rules() if rule["alert"] == "ImageBuilderDown")
        assert f'job="{job}"' in down["expr"]


def test_the_limit_of_the_disk_is_the_configured_one() -> None:
    """An alert has to know it."""
    config = parse("", (KUBERNETES / "base/image-builder.json").read_bytes()).config
    full = next(rule for rule in rules() if rule["alert"] == "ImageBuilderSpoolFull")
    assert full["expr"].endswith("> 0.9 * 2 * 1024 ^ 3")
    assert config.logs.max_total == 2 * 1024**3


def test_the_dashboard_is_well_formed(tmp_path: Path) -> None:
    """Prometheus understands every expression, and every panel says what it shows."""
    recorded = []
    for number, (_, expression) in enumerate(expressions()):
        text = expression.replace("$__rate_interval", "5m")
        recorded.append({"record": f"checked:{number}", "expr": text})
    file = tmp_path / "rules.yaml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": recorded}]}))
    done = subprocess.run(
        [program("promtool"), "check", "rules", str(file)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    titles = [panel["title"] for panel in panels()]
    assert len(titles) == len(set(titles)) >= 20


def test_panels_do_not_overlap() -> None:
    """On a grid of 24 columns; each has an id of its own."""
    dashboard: dict[str, Any] = json.loads(DASHBOARD.read_text())
    taken: set[tuple[int, int]] = set()
    for panel in dashboard["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        assert place["x"] + place["w"] <= 24
        taken |= cells
    ids = [panel["id"] for panel in dashboard["panels"]]
    assert len(ids) == len(set(ids))
    variables = {variable["name"] for variable in dashboard["templating"]["list"]}
    assert variables == {"datasource", "job", "namespace", "pod"}
