"""
The status page of each sidecar in a real browser, while the sidecar works and while it fails.

Names, messages and authors contain markup, control characters or right-to-left overrides.
"""

import re
import socketserver
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.aws.fake_s3 import FakeS3
from tests.support.browser import Browser, Seen, skip_without_browser
from tests.support.daemon import SidecarProcess
from tests.support.git.git_sync import git_site, skip_without_git_sync
from tests.support.kerberos.kdc import Kdc, skip_without_kdc
from tests.support.kerberos.site import site
from tests.support.s3_sync.releases import ORIGIN
from tests.support.s3_sync.shelf import Shelf, release_daemon
from tests.support.waiting import wait_until

GOOD = {"sales.py": b"VALUE = 1\n"}
ELEMENTS = {"html", "head", "meta", "title", "style", "body", "main", "h1", "h2", "br", "span"}
ELEMENTS |= {"table", "tbody", "tr", "th", "td", "time", "a", "link", "wbr"}
"""Every element that a page may contain; none of them loads anything."""
NARROW = 375
"""The width of a small phone in pixels; equals 750 pixels at a zoom of 200 %."""
AA = 4.5
"""The contrast ratio that WCAG 2 requires for text at level AA."""


class Lure(socketserver.ThreadingTCPServer):
    """A host that hostile names try to make the browser visit; counts the visits."""

    daemon_threads = True

    def __init__(self) -> None:
        self.visits = 0
        super().__init__(("127.0.0.1", 0), socketserver.BaseRequestHandler)

    def finish_request(self, request: object, client_address: object) -> None:
        self.visits += 1

    @property
    def markup(self) -> str:
        """Markup without a slash, valid as the name of a file, a role or a person."""
        url = f"http://127.0.0.1:{self.server_address[1]}".replace("/", "&#47;")
        return f'"><img src={url} onerror=document.title=1><script src={url}><!--'


@pytest.fixture
def lure() -> Iterator[Lure]:
    with Lure() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()
        assert 0 == server.visits


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    skip_without_browser()
    with Browser(tmp_path_factory.mktemp("browser")) as browser:
        yield browser


Look = Callable[[SidecarProcess], Seen]


@pytest.fixture
def look(browser: Browser) -> Look:
    """
    A function that opens the page of a sidecar and checks the promises that hold for every page.

    The page requests only itself, causes no complaint in the browser, reads the same without
    scripts, fits a phone, and is legible in light and dark mode.
    """

    def look(daemon: SidecarProcess) -> Seen:
        host, port = daemon.address()
        url = f"http://{host}:{port}/"
        seen = browser.open(url)
        views = [seen, browser.open(url, is_dark=True), browser.open(url, width=NARROW)]
        for view in views:
            assert ([url], []) == (view.requests, view.complaints)
            assert view.tags <= ELEMENTS
            assert 0 == view.overflow_pixels
            assert AA <= view.lowest_contrast
            assert daemon.status()["sidecar"] in view.title.split(" · ")
            assert ("en", ["main"]) == (view.language, view.landmarks)
        # A cycle may end between two loads; backoff makes a pair without one more and more likely.
        wait_until(
            lambda: (
                timeless(browser.open(url).text)
                == timeless(browser.open(url, has_scripts=False).text)
            ),
            "the page is the same without scripts",
            timeout_seconds=60,
        )
        return seen

    return look


def timeless(text: str) -> str:
    """Replace the times in a text, which differ between two loads of one state."""
    return re.sub(r"\d+ \w+ ago|in \d+ \w+|\bnow\b|\d+\.\d+|\d\d:\d\d:\d\d", "…", text)


def wait_until_refused(daemon: SidecarProcess) -> None:
    """Wait for the end of the cycle, which the log line about the refusal precedes."""
    wait_until(lambda: daemon.status()["cycles"][0]["result"] == "refused", "it is refused")


def test_s3_sync_page_escapes_hostile_release_data(look: Look, lure: Lure, tmp_path: Path) -> None:
    author = f"\u202e{lure.markup}"
    names = dict.fromkeys(("by", "commit", "branch"), lure.markup)
    link = f"javascript:{lure.markup}"
    origin = ORIGIN._replace(**names, author=author, message="\x1b[2J", ci_url=link)
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
        assert f"author: \\u202e{lure.markup} message: \\x1b[2J ci url: {link}" in seen.text
    assert working.text.startswith("s3-sync ready alive published")
    assert failing.text.startswith("s3-sync ready alive failing what is wrong endpoint_unreachable")


def test_git_sync_wrapper_page_escapes_hostile_commit_metadata(
    look: Look, lure: Lure, tmp_path: Path
) -> None:
    skip_without_git_sync()
    author = f"\u202e{lure.markup}".translate({ord("<"): "&lt;", ord(">"): "&gt;"})
    with git_site(tmp_path) as here:
        good = here.repository.commit(GOOD, message=lure.markup, author=author)
        daemon = here.publish(GIT_SYNC_WRAPPER_GATE="syntax")
        bad = {f"{lure.markup}\u202e.py": "two = (2\n"}
        here.repository.commit(bad, message=lure.markup, author=author)
        wait_until_refused(daemon)
        refused = look(daemon)
        here.server.stop()
        daemon.wait_for_event("cycle_failed", 30)

        failing = look(daemon)

    for seen in (refused, failing):
        assert f"{lure.markup}\\u202e.py:1: '(' was never closed" in seen.text
        assert f"published {good}" in seen.text
        assert re.search(rf"commit author: \\u202e.* subject: {re.escape(lure.markup)}", seen.text)
    assert refused.text.startswith("git-sync-wrapper ready alive refused what is wrong")
    assert failing.text.startswith("git-sync-wrapper ready alive failing what is wrong")
    assert "remote_unreachable" in failing.text


def test_kerberos_page_escapes_a_hostile_principal(look: Look, lure: Lure, tmp_path: Path) -> None:
    skip_without_kdc()
    principal = lure.markup.replace(" ", "/")  # a principal can contain slashes but no spaces
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
