"""
What a broken network, a broken server or a proxy can do to an answer: never half a file.

Here the whole daemon, one case of each kind; all cases of the client are the rows of
tests/s3_sync/conformance.
"""

import hashlib
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.scenarios.s3_sync.conftest import StartDaemon
from tests.support.certificates import self_signed
from tests.support.fake_s3 import FakeS3, is_get, is_list, redirect
from tests.support.faults import (
    answer_with,
    chunked,
    close_after,
    close_silently,
    drip,
    hang,
    raw,
    replace_body,
    reset,
    truncate,
    unframed,
    wrong_length,
)
from tests.support.loopback import Answer, Exchange, Fault, LoopbackServer, Match, Request
from tests.support.scripted import FILES, Running, fill, new_content, published, running

LOST = {"connection_lost"}
HTML = b"<!doctype html><html><body>Please log in to the hotel network.</body></html>"

BROKEN = {
    "truncated": (truncate(after=3), LOST),
    "reset in the body": (reset(after=3), LOST),
    "without a frame": (unframed(), {"server_error"}),
    "not HTTP": (raw(b"220 mail.example ESMTP\r\n\r\n"), {"connection_lost", "server_error"}),
}


@pytest.mark.parametrize(
    ("match", "name"),
    [(is_get("dags/a.py"), name) for name in BROKEN]
    + [(is_list, name) for name in ("truncated", "not HTTP")],
)
def test_a_broken_answer_changes_nothing(synced: Running, match: Match, name: str) -> None:
    fault, reasons = BROKEN[name]

    failed = synced.withstand(fault, match)

    assert failed["reason"] in reasons, failed
    assert failed["error"]


