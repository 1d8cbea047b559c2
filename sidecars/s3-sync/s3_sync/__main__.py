"""
The entry point of ``s3-sync``.
"""

import os
from contextlib import suppress
from typing import NoReturn

from sidecar_runtime import begin_process
from sidecar_runtime.aws import EARLY, start_child

begin_process()  # before the imports that take most of a start
if "S3_SYNC_ONE_SHOT" in os.environ:  # a task waits, so botocore is imported meanwhile
    with suppress(OSError):  # the first question tells
        EARLY.append(start_child())

from s3_sync.command import run  # noqa: E402
from sidecar_runtime.app import run_main  # noqa: E402


def main() -> NoReturn:
    run_main(run)


if __name__ == "__main__":
    main()
