"""
Spark with Hadoop's own client as a process: it logs in once and renews its login itself.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.machine.users import ROOT, as_user

READER = Path(__file__).with_name("spark_reader.py")
FOLDER = ROOT / ".spark"
REQUIREMENT = (
    "pyspark==4.1.4"
    " --hash=sha256:bcbd5e18690cf79d438e97210ad06fb8d451a251bb77becc2b0418868d2acd73\n"
)
# The user nobody: Hadoop needs a user that is in /etc/passwd.
CONSUMER_UID, GROUP = 65534, 0


def spark_or_skip() -> Path:
    """
    Return `spark-submit`; install it if it is missing (450 MB, with Hadoop's jars).
    """
    if shutil.which("java") is None:
        pytest.skip("Spark needs java: make setup-test as root")
    wanted, uv = FOLDER / "requirements.txt", ROOT / "scripts" / "uv"
    if not wanted.exists() or wanted.read_text() != REQUIREMENT:
        subprocess.run([uv, "venv", "--clear", "--python", sys.executable, FOLDER], check=True)
        incoming = FOLDER / "incoming.txt"
        incoming.write_text(REQUIREMENT)
        install = ["pip", "install", "--no-deps", "--require-hashes", "--python"]
        subprocess.run([uv, *install, FOLDER / "bin" / "python", "-r", incoming], check=True)
        incoming.rename(wanted)
    return FOLDER / "bin" / "spark-submit"


@contextmanager
def spark(
    folder: Path, core_site: str, environment: Mapping[str, str], *options: str
) -> Iterator[Callable[[], list[str]]]:
    """
    Submit `spark_reader.py` as a user that can only read the ccache; yield a function that returns
    its output lines so far.

    Args:
        folder: The folder for its configuration; the user must be able to reach it.
        core_site: The properties of `core-site.xml`.
        environment: Its variables.
        options: Options of `spark-submit`.
    """
    submit = as_user(folder / "bin", spark_or_skip(), CONSUMER_UID, GROUP)
    conf, said = folder / "hadoop", folder / "said"
    conf.mkdir()
    (conf / "core-site.xml").write_text(f"<configuration>{core_site}</configuration>")
    shutil.copy(READER, folder)
    with said.open("wb") as output:
        process = subprocess.Popen(
            [submit, "--master", "local[1]", *options, folder / READER.name],
            env={
                **environment,
                "HADOOP_CONF_DIR": str(conf),
                "PYSPARK_PYTHON": str(FOLDER / "bin" / "python"),
                "SPARK_LOCAL_IP": "127.0.0.1",
            },
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def lines() -> list[str]:
        has_ended = process.poll() is not None
        return [*said.read_text().splitlines(), *["failed: Spark has ended"] * has_ended]

    try:
        yield lines
    finally:
        os.killpg(process.pid, signal.SIGKILL)  # ends both Java and Python
        process.wait()
        print(said.read_text())
