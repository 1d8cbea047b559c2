"""`s3-sync wait` and the answers of an Airflow, good and odd."""

import time
from functools import partial

import pytest

from tests.scenarios.s3_sync.publish.site import A, B, C, Site
from tests.support.airflow.fake_api import TOKEN, USER, FakeAirflow
from tests.support.http.faults import answer_with, drip, first
from tests.support.http.loopback import Answer, Exchange, Fault, Match, Request
from tests.support.s3_sync.publishing import write_files

STACK = """Traceback (most recent call last):
  File "/opt/dags/versions/1/b.py", line 7, in <module>
    import lost
ModuleNotFoundError: No module named 'lost'
"""


@pytest.fixture
def revision(site: Site, airflow: FakeAirflow) -> str:
    """The current release, and a publisher that knows this Airflow."""
    site.environment |= airflow.settings()
    return str(site.publish(A)["revision"])


def of(path: str) -> Match:
    return lambda request: request.path.endswith(path)


def test_reads_every_page_at_most_once_a_second(
    site: Site, airflow: FakeAirflow, revision: str
) -> None:
    names = [f"dag{number:03}" for number in range(101)]
    for number, name in enumerate(names):
        airflow.show(name, revision, ended=10 * number)
    began = time.monotonic()

    ran = site.told("wait")

    assert names == ran.facts()["airflow"]["dags"], ran
    assert len(airflow.requests) < time.monotonic() - began + 2
    assert USER["password"] not in ran.out + ran.err


def test_a_dag_counts_once_a_parse_began_that_cannot_have_read_the_old_release(
    site: Site, airflow: FakeAirflow, revision: str
) -> None:
    """Airflow stores today's version with a file that it read before."""
    airflow.show("a", revision, ended=10)
    airflow.show("b", revision, ended=50, took=60)

    ran = site.told("wait")

    assert 0 == ran.code, ran
    assert "0 of 2 DAGs" in ran.err


def test_a_dag_counts_only_if_it_is_read_30_s_after_the_release_arrived(
    site: Site, airflow: FakeAirflow, revision: str
) -> None:
    airflow.is_parsing = False
    airflow.show("a", revision, ended=10)

    def is_look(number: int, _: Request) -> bool:
        return len(airflow.seen(of("/dags"))) == number

    for number, ended in ((3, 15), (4, 60)):
        later = first(partial(airflow.show, "a", revision, ended=ended))
        airflow.inject(later, partial(is_look, number))

    site.succeed("wait")

    assert 4 == len(airflow.seen(of("/dags")))


def test_waits_although_its_progress_cannot_be_written(
    site: Site, airflow: FakeAirflow, revision: str
) -> None:
    airflow.show("a", revision, ended=10)

    with open("/dev/full", "w") as full:
        ran = site.run("wait", stderr=full)

    assert 0 == ran.code and "Live:" in ran.out, ran


def test_asks_a_busy_server_again(
    site: Site, airflow: FakeAirflow, revision: str
) -> None:
    """With a token, for which nobody logs in."""
    site.environment |= {
        "AIRFLOW_API_TOKEN": TOKEN,
        "AIRFLOW_API_PASSWORD": "",
    }
    airflow.show("a", revision)
    airflow.inject(answer_with(Answer(429)), of("/dags"), times=1)
    airflow.inject(Exchange.reset, of("/importErrors"), times=1)

    site.succeed("wait")


def test_an_import_error_that_is_new_fails_with_file_line_and_traceback(
    site: Site, airflow: FakeAirflow, revision: str
) -> None:
    airflow.show("a", revision)
    airflow.break_file("b.py", STACK, ended=-60)
    site.succeed("wait")
    other = STACK.replace("lost", "gone\x1b[31m")
    airflow.break_file("b.py", other, ended=60)
    airflow.errors.append(airflow.errors[-1] | {"bundle_name": "other"})

    ran = site.told("wait")

    assert (4, "import_errors") == (ran.code, ran.facts()["reason"]), ran
    (problem,) = ran.facts()["problems"]
    assert ("b.py", 7, other.strip()) == tuple(problem.values())
    assert "b.py:7: Traceback" in ran.err and "\x1b" not in ran.err


