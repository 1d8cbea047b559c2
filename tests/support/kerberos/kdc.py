"""
A real MIT KDC on loopback: principals, keytabs, outages, a clock offset.

The first ticket takes about 0.1 s (create the database, start, add a principal).
Programs: `krb5kdc`, `kadmin.local`, `kdb5_util` (Debian: krb5-kdc, krb5-admin-server).
"""

import calendar
import re
import shutil
import signal
import subprocess
import textwrap
import time
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests import Texts
from tests.support.machine.clocks import libfaketime
from tests.support.program import Program, listens, own_port, start_server
from tests.support.replacing import replace

PATH = "/usr/sbin:/usr/bin:/sbin:/bin"
REALM = "EXAMPLE.TEST"
MISSING = [
    name
    for name in ("krb5kdc", "kadmin.local", "kdb5_util", "kinit", "klist")
    if shutil.which(name, path=PATH) is None
]


def skip_without_kdc() -> None:
    """
    Skip a module, or a fixture's tests, if the KDC or gssapi is missing.
    """
    if MISSING or find_spec("gssapi") is None:
        missing = ", ".join(MISSING) or "gssapi, which is not compiled"
        pytest.skip(
            f"a real KDC needs {missing}: make setup-test as root",
            allow_module_level=True,
        )


