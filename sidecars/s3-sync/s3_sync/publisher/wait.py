"""
``s3-sync wait``: waits until Airflow runs what was deployed, or says what is lacking.

With `airflow-bundle`, Airflow shows the id of the release as the version of each DAG;
without it, the source of each file. Neither is a proof: Airflow stores the version and
the source of *now* with a file whose parse began before, and leaves a DAG that it has
written in the last 30 s as it is (3.3.2). So a DAG counts only if it was read again: by
a parse that began after everything had arrived, and that ended 30 s after that. A
refresh puts new files first in the queue, so by then they have been read, too, except
one that takes longer than others.
"""

from __future__ import annotations

import re
import signal
import sys
from collections.abc import Iterable, Iterator, Sequence, Set
from contextlib import contextmanager, suppress
from datetime import datetime
from math import inf
from typing import Any
from urllib.parse import quote

from s3_sync.names import short
from s3_sync.publisher import catalog, folder
from s3_sync.publisher.airflow_api import OTHER, UNSUPPORTED, Api
from s3_sync.publisher.gate import NAMED, broken_file
from s3_sync.publisher.releases import Report, write
from s3_sync.publisher.store import Store
from s3_sync.reasons import S3Error
from sidecar_runtime.errors import SidecarError
from sidecar_runtime.gate.gate import Finding

# The default of [core] min_serialized_dag_update_interval.
UNWRITTEN_SECONDS = 30
# A line that makes a DAG when the file is read; not one in a function, which other
# files may call.
MAKES_DAG = re.compile(r"^(with |\w+ *= *|@)?(\w+\.)*(DAG\(|(?<=@)dag\b)", re.MULTILINE)
# A DAG as the API shows it.
Row = dict[str, Any]
# An import error: the file and its traceback.
Broken = tuple[str, str]


class NotLive(SidecarError):
    """
    Airflow does not run what is deployed.

    Attributes:
        findings: Which files, and why: the first ones.
    """

    findings: Sequence[Finding] = ()


