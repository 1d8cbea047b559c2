"""Active Directory, provided by Samba's domain controller: salts, new passwords, lockouts."""

from __future__ import annotations

import itertools
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.daemon import SidecarProcess
from tests.support.kerberos.kdc import run_client
from tests.support.kerberos.samba import DomainController, keytab_of_password
from tests.support.kerberos.site import KERBEROS_SIDECAR, failure

PASSWORD = "Secret.Word1"
THRESHOLD = 5

_numbers = itertools.count(1)


@pytest.fixture(scope="module")
def domain(
    tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[DomainController]:
    if not request.config.getoption("--full"):
        pytest.skip("waits long: runs with make test-full")
    with DomainController(tmp_path_factory.mktemp("ad")) as domain:
        policy = ["--account-lockout-duration=30", "--reset-account-lockout-after=30"]
        limit = f"--account-lockout-threshold={THRESHOLD}"
        domain.tool("domain", "passwordsettings", "set", limit, *policy)
        yield domain


class Account:
    """One account, its keytab, and a folder for the ticket."""

    def __init__(self, domain: DomainController, folder: Path) -> None:
        self.domain = domain
        self.name = f"airflow{next(_numbers)}"
        self.config = domain.client_config(folder / "krb5.conf")
        self.keytab = folder / "keytab" / "airflow.keytab"
        self.ccache = folder / "ccache" / "krb5cc"
        self.folder = folder
        self.keytab.parent.mkdir()
        self.ccache.parent.mkdir()
        domain.tool("user", "create", self.name, PASSWORD)
        domain.export_keytab(self.keytab, self.name)

    def sidecar(self, principal: str = "") -> SidecarProcess:
        settings = {
            "KRB5_CONFIG": str(self.config),
            "KERBEROS_KEYTAB": str(self.keytab),
            "KERBEROS_PRINCIPAL": f"{principal or self.name}@{self.domain.realm}",
            "KERBEROS_CCACHE": str(self.ccache),
            "KERBEROS_HTTP_BIND": "127.0.0.1:0",
        }
        return SidecarProcess(KERBEROS_SIDECAR, settings, self.folder / "home")

    def fail_to_log_in(self) -> str:
        """Log in with a wrong password, as another client; return the error output."""
        wrong = keytab_of_password(
            self.folder / "wrong", f"{self.name}@{self.domain.realm}", "Wrong.1", "", self.config
        )
        principal = f"{self.name}@{self.domain.realm}"
        return run_client(["kinit", "-kt", str(wrong), principal], self.config, "/tmp/x").stderr


@pytest.fixture
def account(domain: DomainController, tmp_path: Path) -> Account:
    return Account(domain, tmp_path)


def test_acquires_a_ticket_that_obtains_a_service_ticket(account: Account) -> None:
    """The ticket contains the account's groups and does not fit into a datagram."""
    service = f"HTTP/{account.name}.ad.test"
    account.domain.tool("spn", "add", service, account.name)

    with account.sidecar() as daemon:
        daemon.wait_until_ready(60)

    done = run_client(["kvno", service], account.config, account.ccache)
    assert (0, True) == (done.returncode, "kvno = " in done.stdout), done.stderr


def test_a_keytab_made_from_a_password_requires_the_salt_of_the_account(account: Account) -> None:
    """Active Directory derives the salt from the account name at the last password change."""
    realm, new = account.domain.realm, f"new-{account.name}"
    account.domain.tool("user", "rename", account.name, f"--upn={new}@{realm.lower()}")
    principal = f"{new}@{realm}"
    keytab_of_password(account.keytab, principal, PASSWORD, "", account.config)

    with account.sidecar(new) as daemon:
        failed = failure(daemon)
        assert "keytab_stale" == failed["reason"]
        right = account.folder / "right"
        salt = f"{realm}{account.name}"
        keytab_of_password(right, principal, PASSWORD, salt, account.config)
        os.replace(right, account.keytab)
        daemon.wait_until_ready(60)

    checked = run_client(["klist"], account.config, account.ccache).stdout
    assert f"Default principal: {principal}" in checked


def test_reports_a_changed_password_and_uses_the_new_keytab(account: Account) -> None:
    with account.sidecar() as daemon:
        daemon.wait_until_ready(60)
        kvno = daemon.status()["details"][str(account.ccache)]["kvno"]
        before = account.ccache.read_bytes()

        account.domain.tool("user", "setpassword", account.name, "--newpassword=Other.Word2")
        daemon.sighup()
        assert "keytab_stale" == failure(daemon)["reason"]
        assert before == account.ccache.read_bytes()
        assert 200 == daemon.get("/readyz").status

        after = len(daemon.events)
        fresh = account.domain.export_keytab(account.folder / "fresh", account.name)
        shutil.move(fresh, account.keytab)
        acquired = daemon.wait_for_event("ticket_acquired", 60, after=after)
        assert kvno + 1 == acquired["kvno"]


def test_an_old_keytab_never_locks_the_account(account: Account) -> None:
    """Restarts and SIGHUPs do not lock it; a lock that another client caused is reported."""
    account.domain.tool("user", "setpassword", account.name, "--newpassword=Other.Word2")
    for _ in range(3):
        with account.sidecar() as daemon:
            assert "keytab_stale" == failure(daemon)["reason"]
            after = len(daemon.events)
            daemon.sighup()
            assert "keytab_stale" == failure(daemon, after)["reason"]

    assert 2 == account.domain.wrong_passwords(account.name)
    for _ in range(THRESHOLD - 2):
        assert "Preauthentication failed" in account.fail_to_log_in()
    assert "revoked" in account.fail_to_log_in()
    with account.sidecar() as daemon:
        failure(daemon)
        after = len(daemon.events)
        account.domain.export_keytab(account.keytab, account.name)
        daemon.wait_for_event("cycle_failed", 60, after=after, reason="principal_disabled")
        account.domain.tool("user", "unlock", account.name)
        daemon.wait_until_ready(120)
