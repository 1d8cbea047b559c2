"""Publishers and the answers of odd servers, proxies and policies."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Literal

import pytest

from s3_sync.release.format import SEQUENCE_LIMIT, write_pointer
from tests import Bodies
from tests.scenarios.s3_sync.publish.site import OLD, POINTER, PRUNE, A, B, Site
from tests.support.airflow.fake_api import FakeAirflow
from tests.support.aws.fake_s3 import error, is_get, is_list
from tests.support.aws.writable_s3 import (
    forbid_missing,
    is_delete,
    is_write,
    lose_answer,
)
from tests.support.http.faults import first, truncate
from tests.support.http.loopback import Exchange, Fault
from tests.support.machine.volumes import small_volume
from tests.support.s3_sync.releases import make_release
from tests.support.s3_sync.signing import Key

DENIED = {
    "put": ("publish", is_write(), "s3:PutObject"),
    "get": ("publish", is_get(POINTER), "s3:GetObject"),
    "list": ("releases", is_list, "s3:ListBucket"),
    "delete": ("prune-releases", is_delete, "s3:DeleteObject"),
}


@pytest.mark.parametrize("name", DENIED)
def test_names_the_missing_permission_and_its_resource(site: Site, name: str) -> None:
    command, match, action = DENIED[name]
    for files in ({"a.py": b"older"}, A):
        site.has(files)
    before = dict(site.s3.objects)
    site.s3.inject(error(403, "AccessDenied"), match)

    ran = site.fails(f"access_denied_{name}", *site.every_command()[command])

    assert action in ran.err and f"arn:aws:s3:::{site.s3.bucket}" in ran.err
    assert before == site.s3.objects


def test_never_writes_a_pointer_that_readers_refuse(site: Site) -> None:
    """Someone who may write there has written the highest sequence."""
    pointer = site.has(A).pointer
    site.s3.put(
        POINTER,
        write_pointer(
            pointer._replace(turn=pointer.turn._replace(sequence=SEQUENCE_LIMIT))
        ),
    )
    before = dict(site.s3.objects)

    site.refuses("release_invalid", B)
    assert before == site.s3.objects
    site.s3.delete(POINTER)
    site.publish(B)


@pytest.mark.parametrize("conditions", ["ignored", "refused"])
def test_a_store_without_conditional_writes_is_refused_and_keeps_its_release(
    site: Site, conditions: Literal["ignored", "refused"]
) -> None:
    site.publish(A)
    site.s3.conditions = conditions

    site.refuses("store_unsupported", B)
    assert A == site.current()


@pytest.mark.parametrize("then", [(), (B,)])
@pytest.mark.parametrize("part", [".zip", ".json.gz"])
def test_publishing_again_repairs_what_was_altered_without_another_size(
    site: Site, part: str, then: tuple[Bodies, ...]
) -> None:
    """Of the current release, and of one that becomes current again."""
    site.publish(A)
    key = next(key for key in site.s3.objects if key.endswith(part))
    body = site.s3.objects[key].body
    site.s3.put(key, body[:40] + bytes([body[40] ^ 1]) + body[41:])
    for files in then:
        site.publish(files)
    site.fails("release_damaged", "rollback", site.turns()[-1])
    if part == ".json.gz":  # and its bundle may be any of them
        site.fails("release_damaged", *PRUNE)

    assert ("published" if then else "unchanged") == site.publish(A)["result"]
    assert A == site.current()


def test_half_an_object_is_a_lost_connection_and_no_reason_to_write(site: Site) -> None:
    """Half a pointer has no history, and half a manifest would be written back."""
    site.publish(A)
    before = site.bodies()
    for key in before:
        site.s3.inject(truncate(40), is_get(key), times=1)
        site.fails("connection_lost", "rollback", OLD.revision, "--force")

    assert before == site.bodies()


def test_of_a_bundle_no_more_is_downloaded_than_its_manifest_states(site: Site) -> None:
    site.publish(A)
    key = next(key for key in site.s3.objects if key.endswith(".zip"))
    site.s3.put(key, site.s3.objects[key].body + bytes(8 << 20))
    with small_volume(site.folder / "volume", "4m") as volume:
        site.environment["TMPDIR"] = str(volume)

        site.fails("release_damaged", "rollback", site.turns()[-1])


@pytest.mark.parametrize("part", [".zip", ".json.gz"])
def test_writes_again_what_a_prune_removes_meanwhile(site: Site, part: str) -> None:
    def prune() -> None:
        site.s3.delete(*(key for key in site.s3.objects if key.endswith(part)))

    site.s3.inject(first(prune), is_write("current.json"), times=1)

    site.publish(A)
    assert A == site.current()


def headed(**headers: str) -> Fault:
    """Change headers; `{}` is what was there."""

    def fault(exchange: Exchange) -> None:
        answer = exchange.good()
        changed = dict(answer.headers)
        for name, text in headers.items():
            changed[name] = text.format(changed.get(name))
        exchange.send(replace(answer, headers=changed))

    return fault


# Answers that are odd and no reason to fail.
ODD = {
    "403 for 404, to a role that may list only its prefix": (forbid_missing, None),
    "ETags that a proxy weakens": (
        headed(ETag="W/{}"),
        lambda request: request.method == "GET",
    ),
    "none to the write of the pointer": (lose_answer, is_write("current.json")),
    "no date": (headed(Date=""), None),
    "no time zone": (headed(Date="Sun, 29 Nov 2026 13:00:00 -0000"), None),
    "year 1": (headed(Date="Mon, 01 Jan 0001 00:00:00 GMT"), None),
}


@pytest.mark.parametrize("name", ODD)
def test_publishes_through_odd_answers(site: Site, name: str) -> None:
    site.s3.inject(*ODD[name])

    site.publish(A)
    site.publish(B)

    assert [B, 2] == [site.current(), len(site.turns())]


README = Path(__file__).parents[4] / "sidecars/s3-sync/README.md"


def test_json_has_the_fields_that_the_readme_lists(
    site: Site, tmp_path: Path, airflow: FakeAirflow
) -> None:
    """Each field of the table is printed, and no other one."""
    listed = {
        name: set(re.findall(r"`(\w+)`", re.sub(r"\(.*?\)", "", fields)))
        for names, fields in re.findall(
            r"^\| (`[^|]*|any[^|]*) \| (.*) \|$", README.read_text(), re.MULTILINE
        )
        for name in re.findall(r"[\w-]+", names)
    }
    key = Key().write_private(tmp_path / "key.pem")
    site.publish(A)
    airflow.show("a", OLD.revision)
    every = site.every_command()
    site.environment |= airflow.settings() | {"AIRFLOW_API_TOKEN": ""}
    for name, words in every.items():
        assert site.succeed(*words).keys() <= listed[name.split()[0]], name
    airflow.show("a", make_release(B).revision)
    assert (
        listed["publish"]
        == site.succeed(
            *every["publish"], "--wait", "--force", "--sign-key", key
        ).keys()
    )
    assert (
        listed["any"]
        == site.fails("release_unknown", "pin", "0" * 12, code=2).facts().keys()
    )
