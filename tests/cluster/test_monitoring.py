"""Alerts, scrape configs and the dashboard: as they are, and with each planted fault."""

import json
import shutil

import pytest
import yaml

from tests.cluster.conftest import lines
from tools.cluster_check.command import ROOT
from tools.cluster_check.faults import NotCheckedError
from tools.cluster_check.metric_names import application_names, known_names
from tools.cluster_check.monitoring import (
    check_alerts,
    check_dashboard,
    check_expression,
    check_promtool,
    check_same_rules,
    check_tested,
)
from tools.cluster_check.schemas import check_document

FOLDER = ROOT / "cluster/monitoring"
PAGE = (ROOT / "docs/guides/cluster.md").read_text()
RULES = yaml.safe_load((FOLDER / "alerts.yaml").read_text())
BOARD = json.loads((FOLDER / "uniemo_dashboard.json").read_text())


@pytest.fixture
def copied(tmp_path):
    """The folder, for tests that break a file."""
    if shutil.which("promtool") is None:
        pytest.skip("promtool is not installed (Debian package prometheus)")
    return shutil.copytree(FOLDER, tmp_path / "monitoring")


def need_parser() -> None:
    pytest.importorskip("promql_parser")


def test_promtool_accepts_all_files(copied):
    assert lines(check_promtool(copied)) == ""


@pytest.mark.parametrize(
    ("name", "old", "new", "expected"),
    [
        ("prometheus.yml", "scrape_interval: 15s", "scrape_intervall: 15s", "scrape_intervall"),
        ("alerts.yaml", "for: 25m", "for: soon", "alerts.yaml: promtool check"),
        ("alerts.yaml", "> 0.02", "> 0.2", "alerts_test.yaml: promtool test"),
        ("alerts.yaml", "shards_left[5m]", "shards_left[5m", "alerts.yaml: promtool check"),
    ],
)
def test_promtool_finds_a_fault(name, old, new, expected, copied):
    text = (copied / name).read_text()
    assert old in text
    (copied / name).write_text(text.replace(old, new))
    assert expected in lines(check_promtool(copied))


def test_alerts_name_metrics_that_exist_and_are_tested_and_explained():
    need_parser()
    tests = yaml.safe_load((FOLDER / "alerts_test.yaml").read_text())
    assert lines(check_alerts(RULES, "alerts.yaml", PAGE)) == ""
    assert lines(check_tested(RULES, tests, "alerts.yaml")) == ""
    assert "UniemoNoShard: docs/guides/cluster.md has no line" in lines(
        check_alerts(RULES, "alerts.yaml", "")
    )
    del tests["tests"][0]
    assert lines(check_tested(RULES, tests, "alerts.yaml")) == (
        "alerts.yaml: UniemoNoShard: has no test in which it fires"
    )


def test_the_rules_for_kubernetes_are_the_same():
    resource = yaml.safe_load((FOLDER / "prometheusrule.yaml").read_text())
    assert lines(check_same_rules(RULES, resource, "f")) == ""
    resource["spec"]["groups"][0]["rules"][0]["for"] = "5m"
    assert "are not the groups of alerts.yaml" in lines(check_same_rules(RULES, resource, "f"))


@pytest.mark.parametrize("name", ["podmonitor.yaml", "prometheusrule.yaml"])
def test_resources_of_the_operator_fit_their_schemas(name, schemas):
    pytest.importorskip("cel")
    docs = list(yaml.safe_load_all((FOLDER / name).read_text()))
    assert lines([fault for doc in docs for fault in check_document(doc, name, schemas)]) == ""
    docs[0]["spec"]["selectr"] = {}
    assert "selectr" in lines(check_document(docs[0], name, schemas))


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("sum(rate(ray_uniemo_rows_totl[5m]))", "there is no metric ray_uniemo_rows_totl"),
        ("ray_uniemo_shards", "there is no metric ray_uniemo_shards"),
        ("uniemo_request_seconds", "there is no metric uniemo_request_seconds"),
        ("sum by (step (up)", "in sum by (step (up)"),
        ("1 + 1", "names no metric"),
        ("up / absent(uniemo_train_step)", "there is no metric uniemo_train_step"),
        ("rate(uniemo_request_seconds_bucket[$__rate_interval])", ""),
    ],
)
def test_an_expression_that_names_no_metric_is_found(expression, expected):
    need_parser()
    found = lines(check_expression(expression, "f", "panel"))
    assert expected in found
    assert bool(found) == bool(expected)


def test_metrics_are_read_from_the_code(tmp_path):
    (tmp_path / "a.py").write_text(
        'a = metrics.Counter("uniemo_a", "A")\nb = metrics.Histogram("uniemo_b", "B")\nc = Counter("c")\n'
    )
    assert application_names(tmp_path) == {
        "ray_uniemo_a_total",
        "ray_uniemo_b_bucket",
        "ray_uniemo_b_sum",
        "ray_uniemo_b_count",
    }
    assert {
        "ray_uniemo_rows_total",
        "ray_uniemo_shards_left",
        "uniemo_requests_total",
        "uniemo_active_requests",
        "ray_cluster_active_nodes",
    } <= known_names()


def test_the_dashboard_is_right():
    need_parser()
    assert lines(check_dashboard(FOLDER / "uniemo_dashboard.json")) == ""
    assert len([panel for panel in BOARD["panels"] if panel["type"] != "row"]) >= 15


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        ("targets", [{"expr": "ray_uniemo_row_total"}], "there is no metric ray_uniemo_row_total"),
        ("targets", [{"expr": 'up{job="$job"}'}], "there is no variable $job"),
        ("targets", [], "has no expression"),
        ("datasource", {"uid": "abc"}, "its data source is not the variable"),
        ("id", 3, "panel 3: has the number of another panel"),
    ],
)
def test_a_fault_in_a_panel_is_found(field, value, expected, tmp_path):
    need_parser()
    board = json.loads(json.dumps(BOARD))
    board["panels"][1][field] = value
    (tmp_path / "board.json").write_text(json.dumps(board))
    assert expected in lines(check_dashboard(tmp_path / "board.json"))


def test_a_broken_dashboard_is_found(tmp_path):
    (tmp_path / "board.json").write_text("{")
    assert "board.json: " in lines(check_dashboard(tmp_path / "board.json"))


def test_without_promtool_the_check_says_so(monkeypatch):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(NotCheckedError, match="Debian package prometheus"):
        check_promtool(FOLDER)
