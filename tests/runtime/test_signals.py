"""
Signals before the loop handles them, and the imports of a start.
"""

import signal
import subprocess
import sys
from collections.abc import Sequence

import pytest

SIDECARS = ["git_sync_wrapper", "kerberos_sidecar", "s3_sync", "sync_perm"]
# A sidecar whose next import never ends.
IMPORTING = """
import importlib.abc, sys, time

class Stuck(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name == "{sidecar}.command":
            print("ready", flush=True)
            while True:
                time.sleep(0.05)

sys.meta_path.insert(0, Stuck())
import {sidecar}.__main__
"""
# Work that cleans up.


def start(program: str, arguments: Sequence[str]) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", program, *arguments]
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    return process


def code_of(number: signal.Signals, arguments: Sequence[str]) -> int:
    """Return the exit code: CI must not continue after a stopped publish as if it had published."""
    return 128 + number if arguments and not arguments[0].startswith("-") else 0


each_end = pytest.mark.parametrize(
    ("number", "arguments"),
    [
        (signal.SIGTERM, []),
        (signal.SIGINT, []),
        (signal.SIGTERM, ["--repo", "https://host/repo"]),  # git-sync's flags are no command
        (signal.SIGTERM, ["publish", "dags"]),
        (signal.SIGINT, ["check"]),
    ],
)


@each_end
def test_a_signal_ends_the_process_during_the_imports(
    number: signal.Signals, arguments: list[str]
) -> None:
    with start(IMPORTING.format(sidecar="s3_sync"), arguments) as process:
        process.send_signal(signal.SIGHUP)
        process.send_signal(number)

        assert code_of(number, arguments) == process.wait(20)


@pytest.mark.parametrize("sidecar", SIDECARS)
def test_every_sidecar_heeds_signals_before_its_imports(sidecar: str) -> None:
    with start(IMPORTING.format(sidecar=sidecar), []) as process:
        process.terminate()

        assert 0 == process.wait(20)


@pytest.mark.parametrize(
    ("sidecar", "metrics"), [("git_sync_wrapper", "WrapperMetrics"), ("s3_sync", "SyncMetrics")]
)
def test_a_one_shot_imports_no_scheduler_http_server_metrics_client_or_botocore(
    sidecar: str, metrics: str
) -> None:
    """Each task pod pays for what a start imports."""
    heavy = ("apscheduler", "prometheus_client", "http.client", "botocore", f"{sidecar}.check")
    program = (
        f"import sys, {sidecar}.command, sidecar_runtime.app\n"
        f"from {sidecar}.metrics import {metrics}\n"
        f"{metrics}('1.2.3', 'r').show_readiness(is_ready=True, revision='r')\n"
        f"print([name for name in {heavy!r} if name in sys.modules])"
    )
    out = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )

    assert "[]" == out.stdout.strip()
