"""`s3-sync wait` and the answers of an Airflow, good and odd."""

import json
import os
import pty
import subprocess
import sys
import time
from collections.abc import Mapping
from functools import partial

import pytest

from tests import Deed
from tests.scenarios.s3_sync.publish.site import NO_AIRFLOW, POINTER, A, B, C, Site
from tests.support.airflow.fake_api import TOKEN, USER, FakeAirflow
from tests.support.aws.fake_s3 import error, is_get
from tests.support.http.faults import answer_with, drip, first, hang, truncate
from tests.support.http.loopback import Answer, Exchange, Fault, Match
from tests.support.s3_sync.publishing import Ran, write_files
from tests.support.s3_sync.releases import make_release

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


def says(status: int, body: bytes = b"", headers: Mapping[str, str] = {}) -> Fault:
    return answer_with(Answer(status, headers, body))


def says_json(status: int, said: object) -> Fault:
    return says(status, json.dumps(said).encode())


def page(*rows: Mapping[str, str]) -> Fault:
    return says_json(200, {"dags": rows, "total_entries": 0})


def paths(ran: Ran) -> list[str]:
    """Return the files that a command complains about."""
    return [one["path"] for one in ran.facts()["problems"]]


def meanwhile(airflow: FakeAirflow, change: Deed) -> None:
    """Change something before the next list of DAGs."""
    airflow.inject(first(change), of("/dags"), times=1)


def test_reads_every_page_at_most_once_a_second(
    site: Site, airflow: FakeAirflow, revision: str
) -> None:
    """Later and later while the server is busy: the second time, after 2 s and 4 s."""
    names = [f"dag{number:03}" for number in range(101)]
    for number, name in enumerate(names):
        airflow.show(name, revision, ended=10 * number)
    airflow.inject(says(503), of("/dags"), times=2)
    began = time.monotonic()

    ran = site.told("wait")

    assert names == ran.facts()["airflow"]["dags"], ran
    assert len(airflow.requests) < time.monotonic() - began - 2
    assert USER["password"] not in ran.out + ran.err


# What two DAGs show at each look, when their parse ended, and how long it took. Airflow
# stores today's version with what it read before, and nothing for 30 s.
LOOKS = {
    "after a publish": [
        (A, A, 10, 1),
        (A, A, 10, 1),
        (A, A, 15, 1),
        (A, A, 60, 60),
        (A, A, 60, 1),
    ],
    "after a rollback, while Airflow still reads what was published between": [
        (A, A, 1, 1),
        (A, A, 2, 1),
        (B, B, 60, 1),
        (A, B, 61, 1),
        (A, A, 62, 1),
        (A, A, 99, 1),
        (A, A, 130, 1),
    ],
}


@pytest.mark.parametrize("when", LOOKS)
def test_a_dag_counts_once_it_is_read_again_after_the_release_has_arrived(
    site: Site, airflow: FakeAirflow, revision: str, when: str
) -> None:
    airflow.is_parsing = False
    looks = iter(LOOKS[when])

    def look() -> None:
        *shown, ended, took = next(looks)
        for name, files in zip("ab", shown, strict=True):
            airflow.show(name, make_release(files).revision, ended=ended, took=took)

    airflow.inject(first(look), of("/dags"))

    site.succeed("wait")

    assert [] == list(looks)


def test_waits_although_the_server_is_busy_and_its_progress_cannot_be_written(
    site: Site, airflow: FakeAirflow, revision: str
) -> None:
    """With a token, for which nobody logs in. On a terminal, progress is one line."""
    site.environment |= {"AIRFLOW_API_TOKEN": TOKEN, "AIRFLOW_API_PASSWORD": ""}
    airflow.show("a", revision)
    airflow.inject(Exchange.reset, of("/importErrors"), times=1)
    airflow.inject(truncate(9), of("/dags"), times=1)

    with open("/dev/full", "w") as full:
        ran = site.run("wait", stderr=full)

    assert 0 == ran.code and "Live:" in ran.out, ran

    ours, theirs = pty.openpty()
    airflow.inject(says(429), of("/dags"), times=1)
    site.run("wait", stderr=theirs)
    _, *later = os.read(ours, 9_999).decode().splitlines()
    assert later and all(
        one.startswith("\x1b[A\x1b[K") and len(one) < 90 for one in later
    )


