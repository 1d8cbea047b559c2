"""
The entry point of ``sync-perm``.
"""

from typing import NoReturn

from sidecar_runtime.entry import enter


def main() -> NoReturn:
    enter("sync_perm.command")


if __name__ == "__main__":
    main()
