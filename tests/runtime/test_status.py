"""
The status page: nothing that is shown can do harm.
"""

import base64
import hashlib
import json
import re
from html.parser import HTMLParser
from typing import Any

import pytest

from sidecar_runtime.health import Health, LastError, PastCycle, Readiness
from sidecar_runtime.status import (
    CONTENT_SECURITY_POLICY,
    STYLE,
    About,
    page,
    readiness_body,
    status,
)
from tests.runtime.recording import Script

HOSTILE = "<script>alert('x')</script>\"&amp;<img src=x onerror=alert(1)>"
ABOUT = About("box-sync", "1.2.3", "box://source", "/target")


class Sidecar(Script):
    """
    A sidecar with given facts.
    """

    def __init__(self, readiness: Readiness, details: dict[str, object] | None = None) -> None:
        super().__init__()
        self._readiness = readiness
        self._details = details or {}

    def readiness(self) -> Readiness:
        return self._readiness

    def details(self) -> dict[str, object]:
        return self._details


READY = Sidecar(Readiness(True, "r1", 1_700_000_000.0))


class Tags(HTMLParser):
    """
    The elements and texts of a page.
    """

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: set[str] = set()
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes |= {name for name, _ in attrs}

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture
def health() -> Health:
    return Health()


def test_json_has_the_documented_keys(health: Health) -> None:
    health.record(PastCycle(1_700_000_000.0, 0.1234567, "changed", "", {"files": 3}), None)
    health.record(
        PastCycle(1_700_000_010.0, 0.5, "error", "access_denied", {}),
        LastError("access_denied", "may not", "allow it", 1_700_000_010.5),
    )
    health.expect_cycle(12.34)

    facts = json.loads(json.dumps(status(ABOUT, health, READY)))

    next_cycle = facts.pop("next_cycle_in_seconds")
    assert next_cycle == pytest.approx(12.3, abs=0.3)
    assert {
        "sidecar": "box-sync",
        "version": "1.2.3",
        "alive": True,
        "ready": True,
        "problem": None,
        "revision": "r1",
        "published_at": "2023-11-14T22:13:20.000+00:00",
        "source": "box://source",
        "target": "/target",
        "consecutive_failures": 1,
        "last_error": {
            "reason": "access_denied",
            "error": "may not",
            "advice": "allow it",
            "at": "2023-11-14T22:13:30.500+00:00",
        },
        "cycles": [
            {
                "started_at": "2023-11-14T22:13:30.000+00:00",
                "duration_seconds": 0.5,
                "result": "error",
                "reason": "access_denied",
            },
            {
                "started_at": "2023-11-14T22:13:20.000+00:00",
                "duration_seconds": 0.123,
                "result": "changed",
                "reason": None,
                "files": 3,
            },
        ],
        "details": {},
    } == facts


def test_json_before_anything_has_happened(health: Health) -> None:
    facts = status(ABOUT, health, Sidecar(Readiness(False, problem="no cycle yet")))

    assert (False, "no cycle yet", None, None, None, None, []) == (
        facts["ready"],
        facts["problem"],
        facts["revision"],
        facts["published_at"],
        facts["last_error"],
        facts["next_cycle_in_seconds"],
        facts["cycles"],
    )
    assert b"no cycle yet" in page(facts)


def test_the_page_shows_the_facts(health: Health) -> None:
    health.record(PastCycle(0.0, 0.5, "changed", "", {"files_published": 3, "nothing": 0}), None)
    health.record(PastCycle(9.0, 0.5, "error", "source_empty", {}), LastError("a", "b", "c", 9.0))
    sidecar = Sidecar(Readiness(True, "r1", 5.0), {"keys_skipped": {"k": "why"}, "list": ["x", 1]})

    text = Tags(page(status(ABOUT, health, sidecar)).decode()).text

    for shown in ("box-sync", "box://source", "/target", "r1", "1.2.3", "files published: 3"):
        assert shown in text
    for shown in ("source_empty", "keys skipped", "k: why", "1970-01-01 00:00:09 UTC"):
        assert shown in text
    assert "nothing" not in text


