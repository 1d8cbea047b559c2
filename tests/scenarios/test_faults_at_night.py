"""
Ten faults at three in the morning: the log, the status page and `check` explain each of them.

The engineer on call knows AWS and Kubernetes but not this product. Each of the three reports the
fault, its object and the fix. `check` fails while the daemon fails, even if its own tests succeed.
"""

import base64
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from html import unescape
from pathlib import Path

import pytest

from tests.support.airflow.databases import Postgres, skip_without_postgres
from tests.support.airflow.installed import Airflow
from tests.support.airflow.sync_perm import SyncPerm
from tests.support.aws.fake_aws import IDENTITY_ARN
from tests.support.aws.fake_s3 import FakeS3, access_denied, is_get, is_list
from tests.support.daemon import SidecarProcess
from tests.support.git.git_sync import git_site, skip_without_git_sync
from tests.support.http.loopback import Match
from tests.support.kerberos.kdc import Kdc, skip_without_kdc
from tests.support.kerberos.site import Site, site
from tests.support.machine.volumes import small_volume
from tests.support.program import own_port
from tests.support.s3_sync.scripted import daemon_for, fill
from tests.support.waiting import wait_until

Make = Callable[..., SidecarProcess]
"""Creates a process from the address of its HTTP endpoint and its arguments."""
BUCKET_ARN = "arn:aws:s3:::dags-bucket"
KEY_ARN = "arn:aws:kms:us-east-1:123456789012:key/11111111-2222-3333-4444-555555555555"
TOKEN = "canary-4711"


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def s3(stack: ExitStack) -> FakeS3:
    s3 = stack.enter_context(FakeS3())
    fill(s3)
    return s3


def diagnose(make: Make, reason: str, *words: str) -> None:
    """Assert that the log and the page of a failing daemon, and `check`, contain these words."""
    bind = f"127.0.0.1:{own_port()}"
    with make(bind) as daemon:
        wait_until(
            lambda: (daemon.status()["last_error"] or {}).get("reason") == reason, reason, 90
        )
        page = daemon.get("/").body
        with make(bind, "check") as asked:
            code = asked.wait_for_exit(120).code
    failures = [event for event in daemon.events if event["level"] in ("warning", "error")]
    told = {
        "log": " ".join(str(value) for event in failures for value in event.values()),
        "page": _text(page),
        "check": " ".join(asked.log().split()),
    }
    lacking = [
        (place, word)
        for place, text in told.items()
        for word in (reason, *words)
        if word not in text
    ]
    assert [] == lacking, told
    assert 3 == code, told
    assert TOKEN not in page + daemon.log() + asked.log()


def _text(page: str) -> str:
    """Return the visible text of a page."""
    shown = re.sub(r"<style>.*?</style>|<wbr>", "", page, flags=re.DOTALL)
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", shown)).replace(" :", ":").split())


def s3_sync(s3: FakeS3, target: Path, **settings: str) -> Make:
    return lambda bind, *arguments: daemon_for(
        s3, target, arguments=arguments, settings={**settings, "S3_SYNC_HTTP_BIND": bind}
    )


def test_diagnoses_a_wrong_bucket_name(s3: FakeS3, tmp_path: Path) -> None:
    make = s3_sync(s3, tmp_path / "dags", AWS_BUCKET="dags-bukket")

    diagnose(make, "bucket_not_found", "dags-bukket", "Check AWS_BUCKET")


@pytest.mark.parametrize(
    ("reason", "match", "action", "resource", "allowed"),
    [
        ("access_denied_list", is_list, "s3:ListBucket", BUCKET_ARN, BUCKET_ARN),
        (
            "access_denied_get",
            is_get(),
            "s3:GetObject",
            f"{BUCKET_ARN}/dags/a.py",
            f"{BUCKET_ARN}/dags/*",
        ),
        ("access_denied_kms", is_get(), "kms:Decrypt", KEY_ARN, KEY_ARN),
    ],
    ids=["list", "get", "kms"],
)
def test_diagnoses_a_missing_permission(
    s3: FakeS3,
    tmp_path: Path,
    reason: str,
    match: Match,
    action: str,
    resource: str,
    allowed: str,
) -> None:
    s3.inject(access_denied(action, resource, IDENTITY_ARN), match)

    diagnose(
        s3_sync(s3, tmp_path / "dags"),
        reason,
        f"{IDENTITY_ARN} is not authorized to perform: {action} on resource: ",
        f"Allow {action} on {allowed} in the role's policy",
    )


