"""Every download is proved before it is published, by whatever S3 gives as a proof."""

import hashlib
import itertools
from pathlib import Path

import pytest

from tests.scenarios.s3_sync.conftest import StartDaemon
from tests.support.checksums import header_value
from tests.support.fake_s3 import FakeS3, is_get
from tests.support.faults import first, flip_first_bit, replace_body
from tests.support.loopback import Exchange, Fault
from tests.support.scripted import Running, new_content

CHECKSUMS = ("crc32", "crc32c", "crc64nvme", "sha1", "sha256")

_numbers = itertools.count(1)


def new_etag() -> str:
    """32 hex digits that are not the MD5 of anything here."""
    return hashlib.md5(f"etag {next(_numbers)}".encode()).hexdigest()


def rotting() -> Fault:
    """The right length with other content, different each time."""

    def rot(body: bytes) -> bytes:
        return next(_numbers).to_bytes(4, "big") + body[4:]

    return replace_body(rot)


def test_a_body_that_does_not_match_its_md5_is_caught(synced: Running) -> None:
    before = synced.published
    synced.s3.put("dags/a.py", new_content())
    synced.s3.inject(rotting(), is_get("dags/a.py"))

    failed = synced.fail()

    assert failed["reason"] == "object_corrupt"
    assert "dags/a.py" in failed["error"]
    assert synced.published == before
    assert synced.fail()["reason"] == "object_corrupt"
    assert synced.published == before
    synced.recover()
    assert synced.expect() == synced.published


def test_one_corrupt_body_is_fixed_by_the_next_download(synced: Running) -> None:
    synced.s3.put("dags/a.py", new_content())
    synced.s3.inject(replace_body(flip_first_bit), is_get("dags/a.py"), times=1)

    synced.daemon.sync()
    synced.recover()

    assert synced.expect() == synced.published


@pytest.mark.parametrize("name", CHECKSUMS)
@pytest.mark.parametrize("etag", ["multipart", "kms"])
def test_a_body_that_does_not_match_its_checksum_is_caught(
    synced: Running, name: str, etag: str
) -> None:
    """With ETags that prove nothing."""
    body = new_content()
    headers = {
        f"x-amz-checksum-{name}": header_value(name, body),
        "x-amz-checksum-type": "FULL_OBJECT",
    }
    if etag == "kms":
        headers["x-amz-server-side-encryption"] = "aws:kms"
    etag = f"{new_etag()}-2" if etag == "multipart" else new_etag()
    flipped = replace_body(flip_first_bit)

    failed = synced.withstand(flipped, is_get("dags/a.py"), body=body, etag=etag, headers=headers)

    assert failed["reason"] == "object_corrupt"


@pytest.mark.parametrize("name", CHECKSUMS)
def test_checksums_of_parts_do_not_matter(synced: Running, name: str) -> None:
    headers = {f"x-amz-checksum-{name}": "dHdvIHBhcnRz-2", "x-amz-checksum-type": "COMPOSITE"}
    synced.s3.put("dags/a.py", new_content(), etag=f"{new_etag()}-2", headers=headers)

    ended = synced.daemon.sync()

    assert ended["event"] == "cycle_finished", ended
    assert synced.expect() == synced.published


@pytest.mark.parametrize(
    "header",
    [
        {"x-amz-server-side-encryption": "aws:kms"},
        {"x-amz-server-side-encryption": "aws:kms:dsse"},
        {"x-amz-server-side-encryption-customer-algorithm": "AES256"},
    ],
    ids=["kms", "dsse", "customer key"],
)
def test_encrypted_objects_whose_etag_looks_like_an_md5_sync_normally(
    synced: Running, header: dict[str, str]
) -> None:
    synced.s3.put("dags/a.py", new_content(), etag=new_etag(), headers=header)
    synced.s3.forget()

    ended = synced.daemon.sync()

    assert ended["event"] == "cycle_finished", ended
    assert synced.expect() == synced.published
    assert len(synced.s3.seen(is_get("dags/a.py"))) == 1
    assert synced.daemon.sync()["result"] == "unchanged"
    assert len(synced.s3.seen(is_get("dags/a.py"))) == 1


def test_what_says_that_it_is_encrypted_needs_no_md5(synced: Running) -> None:
    """On AWS `AES256` leaves the ETag an MD5; elsewhere it need not."""
    headers = {"x-amz-server-side-encryption": "AES256"}
    synced.s3.put("dags/a.py", new_content(), etag=new_etag(), headers=headers)

    assert "changed" == synced.daemon.sync()["result"]
    assert synced.expect() == synced.published
    synced.recover()


def test_an_etag_that_contradicts_in_a_store_of_md5s_names_the_setting(synced: Running) -> None:
    """However often the same bytes come."""
    synced.s3.put("dags/a.py", new_content(), etag=new_etag())
    before = synced.published

    for _ in range(2):
        failed = synced.fail()
        assert "object_corrupt" == failed["reason"]
        assert "S3_SYNC_VERIFY=lenient" in failed["advice"]
    assert before == synced.published
    synced.s3.put("dags/a.py", new_content())
    synced.recover()


