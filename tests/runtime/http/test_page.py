"""
The status page: its content, and its safety with hostile facts.
"""

import base64
import hashlib
import re
import time
from datetime import UTC, datetime
from html.parser import HTMLParser
from typing import Any

import pytest

from sidecar_runtime.errors import SidecarError
from sidecar_runtime.health import Health, Names, Outcome, Readiness
from sidecar_runtime.http.status import CONTENT_SECURITY_POLICY, About, page, status
from tests.runtime.sidecars import ABOUT, READY, Sidecar

HOSTILE = "<script>alert('x')</script>\"&amp;<img src=x onerror=alert(1)>"


class Tags(HTMLParser):
    """The elements, attributes and text of a page."""

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


def text_of(health: Health, sidecar: Sidecar = READY) -> str:
    return Tags(page(status(ABOUT, health, sidecar)).decode()).text


def test_the_page_begins_with_the_error_its_age_and_the_advice(health: Health) -> None:
    for _ in range(2):
        problem = SidecarError("access_denied", "may not", "allow it")
        health.record(Outcome("error", problem=problem), 0.5)
    health.failing_since = time.time() - 250

    text = text_of(health)

    shown = ["failing", "access_denied: may not", "4 minutes ago", "2 failures in a row"]
    places = [text.index(part) for part in (*shown, "allow it", "published", "r1")]
    assert sorted(places) == places


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (1.0, "now"),
        (-91.0, r"9\d seconds ago"),
        (-121.0, "2 minutes ago"),
        (-7_300.0, "2 hours ago"),
        (-172_900.0, "2 days ago"),
        (7_300.0, "in 2 hours"),
    ],
)
def test_times_are_shown_with_their_distance_from_now(
    health: Health, seconds: float, shown: str
) -> None:
    ends_at = datetime.fromtimestamp(time.time() + seconds, UTC).isoformat()
    sidecar = Sidecar(Readiness(True), {"ends_at": ends_at, "kdc": f"answered ({ends_at})"})

    assert 2 == len(re.findall(f"UTC, {shown}", text_of(health, sidecar)))


def hostile_facts(health: Health) -> dict[str, Any]:
    problem = SidecarError(HOSTILE, HOSTILE, HOSTILE)
    health.record(Outcome("changed", "", {HOSTILE: HOSTILE}), 0.5)
    health.record(Outcome("error", "", {HOSTILE: HOSTILE}, problem), 0.5)
    details: dict[str, object] = {HOSTILE: HOSTILE, "map": {HOSTILE: HOSTILE}, "list": [HOSTILE]}
    details["names"] = Names({HOSTILE: HOSTILE})
    sidecar = Sidecar(Readiness(False, HOSTILE, 0.0, HOSTILE), details)
    pod = dict.fromkeys(("name", "namespace", "node"), HOSTILE)
    settings = {HOSTILE: HOSTILE}
    return status(About(HOSTILE, HOSTILE, HOSTILE, HOSTILE, pod, settings), health, sidecar)


def test_all_facts_are_html_escaped(health: Health) -> None:
    html = page(hostile_facts(health)).decode()

    tags = Tags(html)
    assert "script" not in tags.tags and "img" not in tags.tags
    assert not [name for name in tags.attributes if name.startswith("on")]
    assert html.count("<script") == html.count("<img") == 0
    assert tags.text.count("<script>alert('x')</script>") >= 16


def test_the_page_contains_only_the_style_that_the_csp_allows(health: Health) -> None:
    html = page(status(ABOUT, health, READY)).decode()

    (style,) = re.findall(r"<style>(.*?)</style>", html, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert f"default-src 'none'; style-src 'sha256-{digest}'" == CONTENT_SECURITY_POLICY
    assert " style=" not in html
    assert "<script" not in html


@pytest.mark.parametrize(
    ("details", "shown"),
    [
        ({"/ccache": {"next_ticket_in_seconds": 3321.8}}, "next ticket: in 55 minutes"),
        ({"managed_files": 3}, "managed files"),
        ({"/var/krb_ccache": "until noon"}, "/var/krb_ccache"),
        ({"failing_dags": Names(sales_daily="no_role")}, "failing dags"),
        (
            {"failing_dags": Names(sales_daily="no_role: team_sales")},
            "sales_daily: no_role: team_s",
        ),
    ],
)
def test_keys_of_details_become_words_except_paths_and_foreign_names(
    health: Health, details: dict[str, object], shown: str
) -> None:
    assert shown in text_of(health, Sidecar(Readiness(True), details))


@pytest.mark.parametrize(
    ("text", "is_link"),
    [
        ("https://ci.example.com/job/dags/12/?a=b&c=d", True),
        ("http://jenkins.example.com:8080/job/12/", True),
        ("https://example.com/' onclick='alert(1)", False),
        ('https://example.com/"><script>', False),
        ("javascript:alert(1)", False),
        ("see https://example.com/", False),
        ("https://example.com/\u202egro", False),
        ("https://\u0435xample.com/", False),
    ],
)
def test_only_a_value_that_is_a_whole_url_becomes_a_link(
    health: Health, text: str, is_link: bool
) -> None:
    html = page(status(ABOUT, health, Sidecar(Readiness(True), {"ci_url": text}))).decode()

    links = re.findall(r"<td><a href='([^']*)' rel=noreferrer>([^<]*)</a>", html)
    shown = text.replace("&", "&amp;")
    assert ([(shown, shown)] if is_link else []) == links
