"""
The steps of kerberos: a real KDC, a keytab, and a consumer that shakes hands with a service.
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
from tests.support.kdc import MISSING, Kdc

PRINCIPAL = "airflow@EXAMPLE.TEST"
SERVICE = "HTTP/warehouse.example.test@EXAMPLE.TEST"
LIFE_SECONDS = 6


@dataclass
class Stage:
    """
    What the steps act on.
    """

    kdc: Kdc
    home: Path
    daemon: Daemon
    consumer_log: Path

    @property
    def concerned(self) -> Daemon:
        """
        Whose log is worth reading when a step fails.
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
        How many the consumer has made so far, and the errors of those that failed.
        """
        lines = self.consumer_log.read_text().split("\n")[:-1]
        errors = [error for error in map(json.loads, lines) if error]
        return len(lines), errors

    def acquired(self) -> int:
        """
        How many tickets the sidecar has acquired.
        """
        return sum('"ticket_acquired"' in line for line in self.daemon.lines())

    def wait_for_ticket(self, number: int) -> None:
        """
        Wait until the sidecar has acquired more than this many tickets, and the consumer used it.
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
    check(mode == 0o640, "the ccache is readable for its group")
    check(os.listdir(stage.ccache.parent) == [stage.ccache.name], "nothing else is there")
    say(f"{stage.ccache}  mode {mode:04o}, of {PRINCIPAL}, for {LIFE_SECONDS} seconds")
    say(f"status page while this runs: {stage.daemon.url()}/")
    return Result("a valid ticket when /readyz said 200; process start included", seconds)


def consumer_uses_it(stage: Stage) -> Result:
    """
    Handshakes with a service, over three tickets.
    """
    began = time.monotonic()
    stage.wait_for_ticket(2)
    made, errors = stage.handshakes()
    check(not errors, f"no handshake fails: {errors[:1]}")
    say(f"{made} handshakes with {SERVICE}, in a process that knows only the ccache")
    say(f"{stage.acquired()} tickets, each taken at half of the life of the one before")
    return Result(f"{made} handshakes over 3 tickets, none failed", time.monotonic() - began)


def kdc_fails(stage: Stage) -> Result:
    """
    The KDC is down for a while: the ticket stays, the cause is shown, recovery needs nobody.
    """
    stage.kdc.kadmin(f"modprinc -maxlife 1h {PRINCIPAL}")
    tickets = stage.acquired()
    stage.daemon.sighup()
    stage.wait_for_ticket(tickets)
    say("the principal's tickets live for an hour from here on")
    stage.kdc.stop()
    say("stopped the KDC, and asked for a ticket by SIGHUP")
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
        f"the ticket stayed, /readyz 200 and {reason}, {made} handshakes, none failed; "
        "time is from the KDC back to a new ticket",
        seconds,
    )


def keytab_is_rotated(stage: Stage) -> Result:
    """
    A new key at the KDC, and a new keytab instead of the old one.
    """
    new = stage.kdc.write_keytab(stage.home / "new.keytab", PRINCIPAL)
    tickets = stage.acquired()
    os.replace(new, stage.keytab)
    say("changed the key at the KDC, and replaced the keytab")
    began = time.monotonic()
    stage.wait_for_ticket(tickets)
    seconds = time.monotonic() - began
    event = stage.daemon.find_event("ticket_acquired", cause="keytab_changed")
    check(event is not None, "the new keytab was the cause")
    _, errors = stage.handshakes()
    check(not errors, f"no handshake failed meanwhile: {errors[:1]}")
    kvno = event["kvno"] if event else 0
    return Result(f"used at once, kvno {kvno}; nothing was restarted, no handshake failed", seconds)


def keytab_is_damaged(stage: Stage) -> Result:
    """
    A Secret that was encoded once too often.
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
    # The consumer adds its service tickets; what was published is still the beginning.
    check(stage.ccache.read_bytes().startswith(before[:100]), "the ticket stays")
    tickets = stage.acquired()
    stage.keytab.write_bytes(good)
    stage.wait_for_ticket(tickets)
    return Result("reason keytab_garbage, the ticket stayed; time is to the error", seconds)


def daemon_stops(stage: Stage) -> Result:
    """
    SIGTERM, while the KDC hangs.
    """
    stage.kdc.hang()
    stage.daemon.sighup()
    say("the KDC hangs (SIGSTOP): it takes requests and never answers")
    time.sleep(0.5)
    seconds = stage.daemon.terminate()
    stage.kdc.resume()
    check(os.listdir(stage.ccache.parent) == [stage.ccache.name], "the ccache stays, alone")
    return Result("exit code 0 in the middle of a hung request, the ticket stays", seconds)


STEPS: tuple[Step[Stage], ...] = (
    ("a ticket appears", ticket_appears),
    ("a consumer uses it", consumer_uses_it),
    ("the KDC fails", kdc_fails),
    ("the key is changed", keytab_is_rotated),
    ("a bad keytab", keytab_is_damaged),
    ("SIGTERM, KDC hung", daemon_stops),
)


def missing() -> list[str]:
    """
    Return what this machine lacks for a realm of its own.
    """
    return [*MISSING, *([] if find_spec("gssapi") else ["gssapi"])]


def prepare(kdc: Kdc, home: Path, service: str, life: str) -> dict[str, str]:
    """
    Make the principals and their keytabs, and return the settings of the sidecar.

    Args:
        kdc: Of the realm.
        home: Where `keytab/airflow.keytab`, `service.keytab` and `ccache/krb5cc` are.
        service: The principal of the service.
        life: The longest life of a ticket, as MIT writes it.
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
    Play all steps and return the exit code; say what is missing where there is no KDC.
    """
    if names := missing():
        console.heading(
            f"kerberos: left out, as {', '.join(names)} is missing here (make setup-test)"
        )
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
    Run the consumer beside the steps.
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
