"""
``python -m bench failover``: how soon the newest data is there after an outage.

Each station of the soak loses its source, with readers beside it, and the source
changes when it returns. A loop around aws, and git-sync below a kubelet that restarts
it, follow the same sources.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from bench.budgets import Outcome, at_most_seconds, none_of
from bench.report import deliver, parser, seconds, table
from demo.script import prepare_process
from soak.station import Station
from soak.stations import GitSyncWrapper, Kerberos, S3Sync, SyncPermissions
from tests.support.daemon import VENV_BIN, SidecarProcess
from tests.support.git.git_sync import GitSite
from tests.support.revisions import make_revision

MOST_SECONDS = 61.0
"""The stations' interval and the longest pause after failures."""
KUBELET = """\
pause=10
while true; do "$@"; sleep $pause; pause=$((pause < 150 ? pause * 2 : 300)); done
"""
LOOP = """\
while true; do "$0" s3 sync --delete --only-show-errors "$1" "$2"; sleep 10; done
"""
BASH = Path("/bin/bash")


class BesideAws(S3Sync):
    def set_up(self) -> None:
        super().set_up()
        folder = self.folder()
        aws = str(VENV_BIN / "aws")
        bucket = self.listed.bucket
        words = ["-c", LOOP, aws, f"s3://{bucket}/dags", str(folder)]
        loop = SidecarProcess(BASH, self.listed.environment(), folder, words)
        self.stack.enter_context(loop)

        def lacks() -> bool:
            wanted = make_revision(self.shown)
            return any(
                not (folder / path).is_file() or content != (folder / path).read_bytes()
                for path, content in wanted.items()
            )

        self.peers["aws s3 sync in a loop"] = lacks


class BesideGitSync(GitSyncWrapper):
    def set_up(self) -> None:
        super().set_up()
        site = GitSite(self.server, self.folder())
        self.stack.callback(site.close)
        own = {
            "GITSYNC_USERNAME": "airflow",
            "GITSYNC_PASSWORD_FILE": str(self.password),
            "GITSYNC_PERIOD": "1s",
            "GITSYNC_MAX_FAILURES": None,
        }
        words = ["-c", KUBELET, "kubelet", str(site.engine)]
        environment = site.environment() | own
        kubelet = SidecarProcess(BASH, environment, site.folder, words)
        self.stack.enter_context(kubelet)
        self.peers["git-sync"] = lambda: site.shown() != self.repository.head()


class LongTickets(Kerberos):
    life_seconds = 2 * 60 * 60


KINDS = (BesideAws, BesideGitSync, LongTickets, SyncPermissions)


def main(arguments: Sequence[str]) -> None:
    """
    Measure, print the tables, and with `--write` also into the documentation.
    """
    known = parser("failover", __doc__)
    text = "the outages in minutes (default: 1 10 60)"
    known.add_argument(
        "--minutes", type=float, nargs="+", default=[1.0, 10.0, 60.0], help=text
    )
    options = known.parse_args(arguments)
    prepare_process()
    stations = [kind("failover") for kind in KINDS]
    with ThreadPoolExecutor() as pool:
        played = list(pool.map(lambda one: play(one, options.minutes), stations))
    rows = []
    outcomes = []
    for station, results in zip(stations, played, strict=True):
        names = [station.name, *station.peers]
        rows += [
            [name, *(seconds(one[name]) if name in one else "later" for one in results)]
            for name in names
        ]
        outcomes += budgets(station, options.minutes, results)
        print("\n  FLAW: ".join([station.line(), *station.flaws[:5]]))
    head = ["newest data after an outage of", *(f"{m:g} min" for m in options.minutes)]
    deliver("failover", {"seconds": table(head, rows)}, outcomes, {}, page=options.page)


def play(station: Station, minutes: Sequence[float]) -> list[dict[str, float]]:
    """
    Return how soon everybody had the newest data, for each outage.
    """
    with station.alive():
        return [station.lose_source(each) for each in minutes]


def budgets(
    station: Station, minutes: Sequence[float], results: Sequence[dict[str, float]]
) -> list[Outcome]:
    """
    Return the outcomes of one sidecar.
    """
    reads = sum(reader.reads for reader in station.readers)
    flaws = len(station.flaws)
    outcomes = [none_of(station.name, "wrong reads in outages", flaws, reads, 1)]
    for each, result in zip(minutes, results, strict=True):
        what = f"newest data after {each:g} minutes"
        took = result.get(station.name, float("inf"))
        outcomes.append(at_most_seconds(station.name, what, MOST_SECONDS, took))
    return outcomes
