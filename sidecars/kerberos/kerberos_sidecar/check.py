"""
``kerberos-sidecar check``
"""

from __future__ import annotations

import argparse

from kerberos_sidecar.settings import Settings


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--consumer", default="50000:0")


def run(settings: Settings, consumer: str) -> int:
    return 0