def test_an_import_error_that_a_release_brings_fails_with_file_line_and_traceback(
    site: Site, airflow: FakeAirflow, revision: str
) -> None:
    """
    Those from before do not count, wherever Airflow runs, unless it was published
    before, too, or their file is new. What the author of a DAG writes into one takes no
    quadratic time, and is no line of the file.
    """
    airflow.break_file("old.py", STACK)
    meanwhile(
        airflow,
        lambda: airflow.errors[0].update(
            stack_trace=STACK.replace("/opt/dags/versions/1", "/tmp/2")
        ),
    )
    airflow.show("a", make_release(B).revision)
    site.publish(B, "--wait")

    frame = f'\n  File "b.py", line {"9" * 5_000}\n'
    end = "\n" * 500_000 + "x" * 300_000
    other = STACK.replace("lost", f"gone\x1b[31m{frame}{end}")
    meanwhile(airflow, lambda: airflow.break_file("b.py", other))
    airflow.show("a", make_release(C).revision)
    ran = site.refuses("import_errors", C, "--wait", code=4)
    airflow.errors.append(airflow.errors[-1] | {"filename": "c.py", "bundle_name": "x"})
    again = site.refuses("import_errors", C, "--wait", "--force", code=4)

    assert ("b.py", 7, other.strip()) == tuple(ran.facts()["problems"][0].values())
    assert "b.py:7: Traceback" in ran.err and "\x1b" not in ran.err
    assert ["old.py", "b.py"] == paths(again)
    fixed = {**C, "old.py": b"no, it is not"}
    airflow.show("a", make_release(fixed).revision)
    assert ["old.py"] == paths(site.refuses("import_errors", fixed, "--wait", code=4))


def test_an_earlier_error_is_no_problem_of_a_release_if_the_store_hangs(
    site: Site, airflow: FakeAirflow, revision: str
) -> None:
    airflow.break_file("old.py", STACK)
    meanwhile(airflow, lambda: site.s3.inject(hang(), is_get(POINTER)))

    assert [""] == paths(
        site.refuses("release_not_live", B, "--wait", "--timeout", "6s")
    )


def test_an_error_of_a_file_as_it_was_before_the_release_does_not_count(
    site: Site, airflow: FakeAirflow, revision: str
) -> None:
    airflow.show("a", None)
    airflow.inject(first(airflow.errors.clear), of("/dags"))
    for change in (
        lambda: airflow.show("a", revision),
        lambda: airflow.break_file("a.py", STACK),
        list,
    ):
        meanwhile(airflow, change)

    site.succeed("wait")


def test_a_new_file_must_have_a_dag_or_an_import_error(
    site: Site, airflow: FakeAirflow, revision: str
) -> None:
    """Unless the folder's `.airflowignore` excludes it."""
    dag = b"with DAG('new'): pass"
    files = {
        "left.py": dag,
        ".airflowignore": b"left.py  # old",
        "new.py": dag,
        "old.py": dag,
    }
    published = make_release(files).revision
    airflow.show("a", published)
    airflow.show("old", published)

    assert ["new.py"] == paths(
        site.refuses("release_not_live", files, "--wait", "--timeout", "8s")
    )

    site.publish(A)
    airflow.break_file("new.py", STACK)
    airflow.error_rows = 150
    site.refuses("import_errors", files, "--wait", "--timeout", "20s", code=4)

    site.publish(A)
    airflow.errors.clear()
    meanwhile(airflow, lambda: airflow.show("new", published))
    site.publish(files, "--wait")


