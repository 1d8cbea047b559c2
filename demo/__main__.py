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
    Play the steps of s3-sync in a separate folder and return the exit code.
    """
    dags = home / "dags"
    with Bucket("airflow", KEY_PATH) as source, ExitStack() as stack:
        source.put_folder(EXAMPLE)
        console.heading("s3-sync: the real daemon, against an S3 server inside this process")
        console.say(
            f"the bucket contains {len(source.files)} files under {KEY_PATH}/\n"
            f"AWS_BUCKET={source.name} KEY_PATH={KEY_PATH} DEST_PATH={dags} INTERVAL=1"
        )

        def start_daemon(key_path: str, **settings: str) -> Daemon:
            environment = source.daemon_environment(key_path, dags) | settings
            daemon = Daemon("s3-sync", environment, home)
            stack.callback(daemon.kill)
            daemon.start()
            return daemon

        stage = Stage(source, dags, start_daemon(KEY_PATH), start_daemon)
        return script.play((*STEPS, *releases.STEPS, *signed.STEPS), stage)


def main() -> int:
    """
    Play in a temporary folder, without the AWS settings, proxies and realms of this machine.
    """
    script.prepare_process()
    with tempfile.TemporaryDirectory(prefix="sidecars-demo-") as folder:
        home = Path(folder)
        try:
            return play(home) or kerberos.play(home) or git_sync_wrapper.play(home)
        except KeyboardInterrupt:
            return 130


if __name__ == "__main__":
    sys.exit(main())
