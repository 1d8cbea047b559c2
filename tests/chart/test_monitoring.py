"""
The files of charts-snippets/monitoring, checked with promtool.
"""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from docs.__main__ import ROOT, metrics, shared_metrics
from docs.sidecars import SIDECARS as DOCUMENTED
from tests.chart.files import SNIPPETS
from tests.chart.sidecars import Values

ALERTS = Path(__file__).with_name("monitoring") / "alerts.yaml"
SHARES = Path(__file__).with_name("monitoring") / "slo.yaml"
MONITORING = SNIPPETS / "monitoring"
DASHBOARD = MONITORING / "grafana-dashboard.json"


def load(name: str) -> Values:
    said: Values = yaml.safe_load((MONITORING / name).read_text())
    return said


needs_promtool = pytest.mark.skipif(
    shutil.which("promtool") is None,
    reason="promtool is missing: make setup-test as root",
)


def promtool(*arguments: str, folder: Path) -> str:
    """
    Run promtool in a folder; return its output if it fails, else an empty string.
    """
    done = subprocess.run(
        ["promtool", *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
    )
    return "" if done.returncode == 0 else done.stdout + done.stderr


def rules() -> list[Values]:
    (group,) = load("prometheus-rule.yaml")["spec"]["groups"]
    found: list[Values] = group["rules"]
    return found


@needs_promtool
def test_alerts_pass_their_promtool_tests(tmp_path: Path) -> None:
    """
    The tests omit the runbook.
    """
    alerts = rules()
    for rule in alerts:
        rule["annotations"].pop("runbook_url")
    group = {"name": "airflow-sidecars", "rules": alerts}
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump({"groups": [group]}))
    shutil.copy(ALERTS, tmp_path)

    assert "" == promtool("test", "rules", ALERTS.name, folder=tmp_path)


def test_every_alert_is_listed_and_has_a_firing_and_a_silent_promtool_test() -> None:
    tests = yaml.safe_load(ALERTS.read_text())["tests"]
    held = [one for test in tests for one in test["alert_rule_test"]]
    names = sorted(rule["alert"] for rule in rules())
    table = (MONITORING / "README.md").read_text()

    assert [rule["alert"] for rule in rules()] == re.findall(
        r"^\| `(\w+)` \|", table, re.MULTILINE
    )
    assert names == sorted({one["alertname"] for one in held if "exp_alerts" in one})
    assert names == sorted(
        {one["alertname"] for one in held if "exp_alerts" not in one}
    )


def test_every_expression_names_existing_metrics_of_ours() -> None:
    shares = load("slo-rule.yaml")["spec"]["groups"][0]["rules"]
    told = [rule["expr"] for rule in (*rules(), *shares)]
    panels = json.loads(DASHBOARD.read_text())["panels"]
    told += [target["expr"] for panel in panels for target in panel.get("targets", [])]
    tables = "".join([shared_metrics(), *(metrics(sidecar) for sidecar in DOCUMENTED)])
    known = {*re.findall(r"^\| `(\w+)` \|", tables, re.MULTILINE)}
    ours = "|".join(["sidecar_", *(sidecar.prefix.lower() for sidecar in DOCUMENTED)])
    named = {name for expr in told for name in re.findall(rf"\b(?:{ours})\w+", expr)}

    assert set() == {re.sub("_(bucket|sum|count)$", "", name) for name in named} - known


@needs_promtool
def test_objective_queries_of_the_page_return_the_expected_shares(
    tmp_path: Path,
) -> None:
    page = (ROOT / "docs/how-to/run-in-production.md").read_text()
    asked = re.findall(r"^avg_over_time\(\S+\)$", page, re.MULTILINE)
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump(load("slo-rule.yaml")["spec"]))
    shutil.copy(SHARES, tmp_path)

    tests = yaml.safe_load(SHARES.read_text())["tests"]
    tried = [one["expr"] for test in tests for one in test["promql_expr_test"]]
    assert sorted(asked) == sorted(tried)
    assert "" == promtool("test", "rules", SHARES.name, folder=tmp_path)