class Kdc(Program):
    """
    A realm with one KDC on one address, UDP and TCP.
    """

    def __init__(
        self, folder: Path, realm: str = REALM, host: str = "127.0.0.1"
    ) -> None:
        """
        Describe a realm without creating it.

        Args:
            folder: The folder for its database and files; created if missing.
            realm: Its name.
            host: The address.
        """
        self.host = host
        self.folder = folder
        self.realm = realm
        self.port = 0
        self.clock_offset_seconds = 0

    @property
    def address(self) -> str:
        """
        Host and port in the format of krb5.conf.
        """
        return f"{self.host}:{self.port}"

    @property
    def environment(self) -> Texts:
        """
        The environment of the KDC's own programs.
        """
        return {
            "PATH": PATH,
            "KRB5_CONFIG": str(self.folder / "krb5.conf"),
            "KRB5_KDC_PROFILE": str(self.folder / "kdc.conf"),
        }

    def start(self, clock_offset_seconds: int = 0) -> None:
        """
        Start the KDC; the first time, create the realm.

        Args:
            clock_offset_seconds: How far libfaketime sets its clock ahead of the
                machine's.
        """
        if not self.port:
            self.port = own_port(self.host, udp=True)
            self._make_realm()
        environment = self.environment
        self.clock_offset_seconds = clock_offset_seconds
        if clock_offset_seconds:
            environment |= {
                "LD_PRELOAD": str(libfaketime()),
                "FAKETIME": f"{clock_offset_seconds:+d}s",
                "FAKETIME_DONT_RESET": "1",
            }
        is_up, said = (lambda: listens(self.host, self.port)), self.folder / "said"
        self._process = start_server(["krb5kdc", "-n"], said, is_up, environment)

    def hang(self) -> None:
        """
        Accept connections and datagrams, but do not answer (SIGSTOP) until `resume`.
        """
        assert self._process
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """
        Answer again, including requests that arrived meanwhile.
        """
        assert self._process
        self._process.send_signal(signal.SIGCONT)

    def kadmin(self, query: str) -> str:
        """
        Run a kadmin command on the database and return its output.
        """
        command, env = ["kadmin.local", "-r", self.realm, "-q", query], self.environment
        done = subprocess.run(
            command, env=env, capture_output=True, text=True, timeout=60
        )
        assert 0 == done.returncode and " while " not in done.stderr, (
            f"{query}: {done.stderr}"
        )
        return done.stdout

    def add_principal(self, name: str, life: str = "1d") -> str:
        """
        Add a principal with a random key and return its full name.

        Args:
            name: The name without the realm.
            life: The maximum lifetime of its tickets (`16s`).
        """
        self.kadmin(
            f'addprinc -randkey -maxlife {life} -maxrenewlife "0" {_quoted(name)}'
        )
        return f"{name}@{self.realm}"

    def write_keytab(self, path: Path, principal: str, option: str = "") -> Path:
        """
        Write new keys of a principal to a keytab, with the next kvno.

        An existing keytab is extended, as `ktadd` does; earlier keys stop working.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        self.kadmin(f"ktadd {option} -k {path} {_quoted(principal)}")
        return path

    def copy_keys(self, path: Path, principal: str) -> Path:
        """
        Write the current keys of a principal to a keytab, without changing them.
        """
        return self.write_keytab(path, principal, "-norandkey")

    def client_config(
        self,
        path: Path,
        kdcs: str | tuple[str, ...] | None = None,
        libdefaults: Mapping[str, str] | None = None,
    ) -> Path:
        """
        Write a krb5.conf for clients of this realm.

        Args:
            path: The file.
            kdcs: Addresses to use instead of the KDC's own, such as a proxy's.
            libdefaults: More settings of that section.
        """
        addresses = (kdcs,) if isinstance(kdcs, str) else kdcs or (self.address,)
        defaults = {
            "default_realm": self.realm,
            "dns_lookup_kdc": "false",
            "dns_lookup_realm": "false",
            "dns_canonicalize_hostname": "false",
            "rdns": "false",
            **(libdefaults or {}),
        }
        text = "[libdefaults]\n"
        text += "".join(f"  {name} = {value}\n" for name, value in defaults.items())
        text += f"[realms]\n  {self.realm} = {{\n"
        text += "".join(f"    kdc = {address}\n" for address in addresses)
        path.parent.mkdir(parents=True, exist_ok=True)
        replace(path, text + "  }\n")
        return path

    def requests(self) -> int:
        """
        Return how many requests for a TGT the KDC has granted so far.
        """
        return len(
            re.findall(
                "AS_REQ .*ISSUE", (self.folder / "kdc.log").read_text(errors="replace")
            )
        )

    def _make_realm(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.client_config(self.folder / "krb5.conf")
        (self.folder / "kdc.conf").write_text(
            textwrap.dedent(f"""\
            [realms]
              {self.realm} = {{
                database_name = {self.folder}/principal
                key_stash_file = {self.folder}/stash
                acl_file = {self.folder}/acl
                kdc_listen = {self.address}
                kdc_tcp_listen = {self.address}
                max_life = 1d
                max_renewable_life = 7d
              }}
            [logging]
              kdc = FILE:{self.folder}/kdc.log
              default = FILE:{self.folder}/other.log
            """)
        )
        subprocess.run(
            ["kdb5_util", "create", "-r", self.realm, "-s", "-P", "master"],
            env=self.environment,
            capture_output=True,
            check=True,
            timeout=60,
        )
        self.kadmin(f'modprinc -maxrenewlife "7d" krbtgt/{self.realm}')


def run_client(
    command: list[str], config: Path, ccache: str | Path = "/nonexistent", **more: str
) -> subprocess.CompletedProcess[str]:
    """
    Run `kinit`, `klist` or a similar program with only these variables.
    """
    return subprocess.run(
        command,
        env={
            "PATH": PATH,
            "KRB5_CONFIG": str(config),
            "KRB5CCNAME": str(ccache),
            **more,
        },
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
    )


def expiry_of(ccache: Path, config: Path) -> float:
    """
    Return when the TGT in a ccache expires according to `klist`, as Unix time.
    """
    done = run_client(["klist", "-C"], config, ccache, TZ="UTC", LC_ALL="C")
    found = re.search(r"^\S+ \S+  (\S+ \S+)  krbtgt/", done.stdout, re.MULTILINE)
    assert found, done.stdout + done.stderr
    return calendar.timegm(time.strptime(found[1], "%m/%d/%y %H:%M:%S"))


def _quoted(word: str) -> str:
    """
    Quote a word for the command line of kadmin.
    """
    return '"' + word.replace('"', '""') + '"'
