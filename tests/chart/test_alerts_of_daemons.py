"""
Which alerts fire on the metrics of a real s3-sync: for each fault the one that names
it, and none once it is over.

What is scraped while a state lasts stands for 20 minutes of it.
"""

from collections import defaultdict
from pathlib import Path

import yaml

from tests import Deed
from tests.chart.test_monitoring import needs_promtool, promtool, rules
from tests.support.aws.fake_s3 import FakeS3, error, is_get, is_list
from tests.support.daemon import Daemon
from tests.support.s3_sync.scripted import FILES, daemon_for
from tests.support.s3_sync.snapshots import SNAPSHOT
from tests.support.waiting import wait_until

MINUTES = 20
MANY = {f"{number:02}.py": b"" for number in range(30)}
COUNT = 'sidecar_cycle_duration_seconds_count{sidecar="s3-sync"}'
LABELS = 'namespace="airflow",pod="worker-0"}'


def note(samples: dict[str, list[object]], daemon: Daemon) -> int:
    """
    Add the state that the daemon is in; return its last minute.

    A time that changes from one cycle to the next follows the clock.
    """
    before = daemon.metrics()
    wait_until(lambda: daemon.metrics()[COUNT] > before[COUNT] + 1, "two cycles")
    now = {name: value for name, value in daemon.metrics().items() if "{" in name}
    first = len(samples[COUNT])
    for name in {*samples, *now}:
        told = samples[name] or ["_"] * first
        state: list[object] = [now.get(name, "stale")] * MINUTES
        if "_timestamp_seconds" in name and name in now:
            step = 60 * (now[name] != before.get(name))
            state = [60 * first + step * minute for minute in range(MINUTES)]
        samples[name] = told + state
    return first + MINUTES - 1


@needs_promtool
def test_each_fault_fires_its_own_alert_until_it_is_over(tmp_path: Path) -> None:
    s3 = FakeS3()
    denied = error(403, "AccessDenied"), is_get("dags/new.py")
    faults: list[tuple[str, str, Deed, Deed]] = [
        (
            "AirflowSidecarGateRefuses",
            "revision_refused",
            lambda: s3.put("dags/a.py", b"("),
            lambda: s3.put("dags/a.py", b"()"),
        ),
        (
            "AirflowDeletionHeld",
            "deletion_held",
            lambda: s3.delete(*(f"dags/{name}" for name in MANY)),
            lambda: s3.put_all(MANY, "dags/"),
        ),
        (
            "AirflowObjectsUnread",
            "access_denied_get",
            lambda: (s3.inject(*denied), s3.put("dags/new.py", b"1")),
            s3.heal,
        ),
        (
            "AirflowSidecarStale",
            "server_error",
            lambda: s3.inject(error(500, "InternalError"), is_list),
            s3.heal,
        ),
    ]
    samples = defaultdict[str, list[object]](list)
    asked: list[list[object]] = []
    with s3:
        s3.put_all(FILES | MANY, "dags/")
        daemon = daemon_for(
            s3,
            tmp_path / "dags",
            interval="0.1",
            settings={**SNAPSHOT, "S3_SYNC_GATE": "syntax"},
        )
        with daemon:
            daemon.wait_until_synced()
            for alert, reason, fail, repair in faults:
                fail()
                daemon.wait_for(lambda: daemon.reason() == reason, reason)  # noqa: B023
                asked.append([note(samples, daemon), f'{{alertname="{alert}"}}'])
                repair()
                daemon.wait_for(lambda: not daemon.reason(), "it is over")
                asked.append([note(samples, daemon)])
    samples["up{sidecar='s3-sync'}"] = [1] * len(samples[COUNT])
    test = {
        "interval": "1m",
        "input_series": [
            {
                "series": name.replace("}", f",{LABELS}"),
                "values": " ".join(map(str, told)),
            }
            for name, told in samples.items()
        ],
        "promql_expr_test": [
            {
                "expr": 'group by (alertname) (ALERTS{alertstate="firing"})',
                "eval_time": f"{minute}m",
                "exp_samples": [{"labels": labels, "value": 1} for labels in fired],
            }
            for minute, *fired in asked
        ],
    }
    file = {"rule_files": ["rules.yaml"], "evaluation_interval": "1m", "tests": [test]}

    assert "" == promtool(tmp_path, rules(), yaml.safe_dump(file))
