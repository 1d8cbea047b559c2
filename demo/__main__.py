"""
Plays the steps in order; exits with 0 if every check passed, else with 1.
"""

from __future__ import annotations

import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

from demo import console, git_sync_wrapper, kerberos, releases, script, signed
from demo.bucket import Bucket
from demo.daemon import Daemon
from demo.s3_sync import EXAMPLE, STEPS, Stage

KEY_PATH = "data-team/dags"


def play(home: Path) -> int:
    """
    Play all steps in a separate folder and return the exit code.
    """
    dags = home / "dags"
    daemons: list[Daemon] = []
    with Bucket("airflow", KEY_PATH) as source:
        source.put_folder(EXAMPLE)
        console.heading("s3-sync: the real daemon, against an S3 server inside this process")
        console.say(
            f"the bucket contains {len(source.files)} files under {KEY_PATH}/: DAGs, packages, a"
            " plugin, SQL, YAML, CSV, an image\n"
            f"AWS_BUCKET={source.name} KEY_PATH={KEY_PATH} DEST_PATH={dags} INTERVAL=1\n"
            "The only other settings are the endpoint and credentials of the embedded server, and\n"
            "S3_SYNC_HTTP_BIND=127.0.0.1:0, which limits the HTTP port to this machine."
        )

        def start_daemon(key_path: str, **settings: str) -> Daemon:
            log = home / f"daemon-{len(daemons)}.log"
            environment = source.daemon_environment(key_path, dags, home) | settings
            daemons.append(stack.enter_context(Daemon("s3-sync", environment, log)))
            return daemons[-1]

        with ExitStack() as stack:
            stage = Stage(source, dags, start_daemon(KEY_PATH), start_daemon)
            return script.play((*STEPS, *releases.STEPS, *signed.STEPS), stage)


def main() -> int:
    """
    Play in a temporary folder, without the AWS settings, proxies and realms of this machine.
    """
    script.prepare_process()
    with tempfile.TemporaryDirectory(prefix="sidecars-demo-") as home:
        try:
            return (
                play(Path(home)) or kerberos.play(Path(home)) or git_sync_wrapper.play(Path(home))
            )
        except KeyboardInterrupt:
            return 130


if __name__ == "__main__":
    sys.exit(main())
