"""
Commands on a prefix that has no releases of this format: refused in one sentence, and
nothing is written or deleted.
"""

import json
from datetime import UTC, datetime, timedelta

import pytest

from s3_sync.publisher.cli import COMMANDS
from tests.scenarios.s3_sync.publish.site import OLD, POINTER, A, B, Site
from tests.support.aws.writable_s3 import is_write
from tests.support.s3_sync.publishing import PREFIX

OF_RELEASE = {
    name: body for name, body in OLD.objects().items() if name != "current.json"
}
FILES = {
    "a.py": b"print()\n",
    "bundles/app.js": b"",
    "bundles/readme.txt": b"",
    "releases/notes.md": b"",
    f"bundles/{'0' * 64}.zip": b"",
}
NEWER = json.dumps({"format": 4, "version": OLD.revision}).encode()
KINDS = {
    "newer": {**OF_RELEASE, **FILES, "current.json": NEWER},
    "files": FILES,
    "empty": {},
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_command_refuses_a_prefix_without_releases_and_changes_nothing(
    site: Site, kind: str
) -> None:
    at = datetime.now(UTC) - timedelta(days=40)
    site.s3.put_all(KINDS[kind], PREFIX, at=at)
    site.s3.put_all(OLD.objects(), "prd/", at=at)
    before = dict(site.s3.objects)
    words = site.every_command()
    assert {"check-publisher"} == COMMANDS.keys() - words.keys()  # has its own prefix
    if kind == "empty":  # the first release is welcome there
        del words["publish"], words["promote to"]
    reasons = dict.fromkeys(words, (3, "release_invalid"))
    if POINTER not in before:
        reasons = dict.fromkeys(words, (3, "release_missing"))
        reasons["publish"] = reasons["promote to"] = (3, "prefix_taken")
        reasons["rollback"] = (2, "release_unknown")

    for name in words:
        code, reason = reasons[name]
        site.fails(reason, *words[name], code=code)
        assert before == site.s3.objects, name
    assert [] == site.s3.seen(is_write())


def test_begins_releases_in_an_empty_prefix_beside_other_ones(site: Site) -> None:
    """Also where a killed publish, or a console, has left something."""
    site.s3.put_all(OF_RELEASE, PREFIX)
    site.s3.put_each(("dags/", "dags/sub/", "dags-old/a.py"), b"")

    site.publish(B)
    assert B == site.current()


def test_begins_releases_among_files_only_with_force(site: Site) -> None:
    site.s3.put_all(FILES, PREFIX)

    assert "'a.py'" in site.refuses("prefix_taken", B).err
    site.publish(B, "--force")
    site.publish(A)


@pytest.mark.parametrize(
    ("pointer", "reason", "more"),
    [(None, "release_missing", ()), (b"<html>", "release_invalid", ("--force",))],
)
def test_lists_what_is_there_although_the_pointer_is_gone_or_invalid(
    site: Site, pointer: bytes | None, reason: str, more: tuple[str, ...]
) -> None:
    """The way back: one of these, by `rollback`."""
    revision = site.publish(A)["revision"]
    site.s3.delete(POINTER)
    if pointer:
        site.s3.put(POINTER, pointer)

    assert [revision] == [
        one["revision"] for one in site.fails(reason, "releases").facts()["releases"]
    ]
    site.succeed("rollback", revision, *more)
    assert A == site.current()
