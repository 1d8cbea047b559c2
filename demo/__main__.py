"""
Play the steps one after the other; exit 0 when every promise held, else 1.
"""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

from demo import bucket, console, git_sync, kerberos, releases
from demo.bucket import Bucket
from demo.console import Row
from demo.daemon import Daemon, StepFailed
from demo.steps import EXAMPLE, STEPS, Stage

KEY_PATH = "data-team/dags"


def environment_of(source: Bucket, key_path: str, dags: Path, home: Path) -> dict[str, str]:
    """
    Return what a daemon gets: the four names of the published example, and what points it here.
    """
    published = {
        "AWS_BUCKET": source.name,
        "KEY_PATH": key_path,
        "DEST_PATH": str(dags),
        "INTERVAL": "1",
    }
    embedded = {
        "AWS_ENDPOINT_URL": source.endpoint,
        "AWS_ACCESS_KEY_ID": bucket.ACCESS_KEY,
        "AWS_SECRET_ACCESS_KEY": bucket.SECRET_KEY,
        "S3_SYNC_HTTP_BIND": "127.0.0.1:0",
        "HOME": str(home),
    }
    return published | embedded


def play(home: Path) -> int:
    """
    Play all steps in a folder of their own and return the exit code.
    """
    dags = home / "dags"
    daemons: list[Daemon] = []
    rows: list[Row] = []
    began = time.monotonic()
    with Bucket("airflow", KEY_PATH) as source:
        source.put_folder(EXAMPLE)
        console.heading("s3-sync: the real daemon, against an S3 server inside this process")
        console.say(
            f"the bucket has {len(source.files)} files under {KEY_PATH}/: DAGs, packages, a plugin,"
            " SQL, YAML, CSV, a picture\n"
            f"AWS_BUCKET={source.name} KEY_PATH={KEY_PATH} DEST_PATH={dags} INTERVAL=1\n"
            "Besides these four the daemon gets the endpoint and credentials of the embedded"
            " server,\nand S3_SYNC_HTTP_BIND=127.0.0.1:0, so that nothing listens beyond this"
            " machine."
        )

        def start_daemon(key_path: str, **settings: str) -> Daemon:
            log = home / f"daemon-{len(daemons)}.log"
            environment = environment_of(source, key_path, dags, home) | settings
            daemons.append(stack.enter_context(Daemon("s3-sync", environment, log)))
            return daemons[-1]

        with ExitStack() as stack:
            stage = Stage(source, dags, start_daemon(KEY_PATH), start_daemon)
            for number, (title, step) in enumerate((*STEPS, *releases.STEPS), 1):
                console.heading(f"{number}. {title}")
                try:
                    result = step(stage)
                except StepFailed as failure:
                    console.fail(title, str(failure), stage.daemon.lines())
                    return 1
                rows.append(Row(title, result.what, result.seconds))
                console.say(f"-> {result.what} ({result.seconds:.2f} s)")
    console.table([*rows, Row("everything", "every step checked", time.monotonic() - began)])
    return 0


def main() -> int:
    """
    Play in a temporary folder, deaf to AWS settings, proxies and realms of this machine.
    """
    for name in list(os.environ):
        if name.startswith(("AWS_", "KRB5")) or name.lower().endswith("_proxy"):
            del os.environ[name]
    os.environ["AWS_CONFIG_FILE"] = os.environ["AWS_SHARED_CREDENTIALS_FILE"] = os.devnull
    # As an exception, so that the folder and the daemon go on every way out.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with tempfile.TemporaryDirectory(prefix="sidecars-demo-") as home:
        try:
            return play(Path(home)) or kerberos.play(Path(home)) or git_sync.play(Path(home))
        except KeyboardInterrupt:
            return 130


if __name__ == "__main__":
    sys.exit(main())
