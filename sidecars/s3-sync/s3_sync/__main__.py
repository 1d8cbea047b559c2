"""
The entry point of ``s3-sync``.
"""

import os
import sys
from typing import NoReturn

from sidecar_runtime.entry import enter


def main() -> NoReturn:
    enter("s3_sync.command", ask_for_credentials)


def ask_for_credentials() -> None:
    """
    Request credentials early, for the daemon and `check`; the other commands use boto3.
    """
    from sidecar_runtime.aws import early  # noqa: PLC0415 - after the signal handlers are set

    if sys.argv[1:] in ([], ["check"]):
        access = os.environ.get("S3_SYNC_BUCKET_ACCESS", "")
        early.ask(is_anonymous=access.strip().lower() == "public")


if __name__ == "__main__":
    main()
