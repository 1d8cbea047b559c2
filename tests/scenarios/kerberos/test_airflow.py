"""The ccache that Airflow itself uses, and the documented check for consumers."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from tests.support.airflow.installed import Airflow, Version
from tests.support.kerberos.kdc import PATH
from tests.support.kerberos.site import SERVICE, Site

PAGE = Path(__file__).parents[3] / "docs/how-to/find-out-why-there-is-no-ticket.md"
RUN_MAIN = """
import os, sys
sys.argv = ["airflow", "version"]
from airflow.__main__ import main
main()
os.execvp("kvno", ["kvno", os.environ["SPN"]])
"""


def service(site: Site) -> str:
    return site.kdc.add_principal(f"{SERVICE}{site.principal.partition('@')[0]}")


def consumer(site: Site, spn: str, **more: str) -> dict[str, str]:
    """Return the variables of an Airflow container; KRB5CCNAME points to no ccache by default."""
    return {
        "PATH": f"{site.folder}/bin:{PATH}",
        "HOME": str(site.folder / "tmp"),
        "KRB5_CONFIG": str(site.config),
        "KRB5CCNAME": "FILE:/nonexistent/ccache",
        "SPN": spn,
        **more,
    }


@pytest.mark.parametrize("version", ["2.11", "3"])
def test_airflow_with_kerberos_security_uses_its_configured_ccache(
    here: Site, version: Version, request: pytest.FixtureRequest
) -> None:
    """The migration guide promises so, whatever `KRB5CCNAME` the container has."""
    if version != "2.11" and not request.config.getoption("--full"):
        pytest.skip("other versions of Airflow run with make test-full")
    airflow = Airflow.install_or_skip(version)
    here.publish()
    environment = consumer(here, service(here)) | {
        **airflow.environment(None, here.folder / "tmp"),
        "PATH": f"{airflow.bin}:{PATH}",
        "AIRFLOW__CORE__SECURITY": "kerberos",
        "AIRFLOW__KERBEROS__CCACHE": str(here.ccache),
    }

    def run() -> subprocess.CompletedProcess[str]:
        program = [str(airflow.bin / "python"), "-c", RUN_MAIN]
        return subprocess.run(program, env=environment, capture_output=True, text=True)

    done = run()
    assert (0, True) == (done.returncode, "kvno = " in done.stdout), done.stderr

    environment["AIRFLOW__CORE__SECURITY"] = ""
    assert "/nonexistent/ccache" in run().stderr, "main() sets it only with this setting"


def script() -> str:
    """Return the script that the page runs in the consumer's container."""
    (found,) = re.findall(r"<<'CHECK'\n(.*?)^CHECK$", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    return str(found)


def check(environment: dict[str, str]) -> tuple[int, str]:
    done = subprocess.run(
        ["bash", "-s"],
        env=environment,
        input=script(),
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    return done.returncode, done.stdout


def configure_airflow(site: Site, security: str = "", ccache: str = "") -> None:
    """Write an `airflow` that returns two settings and prints a warning, as the real one does."""
    program = site.folder / "bin" / "airflow"
    program.parent.mkdir(exist_ok=True)
    program.write_text(
        "#!/bin/sh\n"
        "echo a warning\n"
        f'[ "$*" = "config get-value core security" ] && echo "{security}"\n'
        f'[ "$*" = "config get-value kerberos ccache" ] && echo "{ccache}"\n'
        "exit 0\n"
    )
    program.chmod(0o755)


def test_consumer_check_shows_the_ccache_and_obtains_a_service_ticket(here: Site) -> None:
    here.publish()
    spn = service(here)
    configure_airflow(here, "kerberos", str(here.ccache))

    code, said = check(consumer(here, spn))
    assert 0 == code, said
    assert f"Airflow uses {here.ccache}\n" in said
    assert f"{spn}: kvno = " in said

    configure_airflow(here)
    code, said = check(consumer(here, spn, KRB5CCNAME=f"FILE:{here.ccache}"))
    assert 0 == code, said
    assert f"Airflow uses FILE:{here.ccache}\n" in said


def test_consumer_check_fails_with_a_distinct_message_for_each_fault(here: Site) -> None:
    daemon = here.publish(KERBEROS_CCACHE_MODE="0600", KERBEROS_TICKET_LIFETIME="1h")
    configure_airflow(here)
    spn = service(here)
    there = consumer(here, spn, KRB5CCNAME=str(here.ccache))

    code, said = check(consumer(here, spn))
    assert (1, True) == (code, "/nonexistent/ccache" in said), said

    code, said = check({**there, "SPN": "HTTP/nobody.example.test"})
    assert (1, True) == (code, "not found in Kerberos database" in said), said

    if os.getuid() == 0:
        wrapped = ["setpriv", "--reuid=50001", "--regid=0", "--clear-groups", "bash", "-s"]
        done = subprocess.run(
            wrapped, env=there, input=script(), text=True, capture_output=True, check=False
        )
        assert (1, True) == (done.returncode, "ermission" in done.stderr), done.stderr

    daemon.kill()
    here.ccache.write_bytes(ended(here.ccache.read_bytes()))
    code, said = check(there)
    assert (1, True) == (code, "has expired" in said), said


def ended(content: bytes) -> bytes:
    """
    Return the ccache with a ticket that expired in 2001.

    The end time follows two equal times; it is an hour later, minus the KDC's response time.
    """
    (times,) = {
        match.start()
        for match in re.finditer(rb"(....)\1(....)", content, re.DOTALL)
        if 0 <= 3600 - (int.from_bytes(match[2]) - int.from_bytes(match[1])) < 300
    }
    return content[: times + 8] + (1_000_000_000).to_bytes(4) + content[times + 12 :]


@pytest.mark.parametrize("version", ["2.11", "3"])
def test_consumer_check_reads_the_configuration_of_a_real_airflow(
    here: Site, version: Version, only_in_full: None
) -> None:
    airflow = Airflow.install_or_skip(version)
    here.publish()
    spn = service(here)
    real = airflow.environment(None, here.folder / "tmp") | {
        "AIRFLOW__KERBEROS__CCACHE": str(here.ccache)
    }

    code, said = check({**consumer(here, spn), **real})
    assert (1, True) == (code, "Airflow uses FILE:/nonexistent/ccache\n" in said), said

    secure = {**real, "AIRFLOW__CORE__SECURITY": "kerberos"}
    code, said = check({**consumer(here, spn), **secure})
    assert (0, True) == (code, f"Airflow uses {here.ccache}\n" in said), said