def hostile_facts(health: Health) -> dict[str, Any]:
    health.record(
        PastCycle(0.0, 0.5, "error", HOSTILE, {HOSTILE: HOSTILE}),
        LastError(HOSTILE, HOSTILE, HOSTILE, 0.0),
    )
    health.record(PastCycle(0.0, 0.5, "changed", "", {HOSTILE: HOSTILE}), None)
    health.last_error = LastError(HOSTILE, HOSTILE, HOSTILE, 0.0)
    details: dict[str, object] = {HOSTILE: HOSTILE, "map": {HOSTILE: HOSTILE}, "list": [HOSTILE]}
    sidecar = Sidecar(Readiness(False, HOSTILE, 0.0, HOSTILE), details)
    return status(About(HOSTILE, HOSTILE, HOSTILE, HOSTILE), health, sidecar)


def test_everything_that_is_shown_is_escaped(health: Health) -> None:
    html = page(hostile_facts(health)).decode()

    tags = Tags(html)
    assert "script" not in tags.tags and "img" not in tags.tags
    assert {"lang", "charset", "name", "content", "class", "datetime"} >= tags.attributes
    assert html.count("<script") == html.count("<img") == 0
    assert tags.text.count("<script>alert('x')</script>") >= 12


def test_the_page_has_the_same_elements_whatever_the_facts_say(health: Health) -> None:
    facts = hostile_facts(health)
    tame = json.loads(json.dumps(facts).replace(json.dumps(HOSTILE)[1:-1], "tame"))

    assert Tags(page(tame).decode()).tags == Tags(page(facts).decode()).tags


def test_names_that_are_no_text_do_not_break_the_page(health: Health) -> None:
    sidecar = Sidecar(Readiness(True, "r1", 5.0), {"keys_skipped": {"caf\udce9": "unsafe_path"}})
    facts = status(ABOUT, health, sidecar)

    assert b"unsafe_path" in page(facts)
    assert "caf\\udce9" in json.dumps(facts)


def test_details_go_by_words_or_by_what_is_no_word(health: Health) -> None:
    details: dict[str, object] = {"managed_files": 3, "/var/krb_ccache": "until noon"}
    sidecar = Sidecar(Readiness(True), details)

    shown = page(status(ABOUT, health, sidecar)).decode()

    assert "managed files" in shown
    assert "/var/krb_ccache" in shown


def test_the_page_may_use_its_own_style_and_nothing_else() -> None:
    digest = base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()

    assert CONTENT_SECURITY_POLICY == f"default-src 'none'; style-src 'sha256-{digest}'"


def test_the_style_on_the_page_is_the_one_that_is_allowed(health: Health) -> None:
    html = page(status(ABOUT, health, READY)).decode()

    styles = re.findall(r"<style>(.*?)</style>", html, re.DOTALL)
    assert styles == [STYLE]
    assert " style=" not in html
    assert "<link" not in html
    assert "://" not in html.replace("box://source", "")


@pytest.mark.parametrize("is_ready", [True, False])
def test_readiness_has_revision_and_age(health: Health, is_ready: bool) -> None:
    sidecar = Sidecar(Readiness(is_ready, "r1", 1_000.0, "" if is_ready else "2 files missing"))

    ready, body = readiness_body(health, sidecar)
    facts = json.loads(body)

    assert ready is is_ready
    assert facts.pop("published_seconds_ago") > 1_000_000
    assert {
        "ready": is_ready,
        "revision": "r1",
        "reason": None,
        "error": None if is_ready else "2 files missing",
    } == facts


def test_readiness_names_the_failure_that_goes_on_while_it_is_ready(health: Health) -> None:
    health.record(PastCycle(0, 0, "error", "throttled", {}), LastError("throttled", "slow", "", 0))

    ready, body = readiness_body(health, READY)

    assert ready is True
    assert ("throttled", "slow") == (json.loads(body)["reason"], json.loads(body)["error"])
