"""
An Active Directory domain controller with Samba: accounts, passwords, lockouts.

Only its KDC runs, on loopback and its own port; accounts are changed in the database.
Programs: `samba`, `samba-tool` (Debian: samba-ad-dc, samba-ad-provision), `ktutil` (krb5-user).
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Self

import pytest

from tests.support.kerberos.kdc import PATH, run_client
from tests.support.program import listens, own_port, start_server

MISSING = [
    name for name in ("samba", "samba-tool", "ktutil") if shutil.which(name, path=PATH) is None
]
SCHEMA = Path("/usr/share/samba/setup/ad-schema")
TOOL_SECONDS = 600
REALM = "AD.TEST"


class DomainController:
    """
    A domain; a `with` statement creates and starts it.
    """

    realm = REALM

    def __init__(self, folder: Path) -> None:
        """
        Describe a domain without creating it.
        """
        self.folder = folder
        self._port = own_port(udp=True)
        self.address = f"127.0.0.1:{self._port}"
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        if MISSING or not SCHEMA.exists() or os.geteuid() != 0:
            pytest.skip("Active Directory needs root and Samba: make test-full as root")
        options = {
            "bind interfaces only": "yes",
            "interfaces": "lo",
            "krb5 port": str(self._port),
            "kpasswd port": "0",
            "log file": str(self.folder / "log"),
            "server services": "kdc",
        }
        given = [f"--option={name}={value}" for name, value in options.items()]
        names = [f"--realm={self.realm}", "--domain=AD", "--server-role=dc", "--dns-backend=NONE"]
        self._run(
            ["samba-tool", "domain", "provision", *names, f"--targetdir={self.folder}", *given]
        )
        # `--option` applies only to the provisioning; the server reads smb.conf.
        lines = [f"\t{name} = {value}\n" for name, value in options.items()]
        text = self._config.read_text()
        for name in options:
            text = re.sub(rf"^\s*{name} = .*\n", "", text, flags=re.MULTILINE)
        self._config.write_text(text.replace("[global]\n", "[global]\n" + "".join(lines), 1))
        command = ["samba", "-s", str(self._config), "--foreground", "--no-process-group"]
        self._process = start_server(
            [*command, "--model=single"],
            self.folder / "said",
            lambda: listens("127.0.0.1", self._port),
            {"PATH": PATH},
        )
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def tool(self, *arguments: str) -> str:
        """
        Run `samba-tool` on the database and return its output.
        """
        database = ["-H", str(self.folder / "private" / "sam.ldb"), "-s", str(self._config)]
        return self._run(["samba-tool", *arguments, *database])

    def export_keytab(self, path: Path, account: str) -> Path:
        """
        Write the current keys of an account to a keytab.
        """
        path.unlink(missing_ok=True)
        principal = f"--principal={account}@{self.realm}"
        self._run(
            ["samba-tool", "domain", "exportkeytab", str(path), principal, "-s", str(self._config)]
        )
        return path

    def wrong_passwords(self, account: str) -> int:
        """
        Return how many wrong passwords are currently counted for an account.
        """
        found = re.search(r"^badPwdCount: (\d+)$", self.tool("user", "show", account), re.MULTILINE)
        return int(found[1]) if found else 0

    def client_config(self, path: Path) -> Path:
        """
        Write a krb5.conf for clients of this domain.
        """
        path.write_text(
            f"[libdefaults]\n  default_realm = {self.realm}\n  dns_lookup_kdc = false\n"
            "  rdns = false\n  dns_canonicalize_hostname = false\n"
            f"[realms]\n  {self.realm} = {{\n    kdc = {self.address}\n  }}\n"
        )
        return path

    @property
    def _config(self) -> Path:
        return self.folder / "etc" / "smb.conf"

    def _run(self, command: list[str]) -> str:
        done = subprocess.run(
            command, env={"PATH": PATH}, capture_output=True, text=True, timeout=TOOL_SECONDS
        )
        assert 0 == done.returncode, done.stdout + done.stderr
        return done.stdout


def keytab_of_password(path: Path, principal: str, password: str, salt: str, config: Path) -> Path:
    """
    Create a keytab from a password with `ktutil`, as users without export permission do.

    Args:
        salt: Empty for ktutil's default: realm and name of the principal.
    """
    path.unlink(missing_ok=True)
    given = f"-s {salt}" if salt else ""
    lines = [
        f"addent -password -p {principal} -k 1 -e aes256-cts-hmac-sha1-96 {given}",
        password,
        f"wkt {path}",
        "quit",
    ]
    done = subprocess.run(
        ["ktutil"],
        env={"PATH": PATH, "KRB5_CONFIG": str(config)},
        input="\n".join(lines) + "\n",
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert path.exists(), done.stdout + done.stderr
    assert principal in run_client(["klist", "-kt", str(path)], config).stdout
    return path
