"""
The entry point of ``git-sync-wrapper``.
"""

from typing import NoReturn

from sidecar_runtime import begin_process

begin_process()  # before the imports that take most of a start

from git_sync_wrapper.command import run  # noqa: E402
from sidecar_runtime.app import run_main  # noqa: E402


def main() -> NoReturn:
    run_main(run)


if __name__ == "__main__":
    main()
