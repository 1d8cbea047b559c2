"""Keys never leave the process, and tickets only through the ccache."""

import base64
import json
import re
import subprocess
from pathlib import Path

import pytest

from tests.support.daemon import SidecarProcess
from tests.support.kerberos.kdc import Kdc, run_client
from tests.support.kerberos.kdc_proxy import KdcProxy
from tests.support.kerberos.site import Site
from tests.support.waiting import wait_until

CAT = ("setpriv", "--reuid=50000", "--regid=0", "--clear-groups", "cat")
PASSED_ON = (
    "PATH",
    "HOME",
    "LANG",
    "TZ",
    "LC_ALL",
    "LC_CTYPE",
    "LD_LIBRARY_PATH",
    "LD_PRELOAD",
)


def assert_silent(daemon: SidecarProcess, keys: list[bytes]) -> None:
    """
    Assert that log and HTTP answers have no key in hex, in base64 or as Python's bytes.
    """
    said = daemon.log() + json.dumps(daemon.events) + "\n".join(daemon.stray_lines)
    if daemon.is_running():
        said += "".join(
            daemon.get(path).body for path in ("/", "/status", "/readyz", "/metrics")
        )
    for key in keys:
        forms = [
            key.hex(),
            key.hex().upper(),
            base64.b64encode(key[1:]).decode()[2:-4],
            repr(key)[2:-1],
            key[:8].hex(),
        ]
        assert [] == [form for form in forms if form in said]


def test_keys_never_appear_in_logs_or_http_answers_on_failures(
    here: Site, proxy: KdcProxy
) -> None:
    listing = run_client(["klist", "-K", "-k", str(here.keytab)], here.config).stdout
    keys = [bytes.fromhex(key) for key in re.findall(r"\(0x([0-9a-f]+)\)", listing)]
    assert keys
    content = here.keytab.read_bytes()
    here.configure(proxy.address)
    checked = here.start("check")
    assert 0 == checked.wait_for_exit().code
    daemon = here.publish(KERBEROS_LOG_LEVEL="debug")
    assert_silent(checked, keys)
    assert_silent(daemon, keys)

    for damaged in (content[:-5], b"\x05\x02" + content[6:], base64.b64encode(content)):
        here.keytab.write_bytes(damaged)
        assert "cycle_failed" == here.refresh(daemon)["event"]
        assert_silent(daemon, keys)
    here.keytab.write_bytes(content)
    proxy.behavior = "garbage"
    assert "kdc_garbage" == here.refresh(daemon)["reason"]
    here.kdc.kadmin(f"modprinc -allow_tix {here.principal}")
    proxy.behavior = "relay"
    here.refresh(daemon)

    assert_silent(daemon, keys)


@pytest.mark.parametrize(
    "wrapper", [(), ("prlimit", "--core=0:0")], ids=["", "hard limit"]
)
def test_a_process_with_the_same_uid_cannot_read_secrets_through_proc_or_a_core(
    here: Site, wrapper: tuple[str, ...]
) -> None:
    """
    Containers of a pod with `shareProcessNamespace` see each other's `/proc/PID`. It
    writes nothing to /tmp, HOME or the keytab's folder: a read-only root is enough.
    Only root can raise a limit.
    """
    here.ccache.parent.chmod(0o777)
    daemon = here.sidecar(program=here.as_user(50000))
    daemon.wrapper = wrapper
    daemon.start().wait_until_ready()

    for path in (f"root{here.keytab}", "environ", "maps", "fd/3"):
        said = subprocess.run([*CAT, f"/proc/{daemon.pid}/{path}"], capture_output=True)
        assert (1, b"") == (said.returncode, said.stdout), path
        assert b"Permission denied" in said.stderr
    limits = Path(f"/proc/{daemon.pid}/limits").read_text()
    # A limit of 1 byte also holds if the kernel pipes cores to a program; no page fits
    # into it.
    assert re.search(r"^Max core file size +[01] +[01] ", limits, re.MULTILINE), limits
    assert [] == [
        *(here.folder / "tmp").iterdir(),
        *daemon.home.iterdir(),
        *here.leftovers(),
    ]
    assert [here.keytab] == [*here.keytab.parent.iterdir()]


def child_of(daemon: SidecarProcess) -> str:
    """Return the process that asks for a ticket; empty if there is none."""
    return subprocess.run(
        ["pgrep", "-P", str(daemon.pid), "-f", "libkrb5_child"],
        capture_output=True,
        text=True,
    ).stdout.strip()


def test_the_child_gets_no_secret_of_the_pod_and_ends_with_its_parent(
    here: Site, running_kdc: Kdc
) -> None:
    running_kdc.hang()
    here.ccache.parent.chmod(0o777)
    daemon = here.start(
        program=here.as_user(50000),
        LDAP_PASSWORD="hunter2",
        LD_LIBRARY_PATH="/nonexistent",
        TZ="UTC",
        AIRFLOW__CORE__FERNET_KEY="hunter2",
        KRB5_TRACE_KEY="hunter2",
    )
    child = Path("/proc") / wait_until(lambda: child_of(daemon), "a child asks")

    assert (
        {b"TZ", b"LD_LIBRARY_PATH"}
        <= {
            one.partition(b"=")[0]
            for one in (child / "environ").read_bytes().split(b"\0")
        }
        <= {b"", *map(str.encode, PASSED_ON)}
    )
    assert here.principal.encode() not in (child / "cmdline").read_bytes()
    wait_until(
        lambda: (
            subprocess.run([*CAT, f"{child}/environ"], capture_output=True).returncode
        ),
        "it withdraws",
    )
    daemon.kill()
    # libkrb5 itself would go on for many more
    wait_until(lambda: not child.exists(), "it ends with its parent")
