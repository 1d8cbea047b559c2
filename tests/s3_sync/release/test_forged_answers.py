"""Responses, of S3 or of a proxy, that do not match the request."""

import gzip
from collections.abc import Iterator
from dataclasses import replace

import pytest

from tests.s3_sync.release.attacks import Stage, staged
from tests.support.aws.fake_s3 import redirect
from tests.support.http.faults import altered, first, replace_body
from tests.support.http.loopback import Answer, Fault, Match, Request
from tests.support.program import own_port
from tests.support.s3_sync.shelf import is_bundle, is_manifest, is_pointer


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with staged(tmp_path_factory.mktemp("forged")) as stage:
        yield stage


def other(body: bytes) -> bytes:
    """Return different bytes of the same length."""
    return bytes(byte ^ 1 for byte in body)


def with_header(name: str, value: str) -> Fault:
    """Send the correct bytes with another value of a header."""
    return altered(lambda answer: replace(answer, headers={**answer.headers, name: value}))


def as_a_whole(answer: Answer) -> Answer:
    """Give a partial response the status and headers of a complete one."""
    headers = {name: text for name, text in answer.headers.items() if name != "Content-Range"}
    return replace(answer, status=200, headers=headers)


def zipped(answer: Answer) -> Answer:
    """Compress the body, although the request did not ask for it."""
    headers = {**answer.headers, "Content-Encoding": "gzip"}
    return replace(answer, headers=headers, body=gzip.compress(answer.body))


def is_manifest_behind_its_head(request: Request) -> bool:
    return is_manifest(request) and not request.headers.get("range", "").startswith("bytes=0-")


UNSIGNED = ("release_untrusted", "release_invalid")
INVALID = ("release_invalid", "release_invalid")
CORRUPT = ("bundle_corrupt", "bundle_corrupt")
REFUSED = ("redirect_refused", "redirect_refused")
# The reasons with and without keys, the fault, and the requests that it applies to.
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
# For a manifest so long that only its head and its new chunks are requested.
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
def test_refuses_a_response_that_does_not_match_the_request(stage: Stage, name: str) -> None:
    reasons, fault, match = ANSWERS[name]
    stage.put(stage.scene().objects())
    stage.s3.inject(fault, match)

    stage.assert_both_refuse(*reasons)


@pytest.mark.parametrize("name", PARTS)
def test_refuses_a_forged_part_of_a_manifest(stage: Stage, name: str) -> None:
    reasons, fault, match = PARTS[name]
    stage.put(stage.scene(more=400).objects())
    stage.s3.forget()
    stage.s3.inject(fault, match)

    stage.assert_both_refuse(*reasons)


def test_refuses_a_bundle_that_is_replaced_after_the_manifest_was_read(stage: Stage) -> None:
    """The other bundle has the same length."""
    scene = stage.scene()
    stage.put(scene.objects())
    spoil = scene.objects(bundle=other(scene.next.bundle_bytes))
    stage.s3.inject(first(lambda: stage.put(spoil)), is_bundle)

    stage.assert_both_refuse("bundle_corrupt")
