"""
Active Directory, provided by Samba's domain controller: its tickets, new passwords,
lockouts.

Only its KDC runs, on loopback and its own port; accounts are changed in the database.
Programs: `samba`, `samba-tool` (Debian: samba-ad-dc, samba-ad-provision).
"""

import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.daemon import SidecarProcess
from tests.support.kerberos.kdc import PATH, run_client
from tests.support.kerberos.site import KERBEROS_SIDECAR, failure
from tests.support.program import listens, own_port, start_server

REALM = "AD.TEST"
THRESHOLD = 5
Tool = Callable[..., str]


def run(*command: str) -> str:
    done = subprocess.run(
        command, env={"PATH": PATH}, capture_output=True, text=True, timeout=600
    )
    assert 0 == done.returncode, done.stdout + done.stderr
    return done.stdout


@pytest.fixture
def tool(tmp_path: Path, only_in_full: None) -> Iterator[Tool]:
    """A function that runs `samba-tool` on the database of a running domain."""
    if os.geteuid() != 0 or not shutil.which("samba", path=PATH):
        pytest.skip("Active Directory needs root and Samba: make test-full as root")
    folder = tmp_path / "ad"
    port = own_port(udp=True)
    options = {
        "bind interfaces only": "yes",
        "interfaces": "lo",
        "krb5 port": str(port),
        "kpasswd port": "0",
        "log file": str(folder / "log"),
        "server services": "kdc",
    }
    run(
        "samba-tool",
        "domain",
        "provision",
        f"--realm={REALM}",
        "--domain=AD",
        "--server-role=dc",
        "--dns-backend=NONE",
        f"--targetdir={folder}",
        *[f"--option={name}={value}" for name, value in options.items()],
    )
    # `--option` applies only to the provisioning; the server reads smb.conf.
    config = folder / "etc" / "smb.conf"
    kept = re.sub(
        rf"^\s*({'|'.join(options)}) = .*\n", "", config.read_text(), flags=re.MULTILINE
    )
    lines = "".join(f"\t{name} = {value}\n" for name, value in options.items())
    config.write_text(kept.replace("[global]\n", f"[global]\n{lines}", 1))
    (tmp_path / "krb5.conf").write_text(
        f"[libdefaults]\n  default_realm = {REALM}\n  dns_lookup_kdc = false\n  rdns = false\n"
        f"[realms]\n  {REALM} = {{\n    kdc = 127.0.0.1:{port}\n  }}\n"
    )
    server = start_server(
        [
            "samba",
            "-s",
            str(config),
            "--foreground",
            "--no-process-group",
            "--model=single",
        ],
        folder / "said",
        lambda: listens("127.0.0.1", port),
        {"PATH": PATH},
    )
    yield lambda *arguments: run("samba-tool", *arguments, "-s", str(config))
    server.kill()
    server.wait()


def test_follows_changed_passwords_and_never_locks_the_account(
    tool: Tool, tmp_path: Path
) -> None:
    """The ticket contains the account's groups and does not fit into a datagram."""
    keytab, ccache, config = (
        tmp_path / name for name in ("keytab", "krb5cc", "krb5.conf")
    )
    tool(
        "domain", "passwordsettings", "set", f"--account-lockout-threshold={THRESHOLD}"
    )
    tool("user", "create", "airflow", "Secret.Word1")
    tool("spn", "add", "HTTP/airflow.ad.test", "airflow")

    def export() -> None:
        keytab.unlink(missing_ok=True)
        tool("domain", "exportkeytab", str(keytab), f"--principal=airflow@{REALM}")

    settings = {
        "KRB5_CONFIG": str(config),
        "KERBEROS_KEYTAB": str(keytab),
        "KERBEROS_PRINCIPAL": f"airflow@{REALM}",
        "KERBEROS_CCACHE": str(ccache),
        "KERBEROS_HTTP_BIND": "127.0.0.1:0",
    }
    export()
    for _ in range(2):
        with SidecarProcess(KERBEROS_SIDECAR, settings, tmp_path / "home") as daemon:
            daemon.wait_until_ready(60)
            done = run_client(["kvno", "HTTP/airflow.ad.test"], config, ccache)
            assert (0, True) == (done.returncode, "kvno = " in done.stdout), done.stderr
            tool("user", "setpassword", "airflow", "--random-password")
            daemon.sighup()
            assert "keytab_stale" == failure(daemon)["reason"]
            assert 200 == daemon.get("/readyz").status
        with SidecarProcess(KERBEROS_SIDECAR, settings, tmp_path / "home") as daemon:
            assert "is not tried again before" in failure(daemon)["error"]
            assert "badPwdCount: 1\n" in tool("user", "show", "airflow")
            after = len(daemon.events)
            export()
            daemon.wait_for_event("ticket_acquired", 60, after=after)
