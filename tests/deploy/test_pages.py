"""docs/kubernetes.md, as far as it can be held against what it tells of."""

from __future__ import annotations

import re
import subprocess
from typing import Final

from tests.deploy.documents import documents
from tests.deploy.rendering import OVERLAYS, ROOT, Rendered
from tests.deploy.test_kubernetes_schemas import VERSIONS

PAGE: Final = (ROOT / "docs/kubernetes.md").read_text()


def test_every_overlay_is_told_of() -> None:
    """In the table, in words that fit what it is made of."""
    rows = re.findall(r"^   \| `(\w+)` \| (.*) \|$", PAGE, re.MULTILINE)
    assert sorted(name for name, _ in rows) == OVERLAYS
    for name, words in rows:
        text = (ROOT / f"config/kubernetes/overlays/{name}/kustomization.yaml").read_text()
        assert ("IAM role" in words) == ("components/ecr" in text)
        assert (not words.startswith("without TLS")) == ("components/tls" in text)
        assert ("kube-rbac-proxy" in words) == ("components/metrics" in text)


def test_every_file_that_is_named_is_there() -> None:
    """Those of config/, scripts/ and tests/."""
    names = re.findall(r"(?:config|scripts|docs|tests/deploy)/[\w./-]*\w", PAGE)
    assert len(names) > 8
    for name in names:
        assert (ROOT / name).exists(), name
    for name in re.findall(r"`((?:components|overlays)/[\w./-]*\w)`", PAGE):
        assert (ROOT / "config/kubernetes" / name).exists(), name


def test_the_versions_are_those_that_are_checked() -> None:
    """The oldest one is the oldest whose schemas the objects are held against."""
    assert f"Kubernetes {VERSIONS[0]} or later" in PAGE


def test_names_and_numbers_are_those_of_the_objects(rendered: Rendered) -> None:
    """Secrets, waits, users."""
    secrets = {
        volume["secret"]["secretName"]
        for volume in rendered.pod["spec"]["volumes"]
        if "secret" in volume and not volume["secret"]["secretName"].endswith("mk3-tls")
    }
    for name in secrets:
        assert f"`{name}`" in PAGE
    assert f"{rendered.service['lifecycle']['preStop']['sleep']['seconds']} s of `preStop`" in PAGE
    assert f"user {rendered.pod['spec']['securityContext']['runAsUser']}" in PAGE


def test_the_rules_of_the_operator_are_made_as_documented() -> None:
    """The command gives a PrometheusRule with all groups."""
    found = re.search(r"^\$ (\(printf .*\n.*\)) \| kubectl apply", PAGE, re.MULTILINE)
    assert found is not None
    done = subprocess.run(
        ["bash", "-c", found[1]], cwd=ROOT, capture_output=True, text=True, check=True, timeout=30
    )
    (rule,) = documents(done.stdout)
    assert rule["kind"] == "PrometheusRule"
    (alerts,) = documents((ROOT / "config/monitoring/alerts.yaml").read_text())
    assert rule["spec"] == alerts
