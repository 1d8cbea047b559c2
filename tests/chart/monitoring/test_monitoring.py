"""
The files of charts-snippets/monitoring, checked with a real Prometheus.
"""

from __future__ import annotations

import copy
import json
import re
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
import yaml
from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

from docs.__main__ import ROOT
from docs.sidecars import SIDECARS as DOCUMENTED
from sidecar_runtime.http.endpoint import registry_of
from sidecar_runtime.parsers import duration
from tests.chart import files
from tests.chart.monitoring import monitoring
from tests.chart.monitoring.monitoring import DASHBOARD, YAML_FILES, complaints, load
from tests.chart.rules import checks
from tests.chart.rules.sidecars import Values
from tests.support.http.loopback import Answer, LoopbackServer, Request
from tests.support.prometheus import Prometheus, promtool, skip_without_prometheus
from tests.support.waiting import wait_until

ALERTS = Path(__file__).with_name("alerts.yaml")
SHARES = Path(__file__).with_name("slo.yaml")


@pytest.mark.parametrize("name", YAML_FILES)
def test_file_matches_the_schema_of_its_reader(name: str) -> None:
    assert [] == complaints(name, load(name))


@pytest.mark.parametrize("name", YAML_FILES)
def test_detects_every_misspelled_key(name: str) -> None:
    mutants = list(monitoring.renamed(load(name)))

    assert mutants
    assert [] == [path for path, mutant in mutants if not complaints(name, mutant)]


def test_every_file_has_a_schema() -> None:
    assert sorted(monitoring.SCHEMAS) == YAML_FILES


# Alerts


def rules() -> list[Values]:
    (group,) = load("prometheus-rule.yaml")["spec"]["groups"]
    found: list[Values] = group["rules"]
    return found


def broken_promises(alerts: list[Values], folder: Path) -> str:
    """
    Run the alerts' promtool tests, which omit the runbook; return promtool's errors.
    """
    alerts = copy.deepcopy(alerts)
    for rule in alerts:
        rule["annotations"].pop("runbook_url")
    group = {"name": "airflow-sidecars", "rules": alerts}
    (folder / "rules.yaml").write_text(yaml.safe_dump({"groups": [group]}))
    shutil.copy(ALERTS, folder)
    return promtool("test", "rules", "alerts.yaml", folder=folder)


def test_alerts_pass_their_promtool_tests(tmp_path: Path) -> None:
    skip_without_prometheus()

    assert "" == broken_promises(rules(), tmp_path)


def test_every_alert_has_a_firing_and_a_silent_promtool_test() -> None:
    tests = yaml.safe_load(ALERTS.read_text())["tests"]
    held = [one for test in tests for one in test["alert_rule_test"]]
    names = sorted(rule["alert"] for rule in rules())

    assert names == sorted({one["alertname"] for one in held if "exp_alerts" in one})
    assert names == sorted({one["alertname"] for one in held if "exp_alerts" not in one})


def test_readme_lists_every_alert_in_order() -> None:
    table = (monitoring.MONITORING / "README.md").read_text()

    assert [rule["alert"] for rule in rules()] == re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)


def test_every_alert_links_to_a_runbook_section_with_harm_look_and_do() -> None:
    page = (ROOT / "docs/how-to/run-in-production.md").read_text()
    sections = re.findall(r"^### (\w+)\n\n(.+?)(?=\n#)", page, re.MULTILINE | re.DOTALL)
    linked = [rule["annotations"]["runbook_url"].partition("/how-to/")[2] for rule in rules()]

    assert [rule["alert"] for rule in rules()] == [name for name, _ in sections]
    assert linked == [f"run-in-production.md#{name.lower()}" for name, _ in sections]
    assert [] == [
        name
        for name, text in sections
        if not all(f"**{word}**" in text.lower() for word in ("harm", "look", "do"))
    ]


def explained_codes(text: str) -> dict[str, str]:
    """
    Return the exit codes that a text explains, each with its explanation.
    """
    return dict(re.findall(r"\b(\d+): (.+?)(?=\W+\d+: |$)", text, re.DOTALL))


