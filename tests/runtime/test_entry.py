"""
Signals before the loop handles them, and the imports of a start.
"""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
from sidecar_runtime.entry import heed_signals
heed_signals()
print("ready", flush=True)
import time
while True:
    time.sleep(0.05)  # a wait without end may begin right after the signal
"""


def start(*arguments: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", PROGRAM, *arguments]
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    return process


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_during_startup_ends_a_daemon_with_code_0(number: signal.Signals) -> None:
    with start("--verbose") as process:
        process.send_signal(number)

        assert process.wait(10) == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_during_startup_ends_a_command_with_128_plus_its_number(
    number: signal.Signals,
) -> None:
    """A stopped publish has published nothing: CI must not continue as if it had."""
    with start("--output=json", "publish", "dags") as process:
        process.send_signal(number)

        assert process.wait(10) == 128 + number


def test_sighup_during_startup_does_not_end_the_process() -> None:
    with start() as process:
        process.send_signal(signal.SIGHUP)
        process.send_signal(signal.SIGTERM)

        assert process.wait(10) == 0


STRUCTLOG = """
from sidecar_runtime.entry import import_structlog
import_structlog()
"""


def loaded(program: str, *names: str) -> list[str]:
    """Run a program; return which of these modules are loaded at its end."""
    code = f"import sys\n{program}\nprint(*(name for name in {names!r} if name in sys.modules))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return out.stdout.split()


@pytest.mark.parametrize(
    ("sidecar", "metrics"), [("git_sync_wrapper", "WrapperMetrics"), ("s3_sync", "SyncMetrics")]
)
def test_a_one_shot_imports_no_http_server_metrics_client_or_botocore(
    sidecar: str, metrics: str
) -> None:
    program = (
        f"import {sidecar}.command, sidecar_runtime.process\n"
        f"from {sidecar}.metrics import {metrics}\n"
        f"metrics = {metrics}('1.2.3', 'r')\n"
        "metrics.cycles('changed').inc()"
    )
    heavy = ["prometheus_client", "http.client", "botocore", "sidecar_runtime.http.page"]

    assert [] == loaded(program, *heavy, f"{sidecar}.check")


def test_the_entry_point_has_no_heavy_imports() -> None:
    program = "import s3_sync.__main__, sidecar_runtime.entry"
    heavy = ["apscheduler", "structlog", "asyncio", "prometheus_client", "botocore", "httptools"]

    assert [] == loaded(program, *heavy, "ssl")


def test_s3_sync_imports_argparse_publisher_and_sources_only_when_needed() -> None:
    late = ["argparse", "s3_sync.publisher", "s3_sync.listing.source", "s3_sync.release.source"]

    assert [] == loaded("import s3_sync.command", *late)
    assert ["argparse"] == loaded("import s3_sync.command, argparse", *late)


@pytest.mark.parametrize("source", ["listing", "release"])
def test_a_download_imports_no_modules_for_rare_cases(source: str) -> None:
    """These modules parse mail dates and HTML entities, handle paths, and remove folders."""
    program = f"{STRUCTLOG}import s3_sync.command, sidecar_runtime.process, s3_sync.{source}.source"

    assert [] == loaded(program, "email", "html", "pathlib", "shutil")


@pytest.mark.parametrize("sidecar", ["git_sync_wrapper", "kerberos_sidecar", "sync_perm"])
def test_sidecars_other_than_s3_sync_do_not_import_asyncio(sidecar: str) -> None:
    program = f"{STRUCTLOG}import {sidecar}.command"

    assert ["structlog"] == loaded(program, "asyncio", "structlog")


def test_a_clone_imports_no_tls_http_or_aws_code() -> None:
    """Only git-sync itself connects to the server."""
    program = f"{STRUCTLOG}import git_sync_wrapper.command"
    login = [f"git_sync_wrapper.login.{name}" for name in ("askpass", "secrets_manager", "access")]
    aws = "sidecar_runtime.aws.credentials"

    assert login[2:] == loaded(program, "ssl", "httptools", aws, *login)


def test_garbage_collection_is_off_during_imports_and_ignores_their_objects(
    tmp_path: Path,
) -> None:
    (tmp_path / "cheap.py").write_text(
        "import gc\n"
        "PREFIX = 'X_'\n"
        "was_on = gc.isenabled()\n"
        "def run():\n"
        "    print(was_on, gc.isenabled(), gc.get_freeze_count() > 1000)\n"
        "    return 0\n"
    )
    code = f"import sys; sys.path.append({str(tmp_path)!r})\n"
    code += "from sidecar_runtime.entry import enter; enter('cheap')"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)

    assert ("False True True\n", "", 0) == (out.stdout, out.stderr, out.returncode)


@pytest.mark.parametrize("name", ["rich", "colorama", "asyncio", "uuid"])
def test_structlog_does_not_import_modules_that_sidecars_do_not_need(name: str) -> None:
    program = (
        f"{STRUCTLOG}import sys, sidecar_runtime.logs\n"
        f"print([one for one in sys.modules if one.split('.')[0] == {name!r}])\n"
        f"import {name}\n"
        f"print({name}.__spec__.name)\n"
    )

    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)

    assert (f"[]\n{name}\n", "") == (done.stdout, done.stderr)


def test_structlog_imports_asyncio_when_it_uses_it() -> None:
    program = (
        f"{STRUCTLOG}import sys, structlog\n"
        "as_json = structlog.processors.JSONRenderer()\n"
        "log = structlog.wrap_logger(structlog.PrintLogger(), [as_json])\n"
        "print('asyncio' in sys.modules)\n"
        "awaited = log.ainfo('late')\n"
        "import asyncio\n"
        "asyncio.run(awaited)\n"
    )

    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)

    assert (0, "") == (done.returncode, done.stderr)
    assert 'False\n{"event": "late"}\n' == done.stdout


def test_structlog_uses_a_module_that_is_already_imported() -> None:
    program = (
        f"import asyncio, sys\n{STRUCTLOG}import structlog.stdlib\n"
        "print(structlog.stdlib.asyncio is asyncio is sys.modules['asyncio'])\n"
    )

    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)

    assert ("True\n", "") == (done.stdout, done.stderr)
