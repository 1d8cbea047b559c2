"""
Spark with Hadoop's own client as a process: it logs in once and renews its login itself.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from threading import Thread

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
) -> Iterator[list[str]]:
    """
    Submit `spark_reader.py` as a user that can only read the ccache; yield its output lines.

    Args:
        folder: The folder for its configuration; the user must be able to reach it.
        core_site: The properties of `core-site.xml`.
        environment: Its variables.
        options: Options of `spark-submit`.
    """
    submit = as_user(folder / "bin", spark_or_skip(), CONSUMER_UID, GROUP)
    conf = folder / "hadoop"
    conf.mkdir()
    (conf / "core-site.xml").write_text(f"<configuration>{core_site}</configuration>")
    shutil.copy(READER, folder)
    process = subprocess.Popen(
        [submit, "--master", "local[1]", *options, folder / READER.name],
        env={
            **environment,
            "HADOOP_CONF_DIR": str(conf),
            "PYSPARK_PYTHON": str(FOLDER / "bin" / "python"),
            "SPARK_LOCAL_IP": "127.0.0.1",
        },
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    said: list[str] = []

    def read(lines: Iterable[str]) -> None:
        said.extend(lines)
        said.append("failed: Spark has ended\n")

    thread = Thread(target=read, args=(process.stdout,), daemon=True)
    thread.start()
    try:
        yield said
    finally:
        os.killpg(process.pid, signal.SIGKILL)  # ends both Java and Python
        process.communicate()
        thread.join()
        print("".join(said))
