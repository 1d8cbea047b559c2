"""
A realm with a principal, its keytab, a ccache folder, and `kerberos-sidecar` as a
process.
"""

import json
import os
import shutil
import stat
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests import Facts
from tests.support.daemon import VENV_BIN, Event, Settings, SidecarProcess
from tests.support.kerberos.kdc import Kdc, expiry_of, run_client
from tests.support.machine.users import as_user
from tests.support.waiting import PATIENCE_SECONDS

KERBEROS_SIDECAR = VENV_BIN / "kerberos-sidecar"
SERVICE = "HTTP/consumer"


@dataclass
class Site:
    """
    A principal in the realm of the module's KDC, the files of a test, and its sidecars.
    """

    kdc: Kdc
    folder: Path
    name: str
    daemons: list[SidecarProcess] = field(default_factory=list)

    @property
    def principal(self) -> str:
        """
        The name with its realm.
        """
        return f"{self.name}@{self.kdc.realm}"

    @property
    def keytab(self) -> Path:
        """
        The keytab of the principal.
        """
        return self.folder / "keytab" / "airflow.keytab"

    @property
    def ccache(self) -> Path:
        """
        The ccache that the sidecar publishes.
        """
        return self.folder / "ccache" / "krb5cc"

    @property
    def config(self) -> Path:
        return self.folder / "krb5.conf"

    def settings(self, **settings: str | None) -> Settings:
        """
        Return the environment of a sidecar; only SIGHUP triggers cycles after the
        first.
        """
        return {
            "INTERVAL": "1h",
            "KRB5_CONFIG": str(self.config),
            "KERBEROS_KEYTAB": str(self.keytab),
            "KERBEROS_PRINCIPAL": self.principal,
            "KERBEROS_CCACHE": str(self.ccache),
            "KERBEROS_HTTP_BIND": "127.0.0.1:0",
            "KERBEROS_LOG_LEVEL": "debug",
            "TMPDIR": str(self.folder / "tmp"),
            **settings,
        }

    def sidecar(
        self, *arguments: str, program: Path | str | None = None, **settings: str | None
    ) -> SidecarProcess:
        """
        Describe a sidecar without starting it; it is killed at the end of the test.
        """
        daemon = SidecarProcess(
            Path(program or KERBEROS_SIDECAR),
            self.settings(**settings),
            self.folder / f"home-{len(self.daemons)}",
            arguments,
        )
        self.daemons.append(daemon)
        return daemon

    def start(self, *arguments: str, **options: Any) -> SidecarProcess:
        """
        Start a sidecar, which is killed at the end of the test.
        """
        return self.sidecar(*arguments, **options).start()

    def as_user(self, uid: int, gid: int = 0) -> Path:
        """
        Return a script that runs the sidecar as another user, which can read the
        keytab.
        """
        self.keytab.chmod(0o644 if gid else 0o640)
        self.config.chmod(0o644)
        (self.folder / "tmp").chmod(0o777)
        return as_user(self.folder / f"bin-{gid}", KERBEROS_SIDECAR, uid, gid)

    def publish(self, **options: Any) -> SidecarProcess:
        """
        Start a sidecar and wait for its first ticket.
        """
        return self.start(**options).until_synced()

    def configure(
        self, kdcs: str | tuple[str, ...] | None = None, **libdefaults: str
    ) -> None:
        self.kdc.client_config(self.config, kdcs, libdefaults)

    def is_valid(self, ccache: Path | None = None) -> bool:
        """
        Whether `klist -s` accepts the ccache.
        """
        return (
            run_client(["klist", "-s"], self.config, ccache or self.ccache).returncode
            == 0
        )

    def expiry(self) -> float:
        """
        Return when the published TGT expires, as Unix time.
        """
        return expiry_of(self.ccache, self.config)

    def leftovers(self, *expected: str) -> list[str]:
        """
        Return unexpected entries of the ccache folder.
        """
        return sorted(
            set(os.listdir(self.ccache.parent)) - {self.ccache.name, *expected}
        )

    def refresh(self, daemon: SidecarProcess) -> Event:
        """
        Request a ticket with SIGHUP; return the `ticket_acquired` or `cycle_failed`
        line.
        """
        after = len(daemon.events)
        daemon.sighup()
        return daemon.wait_for_event(("ticket_acquired", "cycle_failed"), after=after)

    def sample(
        self,
        daemon: SidecarProcess,
        name: str,
        ccache: Path | None = None,
        principal: str | None = None,
    ) -> float:
        """
        Return the value of a ticket metric.
        """
        labels = f'ccache="{ccache or self.ccache}",principal="{principal or self.principal}"'
        return daemon.metrics()[f'{name}{{{labels},sidecar="kerberos"}}']

    def mode(self) -> str:
        """
        Return the permissions of the ccache, such as "0640".
        """
        return f"{stat.S_IMODE(self.ccache.stat().st_mode):04o}"


def failure(
    daemon: SidecarProcess, after: int = 0, timeout_seconds: float = PATIENCE_SECONDS
) -> Event:
    """
    Wait for the next failed cycle and return its line.
    """
    return daemon.wait_for_event("cycle_failed", timeout_seconds, after=after)


def several(*entries: Facts) -> Settings:
    """
    Return the settings of one sidecar for several principals.
    """
    return {
        "KERBEROS_PRINCIPALS": json.dumps(entries, default=str),
        **dict.fromkeys(("KERBEROS_PRINCIPAL", "KERBEROS_CCACHE")),
    }


def with_ccaches(site: Site, paths: Iterable[Path]) -> Settings:
    """
    Return the settings of one sidecar for several ccaches of one principal.
    """
    return several(*({"principal": site.principal, "ccache": path} for path in paths))


@contextmanager
def site(kdc: Kdc, name: str, life: str = "1d") -> Iterator[Site]:
    """
    Create a site in a folder that every user can reach; kill its processes at the end.
    """
    folder = Path(tempfile.mkdtemp(prefix="kerberos-", dir="/tmp"))
    folder.chmod(0o755)
    one = Site(kdc, folder, name)
    kdc.add_principal(name, life)
    try:
        kdc.write_keytab(one.keytab, one.principal)
        one.ccache.parent.mkdir()
        (folder / "tmp").mkdir()
        one.configure()
        yield one
    finally:
        for daemon in one.daemons:
            daemon.kill()
        shutil.rmtree(folder, ignore_errors=True)


def assert_tells(daemon: SidecarProcess, reason: str, ready: bool) -> None:
    """
    Assert that readiness, page and metrics report the reason, and liveness is
    unaffected.
    """
    readiness = daemon.get("/readyz")
    told = readiness.json()
    assert (200 if ready else 503, reason) == (readiness.status, told["reason"])
    assert told["error"]
    assert reason in daemon.get("/").body
    assert (
        daemon.metrics()[
            f'sidecar_failures_total{{reason="{reason}",sidecar="kerberos"}}'
        ]
        >= 1
    )
    assert daemon.get("/healthz").status == 200
