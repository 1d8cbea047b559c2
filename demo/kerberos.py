"""
The steps of kerberos: a real KDC, a keytab, and a consumer that performs handshakes.
"""

from __future__ import annotations

import base64
import json
import os
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from demo import console, script
from demo.console import say
from demo.daemon import Daemon
from demo.script import Result, Step, check
from tests.support.kerberos.kdc import MISSING, Kdc

PRINCIPAL = "airflow@EXAMPLE.TEST"
SERVICE = "HTTP/warehouse.example.test@EXAMPLE.TEST"
LIFE_SECONDS = 6


@dataclass
class Stage:
    """
    The objects that the steps act on.
    """

    kdc: Kdc
    home: Path
    daemon: Daemon
    consumer_log: Path

    @property
    def concerned(self) -> Daemon:
        """
        The daemon whose log is printed when a step fails.
        """
        return self.daemon

    @property
    def keytab(self) -> Path:
        return self.home / "keytab" / "airflow.keytab"

    @property
    def ccache(self) -> Path:
        return self.home / "ccache" / "krb5cc"

    def handshakes(self) -> tuple[int, list[str]]:
        """
        Return the number of the consumer's handshakes so far, and the errors of failed ones.
        """
        lines = self.consumer_log.read_text().split("\n")[:-1]
        errors = [error for error in map(json.loads, lines) if error]
        return len(lines), errors

    def acquired(self) -> int:
        """
        Return the number of tickets that the sidecar has acquired.
        """
        return sum('"ticket_acquired"' in line for line in self.daemon.lines())

    def wait_for_ticket(self, number: int) -> None:
        """
        Wait until the sidecar has acquired more than `number` tickets, and for new handshakes.
        """
        self.daemon.wait_for(lambda: self.acquired() > number, "a new ticket")
        made, _ = self.handshakes()
        self.daemon.wait_for(lambda: self.handshakes()[0] > made + 2, "handshakes")


def ticket_appears(stage: Stage) -> Result:
    """
    The first ticket, from the start of the process to /readyz.
    """
    began = time.monotonic()
    stage.daemon.wait_for(lambda: stage.daemon.readiness()["ready"], "/readyz answers 200")
    seconds = time.monotonic() - began
    mode = stat.S_IMODE(stage.ccache.stat().st_mode)
    check(mode == 0o640, "the ccache is readable by its group")
    check(os.listdir(stage.ccache.parent) == [stage.ccache.name], "the folder has no other file")
    say(f"{stage.ccache}  mode {mode:04o}, principal {PRINCIPAL}, valid for {LIFE_SECONDS} seconds")
    say(f"status page while this runs: {stage.daemon.url()}/")
    return Result("/readyz returned 200 with a valid ticket; includes the process start", seconds)


def consumer_uses_it(stage: Stage) -> Result:
    """
    Handshakes with a service, across three tickets.
    """
    began = time.monotonic()
    stage.wait_for_ticket(2)
    made, errors = stage.handshakes()
    check(not errors, f"no handshake fails: {errors[:1]}")
    say(f"{made} handshakes with {SERVICE}, by a process that has only the ccache")
    say(f"{stage.acquired()} tickets, each acquired at half the lifetime of the previous one")
    return Result(f"{made} handshakes across 3 tickets, none failed", time.monotonic() - began)


def kdc_fails(stage: Stage) -> Result:
    """
    The KDC is down for a while: the ticket stays, the cause is reported, recovery is automatic.
    """
    stage.kdc.kadmin(f"modprinc -maxlife 1h {PRINCIPAL}")
    tickets = stage.acquired()
    stage.daemon.sighup()
    stage.wait_for_ticket(tickets)
    say("the principal's new tickets are valid for an hour")
    stage.kdc.stop()
    say("stopped the KDC, and triggered a cycle with SIGHUP")
    stage.daemon.sighup()
    reason = "kdc_unreachable"
    stage.daemon.wait_for(
        lambda: stage.daemon.find_event("cycle_failed", reason=reason, consecutive_failures=2),
        "two failed cycles",
    )
    readiness = stage.daemon.readiness()
    check(readiness["code"] == 200 and readiness["reason"] == reason, "/readyz: 200 and the reason")
    check(stage.daemon.get("/healthz")[0] == 200, "/healthz stays 200")
    say(f"/readyz  200  reason={reason}")
    say(f"error: {readiness['error']}")
    tickets = stage.acquired()
    stage.kdc.start()
    began = time.monotonic()
    stage.wait_for_ticket(tickets)
    seconds = time.monotonic() - began
    made, errors = stage.handshakes()
    check(not errors, f"no handshake failed meanwhile: {errors[:1]}")
    return Result(
        f"the ticket stayed; /readyz returned 200 with {reason}; {made} handshakes, none failed; "
        "time: from the KDC's restart to a new ticket",
        seconds,
    )


def keytab_is_rotated(stage: Stage) -> Result:
    """
    A new key in the KDC, and a new keytab that replaces the old one.
    """
    new = stage.kdc.write_keytab(stage.home / "new.keytab", PRINCIPAL)
    tickets = stage.acquired()
    os.replace(new, stage.keytab)
    say("changed the key in the KDC, and replaced the keytab")
    began = time.monotonic()
    stage.wait_for_ticket(tickets)
    seconds = time.monotonic() - began
    event = stage.daemon.find_event("ticket_acquired", cause="keytab_changed")
    check(event is not None, "the new keytab was the cause")
    _, errors = stage.handshakes()
    check(not errors, f"no handshake failed meanwhile: {errors[:1]}")
    kvno = event["kvno"] if event else 0
    return Result(f"used immediately, kvno {kvno}; no restart, no failed handshake", seconds)


