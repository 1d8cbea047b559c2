"""
``s3-sync wait``: waits until Airflow runs the current release, or says what is lacking.

With `airflow-bundle`, Airflow shows the id of the release as the version of each DAG.
That alone is no proof: it stores the version of *now* with a file whose parse began
before the release arrived, and with a DAG that it has written less than 30 s before,
which it leaves as it is (3.3.2). So a DAG counts only if its parse began after another
one, which had the release, has ended, and ended 30 s after that. A refresh puts new
files first in the queue, so by then they have been read, too, except one that takes
longer than others.
"""

from __future__ import annotations

import itertools
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Any

from s3_sync.names import short
from s3_sync.publisher import catalog
from s3_sync.publisher.airflow_api import UNSUPPORTED, Api
from s3_sync.publisher.gate import NAMED, broken_file
from s3_sync.publisher.releases import Report, write
from s3_sync.publisher.store import Store
from s3_sync.reasons import S3Error
from s3_sync.release.format import Pointer
from sidecar_runtime.errors import SidecarError, counted
from sidecar_runtime.gate.gate import Finding

# The default of [core] min_serialized_dag_update_interval.
UNWRITTEN = timedelta(seconds=30)
# A DAG or an error, as the API shows it.
Row = dict[str, Any]


class NotLive(SidecarError):
    """
    Airflow does not run the release, which is current all the same.

    Attributes:
        findings: Which files, and why: the first ones.
    """

    findings: Sequence[Finding] = ()


class ImportErrors(NotLive):
    """
    Airflow cannot import files of the release.
    """

    exit_code = 4


def wait(store: Store, api: Api, timeout_seconds: float) -> Report:
    """
    Wait until Airflow runs the current release; each change is a line on standard
    error.

    Raises:
        NotLive: Airflow cannot import a file, or the time is over.
        SidecarError: Airflow or the store gives no usable answer, or another release
            was made current meanwhile.
    """
    deadline = time.monotonic() + timeout_seconds
    pointer = catalog.read_existing(store).pointer
    assert pointer is not None
    try:
        dags = _watch(store, api, pointer, deadline)
    except (KeyError, TypeError, ValueError) as error:
        what = f"{api.url} does not answer as Airflow 3.1 or later: {error!r}"
        raise SidecarError(UNSUPPORTED[0], what, UNSUPPORTED[1]) from error
    return Report(
        [
            f"Live: Airflow runs {short(pointer.revision)} in {counted(len(dags), 'DAG')}"
        ],
        {"result": "live", "revision": pointer.revision, "dags": dags},
    )


def _watch(store: Store, api: Api, pointer: Pointer, deadline: float) -> list[str]:
    """
    Look at each DAG of the bundle, and then at its import errors, until the release is
    live; return the ids of the DAGs.
    """
    api.begin(deadline)
    history = {turn.revision for turn in pointer.turns()}
    bundles: set[str] = set()  # known by the releases that they have shown
    arrived: datetime | None = None
    earlier: set[tuple[str, str]] | None = None
    said = ""
    for number in itertools.count():
        rows = api.rows("dags?order_by=dag_id&", "dags", "can read on DAGs")
        bundles |= {
            row["bundle_name"] for row in rows if row["bundle_version"] in history
        }
        rows = [row for row in rows if row["bundle_name"] in bundles]
        shown = [row for row in rows if row["bundle_version"] == pointer.revision]
        arrived = arrived or min(map(_ended, shown), default=None)
        behind = [row for row in rows if _lack_of(row, pointer, arrived)]
        errors = {
            (row["filename"], row["stack_trace"]): row["timestamp"]
            for row in api.rows(
                "importErrors?", "import_errors", "can read on ImportError"
            )
            if row["bundle_name"] in bundles
        }
        if earlier is None:
            since = _time(pointer.turn.since)
            earlier = {key for key, at in errors.items() if _time(at) < since}
        broken = sorted(errors.keys() - earlier)
        if broken:
            error = ImportErrors(
                "import_errors",
                f"Airflow cannot import {counted(len(broken), 'file')} of "
                f"{short(pointer.revision)}",
                "Fix them and publish again, or roll back. `--gate airflow` refuses them before.",
            )
            error.findings = [broken_file(*key) for key in broken[:NAMED]]
            raise error
        if arrived and not behind:
            break
        count = len(rows) - len(behind)
        runs = f"Airflow runs {short(pointer.revision)} in {count} of {len(rows)} DAGs"
        if runs != said:
            write(sys.stderr, f"{runs}\n")
            said = runs
        if time.monotonic() > deadline:
            raise _not_live(pointer, rows, behind, arrived)
        now = catalog.read_existing(store)
        if now.names["current"] != pointer.revision:
            raise S3Error("publish_conflict", f"not live in time: meanwhile {now.news}")
        if behind:  # it would be read without being asked for, only later
            token = behind[number % len(behind)]["file_token"]
            with suppress(SidecarError):  # this may be forbidden
                api.ask("PUT", f"/api/v2/parseDagFile/{token}")
    return [row["dag_id"] for row in rows]


def _lack_of(row: Row, pointer: Pointer, arrived: datetime | None) -> str:
    """
    Return why a DAG does not count; empty if it does.
    """
    version = row["bundle_version"]
    ended = _ended(row)
    if version != pointer.revision:
        return f"from {short(version or 'no version')} at {ended:%H:%M:%S}"
    began = ended - timedelta(seconds=row["last_parse_duration"] or 0)
    if arrived is None or began < arrived or ended < arrived + UNWRITTEN:
        return "perhaps before the release arrived"
    return ""


def _not_live(
    pointer: Pointer,
    rows: Sequence[Row],
    behind: Sequence[Row],
    arrived: datetime | None,
) -> NotLive:
    """
    Return what is lacking when the time is over: where it is stuck.
    """
    since = _time(pointer.turn.since)
    last = max(map(_ended, rows), default=since)
    advice = "Wait longer (--timeout), or find out why Airflow reads files so late."
    if not rows:
        advice = (
            "No bundle of Airflow shows these releases. Waiting needs DAG versions, of a "
            "SidecarDagBundle."
        )
    elif last <= since:
        advice = "Airflow has read nothing since: see whether its dag-processor runs."
    elif arrived is None:
        advice = (
            "Airflow reads, but not this release: see `/readyz` of the s3-sync beside its "
            "dag-processor, and the bundle's refresh_interval."
        )
    error = NotLive(
        "release_not_live",
        f"Airflow does not run {short(pointer.revision)}, current since "
        f"{since:%H:%M:%S}; it last read a file at {last:%H:%M:%S}",
        advice,
    )
    error.findings = [
        Finding(
            row["relative_fileloc"],
            None,
            f"{row['dag_id']} was read {_lack_of(row, pointer, arrived)}",
        )
        for row in behind[:NAMED]
    ]
    return error


def _ended(row: Row) -> datetime:
    """
    Return when the result of a DAG's last parse was stored, by Airflow's clock.
    """
    return _time(row["last_parsed_time"] or "1970-01-01T00:00:00Z")


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text)