def test_the_time_ends_although_python_drops_the_signal_in_a_finalizer() -> None:
    program = """if True:
        import time, weakref
        from s3_sync.publisher import wait
        one = {1}
        kept = weakref.ref(one, lambda _: time.sleep(60))
        with wait._at_most(1, None):
            del one
            time.sleep(60)
    """
    subprocess.run([sys.executable, "-c", program], check=True, timeout=30)


def test_says_what_to_look_at_if_a_release_is_stuck(
    site: Site, airflow: FakeAirflow, revision: str
) -> None:
    """
    Also if Airflow does not say before the publish which errors it has, and is busy
    until the end; and if the store is, since it was published.
    """
    site.s3.inject(
        first(lambda: site.s3.inject(error(503, "SlowDown"))),
        lambda one: one.query.get("prefix", "").endswith(".zip"),
    )
    airflow.inject(says(403), of("/importErrors"), times=1)
    airflow.inject(
        says(429, headers={"Retry-After": "600"}),
        lambda _: len(airflow.seen(of("/dags"))) > 1,
    )
    airflow.break_file("old.py", STACK)
    airflow.show("a", None)

    ran = site.refuses("release_not_live", B, "--wait", "--timeout", "8s")

    assert "SidecarDagBundle" in ran.err and "a.py: is not in Airflow" in ran.err
    assert "does not answer: 429" in ran.err and "503 SlowDown" in ran.err
    assert 2 == len(airflow.seen(of("/dags")))
    assert B == site.current()


def test_an_outage_of_the_store_does_not_end_the_wait_but_another_publisher_does(
    site: Site, airflow: FakeAirflow, revision: str
) -> None:
    airflow.show("a", revision)
    lost = partial(site.s3.inject, Exchange.reset, is_get(POINTER), times=7)
    for change in (lambda: site.others_publish(C), lost):  # the last one is first
        meanwhile(airflow, change)

    assert "Connection was closed" in site.fails("publish_conflict", "wait").err
    # a lack of rights does
    meanwhile(
        airflow,
        partial(site.s3.inject, error(403, "AccessDenied"), is_get(POINTER), times=1),
    )
    site.fails("access_denied_get", "wait")
    # one of Airflow ends it once the time is over
    site.environment |= NO_AIRFLOW
    site.fails("airflow_unreachable", "wait", "--timeout", "3s")


ODD = {
    "web page": ("/dags", says(200, b"<html>"), "airflow_unreachable", "200"),
    "redirect": ("/dags", says(302, headers={"Location": "http://127.0.0.1:9/"}),
                 "airflow_unreachable", "302"),
    "no DAGs": ("/dags", says(403), "airflow_denied", "`can read on DAGs`"),
    "no errors": ("/importErrors", says(403), "airflow_denied",
                  "`can read on ImportError`"),
    "Airflow 2": ("/auth/token", says(404), "airflow_unsupported", "Airflow 3.1"),
    "Airflow 3.0": ("/dags", says(200, b'{"dags": [{}], "total_entries": 1}'),
                    "airflow_unsupported", "'bundle_name'"),
    "no sources": ("/dagSources/a", says(403), "airflow_denied",
                   "`can read on DAG Code`"),
    "slow source": ("/dagSources/a", drip(1, 0.5),
                    "release_not_live", "a.py: is not in Airflow as it is here"),
    "large page": ("/dags", page(*[{"bundle_name": "x"}] * 101),
                   "airflow_unsupported", "too many rows"),
    "long row": ("/dags", page({"bundle_name": "x" * 9_000_000}),
                 "airflow_unreachable", "200"),
    "odd token": ("/auth/token", says_json(201, {"access_token": f"{TOKEN}\n"}),
                  "airflow_unsupported", "access_token"),
    "echo": ("/dags", says_json(401, {"detail": [TOKEN, USER["password"]]}),
             "airflow_denied", "Correct AIRFLOW_API_TOKEN"),
    "drip": ("/dags", drip(1, 0.5), "airflow_unreachable", "in time"),
}  # fmt: skip


