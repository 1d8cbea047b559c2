"""
Other tools that sync a folder with an S3 prefix.
"""

from __future__ import annotations

import functools
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench import dag_bundle
from bench.measure import Cost, run
from bench.s3_store import BUCKET, PREFIX, Store
from tests.support.airflow.installed import ROOT

Commands = Mapping[str, Callable[[Path], list[str]]]


def commands(endpoint: str) -> Commands:
    """
    Return a function by peer that returns its command for a target folder.
    """
    url = f"s3://{BUCKET}/{PREFIX}"
    remote = f':s3,provider=Other,env_auth=true,endpoint="{endpoint}":{BUCKET}/{PREFIX}'
    many = ["--fast-list", "--transfers", "16", "--checkers", "16"]

    def rclone(*flags: str) -> Callable[[Path], list[str]]:
        return lambda target: ["rclone", "sync", "--quiet", remote, str(target), *flags]

    return {
        "aws s3 sync": lambda target: [
            "aws",
            "s3",
            "sync",
            "--delete",
            "--quiet",
            url,
            f"{target}",
        ],
        "s5cmd": lambda target: [
            *("s5cmd", "--log", "error", "--endpoint-url", endpoint, "sync", "--delete"),
            *(f"{url}/*", f"{target}/"),
        ],
        "rclone": rclone(),
        "rclone, checksum": rclone(*many, "--checksum"),
        "rclone, server time": rclone(*many, "--use-server-modtime"),
    }


@dataclass(frozen=True)
class Peer:
    """
    A peer and its folder.

    Args:
        cold: Sync into the empty folder.
        again: Sync into the folder that it has filled before.
    """

    folder: Path
    cold: Callable[[], Cost]
    again: Callable[[], Cost]


@contextmanager
def open_peers(
    store: Store, targets: Path, endpoint: str, airflow: Path | None
) -> Iterator[dict[str, Peer]]:
    """
    Yield all peers by name, each with its own folder.
    """
    environment = store.environment() | {"AWS_ENDPOINT_URL": endpoint}
    peers = {}
    for name, command in commands(endpoint).items():
        deed = functools.partial(run, command(targets / name), environment)
        peers[name] = Peer(targets / name, deed, deed)
    with ExitStack() as stack:
        if airflow is not None:
            storage = targets / "airflow"
            opened = dag_bundle.running(airflow, storage, BUCKET, PREFIX, environment)
            bundle = stack.enter_context(opened)
            initialize = functools.partial(bundle.do, "initialize")
            again = functools.partial(bundle.do, "refresh")
            peers[dag_bundle.NAME] = Peer(bundle.folder, initialize, again)
        yield peers


def airflow_with_bundle() -> tuple[Path | None, dict[str, str]]:
    """
    Return an environment with Airflow 3 and the Amazon provider, or the reason why it is missing.
    """
    script = ROOT / "scripts" / "airflow-environment"
    print("Airflow 3 with the Amazon provider, for its S3DagBundle", flush=True)
    done = subprocess.run([script, "3"], capture_output=True, text=True)
    if done.returncode:
        return None, {dag_bundle.NAME: done.stderr.strip().splitlines()[-1]}
    return Path(done.stdout.strip()), {}
