"""
``s3-sync wait``: waits until Airflow runs what was deployed, or says what is lacking.

With `airflow-bundle`, Airflow shows the id of the release as the version of each DAG;
without it, the source of each file. Neither is a proof: Airflow stores the version and
the source of *now* with a file whose parse began before, and leaves a DAG that it has
written in the last 30 s as it is (3.3.2). So a DAG counts only if it was read again: by
a parse that began after everything had arrived, and that ended 30 s after that. A
refresh puts new files first in the queue, so by then they have been read, too, except
one that takes longer than others.

An import error counts if it is not from before, or its file has changed. It may be of a
file as it was before: so its file, too, must have been read again; unless no DAG is left
that could show what has arrived.
"""

from __future__ import annotations

import re
import signal
from collections.abc import Iterable, Iterator, Sequence, Set
from contextlib import contextmanager, suppress
from datetime import datetime
from math import inf
from pathlib import Path

from s3_sync.names import short
from s3_sync.publisher import folder
from s3_sync.publisher.airflow_api import OTHER, UNSUPPORTED, Api, Row
from s3_sync.publisher.bucket import Boto3Store
from s3_sync.publisher.catalog import read_existing
from s3_sync.publisher.gate import NAMED, broken_file
from s3_sync.publisher.releases import Report, show
from s3_sync.reasons import S3Error
from sidecar_runtime.errors import SidecarError
from sidecar_runtime.gate.gate import Finding

