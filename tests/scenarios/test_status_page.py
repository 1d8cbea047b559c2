"""
The status page of each sidecar while the sidecar works and while it fails.

Names, messages and authors contain markup, control characters or right-to-left overrides.
"""

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from tests.support.airflow.databases import Postgres, skip_without_postgres
from tests.support.airflow.installed import Airflow
from tests.support.airflow.sync_perm import SyncPerm
from tests.support.aws.fake_s3 import FakeS3
from tests.support.daemon import SidecarProcess
from tests.support.git.git_sync import git_site, skip_without_git_sync
from tests.support.kerberos.kdc import Kdc, skip_without_kdc
from tests.support.kerberos.site import site
from tests.support.s3_sync.releases import ORIGIN
from tests.support.s3_sync.scripted import daemon_for
from tests.support.s3_sync.shelf import Shelf, release_daemon
from tests.support.s3_sync.snapshots import SwappingS3
from tests.support.waiting import wait_until

GOOD = {"sales.py": b"VALUE = 1\n"}
ELEMENTS = {"html", "head", "meta", "title", "style", "body", "main", "h1", "h2", "br", "span"}
ELEMENTS |= {"table", "tbody", "tr", "th", "td", "time", "a", "link", "wbr"}
"""Every element that a page may contain; none of them loads anything."""
INLINE = {"wbr", "span", "a", "time"}
"""Elements that do not separate words."""


