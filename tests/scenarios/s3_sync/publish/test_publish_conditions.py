"""
What becomes of the pointer: stores with odd conditions, lost answers, other publishers.

A command succeeds if and only if its release is current, or was and is in the history.
"""

from pathlib import Path

import pytest

from s3_sync.names import short
from tests.scenarios.s3_sync.publish.site import (
    NO_AIRFLOW,
    POINTER,
    PRUNE,
    A,
    B,
    C,
    Site,
    race,
)
from tests.support.aws.fake_s3 import error, is_get
from tests.support.aws.s3_refusals import error_answer
from tests.support.aws.writable_s3 import (
    Conditions,
    Meeting,
    is_write,
    without,
)
from tests.support.http.faults import answer_with, first
from tests.support.http.loopback import (
    Answer,
    Exchange,
    Request,
)
from tests.support.s3_sync.signing import Key, write_keys

IS_POINTER = is_write("current.json")
ROUNDS = 3


def test_of_two_publishers_at_once_the_overwritten_one_says_so(
    site: Site, tmp_path: Path
) -> None:
    """The store looks at the condition, then writes: both are answered with success."""
    site.s3.conditions = "not_atomic"
    for number in range(ROUNDS):
        site.s3.between = Meeting()
        won, lost = race(site, tmp_path, str(number))

        assert '"reason": "publish_lost"' in lost.out, lost.out
        assert "not atomic" in lost.err and short(site.turns()[0]) in lost.err
        assert site.turns()[0] in won.out
        assert all(revision not in lost.out for revision in site.turns())


def test_publishes_and_rolls_back_where_etags_have_no_quotes(
    site: Site,
) -> None:
    site.s3.conditions = "unquoted"

    for files in (A, B, C):
        site.publish(files)
        assert files == site.current()
    site.publish(C, "--force")
    for files in (B, A):
        site.succeed("rollback")
        assert files == site.current()

    site.s3.inject(first(lambda: site.others_publish(C)), IS_POINTER, times=1)
    site.refuses("publish_conflict", B)
    assert C == site.current()


def is_unquoted(request: Request) -> bool:
    return not request.headers.get("if-match", '"').startswith('"')


def test_sends_no_etag_without_quotes_to_a_store_that_would_not_compare_it(
    site: Site,
) -> None:
    site.publish(A)
    site.s3.conditions = "unquoted"
    site.s3.inject(answer_with(Answer(200, {"ETag": '"any"'})), is_unquoted)

    site.refuses("store_unsupported", B)
    assert not site.s3.seen(lambda one: is_unquoted(one) and IS_POINTER(one))
    assert A == site.current()


@pytest.mark.parametrize(
    ("conditions", "was_deleted", "reason"),
    [
        # Ceph: no release can be the first one there, and none can follow.
        ("versioned", True, "store_unsupported"),
        ("versioned", False, "condition_refused"),
        # versitygw
        ("deleted_stays", True, "condition_refused"),
    ],
)
def test_a_versioned_bucket_that_refuses_a_condition_is_no_other_publisher(
    site: Site,
    conditions: Conditions,
    was_deleted: bool,
    reason: str,
) -> None:
    site.publish(A)
    if was_deleted:
        site.s3.delete(POINTER)
    before = site.s3.objects.get(POINTER)
    site.s3.conditions = conditions

    assert "version" in site.refuses(reason, B).facts()["advice"]
    assert before == site.s3.objects.get(POINTER)


BUSY = error_answer(409, "ConditionalRequestConflict", "Try again.")


def test_tries_again_while_the_store_is_busy_with_another_conditional_write(
    site: Site,
) -> None:
    for files in (A, B):
        site.s3.inject(answer_with(BUSY), IS_POINTER, times=2)
        site.publish(files)
        assert files == site.current()


def test_names_the_publisher_that_made_the_store_busy(site: Site) -> None:
    """Not the one whose release was current before."""
    site.publish(A)

    def be_busy(exchange: Exchange) -> None:
        site.others_publish(C)
        exchange.send(BUSY)

    site.s3.inject(be_busy, IS_POINTER, times=1)
    said = site.refuses("publish_conflict", B).err
    assert f"made release {short(site.turns()[0])} current" in said
    assert C == site.current()