def keytab_is_damaged(stage: Stage) -> Result:
    """
    A Secret that was base64-encoded twice.
    """
    good = stage.keytab.read_bytes()
    before = stage.ccache.read_bytes()
    stage.keytab.write_bytes(base64.b64encode(good))
    began = time.monotonic()
    event = stage.daemon.wait_for(
        lambda: stage.daemon.find_event("cycle_failed", reason="keytab_garbage"),
        "the cycle fails with keytab_garbage",
    )
    seconds = time.monotonic() - began
    say(f"error: {event['error']}")
    say(f"advice: {event['advice']}")
    check(stage.daemon.readiness()["code"] == 200, "/readyz stays 200: the ticket is valid")
    # The consumer appends its service tickets; the published content is still the beginning.
    check(stage.ccache.read_bytes().startswith(before[:100]), "the ticket stays")
    stage.keytab.write_bytes(good)  # the keys are those of the ticket: no KDC is asked
    stage.daemon.wait_for(lambda: not stage.daemon.readiness().get("reason"), "the failure is over")
    return Result("reason keytab_garbage, the ticket stayed; time: to the error", seconds)


def daemon_stops(stage: Stage) -> Result:
    """
    SIGTERM, while the KDC hangs.
    """
    stage.kdc.hang()
    stage.daemon.sighup()
    say("the KDC hangs (SIGSTOP): it accepts requests but does not answer")
    time.sleep(0.5)
    seconds = stage.daemon.terminate()
    stage.kdc.resume()
    check(os.listdir(stage.ccache.parent) == [stage.ccache.name], "only the ccache stays")
    return Result("exited with code 0 during a hung request; the ticket stayed", seconds)


STEPS: tuple[Step[Stage], ...] = (
    ("first ticket", ticket_appears),
    ("a consumer", consumer_uses_it),
    ("KDC outage", kdc_fails),
    ("keytab rotation", keytab_is_rotated),
    ("a bad keytab", keytab_is_damaged),
    ("SIGTERM, KDC hung", daemon_stops),
)


def missing() -> list[str]:
    """
    Return the missing requirements for a local realm.
    """
    return [*MISSING, *([] if find_spec("gssapi") else ["gssapi"])]


def prepare(kdc: Kdc, home: Path, service: str, life: str) -> dict[str, str]:
    """
    Create the principals and their keytabs, and return the settings of the sidecar.

    Args:
        kdc: The KDC of the realm.
        home: The folder for `keytab/airflow.keytab`, `service.keytab` and `ccache/krb5cc`.
        service: The principal of the service.
        life: The maximum lifetime of a ticket, in MIT's notation.
    """
    (home / "ccache").mkdir(parents=True)
    kdc.add_principal(PRINCIPAL.partition("@")[0], life)
    kdc.add_principal(service.partition("@")[0])
    kdc.write_keytab(home / "keytab" / "airflow.keytab", PRINCIPAL)
    kdc.write_keytab(home / "service.keytab", service)
    return {
        "INTERVAL": "1h",
        "KRB5_CONFIG": str(kdc.client_config(home / "krb5.conf")),
        "KERBEROS_KEYTAB_DIR": str(home / "keytab"),
        "KERBEROS_CCACHE": str(home / "ccache" / "krb5cc"),
    }


def play(home: Path) -> int:
    """
    Play all steps and return the exit code; if something is missing, print it and skip them.
    """
    if names := missing():
        console.heading(f"kerberos: skipped: missing {', '.join(names)} (run make setup-test)")
        return 0
    home = home / "kerberos"
    console.heading("kerberos: the real daemon, against a real KDC on this machine")
    with Kdc(home / "kdc") as kdc:
        settings = prepare(kdc, home, SERVICE, f"{LIFE_SECONDS}s")
        config = Path(settings["KRB5_CONFIG"])
        console.say("\n".join(f"{name}={value}" for name, value in settings.items()))
        local = {"KERBEROS_HTTP_BIND": "127.0.0.1:0", "HOME": str(home)}
        log = home / "daemon.log"
        with Daemon("kerberos-sidecar", settings | local, log) as daemon:
            stage = Stage(kdc, home, daemon, home / "handshakes")
            with consumer(stage, config):
                return script.play(STEPS, stage)


@contextmanager
def consumer(stage: Stage, config: Path) -> Iterator[None]:
    """
    Run the consumer in parallel with the steps.
    """
    with stage.consumer_log.open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("consumer.py")), SERVICE],
            env={
                "KRB5CCNAME": str(stage.ccache),
                "KRB5_CONFIG": str(config),
                "KRB5_KTNAME": str(stage.home / "service.keytab"),
                "KRB5RCACHENAME": f"file2:{stage.home}/replay",
                "HOME": str(stage.home),
            },
            stdin=subprocess.DEVNULL,
            stdout=log,
        )
    try:
        yield
    finally:
        process.kill()
        process.wait()