@pytest.mark.parametrize("name", ODD)
def test_an_answer_that_is_of_no_use_is_one_clear_error_without_the_token(
    site: Site, airflow: FakeAirflow, revision: str, name: str
) -> None:
    path, fault, reason, said = ODD[name]
    airflow.inject(fault, of(path))
    airflow.show("a", revision)
    airflow.sources["a"] = "old"

    ran = site.fails(
        reason, "wait", *([site.dags] if "Sources" in path else []), "--timeout", "7s"
    )

    assert said in ran.err and ran.err.count("\n") <= 3, ran
    for secret in (TOKEN, USER["password"]):
        assert secret not in ran.out + ran.err


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

    ran = site.refuses("settings_rejected", B, "--wait", code=2)

    assert f"AIRFLOW_API_{name}" in ran.err and "secret" not in ran.err
    assert A == site.current()


def test_waits_after_a_rollback_and_a_promotion_and_not_for_a_dry_run(
    site: Site, airflow: FakeAirflow, revision: str
) -> None:
    site.publish(B)
    airflow.show("a", revision)

    site.succeed("rollback", "--wait", "--dry-run")
    assert [] == airflow.requests
    for words in (("rollback",), ("promote", site.url, site.prd)):
        assert (
            "live"
            == site.succeed(*words, "--wait", "--timeout", "1m")["airflow"]["result"]
        )


def test_waits_until_the_sources_of_a_folder_are_there_and_read_again(
    site: Site, airflow: FakeAirflow
) -> None:
    """Without a bucket; errors that are there at first may be of the files before."""
    site.environment |= airflow.settings() | {"AWS_BUCKET": ""}
    dag = b"with DAG('x'):\r\n    pass"
    files = {
        "a.py": dag,
        "new.py": dag,
        "lib/helper.py": b"def make(): return DAG()",
        "sdk.py": b"@sdk.dag\ndef one(): pass\none()",
        "typed.py": b"one: sdk.DAG = sdk.DAG('x')",
        "us.zipcodes.py": dag,
        "skipped/x.py": dag,
        ".airflowignore": b"# old\n\nskipped/  # too",
        "left.py": dag,
        ".s3-sync-ignore": b"left.py",
    }
    write_files(site.dags, files)
    words = ("wait", site.dags, "--bundle", "of the chart")
    airflow.bundle = "of the chart"
    for name in ("a", "gone", "left", "lib.zip/c"):
        airflow.show(name, None)
        airflow.sources[name] = "old"
    airflow.break_file("new.py", STACK)

    assert [
        "new.py",
        "a.py",
        "gone.py",
        "sdk.py",
        "typed.py",
        "us.zipcodes.py",
    ] == paths(site.fails("release_not_live", *words, "--timeout", "9s"))

    del airflow.dags["gone"]
    for name in ("new", "sdk", "typed", "us.zipcodes"):
        airflow.show(name, None)
        airflow.sources[name] = files[f"{name}.py"].decode()
    airflow.sources["a"] = "with DAG('x'):\n    pass"
    airflow.forget()
    airflow.inject(says(404), of("/dagSources/a"), times=1)
    airflow.inject(says(200, b'{"content": null}'), of("/dagSources/new"), times=1)
    airflow.inject(
        first(airflow.errors.clear),
        lambda one: bool(airflow.seen(of("/importErrors"))),
        times=1,
    )
    facts = site.succeed(*words)["airflow"]
    assert airflow.dags.keys() == set(facts["dags"])
    assert ["left.py", "lib.zip/c.py", "lib/helper.py"] == facts["unproven"]


def test_a_folder_of_which_airflow_has_no_dag_is_not_live(
    site: Site, airflow: FakeAirflow
) -> None:
    """As with a wrong --bundle; also if no line makes a DAG."""
    site.environment |= airflow.settings() | {"AWS_BUCKET": ""}
    write_files(site.dags, {"loader.py": b"load_yaml_dags(globals())"})

    site.fails("release_not_live", "wait", site.dags, "--timeout", "6s")
