"""
Hadoop's own client as a process: it logs in once and renews by itself.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import Thread

import pytest

from tests.support.users import as_user

ROOT = Path(__file__).parents[2]
SOURCE = Path(__file__).parent / "java" / "hadoop"
JARS = ROOT / ".hadoop"
# nobody: Hadoop asks for the name of its user, which must be in /etc/passwd.
CONSUMER_UID, GROUP = 65534, 0
INSTALL_SECONDS = 900


def class_path_or_skip() -> Path:
    """
    Return the folder with Hadoop's jars and our class, made when they are not there.
    """
    if shutil.which("mvn") is None or shutil.which("javac") is None:
        pytest.skip("Hadoop's client needs mvn and javac: make setup-test as root")
    if not (JARS / "complete").exists():
        copy = ["mvn", "-q", "-B", "-f", str(SOURCE / "pom.xml"), "dependency:copy-dependencies"]
        done = subprocess.run(
            [*copy, f"-DoutputDirectory={JARS}"],
            capture_output=True,
            text=True,
            timeout=INSTALL_SECONDS,
        )
        if done.returncode:
            pytest.skip(f"Maven has no Hadoop: {done.stdout.strip().splitlines()[0]}")
        (JARS / "complete").touch()
    subprocess.run(
        ["javac", "-nowarn", "-cp", f"{JARS}/*", "-d", str(JARS), str(SOURCE / "UgiReader.java")],
        check=True,
        capture_output=True,
        timeout=INSTALL_SECONDS,
    )
    return JARS


@dataclass
class HadoopClient:
    """
    What it said so far.

    Attributes:
        tickets: When each ticket that it had ends: Unix times.
        failures: Why it could not use them.
        said: All lines, Hadoop's own too.
    """

    tickets: list[int] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    said: list[str] = field(default_factory=list)

    def read(self, lines: Iterator[str]) -> None:
        """
        Take its lines until it ends.
        """
        for line in lines:
            self.said.append(line)
            kind, _, text = line.strip().partition(" ")
            if kind == "ticket":
                self.tickets.append(int(text))
            elif kind == "failed":
                self.failures.append(text)


@contextmanager
def hadoop_client(
    folder: Path, core_site: str, service: str, environment: Mapping[str, str]
) -> Iterator[HadoopClient]:
    """
    Run a client as a user that only reads the ccache.

    Args:
        folder: For its configuration; the user must be able to reach it.
        core_site: The properties of `core-site.xml`.
        service: What it gets tokens for: a principal.
        environment: Its variables.
    """
    jars = class_path_or_skip()
    shown = folder / "hadoop"
    shutil.copytree(jars, shown)
    (shown / "core-site.xml").write_text(f"<configuration>{core_site}</configuration>")
    java = as_user(folder / "bin", Path(shutil.which("java") or ""), CONSUMER_UID, GROUP)
    options = ["-Xmx128m", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC"]
    process = subprocess.Popen(
        [java, *options, "-cp", f"{shown}:{shown}/*", "UgiReader", service, "1"],
        env=dict(environment),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None
    client = HadoopClient()
    thread = Thread(target=client.read, args=(process.stdout,), daemon=True)
    thread.start()
    try:
        yield client
    finally:
        process.kill()
        process.communicate()
        thread.join()
