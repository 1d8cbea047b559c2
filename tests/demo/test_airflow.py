"""
`make demo-airflow` keeps what it promises, and leaves nothing behind.

The story itself plays with `--full`, because it takes minutes; its parts are tested always.
"""

from __future__ import annotations

import ctypes
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from demo import kerberos
from demo.airflow import realm
from demo.airflow.descendants import PR_SET_CHILD_SUBREAPER
from tests.support.databases import missing_programs
from tests.support.kdc import run_client
from tests.support.sync_perm import descendants_of, signal_all

ROOT = Path(__file__).parents[2]
DEMO = [sys.executable, "-m", "demo.airflow"]
STORY_SECONDS = 1_500
STEPS = 16


@pytest.fixture
def folder() -> Iterator[Path]:
    """
    A folder for temporary files that the user of the database server can enter, unlike pytest's.
    """
    with tempfile.TemporaryDirectory(prefix="demo-test-") as name:
        path = Path(name)
        path.chmod(0o755)
        yield path


def environment(folder: Path) -> dict[str, str]:
    """
    Return what the demo gets.
    """
    given = {name: os.environ[name] for name in ("PATH", "HOME")}
    return given | {"TMPDIR": str(folder)}


@contextmanager
def nothing_left_behind(folder: Path) -> Iterator[None]:
    """
    Fail when files or processes stay; processes whose parent has ended become ours meanwhile.
    """
    prctl = ctypes.CDLL(None).prctl
    before = set(descendants_of(os.getpid()))
    prctl(PR_SET_CHILD_SUBREAPER, 1)
    try:
        yield
    finally:
        left = set(descendants_of(os.getpid())) - before
        signal_all(list(left), signal.SIGKILL)
        prctl(PR_SET_CHILD_SUBREAPER, 0)
    assert set() == left
    assert [] == list(folder.iterdir())


def skip_the_story(request: pytest.FixtureRequest) -> None:
    """
    Skip without `--full`, or without a database server.
    """
    if not request.config.getoption("--full"):
        pytest.skip("plays beside a real Airflow: runs with make test-full")
    if reason := missing_programs("postgres", "initdb", "psql", "pg_dump"):
        pytest.skip(reason)


@pytest.mark.timeout(STORY_SECONDS + 60)
@pytest.mark.parametrize("version", ["3", "2.11"])
def test_story_plays_every_step(request: pytest.FixtureRequest, folder: Path, version: str) -> None:
    skip_the_story(request)

    with nothing_left_behind(folder):
        done = subprocess.run(
            [*DEMO, version],
            cwd=ROOT,
            env=environment(folder),
            capture_output=True,
            text=True,
            timeout=STORY_SECONDS,
        )

    assert 0 == done.returncode, done.stdout + done.stderr
    assert "every step checked" in done.stdout
    (table,) = re.findall(r"^step .*^everything.*$", done.stdout, re.MULTILINE | re.DOTALL)
    left_out = table.count("left out")
    assert STEPS + 1 - left_out == len(re.findall(r" \d+\.\d\d s$", table, re.MULTILINE))
    assert (1 if version == "3" else 0) + 2 * bool(realm.missing()) == left_out


@pytest.mark.timeout(STORY_SECONDS + 60)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_in_the_midst_of_the_story_leaves_nothing(
    request: pytest.FixtureRequest, folder: Path, number: signal.Signals
) -> None:
    skip_the_story(request)

    with nothing_left_behind(folder):
        process = subprocess.Popen(
            [*DEMO, "3"],
            cwd=ROOT,
            env=environment(folder),
            stdout=subprocess.PIPE,
            text=True,
            # A shell has its background jobs ignore it, and so would all below them.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # noqa: PLW1509
        )
        assert process.stdout is not None
        with process.stdout:
            for line in process.stdout:
                if "sync-perm starts" in line:
                    process.send_signal(number)
        code = process.wait(60)

    assert (143 if number == signal.SIGTERM else 130) == code


@pytest.mark.timeout(STORY_SECONDS + 60)
def test_step_that_fails_shows_the_log_of_the_process_concerned(
    request: pytest.FixtureRequest, folder: Path
) -> None:
    skip_the_story(request)
    broken = (
        "import sys, demo.airflow.__main__ as main;"
        "from demo.airflow import components, releases;"
        "releases.FIRST = 'what no DAG says';"
        "components.PATIENCE_SECONDS = 40.0;"
        "sys.exit(main.main(['3']))"
    )

    with nothing_left_behind(folder):
        done = subprocess.run(
            [sys.executable, "-c", broken],
            cwd=ROOT,
            env=environment(folder),
            capture_output=True,
            text=True,
            timeout=STORY_SECONDS,
        )

    assert 1 == done.returncode, done.stdout + done.stderr
    assert "FAILED: Airflow starts" in done.stdout
    assert "DagFileProcessorManager" in done.stdout


def test_unknown_airflow_is_named(folder: Path) -> None:
    done = subprocess.run(
        [*DEMO, "1.10"], cwd=ROOT, env=environment(folder), capture_output=True, text=True
    )

    assert 2 == done.returncode
    assert "no such Airflow here: 1.10; 3 or 2.11\n" == done.stderr


def test_missing_database_server_is_one_line_and_no_success(folder: Path) -> None:
    lacking = (
        "import sys, demo.airflow.__main__ as main;"
        "main.missing_programs = lambda *names: 'needs postgres: make setup as root';"
        "sys.exit(main.main(['3']))"
    )

    done = subprocess.run(
        [sys.executable, "-c", lacking],
        cwd=ROOT,
        env=environment(folder),
        capture_output=True,
        text=True,
    )

    assert 1 == done.returncode
    assert "All of it is left out: Airflow's metadata needs postgres: make setup as root" == (
        done.stdout.strip()
    )


def test_independent_processes_end_with_the_demo(folder: Path) -> None:
    """
    Airflow's workers leave the process group of their parent, and outlive it.
    """
    independent = (
        "import subprocess, sys; from demo.airflow import descendants\n"
        "with descendants.ended():\n"
        "    subprocess.run(['sh', '-c', 'setsid sleep 1000 & setsid sh -c \"sleep 1001\" &'])\n"
    )

    with nothing_left_behind(folder):
        done = subprocess.run(
            [sys.executable, "-c", independent], cwd=ROOT, timeout=60, stdout=subprocess.DEVNULL
        )

    assert 0 == done.returncode


def test_service_lets_in_who_has_a_ticket(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if lacking := realm.missing():
        pytest.skip(f"needs {', '.join(lacking)}: make setup as root")
    for name in ("KRB5_CONFIG", "KRB5RCACHENAME"):
        monkeypatch.setenv(name, "")  # what the service sets is taken back
    with ExitStack() as stack:
        world = realm.open_realm(folder / "kerberos", stack)
        keytab = f"{world.settings['KERBEROS_KEYTAB_DIR']}/airflow.keytab"
        config, ccache = (Path(world.of_tasks()[n]) for n in ("KRB5_CONFIG", "KRB5CCNAME"))
        run_client(["kinit", "-kt", keytab, kerberos.PRINCIPAL], config, ccache)
        url = world.of_tasks()["WAREHOUSE_URL"]
        ask = ["curl", "--silent", "--write-out", "%{http_code}", url]

        without = run_client(ask, config)
        with_one = run_client([*ask, "--negotiate", "--user", ":"], config, ccache)

    assert "who are you? 401" == without.stdout
    assert "7 orders\n200" == with_one.stdout
    assert [kerberos.PRINCIPAL] == world.warehouse.guests