class Page(HTMLParser):
    """The text of a page as a person reads it, and its elements."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.scripted: list[str] = []
        self._pieces: list[str] = []
        self._is_shown = True
        self.feed(source)
        self.text = " ".join("".join(self._pieces).split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self._is_shown = tag not in ("style", "title")
        self.scripted += [name for name, _ in attrs if name in ("src", "style", "srcset")]
        self.scripted += [name for name, _ in attrs if name.startswith("on")]
        self._pieces.append("" if tag in INLINE else " ")

    def handle_endtag(self, tag: str) -> None:
        self._is_shown = True
        self._pieces.append("" if tag in INLINE else " ")

    def handle_data(self, data: str) -> None:
        self._pieces.append(data if self._is_shown else "")


URL = "http:&#47;&#47;127.0.0.1:9"
MARKUP = f'"><img src={URL} onerror=document.title=1><script src={URL}><!--'
"""Without a slash: valid as the name of a file, a role or a person."""


def look(daemon: SidecarProcess) -> Page:
    """Read the page of a sidecar, which loads nothing and runs nothing."""
    page = Page(daemon.get("/").body)
    assert page.tags <= ELEMENTS
    assert [] == page.scripted
    return page


def wait_until_refused(daemon: SidecarProcess) -> None:
    """Wait for the end of the cycle, which the log line about the refusal precedes."""
    wait_until(lambda: daemon.status()["cycles"][0]["result"] == "refused", "it is refused")


def test_s3_sync_page_escapes_the_hostile_name_of_a_refused_file(tmp_path: Path) -> None:
    settings = {"S3_SYNC_LAYOUT": "snapshot", "S3_SYNC_GATE": "syntax"}
    with SwappingS3() as s3:
        s3.swap(GOOD)
        with daemon_for(s3, tmp_path / "dags", settings=settings) as daemon:
            good = daemon.wait_until_synced()["revision"]
            s3.swap(GOOD | {f"{MARKUP}\u202eyp.exe.py": b"two = (2\n"})
            daemon.sighup()
            wait_until_refused(daemon)

            seen = look(daemon)

    assert seen.text.startswith("s3-sync ready alive refused what is wrong revision_refused")
    assert f"{MARKUP}\\u202eyp.exe.py:1: '(' was never closed" in seen.text
    assert f"published {good}" in seen.text


def test_s3_sync_page_escapes_hostile_release_data(tmp_path: Path) -> None:
    author = f"\u202e{MARKUP}"
    names = dict.fromkeys(("by", "commit", "branch"), MARKUP)
    link = f"javascript:{MARKUP}"
    origin = {**ORIGIN, **names, "author": author, "message": "\x1b[2J", "ci_url": link}
    with FakeS3() as s3:
        shelf = Shelf(s3)
        shelf.publish(GOOD, origin=origin)
        with release_daemon(s3, tmp_path / "dags") as daemon:
            daemon.wait_until_synced()
            working = look(daemon)
            s3.stop()
            after = len(daemon.events)
            daemon.sighup()
            daemon.wait_for_event("cycle_failed", after=after)

            failing = look(daemon)

    for seen in (working, failing):
        assert " ".join(f"{name}: {text}" for name, text in names.items()) in seen.text
        assert f"author: \\u202e{MARKUP} message: \\x1b[2J ci url: {link}" in seen.text
    assert working.text.startswith("s3-sync ready alive published")
    assert failing.text.startswith("s3-sync ready alive failing what is wrong endpoint_unreachable")


@pytest.mark.usefixtures("only_in_full")
def test_sync_perm_page_escapes_hostile_dag_and_role_names(tmp_path: Path) -> None:
    skip_without_postgres()
    airflow = Airflow.install_or_skip("2.11")
    home = tmp_path / "home"
    with Postgres() as postgres:
        database = airflow.new_postgres(postgres, home)
        airflow.write_dags(database, home, {"sales": {MARKUP: ["can_read"]}})
        # Airflow itself would reject this id, but any writer to its database can store it.
        database.query("UPDATE serialized_dag SET dag_id = %s", (MARKUP,))
        with SyncPerm(airflow, database.url, tmp_path / "supervisor") as daemon:
            daemon.wait_until_good()
            working = look(daemon)
            postgres.stop()
            daemon.wait_for_event("cycle_failed", 60)

            failing = look(daemon)

    hostile = re.escape(MARKUP)
    told = rf"failing dags {hostile}: role_missing: .*{hostile}"
    for seen in (working, failing):
        assert re.search(told, seen.text)
    assert working.text.startswith("sync-perm ready alive published")
    assert failing.text.startswith(
        "sync-perm ready alive failing what is wrong database_unreachable"
    )


def test_git_sync_wrapper_page_escapes_hostile_commit_metadata(tmp_path: Path) -> None:
    skip_without_git_sync()
    author = f"\u202e{MARKUP}".translate({ord("<"): "&lt;", ord(">"): "&gt;"})
    with git_site(tmp_path) as here:
        good = here.repository.commit(GOOD, message=MARKUP, author=author)
        daemon = here.publish(GIT_SYNC_WRAPPER_GATE="syntax")
        bad = {f"{MARKUP}\u202e.py": "two = (2\n"}
        here.repository.commit(bad, message=MARKUP, author=author)
        wait_until_refused(daemon)
        refused = look(daemon)
        here.server.stop()
        daemon.wait_for_event("cycle_failed", 30)

        failing = look(daemon)

    for seen in (refused, failing):
        assert f"{MARKUP}\\u202e.py:1: '(' was never closed" in seen.text
        assert f"published {good}" in seen.text
        assert re.search(rf"commit author: \\u202e.* subject: {re.escape(MARKUP)}", seen.text)
    assert refused.text.startswith("git-sync-wrapper ready alive refused what is wrong")
    assert failing.text.startswith("git-sync-wrapper ready alive failing what is wrong")
    assert "remote_unreachable" in failing.text


def test_kerberos_page_escapes_a_hostile_principal(tmp_path: Path) -> None:
    skip_without_kdc()
    principal = MARKUP.replace(" ", "/")  # a principal can contain slashes but no spaces
    with Kdc(tmp_path / "kdc") as kdc, site(kdc, principal, "1h") as here:
        daemon = here.publish()
        working = look(daemon)
        kdc.stop()
        here.refresh(daemon)

        failing = look(daemon)

    assert working.text.startswith("kerberos ready alive published until")
    assert f"principal: {principal}@" in working.text
    assert f"principal: {principal}@" in failing.text
    assert failing.text.startswith("kerberos ready alive failing what is wrong kdc_unreachable")
