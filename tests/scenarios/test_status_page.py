"""
The status page of each sidecar in a real browser: what a person sees while it works and fails.
"""

import socket
import socketserver
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.scenarios.s3_sync.snapshots import SwappingS3
from tests.support.browser import Browser, Seen, skip_without_browser
from tests.support.daemon import SidecarProcess
from tests.support.kdc import Kdc, skip_without_kdc
from tests.support.scripted import daemon_for
from tests.support.site import site

GOOD = {"sales.py": b"VALUE = 1\n"}
ELEMENTS = {"html", "head", "meta", "title", "style", "body", "h1", "h2", "p", "b", "br", "span"}
ELEMENTS |= {"table", "tbody", "tr", "th", "td", "time"}
"""What a page of ours is made of; nothing of it loads anything."""


class Lure(socketserver.ThreadingTCPServer):
    """
    The host that hostile names would have the browser visit; counts who comes.
    """

    daemon_threads = True

    def __init__(self) -> None:
        self.visits = 0
        super().__init__(("127.0.0.1", 0), socketserver.BaseRequestHandler)

    def finish_request(self, request: object, client_address: object) -> None:
        self.visits += 1

    @property
    def name(self) -> str:
        """
        A file name that is markup.
        """
        url = f"http://127.0.0.1:{self.server_address[1]}".replace("/", "&#47;")
        return f"<img src={url} onerror=document.title=1><script src={url}><!--.py"


@pytest.fixture
def lure() -> Iterator[Lure]:
    with Lure() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture
def look(tmp_path: Path) -> Callable[[SidecarProcess], Seen]:
    """
    Opens the page of a sidecar; it needs no scripts, loads nothing, and breaks no rule of its own.
    """
    skip_without_browser()
    browser = Browser(tmp_path)

    def look(daemon: SidecarProcess) -> Seen:
        host, port = daemon.address()
        seen = browser.open(f"http://{host}:{port}/")
        assert [] == seen.complaints
        assert set(seen.tags) <= ELEMENTS
        return seen

    return look


def test_s3_sync_while_its_gate_refuses_a_hostile_name(
    look: Callable[[SidecarProcess], Seen], lure: Lure, tmp_path: Path
) -> None:
    settings = {"S3_SYNC_LAYOUT": "snapshot", "S3_SYNC_GATE": "syntax"}
    with SwappingS3() as s3:
        s3.swap(GOOD)
        with daemon_for(s3, tmp_path / "dags", settings=settings) as daemon:
            daemon.wait_until_synced()
            s3.swap(GOOD | {lure.name: b"two = (2\n"})
            daemon.sighup()
            daemon.wait_for_event("revision_refused")

            seen = look(daemon)

    assert seen.text.startswith("s3-sync s3-sync ready alive")
    assert f"{lure.name}:1: '(' was never closed" in seen.text
    assert 0 == lure.visits


def test_s3_sync_while_its_source_is_down(
    look: Callable[[SidecarProcess], Seen], tmp_path: Path
) -> None:
    with SwappingS3() as s3, socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))  # nobody listens there, and nobody else can
        endpoint = {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{silent.getsockname()[1]}"}
        with daemon_for(s3, tmp_path / "dags", settings=endpoint) as daemon:
            daemon.wait_for_event("cycle_failed")

            seen = look(daemon)

    assert "not ready alive" in seen.text
    assert "endpoint_unreachable" in seen.text


def test_kerberos_with_a_ticket_and_without_a_kdc(
    look: Callable[[SidecarProcess], Seen], tmp_path: Path
) -> None:
    skip_without_kdc()
    with Kdc(tmp_path / "kdc") as kdc, site(kdc, "airflow", "1h") as here:
        daemon = here.publish()
        working = look(daemon)
        kdc.stop()
        here.refresh(daemon)

        failing = look(daemon)

    assert "ready alive" in working.text and here.principal in working.text
    assert "kdc_unreachable" not in working.text
    assert "ready alive" in failing.text and "kdc_unreachable" in failing.text