class Release:
    """
    The current release of a prefix.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self.name = catalog.read_existing(store).names["current"]

    def lacks(self, rows: Sequence[Row]) -> list[Finding]:
        """
        Return why it has not arrived; nothing if a DAG shows it: it arrives at once.

        Raises:
            S3Error: Meanwhile, another release was made current.
        """
        now = catalog.read_existing(self._store)
        if now.names["current"] != self.name:
            raise S3Error("publish_conflict", f"not live in time: meanwhile {now.news}")
        if self.name in (row["bundle_version"] for row in rows):
            return []
        return [Finding("", None, "no DAG of the bundle has it as its version")]


class Folder:
    """
    A folder, of which the bundle in Airflow should be a copy.
    """

    def __init__(self, path: str, api: Api) -> None:
        self.name = path
        self._api = api
        self._sources = {
            file.path: folder.read(file).data.decode("utf-8", "replace")
            for file in folder.look(path, ())[0]
            if file.path.endswith(".py")
        }
        # Files whose source has arrived.
        self._same: set[str] = set()

    def lacks(self, rows: Sequence[Row]) -> list[Finding]:
        """
        Return which files have not arrived, or are still there: each one that has a DAG
        here or in Airflow must be the same. Archives are not compared.
        """
        dags = {row["relative_fileloc"]: row["dag_id"] for row in rows}
        lacks = []
        for path in sorted((dags.keys() | self._sources.keys()) - self._same):
            ours = self._sources.get(path, "")
            if path not in dags:
                is_same = not MAKES_DAG.search(ours)
            else:
                there = f"/api/v2/dagSources/{quote(dags[path])}"
                theirs = self._api.ask(there, "can read on DAG Code")["content"]
                is_same = theirs.splitlines() == ours.splitlines()
            if is_same or ".zip/" in f"{path}/":
                self._same.add(path)
            else:
                lacks.append(Finding(path, None, "is not in Airflow as it is here"))
        if not (lacks or rows):
            lacks.append(Finding("", None, "the bundle has no DAG"))
        return lacks


def errors_before(api: Api) -> Set[Broken]:
    """
    Return the import errors of a bundle before a release, which are not its own; none
    if Airflow does not say it soon, so that it cannot hold up a release.
    """
    with suppress(SidecarError), _at_most(10, api):
        api.log_in()
        return _errors(api)
    return set()


def wait(
    wanted: Release | Folder,
    api: Api,
    timeout_seconds: float,
    before: Set[Broken] = frozenset(),
) -> Report:
    """
    Wait until Airflow runs what was deployed; each change is a line on standard error.

    Args:
        before: Import errors that do not count.

    Raises:
        NotLive: Airflow cannot import a file, or the time is over.
        SidecarError: Airflow or the store gives no usable answer, or another release
            was made current meanwhile.
    """
    lack = SidecarError(OTHER[0], f"{api.url} does not answer in time", OTHER[1])
    doubted = None
    has_arrived = False
    arrived = inf
    with _at_most(timeout_seconds, api):
        api.log_in()
        while True:
            rows = api.rows("dags?order_by=dag_id&", "dags", "can read on DAGs")
            # What a look has shown may be of a parse during it.
            if has_arrived:
                arrived = min(arrived, max(map(_ended, rows), default=inf))
            lacks = wanted.lacks(rows)
            has_arrived = not lacks
            if lacks:  # also one that had arrived, if another one came since
                arrived = inf
            lacks = lacks or [
                Finding(
                    row["relative_fileloc"],
                    None,
                    f"was read at {row['last_parsed_time']}, perhaps before it arrived",
                )
                for row in rows
                # since when all that it has read must have been there
                if _ended(row) - max(row["last_parse_duration"] or 0, UNWRITTEN_SECONDS)
                < arrived
            ]
            errors = _errors(api) - before
            if doubted is None:  # perhaps of files that are replaced now
                doubted = errors
            error = _lack_of(short(wanted.name), lacks, errors)
            if errors - doubted or (errors and not lacks):
                raise error
            if not lacks:
                dags = [row["dag_id"] for row in rows]
                facts = {"result": "live", "deployed": wanted.name, "dags": dags}
                return Report(
                    [f"Live: Airflow runs {short(wanted.name)}, DAGs: {len(dags)}"],
                    {"airflow": facts},
                )
            if error.message != lack.message:
                write(sys.stderr, f"{error.message}\n")
            lack = error
    raise lack


@contextmanager
def _at_most(seconds: float, api: Api) -> Iterator[None]:
    """
    End what takes longer: every request, also one that drips or has pages without end.

    Raises:
        SidecarError: Airflow does not answer as expected.
    """
    # It raises no Exception, which botocore would catch. At 0, it would never ring.
    signal.signal(signal.SIGALRM, signal.default_int_handler)
    signal.setitimer(signal.ITIMER_REAL, max(seconds, 1))
    try:
        with suppress(KeyboardInterrupt):
            yield
    except (KeyError, TypeError, ValueError) as error:
        raise SidecarError(
            UNSUPPORTED[0],
            f"{api.url} does not answer as Airflow 3.1 or later: {error!r}",
            UNSUPPORTED[1],
        ) from error
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def _errors(api: Api) -> Set[Broken]:
    """
    Return the import errors of a bundle.
    """
    rows = api.rows("importErrors?", "import_errors", "can read on ImportError")
    return {(row["filename"], row["stack_trace"]) for row in rows}


def _lack_of(name: str, lacks: Sequence[Finding], errors: Iterable[Broken]) -> NotLive:
    """
    Return why Airflow does not run what was deployed.
    """
    broken = [broken_file(*one) for one in sorted(errors)]
    error = NotLive(
        "release_not_live",
        f"Airflow does not run {name} yet; behind: {len(lacks)}",
        "Wait longer (--timeout). Or see whether Airflow's dag-processor runs, `/readyz` of the "
        "s3-sync beside it, and the bundle: its name (--bundle) and refresh_interval; for a "
        "release, whether it is a SidecarDagBundle.",
    )
    if broken:
        error = NotLive(
            "import_errors",
            f"Airflow cannot import files of {name}: {len(broken)}",
            "Fix them and deploy again, or roll back. `--gate airflow` refuses them before.",
        )
        error.exit_code = 4
    error.findings = [*broken, *lacks][:NAMED]
    return error


def _ended(row: Row) -> float:
    """
    Return when the result of a DAG's last parse was stored, by Airflow's clock.
    """
    text = row["last_parsed_time"] or "1970-01-01T00:00:00Z"
    return datetime.fromisoformat(text).timestamp()
