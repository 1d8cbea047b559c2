"""
The files of charts-snippets/monitoring, checked with promtool.
"""

import json
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest
import yaml

from docs.__main__ import ROOT
from docs.sidecars import SIDECARS as DOCUMENTED
from tests.chart.files import SNIPPETS
from tests.chart.sidecars import Values
from tests.support.ledger.documented import first_column, metric_tables

ALERTS = Path(__file__).with_name("monitoring") / "alerts.yaml"
MONITORING = SNIPPETS / "monitoring"


def load(path: Path) -> Values:
    said: Values = yaml.safe_load(path.read_text())
    return said


needs_promtool = pytest.mark.skipif(
    shutil.which("promtool") is None,
    reason="promtool is missing: make setup-test as root",
)


def promtool(folder: Path, found: Sequence[Values], tests: str) -> str:
    """
    Test rules; return the output of promtool if one fails, else an empty string.
    """
    (folder / "rules.yaml").write_text(
        yaml.safe_dump({"groups": [{"name": "tested", "rules": found}]})
    )
    (folder / "tests.yaml").write_text(tests)
    done = subprocess.run(
        ["promtool", "test", "rules", "tests.yaml"],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
    )
    return "" if done.returncode == 0 else done.stdout + done.stderr


def rules(name: str = "prometheus-rule.yaml") -> list[Values]:
    (group,) = load(MONITORING / name)["spec"]["groups"]
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

    assert "" == promtool(tmp_path, alerts, ALERTS.read_text())


def test_every_alert_is_listed_and_has_a_firing_and_a_silent_promtool_test() -> None:
    held = [
        one for test in load(ALERTS)["tests"] for one in test.get("alert_rule_test", [])
    ]
    alerts = [rule["alert"] for rule in rules()]
    names = sorted(alerts)

    assert alerts == first_column((MONITORING / "README.md").read_text())
    for fires in (True, False):
        assert names == sorted(
            {one["alertname"] for one in held if ("exp_alerts" in one) == fires}
        )


def test_every_expression_names_existing_metrics_of_ours() -> None:
    told = [rule["expr"] for rule in (*rules(), *rules("slo-rule.yaml"))]
    dashboard = json.loads((MONITORING / "grafana-dashboard.json").read_text())
    told += [
        target["expr"]
        for panel in dashboard["panels"]
        for target in panel.get("targets", [])
    ]
    known = {*first_column(metric_tables())}
    ours = "|".join(["sidecar_", *(sidecar.prefix.lower() for sidecar in DOCUMENTED)])
    named = {name for expr in told for name in re.findall(rf"\b(?:{ours})\w+", expr)}

    assert set() == {re.sub("_(bucket|sum|count)$", "", name) for name in named} - known


@needs_promtool
def test_objective_queries_of_the_page_return_the_expected_shares(
    tmp_path: Path,
) -> None:
    asked = re.findall(
        r"^avg_over_time\(\S+\)$",
        (ROOT / "docs/how-to/run-in-production.md").read_text(),
        re.MULTILINE,
    )
    shares = ALERTS.with_name("slo.yaml")

    assert sorted(asked) == sorted(
        [
            one["expr"]
            for test in load(shares)["tests"]
            for one in test["promql_expr_test"]
        ]
    )
    assert "" == promtool(tmp_path, rules("slo-rule.yaml"), shares.read_text())
