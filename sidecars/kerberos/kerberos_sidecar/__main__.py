"""
The entry point of ``kerberos-sidecar``.
"""

from typing import NoReturn

from kerberos_sidecar.libkrb5_child import withdraw
from sidecar_runtime import begin_process

# Before the imports that take most of a start.
begin_process()
withdraw()

from kerberos_sidecar.command import run  # noqa: E402
from sidecar_runtime.app import run_main  # noqa: E402


def main() -> NoReturn:
    run_main(run)


if __name__ == "__main__":
    main()