def test_diagnoses_an_invalid_region(s3: FakeS3, tmp_path: Path) -> None:
    make = s3_sync(s3, tmp_path / "dags", AWS_REGION="Frankfurt")

    diagnose(make, "region_invalid", "'Frankfurt' is not a region name", "Fix AWS_REGION")


def test_diagnoses_a_full_volume(s3: FakeS3, tmp_path: Path, stack: ExitStack) -> None:
    volume = stack.enter_context(small_volume(tmp_path / "volume", "1m"))
    s3.put("dags/model.bin", bytes(3 << 20))

    diagnose(s3_sync(s3, volume / "dags"), "target_full", f"{volume}/dags", "the node's disk")


@pytest.fixture
def tickets(tmp_path: Path, stack: ExitStack) -> Site:
    skip_without_kdc()
    return stack.enter_context(site(stack.enter_context(Kdc(tmp_path / "kdc")), "airflow", "1d"))


def kerberos(here: Site) -> Make:
    return lambda bind, *arguments: here.sidecar(*arguments, KERBEROS_HTTP_BIND=bind)


def test_diagnoses_a_kdc_that_is_down(tickets: Site) -> None:
    tickets.kdc.stop()

    diagnose(
        kerberos(tickets), "kdc_unreachable", f"no KDC of {tickets.kdc.realm}", "Check the KDC"
    )


def test_diagnoses_a_keytab_that_was_encoded_twice(tickets: Site) -> None:
    tickets.keytab.write_bytes(base64.b64encode(tickets.keytab.read_bytes()))
    said = f"{tickets.keytab} is base64 text"

    diagnose(kerberos(tickets), "keytab_garbage", said, "It was encoded twice")


def test_diagnoses_a_wrong_database_password(tmp_path: Path, stack: ExitStack) -> None:
    skip_without_postgres()
    airflow = Airflow.install_or_skip("2.11")
    database = airflow.new_postgres(stack.enter_context(Postgres()), tmp_path / "home")
    url = re.sub(r":[^:@/]*@", f":{TOKEN}@", database.url)

    diagnose(
        lambda bind, *arguments: SyncPerm(
            airflow, url, tmp_path / "supervisor", {"SYNC_PERM_HTTP_BIND": bind}, arguments
        ),
        "database_denied",
        "password authentication failed for user",
        "Correct user and password in the Secret",
    )


def test_diagnoses_an_expired_git_token(tmp_path: Path, stack: ExitStack) -> None:
    skip_without_git_sync()
    here = stack.enter_context(git_site(tmp_path))
    here.server.accept(("deploy", "the next one"))
    login = {"GITSYNC_USERNAME": "deploy", "GITSYNC_PASSWORD": TOKEN}

    diagnose(
        lambda bind, *arguments: here.describe(
            *arguments, GIT_SYNC_WRAPPER_HTTP_BIND=bind, **login
        ),
        "credentials_refused",
        here.server.url(),
        "that the token has not expired",
        "restart the pod after changing the Secret",
        "GITSYNC_PASSWORD",
    )


def test_check_reports_a_revision_that_the_daemon_refuses(tmp_path: Path, stack: ExitStack) -> None:
    """Everything that `check` tries succeeds; only the daemon has refused the revision."""
    skip_without_git_sync()
    here = stack.enter_context(git_site(tmp_path))
    here.repository.commit({"a.py": "def broken(:\n"}, whole=True)

    diagnose(
        lambda bind, *arguments: here.describe(
            *arguments, GIT_SYNC_WRAPPER_HTTP_BIND=bind, GIT_SYNC_WRAPPER_GATE="syntax"
        ),
        "revision_refused",
        "a.py",
    )