@pytest.mark.parametrize(
    ("ended", "is_versioned", "advice"),
    [
        (60, False, "SidecarDagBundle"),
        (-60, True, "dag-processor runs"),
        (60, True, "`/readyz`"),
    ],
)
def test_says_where_a_release_is_stuck(
    site: Site,
    airflow: FakeAirflow,
    revision: str,
    ended: float,
    is_versioned: bool,
    advice: str,
) -> None:
    airflow.is_parsing = False
    airflow.show("a", revision if is_versioned else None, ended=ended)

    ran = site.refuses("release_not_live", B, "--wait", "--timeout", "4s")

    facts = ran.facts()
    assert advice in facts["advice"], ran
    assert facts["revision"] != revision and B == site.current()
    assert ["a.py"] * is_versioned == [one["path"] for one in facts["problems"]]


@pytest.mark.parametrize("is_moved", [False, True])
def test_names_what_is_behind_or_who_published_meanwhile(
    site: Site, airflow: FakeAirflow, revision: str, is_moved: bool
) -> None:
    airflow.is_parsing = False
    airflow.show("a", revision, ended=10)
    if is_moved:
        airflow.inject(first(lambda: site.others_publish(C)), of("/dags"), times=1)
        site.fails("publish_conflict", "wait")
        return
    ran = site.fails("release_not_live", "wait", "--timeout", "4s")
    assert "a.py: a was read perhaps before the release arrived" in ran.err


ODD: dict[str, tuple[str, Fault, str, str]] = {
    "web page": ("/dags", answer_with(Answer(200, {}, b"<html>")), "airflow_unreachable", "200"),
    "redirect": ("/dags", answer_with(Answer(302, {"Location": "http://127.0.0.1:9/"})),
                 "airflow_unreachable", "302"),
    "refused": ("/dags", answer_with(Answer(401)), "airflow_denied", "AIRFLOW_API_TOKEN"),
    "no DAGs": ("/dags", answer_with(Answer(403)), "airflow_denied", "`can read on DAGs`"),
    "no errors": ("/importErrors", answer_with(Answer(403)), "airflow_denied",
                  "`can read on ImportError`"),
    "Airflow 2": ("/auth/token", answer_with(Answer(404)), "airflow_unsupported", "Airflow 3.1"),
    "Airflow 3.0": ("/dags", answer_with(Answer(200, {}, b'{"dags": [{}], "total_entries": 1}')),
                    "airflow_unsupported", "'bundle_version'"),
    "no end": ("/dags", answer_with(Answer(200, {}, b'{"dags": [{}], "total_entries": 2000000}')),
               "airflow_unreachable", "in time"),
    "drip": ("/dags", drip(1, 0.5), "airflow_unreachable", "in time"),
    "outage": ("/dags", Exchange.reset, "airflow_unreachable", "does not answer"),
}  # fmt: skip


@pytest.mark.parametrize("name", ODD)
def test_an_answer_that_is_of_no_use_is_one_clear_error_without_the_token(
    site: Site, airflow: FakeAirflow, revision: str, name: str
) -> None:
    path, fault, reason, said = ODD[name]
    airflow.inject(fault, of(path))

    ran = site.fails(reason, "wait", "--timeout", "4s")

    assert said in ran.err and ran.err.count("\n") == 2, ran
    assert TOKEN not in ran.out + ran.err
    assert "Traceback" not in ran.err


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("URL", ""),
        ("URL", "https://ci:secret@airflow.example.com"),
        ("TOKEN", "secret\nsecret"),
    ],
)
def test_wrong_settings_are_reported_before_anything_is_published(
    site: Site, airflow: FakeAirflow, revision: str, name: str, value: str
) -> None:
    site.environment["AIRFLOW_API_PASSWORD"] = ""
    site.environment[f"AIRFLOW_API_{name}"] = value

    ran = site.fails(
        "settings_rejected", "publish", write_files(site.dags, B), "--wait", code=2
    )

    assert f"AIRFLOW_API_{name}" in ran.err and "secret" not in ran.err
    assert A == site.current()


def test_waits_after_a_rollback_and_a_promotion_and_not_for_a_dry_run(
    site: Site, airflow: FakeAirflow, revision: str
) -> None:
    site.publish(B)
    airflow.show("a", revision)
    there = ("--wait", "--timeout", "1m")

    site.succeed("rollback", "--wait", "--dry-run")
    assert [] == airflow.requests
    back = site.succeed("rollback", *there)
    moved = site.succeed("promote", site.url, site.prd, *there)

    assert ["live"] * 2 == [one["airflow"]["result"] for one in (back, moved)]