@pytest.mark.parametrize("verify", ["auto", "lenient"])
def test_a_store_whose_etags_are_no_md5s(
    s3: FakeS3, start: StartDaemon, target: Path, verify: str
) -> None:
    """Some stores encrypt, or make up ETags, without saying so; some only for some objects."""
    if verify == "auto":
        s3.objects.clear()
    for number in range(30):
        s3.put(f"dags/odd/{number}.py", new_content(), etag=new_etag())
    daemon = start({"S3_SYNC_VERIFY": verify}).until_synced()

    one = Running(s3, daemon)
    assert one.expect() == one.published
    asked = len(s3.seen(is_get()))
    assert "unchanged" == daemon.sync()["result"]
    s3.put("dags/odd/1.py", new_content(), etag=new_etag())
    assert "changed" == daemon.sync()["result"]
    assert one.expect() == one.published
    assert asked + 1 == len(s3.seen(is_get()))
    assert 30 == daemon.metrics()['s3_sync_unverified_files{sidecar="s3-sync"}']


@pytest.mark.parametrize(
    "etag", ["d41d8cd98f00b204e9800998ecf8427e-2", "not-hex", "0" * 40, "ABCDEF" * 8, "a/b+c=:"]
)
def test_etags_of_other_shapes_are_no_proof_and_no_trouble(synced: Running, etag: str) -> None:
    synced.s3.put("dags/a.py", new_content(), etag=f"{etag}")

    ended = synced.daemon.sync()

    assert ended["event"] == "cycle_finished", ended
    assert synced.expect() == synced.published


@pytest.mark.parametrize("honors_if_match", [True, False])
@pytest.mark.parametrize(
    "newest",
    [None, b"", b"longer " * 100, b"very long " * 1_000_000],
    ids=["of the same size", "empty", "longer", "very long"],
)
def test_an_object_that_changes_after_the_listing_is_left_for_the_next_cycle(
    synced: Running, newest: bytes | None, honors_if_match: bool
) -> None:
    synced.s3.honors_if_match = honors_if_match
    before = synced.published["a.py"]
    other, newest = new_content(), new_content() if newest is None else newest
    synced.s3.put("dags/a.py", new_content())
    synced.s3.put("dags/other.py", other)
    synced.s3.inject(
        first(lambda: synced.s3.put("dags/a.py", newest)), is_get("dags/a.py"), times=1
    )

    ended = synced.daemon.sync()

    assert ("object_changing", 1) == (ended["reason"], ended["files_lacking"]), ended
    assert synced.published["a.py"] == before
    assert synced.published["other.py"] == other
    assert synced.daemon.sync()["event"] == "cycle_finished"
    assert synced.expect() == synced.published


def test_an_object_that_changes_while_it_is_sent_is_never_mixed(synced: Running) -> None:
    """The answer of the old object, half of it with the new content."""

    def mixed(exchange: Exchange) -> None:
        answer = exchange.good()
        exchange.send_head(200, {**answer.headers, "Content-Length": str(len(answer.body))})
        exchange.send_bytes(answer.body[:20_000])
        exchange.send_bytes(next(_numbers).to_bytes(4, "big") * 5_000)

    failed = synced.withstand(mixed, is_get("dags/a.py"), body=b"old " * 10_000)

    assert failed["reason"] == "object_corrupt"


def test_an_object_that_vanishes_after_the_listing_is_left_for_the_next_cycle(
    synced: Running,
) -> None:
    synced.s3.put("dags/brief.py", new_content())
    synced.s3.inject(
        first(lambda: synced.s3.delete("dags/brief.py")), is_get("dags/brief.py"), times=1
    )

    ended = synced.daemon.sync()

    assert ended["event"] == "cycle_finished", ended
    assert "brief.py" not in synced.published
    assert synced.daemon.sync()["event"] == "cycle_finished"
    assert synced.expect() == synced.published


def test_a_size_that_differs_from_the_listing_is_caught(synced: Running) -> None:
    before = synced.published
    synced.s3.put("dags/a.py", new_content(), etag=f"{new_etag()}-2", listed_size=7)

    failed = synced.fail()

    assert failed["reason"] == "object_corrupt"
    assert synced.published == before
    synced.s3.put("dags/a.py", new_content())
    synced.recover()


def test_a_change_of_the_same_size_is_noticed(synced: Running) -> None:
    synced.s3.put("dags/a.py", b"x = 1\n")
    synced.daemon.sync()
    synced.s3.put("dags/a.py", b"x = 2\n")

    assert synced.daemon.sync()["result"] == "changed"

    assert synced.published["a.py"] == b"x = 2\n"
