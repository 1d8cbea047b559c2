"""
The health of a process, the metrics of all sidecars, the status as JSON and as a page.
"""

import base64
import hashlib
import json
import re
from dataclasses import replace
from typing import get_args

import pytest

from sidecar_runtime import checks
from sidecar_runtime.errors import SidecarError
from sidecar_runtime.health import (
    QUIET,
    About,
    Health,
    Names,
    Outcome,
    Readiness,
    Result,
    Standing,
)
from sidecar_runtime.http.status import (
    CONTENT_SECURITY_POLICY,
    page,
    readiness_facts,
    status,
)
from sidecar_runtime.metrics import Metrics
from tests import Facts
from tests.runtime.recording import ABOUT, READY, WAITING, Script
from tests.support.machine.clocks import Clock

FAILED = Outcome(
    "failed",
    why=SidecarError("access_denied", "may not", "allow it"),
    until=1.0,  # the next try has begun since
)


@pytest.fixture
def health(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> Health:
    monkeypatch.setattr("sidecar_runtime.health.monotonic", clock)
    return Health()


def shown(health: Health, sidecar: Script = READY) -> str:
    """
    Return the status page.
    """
    return page(status(ABOUT, health, sidecar)).decode()


def results(health: Health) -> list[Result]:
    return [cycle.outcome.result for cycle in health.cycles]


def test_keeps_nothing_that_a_failed_cycle_held(health: Health) -> None:
    try:
        raise SidecarError("access_denied", "may not") from ValueError("why")
    except SidecarError as error:
        health.record(Outcome("failed", why=error), 0.1)

    assert health.standing.why
    assert (None, None) == (
        health.standing.why.__traceback__,
        health.standing.why.__cause__,
    )
    assert health.cycles[0].outcome.why is health.standing.why


@pytest.mark.parametrize("result", get_args(Result))
def test_repeated_quiet_cycles_share_one_line(health: Health, result: Result) -> None:
    for each in ("changed", result, result, "failed", result):
        health.record(
            Outcome(
                each,
                counts={"files_healed": 0},
                why=None if each in ("changed", "unchanged") else FAILED.why,
            ),
            0.1,
        )

    assert [
        result,
        "failed",
        *([result] if result in QUIET else [result, result]),
        "changed",
    ] == results(health)


def test_since_is_when_cycles_began_to_end_for_this_reason(
    health: Health, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("time.time", iter([5.0, 7.0, 9.0]).__next__)
    health.record(FAILED, 0.1)
    health.record(Outcome("partial", why=FAILED.why), 0.1)
    assert 5.0 == health.standing.since
    health.record(Outcome("partial", why=SidecarError("other", "another")), 0.1)
    assert 9.0 == health.standing.since
    assert ["partial", "partial", "failed"] == results(health), "a line for each"


def test_keeps_the_newest_twenty_cycles(health: Health) -> None:
    for number in range(25):
        health.record(Outcome("changed", f"r{number}"), 0.0)

    assert [f"r{number}" for number in range(24, 4, -1)] == [
        cycle.outcome.revision for cycle in health.cycles
    ]


@pytest.mark.parametrize("revision", ["0123456789abcdef", "sha256-0123456789abcdef"])
def test_the_published_revision_is_one_series_with_twelve_digits(revision: str) -> None:
    metrics = Metrics("box-sync")
    metrics.publishes_revisions()
    for name in ("", "f" * 64, revision, revision):
        metrics.show_readiness(is_ready=True, revision=name)
    metrics.failures("caf\udce9").inc()
    told = metrics.answer()[0].decode()
    assert 1 == told.count("sidecar_published_info{")
    assert 'revision="0123456789ab"' in told
    assert r'reason="caf\\udce9"' in told, "a name that is not UTF-8 is escaped"

    metrics.show_readiness(is_ready=False, revision="")
    assert b"sidecar_published_info{" not in metrics.answer()[0]


HOSTILE = "<script>alert('x')</script>\"&amp;<img src=x onerror=alert(1)>"


def test_all_facts_are_html_escaped(health: Health) -> None:
    problem = SidecarError(HOSTILE, HOSTILE, HOSTILE)
    health.record(Outcome("changed", "", {HOSTILE: HOSTILE}), 0.5)
    health.record(Outcome("failed", "", {HOSTILE: HOSTILE}, problem), 0.5)
    details: Facts = {
        HOSTILE: HOSTILE,
        "map": {HOSTILE: HOSTILE},
        "list": [HOSTILE],
    }
    details["names"] = Names({HOSTILE: HOSTILE})
    html = page(
        status(
            About(
                HOSTILE,
                HOSTILE,
                HOSTILE,
                HOSTILE,
                dict.fromkeys(("name", "namespace", "node"), HOSTILE),
                {HOSTILE: HOSTILE},
            ),
            health,
            Script(ready=Readiness(HOSTILE, 0.0, problem, HOSTILE), details=details),
        )
    ).decode()

    assert html.count("<script") == html.count("<img") == 0
    assert not re.search(r"<[^>]* on\w+=", html)
    assert html.count("&lt;script&gt;alert(&#x27;x&#x27;)&lt;/script&gt;") >= 16


def test_the_page_contains_only_the_style_that_the_csp_allows(health: Health) -> None:
    html = shown(health)

    (style,) = re.findall(r"<style>(.*?)</style>", html, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert f"default-src 'none'; style-src 'sha256-{digest}'" == CONTENT_SECURITY_POLICY
    assert " style=" not in html


@pytest.mark.parametrize(
    ("text", "is_link"),
    [
        ("https://ci.example.com/job/dags/12/?a=b&c=d", True),
        ('https://example.com/"><script>', False),
        ("javascript:alert(1)", False),
        ("https://example.com/\u202egro", False),
        ("https://\u0435xample.com/", False),
    ],
)
def test_only_a_value_that_is_a_whole_url_becomes_a_link(
    health: Health, text: str, is_link: bool
) -> None:
    links = re.findall(
        r"<td><a href='([^']*)' rel=noreferrer>([^<]*)</a>",
        shown(health, Script(details={"ci_url": text})),
    )
    escaped = text.replace("&", "&amp;")
    assert ([(escaped, escaped)] if is_link else []) == links


def test_links_lead_only_where_the_build_says(
    health: Health, monkeypatch: pytest.MonkeyPatch
) -> None:
    health.record(FAILED, 0.1)
    nowhere = shown(health)
    monkeypatch.setattr(
        "sidecar_runtime.http.status.DOCS", "https://git.example.com/us/blob/1/"
    )

    html = shown(health)

    assert "href" not in nowhere
    assert {"git.example.com"} == {*re.findall(r"href='https://([^/']+)/", html)}


# --- JSON


def test_json_has_the_documented_keys(
    health: Health, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("time.time", lambda: 1_700_000_000.125)
    health.record(Outcome("changed", "r1", {"files": 3}), 0.125)
    monkeypatch.setattr("time.time", lambda: 1_700_000_010.5)
    health.record(FAILED, 0.5)
    health.expect_cycle(12.34, 0)

    facts = json.loads(json.dumps(status(ABOUT, health, READY)))

    failed, changed = facts["cycles"]
    assert ("failed", "access_denied") == (failed["result"], failed["reason"])
    assert {
        "started_at": "2023-11-14T22:13:20.000+00:00",
        "duration_seconds": 0.125,
        "result": "changed",
        "reason": None,
        "files": 3,
    } == changed
    at = "2023-11-14T22:13:30.500+00:00"
    docs = "sidecars/box-sync/README.md#failures"
    body = {
        "ready": True,
        "alive": True,
        "revision": "r1",
        "published_seconds_ago": 10.5,
        "problem": None,
        "shortfall": None,
        "result": "failed",
        "reason": "access_denied",
        "error": "may not",
        "advice": "allow it",
        "since": at,
        "until": None,
    }
    assert body == readiness_facts(health, READY)
    assert ABOUT._asdict() | {
        **body,
        "published_at": "2023-11-14T22:13:20.000+00:00",
        "consecutive_failures": 1,
        "next_cycle_within_seconds": 12.3,
        "docs": docs,
        "details": {},
    } == {name: facts[name] for name in facts if name != "cycles"}


def test_what_no_cycle_has_found_is_told_without_the_times_of_a_cycle(
    health: Health,
) -> None:
    health.record(Outcome("waiting", why=FAILED.why, until=2e9), 0.1)
    health.crash = Standing(SidecarError("bug", "a thread has ended"))

    facts = readiness_facts(health, READY)

    assert "bug" == facts["reason"]
    assert (None, None) == (facts["since"], facts["until"])


def test_check_names_the_failure_with_which_it_ends(
    health: Health, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The shortfall of a standby, whose wait alone is none."""
    health.record(WAITING, 0.1)
    facts = {**readiness_facts(health, READY), "shortfall": "1 role is missing"}
    monkeypatch.setattr(checks, "_ask_daemon", lambda *_: facts)

    check = checks.Checks()
    check.daemon(("", 9000))

    assert 3 == check.exit_code
    assert "FAIL  daemon         1 role is missing" in capsys.readouterr().out


def test_a_check_that_takes_seconds_tells_how_many(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A source that drips, and a gate that waits, are no failures."""
    monkeypatch.setattr(checks, "SLOW_SECONDS", 0.0)

    checks.Checks().ok("gate", "it runs")

    assert "it runs (took " in capsys.readouterr().out


@pytest.mark.parametrize("is_ready", [True, False])
def test_a_standby_is_marked_red_only_while_consumers_lack_something(
    health: Health, *, is_ready: bool
) -> None:
    problem = None if is_ready else SidecarError("nothing_published", "nothing yet")
    health.record(replace(WAITING, until=2e9), 0.1)

    html = shown(health, Script(ready=Readiness("r1", 1.0, problem)))

    assert ("class=bad" not in html) is is_ready
    assert "pid 7 on other-pod holds the lock" in html
    assert "<th>waits until<td>2033-05-18T03:33:20.000+00:00" in html
    assert ("<title>ready, target_locked · " in html) is is_ready


def test_an_invalid_time_is_not_shown(health: Health) -> None:
    """It is the time of a file, which another process may have set."""
    assert (
        status(ABOUT, health, Script(ready=Readiness("r1", 1e15, None)))["published_at"]
        is None
    )
