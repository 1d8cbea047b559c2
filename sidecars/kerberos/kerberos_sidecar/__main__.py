"""
The entry point of ``kerberos-sidecar``.
"""

from typing import NoReturn

from sidecar_runtime.entry import enter


def main() -> NoReturn:
    enter("kerberos_sidecar.command")


if __name__ == "__main__":
    main()
