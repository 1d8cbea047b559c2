"""
A real Prometheus on loopback, and promtool.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import urllib.parse
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import pytest
import yaml

from tests.support.program import own_port, start_server

Json = dict[str, Any]


def skip_without_prometheus() -> None:
    """
    Skip the test if Debian's package is not installed.
    """
    if shutil.which("promtool") is None or shutil.which("prometheus") is None:
        pytest.skip("prometheus and promtool are missing: make setup-test as root")


def promtool(*arguments: str, folder: Path) -> str:
    """
    Run promtool in a folder; return its output if it fails, else an empty string.
    """
    done = subprocess.run(
        ["promtool", *arguments], cwd=folder, capture_output=True, text=True, timeout=120
    )
    return "" if done.returncode == 0 else done.stdout + done.stderr


class Prometheus:
    """
    A Prometheus with its own configuration; a `with` statement starts it.
    """

    def __init__(self, folder: Path, config: Mapping[str, Any]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        (folder / "prometheus.yml").write_text(yaml.safe_dump(dict(config)))

    def __enter__(self) -> Self:
        self._port = own_port()
        self._process = start_server(
            [
                "prometheus",
                f"--config.file={self._folder}/prometheus.yml",
                f"--storage.tsdb.path={self._folder}/data",
                f"--web.listen-address=127.0.0.1:{self._port}",
            ],
            self._folder / "log",
            lambda: bool(_get(self._port, "status/buildinfo")),
        )
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()

    def targets(self) -> list[Json]:
        found: list[Json] = _get(self._port, "targets?state=active")["activeTargets"]
        return found

    def query(self, expression: str) -> list[Json]:
        """
        Return the series of an instant query.
        """
        parameters = urllib.parse.urlencode({"query": expression})
        found: list[Json] = _get(self._port, f"query?{parameters}")["result"]
        return found


def _get(port: int, what: str) -> Json:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(f"http://127.0.0.1:{port}/api/v1/{what}", timeout=30) as answer:
        data: Json = json.load(answer)["data"]
    return data
