"""
Consumers of a ccache as processes: klist, GSSAPI, Java, Hadoop.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tests.support.kerberos.kdc import PATH
from tests.support.machine.clocks import forget_clock
from tests.support.machine.users import as_user

Kind = Literal["klist", "acquire", "context", "java", "hadoop"]
HERE = Path(__file__).parent
JAVA = shutil.which("java", path=PATH)
HAS_JAVA = bool(JAVA and shutil.which("javac", path=PATH))
HADOOP_JARS = os.environ.get("HADOOP_JARS")
CONSUMER_UID = 65534  # Hadoop needs a user with a name
GROUP = 0


@dataclass
class Reader:
    """
    A process that reads until `stop`.
    """

    kind: Kind
    process: subprocess.Popen[str]
    reads: int = 0
    failed: int = 0
    failures: tuple[str, ...] = ()

    def stop(self) -> None:
        """
        Let the process finish its read and report its results.
        """
        output, errors = self.process.communicate("stop", timeout=60)
        assert 0 == self.process.returncode, errors
        seen = json.loads(output.splitlines()[-1])
        self.reads = seen["reads"]
        self.failed = seen["failed"]
        self.failures = tuple(seen["failures"])


@contextmanager
def readers(
    folder: Path,
    ccache: Path,
    config: Path,
    kinds: tuple[Kind, ...],
    service: str,
    *,
    another_user: bool = True,
) -> Iterator[list[Reader]]:
    """
    Run readers, all ready at the start; kill those that still run at the end.

    Args:
        folder: The folder for their scripts; all users must be able to reach it. For
            `hadoop`, it may contain core-site.xml, and is beside service.keytab and
            `jars`, a copy of HADOOP_JARS.
        ccache: The ccache that they read.
        config: Their krb5.conf.
        kinds: One reader for each.
        service: The principal for which `context`, `java` and `hadoop` request a
            ticket.
        another_user: Whether they run as a user that can only read the ccache, through
            its group.
    """
    found: list[Reader] = []
    try:
        for kind in kinds:
            program, *arguments = _command(folder, config, kind, service)
            script = Path(program)
            if another_user:
                script = as_user(folder, script, CONSUMER_UID, GROUP)
            process = subprocess.Popen(
                [str(script), *arguments],
                env={
                    "PATH": PATH,
                    "KRB5_CONFIG": str(config),
                    "KRB5CCNAME": str(ccache),
                },
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            found.append(Reader(kind, process))
        for reader in found:
            assert reader.process.stdout
            assert "ready\n" == reader.process.stdout.readline(), (
                reader.process.communicate()
            )
        yield found
    finally:
        for reader in found:
            reader.process.kill()
            reader.process.wait()
            forget_clock(reader.process.pid)


def _command(folder: Path, config: Path, kind: Kind, service: str) -> list[str]:
    main = {"java": "CcacheReader", "hadoop": "HadoopReader"}.get(kind)
    if main is None:
        return [
            sys.executable,
            str(HERE / "ccache_reader.py"),
            kind,
            *([service] if kind == "context" else []),
        ]
    assert JAVA
    path = f"{folder}:{folder.parent}/jars/*"
    if not (folder / f"{main}.class").exists():
        sources = f"{HERE}/java"
        subprocess.run(
            [
                "javac",
                "-cp",
                path,
                "-sourcepath",
                sources,
                "-d",
                str(folder),
                f"{sources}/{main}.java",
            ],
            check=True,
            timeout=120,
        )
    options = ["-Xmx64m", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC"]
    return [
        JAVA,
        *options,
        f"-Djava.security.krb5.conf={config}",
        "-cp",
        path,
        main,
        service,
        f"{folder.parent}/service.keytab",
    ]