# The default of [core] min_serialized_dag_update_interval.
UNWRITTEN_SECONDS = 30
# A line that always makes a DAG when the file is read; not one in a function, which
# other files may call.
MAKES_DAG = re.compile(
    r"^(@(\w+\.)*dag\b|(with |\w+ *(:[^=\n]+)?= *)?(\w+\.)*DAG\()", re.MULTILINE
)
# What differs in the same error after a restart, or in another folder: paths, numbers.
# Only whole words: else a long one would be searched from each of its characters.
VARIES = re.compile(r"(?<![^\s'\"])[^\s'\"/\d]*[/\d][^\s'\"]*")
# An import error, whenever and wherever it occurs: the file, and what it says.
Fault = tuple[str, str]


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

    Args:
        name: Its revision, if it is known.
        dags: New files, which must have a DAG.
    """

    unproven = ()  # each DAG shows it

    def __init__(self, store: Boto3Store, name: str | None, dags: Set[str]) -> None:
        self._store = store
        self._dags = dags
        self.name = name or read_existing(store).names["current"]

    def compare(
        self, rows: Sequence[Row], broken: Set[str], lacks: list[Finding]
    ) -> None:
        """
        Add which files with a DAG do not show it.

        Args:
            broken: Files that cannot have a DAG, because of an import error.
            lacks: Receives what is lacking. The time may be up while the store is asked:
                that it does not answer is its last one then.

        Raises:
            S3Error: Meanwhile, another release was made current.
        """
        versions = dict.fromkeys(self._dags)
        versions |= {row["relative_fileloc"]: row["bundle_version"] for row in rows}
        lacks += [
            Finding(path, None, "is not in Airflow as released")
            for path, version in versions.items()
            if version != self.name and path not in broken
        ]
        lacks.append(Finding("", None, f"{self._store.url} does not answer"))
        try:
            now = read_existing(self._store)
        except S3Error as error:
            if error.permission:
                raise
            lacks[-1] = Finding("", None, error.message)
        else:
            lacks.pop()
            if now.names["current"] != self.name:
                raise S3Error(
                    "publish_conflict", f"not live in time: meanwhile {now.news}"
                )


class Folder:
    """
    A folder, of which the bundle in Airflow should be a copy.

    Attributes:
        unproven: Files that may differ in Airflow: no DAG there shows them, or they are
            archives, or ignored here.
    """

    def __init__(self, path: str, api: Api, exclude: Iterable[str] = ()) -> None:
        self.name = path
        self._api = api
        rules = Path(path, ".airflowignore")
        ignored = rules.read_text(errors="replace") if rules.is_file() else ""
        ignored = re.sub(r"\s*#.*", "", ignored)  # as Airflow does, also behind a rule
        files, left = folder.look(path, [*ignored.splitlines(), *exclude])
        self._sources = {
            file.path: folder.read(file).data.decode("utf-8", "replace")
            for file in files
            if file.path.endswith(".py")
        }
        self._left_out = tuple(left)
        # Files whose source has arrived.
        self._same: set[str] = set()

    def dags(self) -> set[str]:
        """
        Return the files that must have a DAG.
        """
        return {path for path, text in self._sources.items() if MAKES_DAG.search(text)}

    def compare(
        self, rows: Sequence[Row], broken: Set[str], lacks: list[Finding]
    ) -> None:
        """
        Add which files have not arrived, or are still there: those with a DAG in
        Airflow, and those that must have one.

        Args:
            lacks: Has at first all of them, and loses each that Airflow shows: at one
                request a second, this may outlast the timeout.
        """
        dags = {row["relative_fileloc"]: row["dag_id"] for row in rows}
        must_show = {*dags, *(self.dags() - broken)}
        must_show -= {
            path
            for path in dags
            if path.startswith(self._left_out) or ".zip/" in f"{path}/"
        }
        self.unproven = sorted({*dags, *self._sources} - must_show)
        lacks += [
            Finding(path, None, "is not in Airflow as it is here")
            for path in sorted(must_show - self._same)
        ]
        for lack in [one for one in lacks if one.path in dags]:
            ours = self._sources.get(lack.path, "").splitlines()
            if self._api.source(dags[lack.path]) == ours:
                self._same.add(lack.path)
                lacks.remove(lack)


def errors_before(api: Api) -> Set[Fault] | None:
    """
    Return the import errors of a bundle before a release, which are not its own; None
    if Airflow does not say it soon, so that it cannot hold up a release.
    """
    with suppress(SidecarError), _at_most(30, api):
        api.log_in()
        return _errors(api).keys()
    return None


def wait(
    wanted: Release | Folder,
    api: Api,
    timeout_seconds: float,
    before: Set[Fault] | None = frozenset(),
    changed: Set[str] = frozenset(),
) -> Report:
    """
    Wait until Airflow runs what was deployed, and show what it waits for.

    Args:
        before: Import errors that do not count; None: those that are there until it
            arrives.
        changed: Files whose import errors always count.

    Raises:
        NotLive: Airflow cannot import a file, or the time is over.
        SidecarError: Airflow or the store gives no usable answer, or another release
            was made current meanwhile.
    """
    name = short(wanted.name)
    first = None
    # Those that count, of the last complete look.
    errors: dict[Fault, Row] = {}
    is_broken = False
    has_arrived = False
    arrived = inf
    with _at_most(timeout_seconds, api):
        api.log_in()
        while True:
            rows = api.rows("dags?order_by=dag_id&", "dags", "can read on DAGs")
            found = _errors(api)
            lacks: list[Finding] = []
            if first is None:
                first = found
            # What a look has shown may be of a parse during it. Also what had arrived
            # arrives again, if another one came since.
            arrived = (
                min(arrived, max(map(_ended, rows), default=inf))
                if has_arrived
                else inf
            )
            # also those that are there at first, once they are read again
            broken = {
                fault[0] for fault, row in found.items() if row != first.get(fault)
            }
            wanted.compare(rows, broken, lacks)
            if not (lacks or rows):
                lacks.append(Finding("", None, "the bundle has no DAG"))
            has_arrived = not lacks
            if before is None:
                before = first.keys() if lacks else frozenset()
            errors = {
                fault: row
                for fault, row in found.items()
                if fault not in before or fault[0] in changed
            }
            late = _late(errors.values(), arrived)
            is_broken = len(late) < len(errors)
            lacks = lacks or _late(rows, arrived) + late
            if errors and not (lacks and (rows or errors.keys() <= first.keys())):
                is_broken = True
                break
            if not lacks:
                lines = [f"Live: Airflow runs {name}, DAGs: {len(rows)}"]
                if wanted.unproven:
                    lines.append(f"Not proven: {', '.join(wanted.unproven):.1000}")
                return Report(
                    lines,
                    {
                        "airflow": {
                            "result": "live",
                            "deployed": wanted.name,
                            "dags": [row["dag_id"] for row in rows],
                            "unproven": wanted.unproven,
                        }
                    },
                )
            show(f"Airflow does not run {name} yet; behind: {len(lacks)}; {lacks[-1]}")
    if first is None:
        raise SidecarError(OTHER[0], f"{api.url} does not answer in time", OTHER[1])
    raise _lack_of(name, lacks, errors.values(), is_broken)


@contextmanager
def _at_most(seconds: float, api: Api) -> Iterator[None]:
    """
    End what takes longer: every request, also one that drips or has pages without end.

    Raises:
        SidecarError: Airflow does not answer as expected.
    """
    # It raises no Exception, which botocore would catch. At 0, it would never ring.
    signal.signal(signal.SIGALRM, signal.default_int_handler)
    # Again each second: Python drops it in a finalizer.
    signal.setitimer(signal.ITIMER_REAL, max(seconds, 1), 1)
    try:
        with suppress(KeyboardInterrupt):
            yield
    except (AttributeError, KeyError, MemoryError, TypeError, ValueError) as error:
        raise SidecarError(
            UNSUPPORTED[0],
            f"{api.url} does not answer as Airflow 3.1 or later: {error!r:.300}",
            UNSUPPORTED[1],
        ) from error
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def _errors(api: Api) -> dict[Fault, Row]:
    """
    Return the import errors of a bundle, with the fields of a DAG about the last parse.
    """
    found = {}
    for row in api.rows("importErrors?", "import_errors", "can read on ImportError"):
        path = row["filename"]
        what = VARIES.sub("", row["stack_trace"].strip().rpartition("\n")[2])
        found[path, what] = row | {
            "relative_fileloc": path,
            "last_parsed_time": row["timestamp"],
        }
    return found


def _lack_of(
    name: str, lacks: Sequence[Finding], errors: Iterable[Row], is_broken: bool
) -> NotLive:
    """
    Return why Airflow does not run what was deployed.

    Args:
        is_broken: Whether at least one of the errors is certainly of it.
    """
    broken = [broken_file(row["filename"], row["stack_trace"]) for row in errors]
    error = NotLive(
        "release_not_live",
        f"Airflow does not run {name} yet; behind: {len(lacks)}",
        "Wait longer (--timeout). Or see whether Airflow's dag-processor runs, `/readyz` of the "
        "s3-sync beside it, and the bundle: its name (--bundle) and refresh_interval; for a "
        "release, whether it is a SidecarDagBundle.",
    )
    if is_broken:
        error = NotLive(
            "import_errors",
            f"Airflow cannot import files of {name}: {len(broken)}",
            "Fix them and deploy again, or roll back. `--gate airflow` refuses them before.",
        )
        error.exit_code = 4
    error.findings = [*broken, *lacks][:NAMED]
    return error


def _late(rows: Iterable[Row], arrived: float) -> list[Finding]:
    """
    Return the files that may have been read before what was deployed had arrived.
    """
    return [
        Finding(row["relative_fileloc"], None, "was perhaps read before that")
        for row in rows
        # since when all that it has read must have been there
        if _ended(row) - max(row.get("last_parse_duration") or 0, UNWRITTEN_SECONDS)
        < arrived
    ]


def _ended(row: Row) -> float:
    """
    Return when the result of a file's last parse was stored, by Airflow's clock.
    """
    return datetime.fromisoformat(
        row["last_parsed_time"] or "1970-01-01T00:00:00Z"
    ).timestamp()
