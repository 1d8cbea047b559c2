"""
Answers of S3, or of whoever stands between, that are not what was asked for.
"""

import gzip
from collections.abc import Iterator
from dataclasses import replace

import pytest

from tests.s3_sync.release.attacks import Stage, staged
from tests.support.fake_s3 import redirect
from tests.support.faults import altered, first, replace_body
from tests.support.loopback import Answer, Fault, Match, Request
from tests.support.program import own_port
from tests.support.shelf import is_bundle, is_manifest, is_pointer


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with staged(tmp_path_factory.mktemp("forged")) as stage:
        yield stage


def other(body: bytes) -> bytes:
    """Other bytes, as many."""
    return bytes(byte ^ 1 for byte in body)


def with_header(name: str, value: str) -> Fault:
    """The right bytes, of which something else is said."""
    return altered(lambda answer: replace(answer, headers={**answer.headers, name: value}))


def as_a_whole(answer: Answer) -> Answer:
    """A part, with the status and headers of a whole."""
    headers = {name: text for name, text in answer.headers.items() if name != "Content-Range"}
    return replace(answer, status=200, headers=headers)


def zipped(answer: Answer) -> Answer:
    """A body that is compressed, though nobody wanted that."""
    headers = {**answer.headers, "Content-Encoding": "gzip"}
    return replace(answer, headers=headers, body=gzip.compress(answer.body))


def is_manifest_behind_its_head(request: Request) -> bool:
    return is_manifest(request) and not request.headers.get("range", "").startswith("bytes=0-")


UNSIGNED = ("release_untrusted", "release_invalid")
INVALID = ("release_invalid", "release_invalid")
CORRUPT = ("bundle_corrupt", "bundle_corrupt")
REFUSED = ("redirect_refused", "redirect_refused")
# By the reasons of whoever has keys and of whoever has none.
ANSWERS: dict[str, tuple[tuple[str, str], Fault, Match]] = {
    "a pointer that is compressed": (UNSIGNED, altered(zipped), is_pointer),
    "a pointer that is cut off": (UNSIGNED, replace_body(lambda body: body[:-9]), is_pointer),
    "a pointer without end": (INVALID, replace_body(lambda body: body * 100), is_pointer),
    "a pointer elsewhere": (REFUSED, redirect(f"http://127.0.0.1:{own_port()}/"), is_pointer),
    "a manifest that is cut off": (INVALID, replace_body(lambda body: body[:-9]), is_manifest),
    "a manifest without end": (INVALID, replace_body(lambda body: body * 200_000), is_manifest),
    "other bytes of a bundle": (CORRUPT, replace_body(other), is_bundle),
    "a bundle that is compressed": (CORRUPT, altered(zipped), is_bundle),
    "a part that nobody can place": (CORRUPT, with_header("Content-Range", "bytes ?"), is_bundle),
    "a part as a whole": (CORRUPT, altered(as_a_whole), is_bundle),
    "a part that ends too early": (CORRUPT, replace_body(lambda body: body[:-9]), is_bundle),
}
# Where the manifest is so long that only its head and its new chunks are asked for.
PARTS: dict[str, tuple[tuple[str, str], Fault, Match]] = {
    "other bytes of a manifest": (UNSIGNED, replace_body(other), is_manifest),
    "other chunks": (
        INVALID,
        replace_body(lambda body: body[:-2_000] + other(body[-2_000:])),
        is_manifest_behind_its_head,
    ),
    "a head as a whole": (INVALID, replace_body(lambda body: body[:2_000]), is_manifest),
}


@pytest.mark.parametrize("name", ANSWERS)
def test_an_answer_that_nobody_asked_for_is_refused(stage: Stage, name: str) -> None:
    reasons, fault, match = ANSWERS[name]
    stage.put(stage.scene().objects())
    stage.s3.inject(fault, match)

    stage.assert_both_refuse(*reasons)


@pytest.mark.parametrize("name", PARTS)
def test_a_part_of_a_manifest_that_nobody_asked_for_is_refused(stage: Stage, name: str) -> None:
    reasons, fault, match = PARTS[name]
    stage.put(stage.scene(more=400).objects())
    stage.s3.forget()
    stage.s3.inject(fault, match)

    stage.assert_both_refuse(*reasons)


def test_objects_that_are_replaced_between_two_requests_are_refused(stage: Stage) -> None:
    """Once the manifest was read, the bundle is another of the same length."""
    scene = stage.scene()
    stage.put(scene.objects())
    spoil = scene.objects(bundle=other(scene.next.bundle_bytes))
    stage.s3.inject(first(lambda: stage.put(spoil)), is_bundle)

    stage.assert_both_refuse("bundle_corrupt")