def test_crash_loop_alert_and_its_runbook_explain_every_exit_code() -> None:
    table = (ROOT / "docs/reference/exit-codes.md").read_text()
    page = (ROOT / "docs/how-to/run-in-production.md").read_text()
    _, _, section = page.partition("### AirflowSidecarCrashLoops\n")
    runbook = explained_codes(section.partition("\n#")[0])
    (alert,) = (rule for rule in rules() if rule["alert"] == "AirflowSidecarCrashLoops")
    description = explained_codes(alert["annotations"]["description"])
    meanings = dict(re.findall(r"^\| (\d) \| (.+?) \|", table, re.MULTILINE))

    assert {*meanings, "137"} == runbook.keys() == description.keys()
    for code, meaning in meanings.items():
        is_special = "git-sync-wrapper" in meaning
        assert is_special == ("git-sync-wrapper" in runbook[code]), code
        assert is_special == ("git-sync-wrapper" in description[code]), code


def comments(name: str) -> str:
    lines = (monitoring.MONITORING / name).read_text().splitlines()
    return " ".join(line.strip(" #") for line in lines if line.strip().startswith("#"))


def test_header_and_readme_name_every_age_that_depends_on_the_interval() -> None:
    readme = (monitoring.MONITORING / "README.md").read_text()
    ages = [
        (rule["alert"], age)
        for rule in rules()
        for age in re.findall(r"time\(\) - .+ > (\d+)$", rule["expr"], re.MULTILINE)
    ]

    assert ages
    for alert, age in ages:
        assert f"the {age} in {alert}" in comments("prometheus-rule.yaml")
        assert f"the {age} in `{alert}`" in readme


@pytest.mark.parametrize("name", ["s3-sync.versions.yaml", "git-sync-wrapper.versions.yaml"])
def test_every_sidecar_of_a_versions_file_polls_before_it_looks_stale(name: str) -> None:
    """Task pods run it as well, and Prometheus scrapes them."""
    found = [
        str(one["value"])
        for _, component in checks.components(files.load(name))
        for container in checks.containers(component)
        for one in container["env"]
        if one["name"] in ("INTERVAL", "GITSYNC_PERIOD")
    ]

    assert len(found) > 1
    assert max(duration()(one) for one in found) <= 30


def test_annotations_and_readme_name_the_alerts_that_need_the_label_container() -> None:
    readme = (monitoring.MONITORING / "README.md").read_text()
    (hint,) = re.findall(r"^- \*\*Use annotations\*\*.*$", readme, re.MULTILINE)
    needed = {rule["alert"] for rule in rules() if "container=~" in rule["expr"]}

    assert {"AirflowSidecarCrashLoops", "AirflowSidecarDown"} == needed
    for text in (comments("pod-annotations.yaml"), hint):
        assert needed == set(re.findall(r"Airflow\w+", text))


def test_every_expression_uses_only_existing_metrics(dashboard: Values) -> None:
    shares = load("slo-rule.yaml")["spec"]["groups"][0]["rules"]
    told = [(rule.get("alert"), rule["expr"]) for rule in (*rules(), *shares)]
    named = [
        (title, monitoring.named_metrics(expr))
        for title, expr in (*told, *monitoring.queries(dashboard))
    ]

    assert all(found for _, found in named)
    assert [] == [one for one in named if one[1] - monitoring.known_metrics()]


# Objectives


def test_objective_queries_of_the_page_return_the_expected_shares(tmp_path: Path) -> None:
    skip_without_prometheus()
    page = (ROOT / "docs/how-to/run-in-production.md").read_text()
    asked = re.findall(r"^avg_over_time\(\S+\)$", page, re.MULTILINE)
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump(load("slo-rule.yaml")["spec"]))
    shutil.copy(SHARES, tmp_path)

    tests = yaml.safe_load(SHARES.read_text())["tests"]
    tried = [one["expr"] for test in tests for one in test["promql_expr_test"]]
    assert sorted(asked) == sorted(tried)
    assert "" == promtool("test", "rules", SHARES.name, folder=tmp_path)


