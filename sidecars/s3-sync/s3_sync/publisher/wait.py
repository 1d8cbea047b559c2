"""
``s3-sync wait``: waits until Airflow runs the current release, or says what is lacking.

With `airflow-bundle`, Airflow shows the id of the release as the version of each DAG.
That alone is no proof: it stores the version of *now* with a file whose parse began
before the release arrived (3.3.2). So a DAG counts only if its parse began after
another one, which had the release, has ended. A refresh puts new files first in the
queue, so by then they have been read, too, except one that takes longer than others.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Any

from s3_sync.names import short
from s3_sync.publisher import catalog
from s3_sync.publisher.airflow_api import UNSUPPORTED, Api
from s3_sync.publisher.airflow_runner import FRAME
from s3_sync.publisher.gate import NAMED
from s3_sync.publisher.releases import Report
from s3_sync.publisher.store import Store
from s3_sync.reasons import S3Error
from s3_sync.release.format import Pointer
from sidecar_runtime.errors import SidecarError, counted
from sidecar_runtime.gate.gate import Finding

EXIT_IMPORT_ERRORS = 4
OLDEST = "1970-01-01T00:00:00Z"


class NotLive(SidecarError):
    """
    Airflow does not run the release, which is current all the same.

    Args:
        findings: Which files, and why.
    """

    def __init__(
        self, reason: str, message: str, advice: str, findings: Sequence[Finding]
    ) -> None:
        super().__init__(reason, message, advice)
        self.findings = findings[:NAMED]


class ImportErrors(NotLive):
    """
    Airflow cannot import files of the release.
    """

    exit_code = EXIT_IMPORT_ERRORS


class Watch:
    """
    What Airflow has shown of the current release.

    Attributes:
        rows: All DAGs of its bundle, as the API shows them.
        behind: By id, each DAG that does not count yet, and why.
    """

    def __init__(self, api: Api, pointer: Pointer) -> None:
        self.rows: list[dict[str, Any]] = []
        self.behind: dict[str, Finding] = {}
        self._api = api
        self._pointer = pointer
        # The bundle is known by the releases that it has shown.
        self._bundles: set[str] = set()
        self._arrived: datetime | None = None
        self._earlier: set[tuple[str, str]] | None = None
        self._may_ask = True

    def look(self) -> bool:
        """
        Look at each DAG of the bundle, and then at its import errors; return whether
        the release is live.

        Raises:
            ImportErrors: Airflow has import errors that it did not have before.
        """
        rows = self._api.rows("dags?order_by=dag_id&", "dags", "can read on DAGs")
        history = {turn.revision for turn in self._pointer.turns()}
        self._bundles |= {
            row["bundle_name"] for row in rows if row["bundle_version"] in history
        }
        self.rows = [row for row in rows if row["bundle_name"] in self._bundles]
        if self._arrived is None:
            shown = [row for row in self.rows if self._is_of_release(row)]
            self._arrived = min(map(_ended, shown), default=None)
        self.behind = {}
        for row in self.rows:
            if why := self._lack_of(row):
                said = f"{row['dag_id']} was read {why}"
                self.behind[row["dag_id"]] = Finding(
                    row["relative_fileloc"], None, said
                )
        self._judge_errors()
        return self._arrived is not None and not self.behind

    def _is_of_release(self, row: dict[str, Any]) -> bool:
        return bool(row["bundle_version"] == self._pointer.revision)

    def _lack_of(self, row: dict[str, Any]) -> str:
        """
        Return why a DAG does not count; empty if it does.
        """
        ended = _ended(row)
        if not self._is_of_release(row):
            return f"from {short(row['bundle_version'] or 'no version')} at {ended:%H:%M:%S}"
        began = ended - timedelta(seconds=row["last_parse_duration"] or 0)
        if self._arrived is None or began < self._arrived:
            return "perhaps before the release arrived"
        return ""

    def _judge_errors(self) -> None:
        name, right = "import_errors", "can read on ImportError"
        found = {
            (row["filename"], row["stack_trace"]): _time(row["timestamp"])
            for row in self._api.rows("importErrors?", name, right)
            if row["bundle_name"] in self._bundles
        }
        if self._earlier is None:
            since = _time(self._pointer.turn.since)
            self._earlier = {key for key, at in found.items() if at < since}
        if broken := sorted(found.keys() - self._earlier):
            files = counted(len(broken), "file")
            raise ImportErrors(
                "import_errors",
                f"Airflow cannot import {files} of {short(self._pointer.revision)}",
                "Fix them and publish again, or roll back. `--gate airflow` refuses them before.",
                [_finding(*key) for key in broken],
            )

    def ask_to_parse(self, number: int) -> None:
        """
        Ask Airflow to refresh the bundle and to read one file that is behind now. It
        would do so by itself, only later, so this may be forbidden.
        """
        tokens = [
            row["file_token"] for row in self.rows if row["dag_id"] in self.behind
        ]
        if tokens and self._may_ask:
            token = tokens[number % len(tokens)]
            try:
                self._api.ask("PUT", f"/api/v2/parseDagFile/{token}")
            except SidecarError:
                self._may_ask = False

    def not_live(self) -> NotLive:
        """
        Return what is lacking when the time is over: where it is stuck.
        """
        since = _time(self._pointer.turn.since)
        last = max(map(_ended, self.rows), default=since)
        advice = "Wait longer (--timeout), or find out why Airflow reads files so late."
        if not self._bundles:
            advice = (
                "No bundle of Airflow shows these releases: is it a SidecarDagBundle?"
            )
        elif last <= since:
            advice = (
                "Airflow has read nothing since: see whether its dag-processor runs."
            )
        elif self._arrived is None:
            advice = (
                "Airflow reads, but not this release: see `/readyz` of the s3-sync beside its "
                "dag-processor, and the bundle's refresh_interval."
            )
        return NotLive(
            "release_not_live",
            f"Airflow does not run {short(self._pointer.revision)}, current since "
            f"{since:%H:%M:%S}; it last read a file at {last:%H:%M:%S}",
            advice,
            [*self.behind.values()],
        )


def _ended(row: dict[str, Any]) -> datetime:
    """
    Return when the result of a DAG's last parse was stored, by Airflow's clock.
    """
    return _time(row["last_parsed_time"] or OLDEST)


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text)


def _finding(path: str, stack: str) -> Finding:
    """
    Return an import error with the last line of its file in the traceback.
    """
    frames = filter(None, map(FRAME.match, stack.splitlines()))
    lines = [one["line"] for one in frames if one["path"].endswith(f"/{path}")]
    return Finding(path, int(lines[-1]) if lines else None, stack.strip())


def wait(
    store: Store, api: Api, timeout_seconds: float, say: Callable[[str], object]
) -> Report:
    """
    Wait until Airflow runs the current release.

    Args:
        say: Is told each change, in one line.

    Raises:
        NotLive: Airflow cannot import a file, or the time is over.
        SidecarError: Airflow or the store gives no usable answer, or another release
            was made current meanwhile.
    """
    began = time.monotonic()
    deadline = began + timeout_seconds
    current = catalog.read_existing(store)
    assert current.pointer is not None
    revision = current.pointer.revision
    api.begin(deadline)
    watch = Watch(api, current.pointer)
    looks = 0
    said = ""
    try:
        while not watch.look():
            count = len(watch.rows) - len(watch.behind)
            progress = (
                f"Airflow runs {short(revision)} in {count} of {len(watch.rows)} DAGs"
            )
            if progress != said:
                say(progress)
                said = progress
            if time.monotonic() > deadline:
                raise watch.not_live()
            now = catalog.read_existing(store)
            if now.names["current"] != revision:
                raise S3Error(
                    "publish_conflict", f"not live in time: meanwhile {now.news}"
                )
            watch.ask_to_parse(looks)
            looks += 1
    except (KeyError, TypeError, ValueError) as error:
        what = f"{api.url} does not answer as Airflow 3.1 or later: {error!r}"
        reason, advice = UNSUPPORTED
        raise SidecarError(reason, what, advice) from error
    facts = {
        "result": "live",
        "url": store.url,
        "revision": revision,
        "airflow": api.url,
        "dags": [row["dag_id"] for row in watch.rows],
        "waited_seconds": round(time.monotonic() - began),
    }
    what = f"Live: Airflow runs {short(revision)} in {counted(len(watch.rows), 'DAG')}"
    return Report([what], facts)
