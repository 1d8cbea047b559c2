"""
Plays the steps in order; exits with 0 if every check passed, else with 1.
"""

import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

from demo import git_sync_wrapper, kerberos, releases, script
from demo.s3_sync import EXAMPLE, KEY_PATH, STEPS, Stage
from tests.support.aws.writable_s3 import WritableS3


def play(home: Path) -> int:
    """
    Play the steps of s3-sync in a separate folder and return the exit code.
    """
    with WritableS3("airflow") as s3, ExitStack() as stack:
        stage = Stage(s3, home / "dags", stack)
        for file in sorted(EXAMPLE.rglob("*")):
            if file.is_file() and "__pycache__" not in file.parts:
                stage.put(file.relative_to(EXAMPLE).as_posix(), file.read_bytes())
        script.heading(
            "s3-sync: the real daemon, against an S3 server inside this process"
        )
        script.say(
            f"the bucket contains {len(s3.objects)} files under {KEY_PATH}/\n"
            f"AWS_BUCKET={s3.bucket} KEY_PATH={KEY_PATH} DEST_PATH={stage.dags} INTERVAL=1"
        )
        stage.start()
        return script.play((*STEPS, *releases.STEPS), stage)


def main() -> int:
    """
    Play in a temporary folder, without the AWS settings, proxies and realms of this
    machine.
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
