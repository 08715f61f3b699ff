"""The dashboard and the alert rules, and the page about them, against the metrics that there really are."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from looking import Looked
from prometheus_client import Metric

from smtpmaild.status.exposition import Exposition

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "config" / "examples" / "monitoring"
NAME = re.compile(r"\bsmtpmaild_[a-z_]+")
#: name{label="value", ...}: what is asked of a metric.
SELECTOR = re.compile(r"\b(smtpmaild_[a-z_]+)\{([^}]*)\}")
BY = re.compile(r"\bby \(([^)]*)\)")
#: Labels that Prometheus itself adds.
OF_PROMETHEUS = {"instance", "job"}
ALERTS = yaml.safe_load((FOLDER / "smtpmaild-alerts.yaml").read_text())["groups"][0]["rules"]


@pytest.fixture(scope="module")
def metrics(tmp_path_factory: pytest.TempPathFactory) -> list[Metric]:
    looked = Looked(tmp_path_factory.mktemp("queue"))
    return [*Exposition(asyncio.run(looked.observer.look())).collect()]


@pytest.fixture
def labels(metrics: list[Metric]) -> dict[str, set[str]]:
    """Sample name -> labels it has."""
    return {sample.name: set(sample.labels) for family in metrics for sample in family.samples}


def expressions() -> Iterator[tuple[str, str]]:
    for rule in ALERTS:
        yield rule["alert"], rule["expr"]
    dashboard = json.loads((FOLDER / "grafana-dashboard.json").read_text())
    for panel in dashboard["panels"]:
        for target in panel.get("targets", ()):
            yield panel["title"], target["expr"]
    for note in dashboard["annotations"]["list"]:
        yield note["name"], note["expr"]


EXPRESSIONS = [*expressions()]


@pytest.mark.parametrize(
    ("where", "expression"), EXPRESSIONS, ids=[f"{place}-{name}" for place, (name, _) in enumerate(EXPRESSIONS)]
)
def test_expressions_name_what_there_is(where: str, expression: str, labels: dict[str, set[str]]) -> None:
    names = set(NAME.findall(expression))
    assert names <= labels.keys(), where
    for name, selector in SELECTOR.findall(expression):
        asked = {part.partition("=")[0].rstrip("!").strip() for part in selector.split('",')}
        assert asked <= labels[name] | OF_PROMETHEUS, where
    for grouped in BY.findall(expression):
        known = OF_PROMETHEUS.union(*(labels[name] for name in names))
        assert {label.strip() for label in grouped.split(",")} <= known, where
    assert expression.count("(") == expression.count(")")


def test_every_alert_says_what_to_do() -> None:
    names = [rule["alert"] for rule in ALERTS]
    assert len(names) == len(set(names)) > 10
    for rule in ALERTS:
        assert rule["labels"]["severity"] in ("warning", "critical")
        assert rule["annotations"]["summary"]
        assert rule["annotations"]["description"].endswith(".")


def test_labels_in_alert_texts_exist(labels: dict[str, set[str]]) -> None:
    for rule in ALERTS:
        known = OF_PROMETHEUS.union(*(labels[name] for name in NAME.findall(rule["expr"])), set())
        assert set(re.findall(r"\$labels\.(\w+)", json.dumps(rule["annotations"]))) <= known, rule["alert"]


def test_dashboard_can_be_imported() -> None:
    dashboard: dict[str, Any] = json.loads((FOLDER / "grafana-dashboard.json").read_text())
    ids = [panel["id"] for panel in dashboard["panels"]]
    assert len(ids) == len(set(ids)) > 20
    for panel in dashboard["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        assert panel["title"]
    assert [one["name"] for one in dashboard["templating"]["list"]] == ["datasource", "instance"]


def test_prometheus_reads_these_rules() -> None:
    config = yaml.safe_load((FOLDER / "prometheus.yaml").read_text())
    assert [(FOLDER / name).is_file() for name in config["rule_files"]] == [True]
    assert config["scrape_configs"][0]["job_name"] in ALERTS[0]["expr"]


def test_page_has_every_metric(metrics: list[Metric]) -> None:
    page = (ROOT / "docs" / "monitoring.md").read_text()
    rows = dict(re.findall(r"^\| `(smtpmaild_[a-z_]+)`[^|]*\| [^|]+ \| ([^|]+) \|$", page, re.MULTILINE))
    assert rows == {shown_name(one): one.documentation for one in metrics}


def shown_name(family: Metric) -> str:
    return family.name + {"counter": "_total", "info": "_info"}.get(family.type, "")


def test_page_has_every_alert() -> None:
    page = (ROOT / "docs" / "monitoring.md").read_text()
    assert set(re.findall(r"`(Smtpmaild\w+)`", page)) == {rule["alert"] for rule in ALERTS}