def test_query_of_the_page_finds_reasons_that_are_new_or_increase(tmp_path: Path) -> None:
    skip_without_prometheus()
    page = (ROOT / "docs/how-to/run-in-production.md").read_text()
    (query,) = re.findall(r"^count by .*$", page, re.MULTILINE)
    histories = {"new": "_x20 1x40", "increases": "1+1x60", "old": "3x60"}
    found = [
        {"labels": f'{{namespace="airflow", sidecar="s3-sync", reason="{reason}"}}', "value": 1}
        for reason in ("new", "increases")
    ]
    test = {
        "interval": "1m",
        "input_series": [
            {
                "series": "sidecar_failures_total"
                f'{{namespace="airflow", sidecar="s3-sync", pod="a", reason="{reason}"}}',
                "values": values,
            }
            for reason, values in histories.items()
        ],
        "promql_expr_test": [
            {"expr": query, "eval_time": "25m", "exp_samples": found},
            {"expr": query, "eval_time": "45m", "exp_samples": found[1:]},
        ],
    }
    (tmp_path / "query.yaml").write_text(yaml.safe_dump({"tests": [test]}))

    assert "" == promtool("test", "rules", "query.yaml", folder=tmp_path)


def test_allowed_time_on_the_page_matches_each_objective() -> None:
    page = (ROOT / "docs/how-to/run-in-production.md").read_text()
    rows = re.findall(r"\| ([\d.]+) % \| (?:(\d+) h )?(\d+) min \|$", page, re.MULTILINE)

    assert 4 == len(rows)
    for percent, hours, minutes in rows:
        allowed = (100 - float(percent)) / 100 * 30 * 24 * 60
        assert int(hours or 0) * 60 + int(minutes) == int(allowed + 1e-6)


# The dashboard


@pytest.fixture(scope="module")
def dashboard() -> Values:
    found: Values = json.loads(DASHBOARD.read_text())
    return found


def test_dashboard_shows_every_sidecar_metric_except_the_listed_ones(dashboard: Values) -> None:
    shown = set().union(
        *(monitoring.named_metrics(expr) for _, expr in monitoring.queries(dashboard))
    )
    left_out = {
        "process_max_fds",
        "process_open_fds",
        "process_virtual_memory_bytes",
        "kerberos_ticket_lifetime_seconds",
        "sync_perm_lock_waits_total",
    }

    assert left_out == monitoring.known_metrics() - monitoring.FOREIGN_METRICS - shown


def test_dashboard_finds_the_pods_that_have_not_got_the_newest_revision(
    dashboard: Values, tmp_path: Path
) -> None:
    """A release reaches one pod, then half of them, then all but one."""
    skip_without_prometheus()
    (expr,) = (
        query
        for title, query in monitoring.queries(dashboard)
        if title == "Pods without the newest revision"
    )
    expr = expr.replace("$namespace", ".*").replace("$pod", ".*")
    labels = 'sidecar="s3-sync", namespace="airflow", pod="%s"'
    none = labels % "none"  # has published nothing, or not all files of a revision
    series = {f"sidecar_ready{{{none}}}": "0x9"}
    for pod, minute in {"a": 2, "b": 4, "c": 6, "d": 9}.items():
        mine = labels % pod
        before, after, at = minute - 1, 9 - minute, minute * 60
        series |= {
            f"sidecar_ready{{{mine}}}": "1x9",
            f"sidecar_last_publish_timestamp_seconds{{{mine}}}": f"9x{before} {at}x{after}",
            f'sidecar_published_info{{{mine}, revision="r1"}}': f"1x{before} stale",
            f'sidecar_published_info{{{mine}, revision="r2"}}': f"_x{minute} 1x{after}",
        }

    def told(lagging: str) -> list[Values]:
        info = f'{{__name__="sidecar_published_info", {labels}, revision="r1"}}'
        texts = [f"{{{none}}}", *(info % pod for pod in lagging)]
        return [{"labels": text, "value": 1} for text in texts]

    test = {
        "interval": "1m",
        "input_series": [{"series": name, "values": text} for name, text in series.items()],
        "promql_expr_test": [
            {"expr": f"({expr}) > 0", "eval_time": f"{at}m", "exp_samples": told(lagging)}
            for at, lagging in ((1, ""), (3, "bcd"), (5, "cd"), (8, "d"), (9, ""))
        ],
    }
    (tmp_path / "tests.yaml").write_text(yaml.safe_dump({"tests": [test]}))

    assert "" == promtool("test", "rules", "tests.yaml", folder=tmp_path)


