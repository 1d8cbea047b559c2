"""
The steps of kerberos: a real KDC, a keytab, and a consumer that uses the ticket all the
time.
"""

import base64
import os
import time
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from demo import script
from demo.script import Result, Step, check, say
from tests.support.daemon import SidecarProcess
from tests.support.kerberos.kdc import MISSING, Kdc
from tests.support.kerberos.readers import Reader, readers
from tests.support.kerberos.site import SERVICE, Site, site

LIFE_SECONDS = 120


@dataclass
class Stage:
    """
    The objects that the steps act on.
    """

    here: Site
    daemon: SidecarProcess
    consumer: Reader


def ticket_is_renewed(stage: Stage) -> Result:
    """
    SIGHUP asks for the next ticket long before the end of the first.
    """
    began = time.monotonic()
    first = stage.daemon.wait_for_event("ticket_acquired")
    say(f"{first['principal']}, kvno {first['kvno']}, a ticket of {LIFE_SECONDS} s")
    seen = len(stage.daemon.events)
    stage.daemon.sighup()
    stage.daemon.wait_for_event("ticket_acquired", after=seen)
    return Result(
        "the next ticket replaced the first at SIGHUP", time.monotonic() - began
    )


def kdc_fails(stage: Stage) -> Result:
    """
    The KDC is down for a while: the ticket stays, and the cause is reported.
    """
    stage.here.kdc.stop()
    say("stopped the KDC")
    seen = len(stage.daemon.events)
    stage.daemon.sighup()
    failed = stage.daemon.wait_for_event("cycle_failed", after=seen)
    readiness = stage.daemon.get("/readyz")
    check(readiness.status == 200, "/readyz stays 200: the ticket is valid")
    say(f"/readyz  200  reason={readiness.json()['reason']}\nerror: {failed['error']}")
    seen = len(stage.daemon.events)
    stage.here.kdc.start()
    began = time.monotonic()
    stage.daemon.wait_for_event("ticket_acquired", after=seen)
    return Result(
        "the ticket stayed; time: from the KDC's restart", time.monotonic() - began
    )


def keytab_is_rotated(stage: Stage) -> Result:
    """
    A new key in the KDC, and a new keytab that replaces the old one.
    """
    new = stage.here.kdc.write_keytab(
        stage.here.folder / "new.keytab", stage.here.principal
    )
    seen = len(stage.daemon.events)
    os.replace(new, stage.here.keytab)
    say("changed the key in the KDC, and replaced the keytab")
    began = time.monotonic()
    event = stage.daemon.wait_for_event(
        "ticket_acquired", after=seen, cause="keytab_changed"
    )
    seconds = time.monotonic() - began
    return Result(f"used at the next look, kvno {event['kvno']}; no restart", seconds)


def keytab_is_damaged(stage: Stage) -> Result:
    """
    A Secret that was base64-encoded twice.
    """
    good = stage.here.keytab.read_bytes()
    stage.here.keytab.write_bytes(base64.b64encode(good))
    began = time.monotonic()
    event = stage.daemon.wait_for_event("cycle_failed", reason="keytab_garbage")
    seconds = time.monotonic() - began
    say(f"error: {event['error']}\nadvice: {event['advice']}")
    check(
        stage.daemon.get("/readyz").status == 200,
        "/readyz stays 200: the ticket is valid",
    )
    stage.here.keytab.write_bytes(good)
    stage.daemon.wait_for(lambda: not stage.daemon.reason(), "the failure is over")
    return Result("keytab_garbage, the ticket stayed; time: to the error", seconds)


def daemon_stops(stage: Stage) -> Result:
    """
    SIGTERM; what the consumer saw through all of this.
    """
    stage.consumer.stop()
    made = stage.consumer.reads
    failed = stage.consumer.failures
    check(made > 0 and not failed, f"no read failed: {failed[:1]}")
    ended = stage.daemon.terminate()
    check(ended.code == 0, "SIGTERM ends it with 0")
    check(
        os.listdir(stage.here.ccache.parent) == [stage.here.ccache.name],
        "only the ccache stays",
    )
    return Result(
        f"a consumer read the ticket {made} times meanwhile, none failed", ended.seconds
    )


STEPS: tuple[Step[Stage], ...] = (
    ("tickets", ticket_is_renewed),
    ("KDC outage", kdc_fails),
    ("keytab rotation", keytab_is_rotated),
    ("a bad keytab", keytab_is_damaged),
    ("SIGTERM", daemon_stops),
)


def missing() -> list[str]:
    """
    Return the missing requirements for a local realm.
    """
    return [*MISSING, *([] if find_spec("gssapi") else ["gssapi"])]


def play(home: Path) -> int:
    """
    Play all steps and return the exit code; if something is missing, print it and skip
    them.
    """
    if names := missing():
        script.heading(
            f"kerberos: skipped: missing {', '.join(names)} (run make setup-test)"
        )
        return 0
    script.heading("kerberos: the real daemon, against a real KDC on this machine")
    with Kdc(home / "kdc") as kdc, site(kdc, "airflow", f"{LIFE_SECONDS}s") as here:
        daemon = here.publish()
        place = (here.folder, here.ccache, here.config)
        with readers(*place, ("acquire",), SERVICE, another_user=False) as (consumer,):
            return script.play(STEPS, Stage(here, daemon, consumer))
