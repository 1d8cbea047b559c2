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

import signal
import sys
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from typing import Any

from s3_sync.names import short
from s3_sync.publisher import catalog
from s3_sync.publisher.airflow_api import OTHER, UNSUPPORTED, Api
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
    pointer = catalog.read_existing(store).pointer
    assert pointer is not None
    lack = SidecarError(OTHER[0], f"{api.url} does not answer in time", OTHER[1])
    # The alarm ends every request, also one that drips or has pages without end; what
    # it raises is no Exception, which botocore would catch. At 0, it would never ring.
    signal.signal(signal.SIGALRM, signal.default_int_handler)
    signal.setitimer(signal.ITIMER_REAL, max(timeout_seconds, 1))
    try:
        for found in _looks(store, api, pointer):
            if isinstance(found, Report):
                return found
            if found.message != lack.message:
                write(sys.stderr, f"{found.message}\n")
            lack = found
    except KeyboardInterrupt:
        pass
    except (KeyError, TypeError, ValueError) as error:
        what = f"{api.url} does not answer as Airflow 3.1 or later: {error!r}"
        raise SidecarError(UNSUPPORTED[0], what, UNSUPPORTED[1]) from error
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    raise lack


def _looks(store: Store, api: Api, pointer: Pointer) -> Iterator[Report | NotLive]:
    """
    Look at each DAG of the bundle, and then at its import errors, again and again;
    yield what is lacking, or the answer if nothing is.
    """
    api.log_in()
    since = _time(pointer.turn.since)
    history = {turn.revision for turn in pointer.turns()}
    bundles: set[str] = set()  # known by the releases that they have shown
    arrived: datetime | None = None
    earlier: set[tuple[str, str]] | None = None
    while True:
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
            earlier = {key for key, at in errors.items() if _time(at) < since}
        broken = sorted(errors.keys() - earlier)
        name = short(pointer.revision)
        if broken:
            error = ImportErrors(
                "import_errors",
                f"Airflow cannot import {counted(len(broken), 'file')} of {name}",
                "Fix them and publish again, or roll back. `--gate airflow` refuses them before.",
            )
            error.findings = [broken_file(*key) for key in broken[:NAMED]]
            raise error
        if arrived and not behind:
            dags = [row["dag_id"] for row in rows]
            yield Report(
                [f"Live: Airflow runs {name} in {counted(len(dags), 'DAG')}"],
                {"result": "live", "revision": pointer.revision, "dags": dags},
            )
        now = catalog.read_existing(store)
        if now.names["current"] != pointer.revision:
            raise S3Error("publish_conflict", f"not live in time: meanwhile {now.news}")
        lack = NotLive(
            "release_not_live",
            f"Airflow runs {name} in {len(rows) - len(behind)} of {counted(len(rows), 'DAG')}",
            _advice(rows, since, is_there=arrived is not None),
        )
        lack.findings = [
            Finding(
                row["relative_fileloc"],
                None,
                f"{row['dag_id']} was read {_lack_of(row, pointer, arrived)}",
            )
            for row in behind[:NAMED]
        ]
        yield lack


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


def _advice(rows: Sequence[Row], since: datetime, *, is_there: bool) -> str:
    """
    Return what to do, according to where the release is stuck.

    Args:
        is_there: Whether a DAG has shown it.
    """
    if not rows:
        return (
            "No bundle of Airflow shows these releases. Waiting needs DAG versions, of a "
            "SidecarDagBundle."
        )
    if max(map(_ended, rows)) <= since:
        return "Airflow has read nothing since: see whether its dag-processor runs."
    if not is_there:
        return (
            "Airflow reads, but not this release: see `/readyz` of the s3-sync beside its "
            "dag-processor, and the bundle's refresh_interval."
        )
    return "Wait longer (--timeout), or find out why Airflow reads files so late."


def _ended(row: Row) -> datetime:
    """
    Return when the result of a DAG's last parse was stored, by Airflow's clock.
    """
    return _time(row["last_parsed_time"] or "1970-01-01T00:00:00Z")


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text)