def test_a_release_that_was_replaced_before_its_answer_arrived_was_published(
    site: Site,
) -> None:
    """The answer is lost, somebody else publishes, and botocore's retry gets 412."""
    b = site.publish(B)["revision"]
    site.publish(A)

    def lose(exchange: Exchange) -> None:
        exchange.good()
        site.others_publish(C)
        exchange.reset()

    site.s3.inject(lose, IS_POINTER, times=1)

    site.succeed("rollback", b)

    assert b == site.turns()[1]


# How a store leaves the pointer as it was, and what the command says.
NOT_WRITTEN = {
    "condition_refused": (BUSY, "ConditionalRequestConflict"),
    "throttled": (error_answer(503, "SlowDown"), "503 SlowDown"),
    "publish_lost": (Answer(200, {"ETag": '"any"'}), "does not show it"),
}


@pytest.mark.parametrize("reason", NOT_WRITTEN)
def test_a_pointer_that_was_not_written_is_no_success_and_no_other_publisher(
    site: Site, reason: str
) -> None:
    answer, said = NOT_WRITTEN[reason]
    site.publish(A)
    site.s3.inject(answer_with(answer), IS_POINTER)

    assert said in site.refuses(reason, B).err
    site.refuses(reason, A, "--force")
    assert A == site.current()


def test_a_pointer_that_cannot_be_read_back_is_reported_as_unknown(
    site: Site,
) -> None:
    site.publish(A)

    def write_and_deny(exchange: Exchange) -> None:
        site.s3.inject(error(403, "AccessDenied"), is_get("current.json"))
        exchange.reset()

    site.s3.inject(write_and_deny, IS_POINTER)
    assert "unknown whether" in site.refuses("access_denied_get", B).err


def test_an_unsigned_pointer_that_was_not_written_does_not_end_signing(
    site: Site, tmp_path: Path
) -> None:
    """The same release is current already, but its pointer is signed."""
    site.publish(A, "--sign-key", Key().write_private(tmp_path / "key.pem"))
    site.s3.conditions = "versioned"

    site.refuses("condition_refused", A, "--force")


def test_every_command_with_trusted_keys_refuses_an_unsigned_pointer(
    site: Site, tmp_path: Path
) -> None:
    key = Key()
    trusts = ("--trusted-keys", write_keys(tmp_path / "keys", key))
    signs = (*trusts, "--sign-key", key.write_private(tmp_path / "key.pem"))
    writes = (
        ("publish", site.dags),
        ("rollback", site.publish(A)["revision"]),
        ("promote", site.url, site.prd),
    )
    every = [(*words, *signs) for words in writes]
    every += [
        (*words, *trusts)
        for words in (("releases",), ("diff", site.url, site.url), ("prune-releases",))
    ]

    site.environment |= NO_AIRFLOW
    for words in (*every, ("wait", *trusts)):
        site.fails("release_untrusted", *words)
    for words in writes[:2]:
        assert (
            "requires --sign-key"
            in site.fails("settings_rejected", *words, *trusts, code=2).err
        )

    site.succeed(*every[0], "--force")
    assert {None, key.key_id} == {
        site.succeed(*words).get("signed_by") for words in every
    }


# --- answers without fields


def test_answers_without_etag_date_and_size_are_no_crash(site: Site) -> None:
    """As of JuiceFS's gateway: everything can be read, and nothing be replaced."""
    site.publish(A)
    site.s3.put(f"dags/bundles/{'0' * 64}.zip", b"")
    before = dict(site.s3.objects)
    site.s3.inject(
        without("ETag", "Last-Modified", "LastModified", "Size", "Date"),
        lambda request: request.method == "GET",
    )

    site.succeed("releases")
    site.succeed("diff", "current", site.turns()[0])
    site.succeed(*PRUNE)
    assert before == site.s3.objects
    assert "ETag" in site.refuses("store_unsupported", B).err
    assert A == site.current()


def test_names_the_server_that_refused_in_place_of_the_store(site: Site) -> None:
    """An ingress says 404 while its server restarts: no sign that nothing is there."""
    headers = {"Server": "nginx", "Content-Type": "text/html"}
    for status in (404, 403):
        site.s3.inject(answer_with(Answer(status, headers, b"<html>no</html>")))
        said = site.fails("answer_foreign", "releases").err
    assert "nginx (text/html)" in said and "None" not in said
