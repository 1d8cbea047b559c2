"""
The entry point of ``s3-sync``.
"""

from typing import NoReturn

from sidecar_runtime.entry import enter


def main() -> NoReturn:
    enter("s3_sync.command")


if __name__ == "__main__":
    main()
