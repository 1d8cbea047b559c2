"""
The entry point of ``git-sync-wrapper``.
"""

from typing import NoReturn

from sidecar_runtime.entry import enter


def main() -> NoReturn:
    enter("git_sync_wrapper.command")


if __name__ == "__main__":
    main()
