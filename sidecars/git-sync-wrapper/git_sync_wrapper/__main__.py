"""
The entry point of ``git-sync-wrapper``.
"""

from __future__ import annotations

from typing import NoReturn

from sidecar_runtime.early import heed_signals, spare_rich


def main() -> NoReturn:
    heed_signals()
    spare_rich()
    from git_sync_wrapper.command import run  # noqa: PLC0415 - heavy imports, after the handlers
    from sidecar_runtime.process import run_main  # noqa: PLC0415

    run_main(run)


if __name__ == "__main__":
    main()
