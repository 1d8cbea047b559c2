"""
The entry point of ``s3-sync``.
"""

import os
import sys
from contextlib import suppress
from typing import NoReturn

from sidecar_runtime import begin_process

begin_process()  # before the imports that take most of a start

from sidecar_runtime.aws import EARLY, start_child  # noqa: E402

# A task waits, so botocore is imported meanwhile; for another spelling of true, later.
if sys.argv[1:] == [] and os.environ.get("S3_SYNC_ONE_SHOT") == "true":
    with suppress(OSError):  # the first question tells
        EARLY.append(start_child(is_fork="PYTHONPATH" not in os.environ))

from s3_sync.command import run  # noqa: E402
from sidecar_runtime.app import run_main  # noqa: E402


def main() -> NoReturn:
    run_main(run)


if __name__ == "__main__":
    main()