def test_dashboard_queries_the_selected_data_source(dashboard: Values) -> None:
    asked = [panel["datasource"] for panel in dashboard["panels"] if panel["type"] != "row"]
    asked += [target["datasource"] for p in dashboard["panels"] for target in p.get("targets", [])]
    asked += [v["datasource"] for v in dashboard["templating"]["list"] if v["type"] == "query"]

    assert [{"type": "prometheus", "uid": "${datasource}"}] * len(asked) == asked
    assert "datasource" == dashboard["templating"]["list"][0]["type"]
    assert "__inputs" not in dashboard  # Grafana would not load it from a ConfigMap


def test_dashboard_has_a_row_for_each_sidecar_and_no_overlapping_panels(
    dashboard: Values,
) -> None:
    rows = " ".join(panel["title"] for panel in dashboard["panels"] if panel["type"] == "row")
    spots = [
        (x, y)
        for place in (panel["gridPos"] for panel in dashboard["panels"])
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    ]
    numbers = [panel["id"] for panel in dashboard["panels"]]

    for name in ("s3-sync", "git-sync-wrapper", "kerberos", "sync-perm"):
        assert name in rows
    assert len(spots) == len(set(spots))
    assert max(x for x, _ in spots) < 24
    assert len(numbers) == len(set(numbers))


def registries() -> list[CollectorRegistry]:
    """
    Return each daemon's registry, in which every metric has at least one series.
    """
    found = []
    for sidecar in DOCUMENTED:
        families = sidecar.metrics("1.2.3", "abc").families
        for family in families.values():
            if not family.series:
                family.labels(*(f"a {name}" for name in family.label_names))
        found.append(registry_of(families))
        ProcessCollector(registry=found[-1])
    return found


class Page(LoopbackServer):
    """
    A server that returns the metrics of a registry.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        super().__init__()
        self._text = generate_latest(registry)

    def good_answer(self, request: Request) -> Answer:
        # Prometheus 3 requires the content type.
        return Answer(200, {"Content-Type": CONTENT_TYPE_PLAIN_0_0_4}, self._text)


@contextmanager
def scraped_sidecars(folder: Path) -> Iterator[Prometheus]:
    """
    Run a Prometheus that has scraped every sidecar three times.
    """
    skip_without_prometheus()
    with ExitStack() as stack:
        pages = [stack.enter_context(Page(registry)) for registry in registries()]
        job = {
            "job_name": "airflow-sidecars",
            "scrape_interval": "250ms",
            "static_configs": [
                {
                    "targets": [f"127.0.0.1:{page.port}"],
                    "labels": {"namespace": "airflow", "pod": f"pod-{number}"},
                }
                for number, page in enumerate(pages)
            ],
        }
        prometheus = stack.enter_context(Prometheus(folder, {"scrape_configs": [job]}))
        wait_until(
            lambda: len(prometheus.query("count_over_time(up[1m]) >= 3")) == len(pages),
            "three scrapes of each",
        )
        yield prometheus


def test_every_panel_shows_data_when_all_sidecars_run(dashboard: Values, tmp_path: Path) -> None:
    with scraped_sidecars(tmp_path) as prometheus:
        empty = [
            f"{title}: {query}"
            for title, expr in monitoring.queries(dashboard)
            if not prometheus.query(query := _filled(expr))
        ]

    assert [] == empty


def test_the_labels_of_every_sidecar_match_those_of_its_target(tmp_path: Path) -> None:
    with scraped_sidecars(tmp_path) as prometheus:
        for metric in ("sidecar_ready", "sidecar_last_success_timestamp_seconds"):
            found = prometheus.query(f"{metric} and ignoring (sidecar) up")

            assert len(DOCUMENTED) == len(found) == len(prometheus.query(metric))


def _filled(expression: str) -> str:
    """
    Replace the dashboard's variables, and drop conditions that exclude a timestamp of zero.
    """
    filled = expression.replace("$namespace", "airflow").replace("$pod", ".*")
    return (
        filled.replace("$__rate_interval", "1m").replace(" < 1e8", "").replace(" > 0", " > -1e12")
    )
