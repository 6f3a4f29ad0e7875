"""Scrape configs, alerts and the dashboard."""

import json
import re
import subprocess
from pathlib import Path
from typing import Any

from tools.cluster_check.documents import parse
from tools.cluster_check.faults import Document, Fault, library, tool
from tools.cluster_check.metric_names import known_names

TIMEOUT_S = 60
SCHEMA_VERSION = 39
_VARIABLES = {"$__rate_interval": "5m", "$__interval": "1m", "$__range": "1h"}


def check_promtool(folder: Path) -> list[Fault]:
    """What promtool says of the scrape config, the rules and the rules' tests.

    Raises:
        NotCheckedError: promtool is not installed.
    """
    program = tool("promtool", "Debian package prometheus")
    faults = []
    for words, name in (
        (("check", "config", "--syntax-only"), "prometheus.yml"),
        (("check", "rules"), "alerts.yaml"),
        (("test", "rules"), "alerts_test.yaml"),
    ):
        done = subprocess.run(
            [program, *words, name],
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
        )
        if done.returncode:
            lines = [line.strip() for line in (done.stdout + done.stderr).splitlines() if line.strip()]
            told = [
                line
                for line in lines
                if not line.startswith(("Checking", "Unit Testing", "FAILED", "SUCCESS"))
            ]
            faults.append(Fault(name, f"promtool {words[0]}", " ".join(told or lines)[:300]))
    return faults


def check_expression(expression: str, file: str, where: str) -> list[Fault]:
    """An expression parses, and names metrics that exist.

    Raises:
        NotCheckedError: promql-parser is not installed.
    """
    parser = library("promql_parser")
    for variable, value in _VARIABLES.items():
        expression = expression.replace(variable, value)
    try:
        tree = parser.parse(expression)
    except ValueError as error:
        return [Fault(file, where, f"{error} in {expression}")]
    named: list[str] = []

    def visit(node: Any) -> bool:
        if isinstance(node, parser.VectorSelector):
            named.append(node.name or "")
        return True

    parser.walk(tree, visit)
    if not named:
        return [Fault(file, where, "names no metric")]
    return [
        Fault(file, where, f"there is no metric {name or 'without a name'}")
        for name in dict.fromkeys(named)
        if name not in known_names()
    ]


def check_alerts(rules: Document, file: str, page: str) -> list[Fault]:
    """Expressions of alerts, their tests, and a line about each in the page."""
    faults = []
    for group in rules.get("groups") or []:
        for rule in group.get("rules") or []:
            name = rule.get("alert", "")
            faults += check_expression(str(rule.get("expr", "")), file, name)
            if f"`{name}`" not in page:
                faults.append(Fault(file, name, "docs/guides/cluster.md has no line about it"))
            if not (rule.get("annotations") or {}).get("summary"):
                faults.append(Fault(file, name, "has no summary"))
    return faults


def check_tested(rules: Document, tests: Document, file: str) -> list[Fault]:
    """Every alert has a test in which it fires, and one in which it does not."""
    cases = [case for test in tests.get("tests") or [] for case in test.get("alert_rule_test") or []]
    faults = []
    for group in rules.get("groups") or []:
        for rule in group.get("rules") or []:
            own = [
                case.get("exp_alerts") or [] for case in cases if case.get("alertname") == rule.get("alert")
            ]
            if not any(own):
                faults.append(Fault(file, str(rule.get("alert")), "has no test in which it fires"))
    return faults


def check_same_rules(rules: Document, resource: Document, file: str) -> list[Fault]:
    """prometheusrule.yaml holds the rules of alerts.yaml."""
    if (resource.get("spec") or {}).get("groups") == rules.get("groups"):
        return []
    return [Fault(file, "spec.groups", "are not the groups of alerts.yaml")]


def check_dashboard(path: Path) -> list[Fault]:
    """Panels of a Grafana dashboard: data source, variables, places, expressions."""
    file = path.name
    try:
        board = json.loads(path.read_text())
    except ValueError as error:
        return [Fault(file, "", str(error))]
    faults = []
    if board.get("schemaVersion", 0) < SCHEMA_VERSION:
        faults.append(Fault(file, "schemaVersion", f"is less than {SCHEMA_VERSION}"))
    variables = {variable["name"] for variable in board.get("templating", {}).get("list", [])}
    numbers = [panel.get("id") for panel in board.get("panels", [])]
    for number in sorted({n for n in numbers if numbers.count(n) > 1}):
        faults.append(Fault(file, f"panel {number}", "has the number of another panel"))
    for panel in board.get("panels", []):
        if panel.get("type") != "row":
            faults += _check_panel(panel, variables, file)
    return faults


def _check_panel(panel: Document, variables: set[str], file: str) -> list[Fault]:
    title = str(panel.get("title"))
    faults = []
    if (panel.get("datasource") or {}).get("uid") != "${datasource}":
        faults.append(Fault(file, title, "its data source is not the variable ${datasource}"))
    targets = panel.get("targets") or []
    if not targets:
        faults.append(Fault(file, title, "has no expression"))
    for target in targets:
        expression = str(target.get("expr", ""))
        for name in re.findall(r"\$\{?(\w+)", expression):
            if name not in variables and f"${name}" not in _VARIABLES:
                faults.append(Fault(file, title, f"there is no variable ${name}"))
        faults += check_expression(expression, file, title)
    return faults


def read_one(path: Path) -> tuple[Document, list[Fault]]:
    """The one document of a file."""
    docs, faults = parse(path.read_text(), path.name)
    return (docs[0] if docs else {}), faults