@pytest.fixture(scope="module")
def impatient(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A daemon that abandons a cycle after a second."""
    settings = {"S3_SYNC_TIMEOUT": "1s"}
    with running(tmp_path_factory.mktemp("impatient") / "dags", settings) as one:
        yield one


@pytest.mark.parametrize("match", [is_list, is_get("dags/a.py")], ids=["list", "get"])
@pytest.mark.parametrize("after", [None, 3], ids=["before the answer", "in the body"])
def test_a_silent_server_fails_the_cycle_in_time(
    impatient: Running, match: Match, after: int | None
) -> None:
    assert impatient.withstand(hang(after), match)["reason"] == "cycle_timeout"


def test_a_body_longer_than_announced_is_not_published_and_does_not_leak_into_the_next_answer(
    synced: Running,
) -> None:
    before = synced.published
    synced.s3.put("dags/a.py", new_content())
    synced.s3.put("dags/after.py", new_content())
    synced.s3.inject(wrong_length(-5), is_get("dags/a.py"))

    synced.fail()

    assert synced.published["a.py"] == before["a.py"]
    synced.recover()
    assert synced.expect() == synced.published


LISTINGS: dict[str, Callable[[bytes], bytes]] = {
    "HTML": lambda body: HTML,
    "empty": lambda body: b"",
    "cut in the middle": lambda body: body[: len(body) // 2],
    "cut before the end": lambda body: body.replace(b"</ListBucketResult>", b""),
    "another document": lambda body: b"<?xml version='1.0'?><Other/>",
    "no size": lambda body: body.replace(b"Size>", b"Sise>"),
    "negative size": lambda body: body.replace(b"<Size>", b"<Size>-"),
    "no ETag": lambda body: body.replace(b"ETag>", b"Tag>"),
    "no key": lambda body: body.replace(b"Key>", b"Kee>"),
    "not UTF-8": lambda body: body.replace(b"a.py", b"\xff.py"),
    "ETag with a newline": lambda body: body.replace(b"&quot;<", b"&#xD;&#xA;x-evil: 1&quot;<"),
    "ETag outside ASCII": lambda body: body.replace(b"&quot;<", "日本&quot;<".encode()),
    "no IsTruncated": lambda body: b"<ListBucketResult/>",
    "entity bomb": lambda body: (
        b'<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;&a;&a;">'
        b'<!ENTITY c "&b;&b;&b;&b;&b;&b;&b;&b;&b;&b;">]><ListBucketResult>&c;</ListBucketResult>'
    ),
}


@pytest.mark.parametrize("name", LISTINGS)
def test_an_answer_that_is_no_listing_changes_nothing(synced: Running, name: str) -> None:
    failed = synced.withstand(replace_body(LISTINGS[name]), is_list)

    assert failed["reason"] == "listing_invalid", failed
    assert failed["advice"]
    assert not [r for r in synced.s3.requests if "x-evil" in r.headers]


def test_a_page_that_fails_late_deletes_nothing(synced: Running) -> None:
    """Half a listing looks like half a bucket."""
    synced.s3.page_size = 1

    synced.withstand(
        answer_with(Answer(500)),
        lambda request: is_list(request) and "continuation-token" in request.query,
    )


def after_a_hint(exchange: Exchange) -> None:
    """An interim answer before the real one."""
    exchange.send_bytes(b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n")
    exchange.send(exchange.good())


ODD_BUT_GOOD: dict[str, Fault] = {
    "chunks of 5": chunked(5),
    "drip": drip(64, 0.01),
    "close unannounced": close_silently(),
    "early hints": after_a_hint,
}


@pytest.mark.parametrize("name", ODD_BUT_GOOD)
def test_odd_but_good_answers_are_accepted(synced: Running, name: str) -> None:
    synced.s3.put("dags/a.py", new_content())
    synced.s3.inject(ODD_BUT_GOOD[name])

    first, second = synced.daemon.sync(), synced.daemon.sync()

    assert [first["event"], second["event"]] == ["cycle_finished", "cycle_finished"]
    assert synced.expect() == synced.published


def test_a_login_page_instead_of_an_object_is_not_published(synced: Running) -> None:
    synced.withstand(answer_with(Answer(200, {"Content-Type": "text/html"}, HTML)), is_get())


@pytest.mark.parametrize("status", [204, 206, 304])
def test_an_answer_of_another_kind_is_not_published(synced: Running, status: int) -> None:
    def odd(exchange: Exchange) -> None:
        etag = {"ETag": exchange.good().headers["ETag"]}
        exchange.send(Answer(status, etag, b"con" if status == 206 else b""))

    synced.withstand(odd, is_get())


class Elsewhere(LoopbackServer):
    """Another host, which would like to have the credentials."""

    def good_answer(self, request: Request) -> Answer:
        """Whatever was asked for."""
        return Answer(200, {}, HTML)


@pytest.mark.parametrize("status", [301, 307])
@pytest.mark.parametrize("match", [is_list, is_get()], ids=["list", "get"])
def test_a_redirect_to_another_host_is_refused_and_nothing_arrives_there(
    synced: Running, status: int, match: Match
) -> None:
    with Elsewhere() as elsewhere:
        there = redirect(f"{elsewhere.endpoint}/dags-bucket/dags/a.py", status)

        failed = synced.withstand(there, match)

        assert failed["reason"] == "redirect_refused"
        assert elsewhere.endpoint.removeprefix("http://") in failed["error"]
        assert elsewhere.requests == []


def test_connections_are_reused(synced: Running) -> None:
    synced.s3.forget()

    for _ in range(10):
        assert synced.daemon.sync()["event"] == "cycle_finished"

    listings = synced.s3.seen(is_list)
    assert len(listings) == 10
    assert len({request.connection for request in listings}) <= 2


def test_a_connection_that_the_server_announced_to_close_is_not_used_again(synced: Running) -> None:
    synced.s3.forget()
    synced.s3.inject(close_after())

    ended = [synced.daemon.sync()["event"] for _ in range(5)]

    listings = synced.s3.seen(is_list)
    assert ended == ["cycle_finished"] * 5
    assert len(listings) == 5
    assert len({request.connection for request in listings}) == 5


def test_many_downloads_use_few_connections(synced: Running) -> None:
    for number in range(200):
        synced.s3.put(f"dags/many/{number}.py", new_content())
    synced.s3.forget()

    assert synced.daemon.sync()["files_published"] == 200

    assert len(synced.s3.seen(is_get())) == 200
    assert len({request.connection for request in synced.s3.requests}) <= 32
    for number in range(200):
        synced.s3.delete(f"dags/many/{number}.py")
    assert "held" == synced.daemon.sync()["result"]
    assert "changed" == synced.daemon.sync()["result"]


def test_pages_of_seven_are_all_read(synced: Running) -> None:
    for number in range(30):
        synced.s3.put(f"dags/many/{number}.py", new_content())
    synced.s3.page_size = 7
    synced.s3.forget()

    ended = synced.daemon.sync()

    assert ended["event"] == "cycle_finished"
    assert len(synced.s3.seen(is_list)) == -(-len(synced.s3.objects) // 7)
    assert synced.expect() == synced.published


ODD_KEYS = ["a b+c%20d.py", "é/日本語.py", "e\u0301.py", "a&b<c>'\".py", "x=1;y?z#.py", "😀.py"]
DIALECTS: dict[str, dict[str, object]] = {
    "keys not encoded": {"url_encoded": False},
    "ETags without quotes": {"quoted_etags": False},
    "ETag before key": {"contents_order": ("ETag", "Size", "StorageClass", "LastModified", "Key")},
    "contents first": {"contents_first": True},
    "nested owner": {"with_owner": True},
    "no key count": {"key_count_error": None},
    "If-Match ignored": {"honors_if_match": False},
    "small pages": {"page_size": 2, "contents_first": True},
}


@pytest.mark.parametrize("name", DIALECTS)
def test_dialects_of_s3_are_understood(synced: Running, name: str) -> None:
    for key in ODD_KEYS:
        synced.s3.put(f"dags/{key}", new_content())
    for attribute, value in DIALECTS[name].items():
        setattr(synced.s3, attribute, value)

    ended = synced.daemon.sync()

    assert ended["event"] == "cycle_finished", ended
    assert synced.expect() == synced.published
    assert synced.daemon.sync()["result"] == "unchanged"


def test_a_big_file_arrives_whole(synced: Running) -> None:
    body = bytes(zlib.crc32(bytes([n % 251])) % 256 for n in range(1 << 10)) * (20 << 10)
    synced.s3.put("dags/big.bin", body)

    assert synced.daemon.sync()["downloaded_bytes"] >= len(body)

    there = hashlib.sha256((synced.daemon.target / "big.bin").read_bytes()).hexdigest()
    assert hashlib.sha256(body).hexdigest() == there
    synced.s3.delete("dags/big.bin")
    synced.daemon.sync()


def test_https_with_a_private_authority(start: StartDaemon, tmp_path: Path) -> None:
    context, bundle = self_signed(tmp_path / "tls", "s3.example")
    with FakeS3(tls=context) as s3:
        fill(s3)
        daemon = start({"AWS_CA_BUNDLE": str(bundle)}, s3=s3).until_synced()

        assert published(daemon.target) == FILES


def test_no_cycle_fails_while_an_authority_is_rotated(start: StartDaemon, tmp_path: Path) -> None:
    context, old = self_signed(tmp_path / "old", "old.example")
    _, new = self_signed(tmp_path / "new", "new.example")
    bundle = tmp_path / "ca.pem"
    bundle.write_bytes(old.read_bytes())
    with FakeS3(tls=context) as s3:
        fill(s3)
        s3.inject(close_after())  # a handshake for each request
        daemon = start({"AWS_CA_BUNDLE": str(bundle)}, s3=s3).until_synced()
        ended = []

        def sync() -> None:
            s3.put("dags/a.py", new_content())
            ended.append(daemon.sync()["result"])

        bundle.write_bytes(old.read_bytes() + new.read_bytes())
        sync()
        context.load_cert_chain(new, tmp_path / "new/key.pem")
        sync()
        bundle.write_bytes(new.read_bytes())
        sync()

        assert ["changed"] * 3 == ended


@pytest.mark.parametrize(
    ("host", "settings"),
    [("127.0.0.1", {}), ("localhost", {"AWS_CA_BUNDLE": "{bundle}"})],
    ids=["untrusted", "for another name"],
)
def test_a_bad_certificate_is_named(
    start: StartDaemon, tmp_path: Path, host: str, settings: dict[str, str]
) -> None:
    context, bundle = self_signed(tmp_path / "tls", "s3.example")
    given = {name: value.format(bundle=bundle) for name, value in settings.items()}
    with FakeS3(tls=context, host=host) as s3:
        failed = start(given, s3=s3).wait_for_event("cycle_failed")

        assert failed["reason"] == "tls_failed"
        assert "AWS_CA_BUNDLE" in failed["advice"]
        assert s3.requests == []


@pytest.mark.parametrize(
    ("endpoint", "reason", "said"),
    [
        ("https://127.0.0.1:{port}", "tls_failed", "127.0.0.1"),
        ("http://no-such-host.invalid:9000", "name_unresolved", "no-such-host.invalid"),
    ],
    ids=["a port that speaks HTTP", "a name that does not resolve"],
)
def test_a_wrong_endpoint_is_named(
    s3: FakeS3, start: StartDaemon, endpoint: str, reason: str, said: str
) -> None:
    failed = start({"AWS_ENDPOINT_URL": endpoint.format(port=s3.port)}).wait_for_event(
        "cycle_failed", timeout_seconds=30
    )

    assert failed["reason"] == reason
    assert said in failed["error"]


def test_a_slash_after_the_endpoint_does_not_matter(s3: FakeS3, start: StartDaemon) -> None:
    daemon = start({"AWS_ENDPOINT_URL": f"{s3.endpoint}/"}).until_synced()

    assert published(daemon.target) == FILES


def test_an_endless_body_is_cut_off(synced: Running) -> None:
    """A server gone mad must not fill the volume."""
    sent: list[int] = []

    def endless(exchange: Exchange) -> None:
        headers = {**exchange.good().headers, "Transfer-Encoding": "chunked"}
        exchange.send_head(200, headers)
        exchange.close()
        while sum(sent) < 256 << 20:
            exchange.send_bytes(b"10000\r\n" + bytes(0x10000) + b"\r\n")
            sent.append(0x10000)

    synced.s3.put("dags/a.py", new_content())
    synced.s3.inject(endless, is_get("dags/a.py"), times=1)

    synced.daemon.sync()

    assert sum(sent) < 64 << 20
