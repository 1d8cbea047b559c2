"""
The entry point of ``sync-perm``.
"""

from __future__ import annotations

from typing import NoReturn

from sidecar_runtime.early import heed_signals, spare_rich


def main() -> NoReturn:
    heed_signals()
    spare_rich()
    from sidecar_runtime.process import run_main  # noqa: PLC0415 - heavy, after the handlers
    from sync_perm.command import run  # noqa: PLC0415

    run_main(run)


if __name__ == "__main__":
    main()
