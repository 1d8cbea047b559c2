"""
The HTTP side: probes, metrics, the status page, and what strangers can do with them.
"""

import base64
import hashlib
import re
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.scenarios.s3_sync.conftest import StartDaemon
from tests.support.daemon import Daemon
from tests.support.fake_s3 import ACCESS_KEY, SECRET_KEY, FakeS3, error
from tests.support.scripted import FILES, Running, running
from tests.support.waiting import wait_until

HOSTILE = "<script>alert(1)</script>&\"'"

SHARED_METRICS = {
    "sidecar_cycles": "counter",
    "sidecar_failures": "counter",
    "sidecar_cycle_duration_seconds": "histogram",
    "sidecar_last_success_timestamp_seconds": "gauge",
    "sidecar_last_publish_timestamp_seconds": "gauge",
    "sidecar_consecutive_failures": "gauge",
    "sidecar_ready": "gauge",
    "sidecar_build_info": "gauge",
}
OWN_METRICS = {
    "s3_sync_published_files": "counter",
    "s3_sync_deleted_files": "counter",
    "s3_sync_healed_files": "counter",
    "s3_sync_downloaded_bytes": "counter",
    "s3_sync_managed_files": "gauge",
    "s3_sync_skipped_keys": "gauge",
    "s3_sync_requests": "counter",
}


@pytest.fixture(scope="module")
def synced(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """
    One daemon for all that only asks.
    """
    with running(tmp_path_factory.mktemp("health") / "dags") as one:
        one.s3.put(f"dags/{HOSTILE}/../x", b"hostile")
        one.daemon.sync()
        yield one


def test_readiness_says_what_is_published_and_since_when(synced: Running) -> None:
    answer = synced.daemon.get("/readyz")

    assert answer.status == 200
    assert answer.headers["content-type"].startswith("application/json")
    body = answer.json()
    assert body["ready"] is True
    assert body["revision"] == synced.daemon.status()["revision"]
    assert 0 <= body["published_seconds_ago"] < 300
    assert body["reason"] is None
    assert body["error"] is None


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/metrics", "/", "/status"])
def test_head_is_get_without_a_body(synced: Running, path: str) -> None:
    get, head = synced.daemon.get(path), synced.daemon.get(path, "HEAD")

    assert (get.status, get.headers["content-type"]) == (head.status, head.headers["content-type"])
    assert get.body and not head.body


@pytest.mark.parametrize(
    "path", ["/nothing", "/healthz/", "/metrics/x", "/../etc/passwd", "/readyz%00"]
)
def test_other_paths_are_not_found(synced: Running, path: str) -> None:
    answer = synced.daemon.get(path)

    assert answer.status == 404
    assert "passwd" not in answer.body


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
@pytest.mark.parametrize("path", ["/healthz", "/", "/sync"])
def test_other_methods_are_refused(synced: Running, method: str, path: str) -> None:
    before = len(synced.s3.requests)

    assert synced.daemon.get(path, method).status in (404, 405)

    assert len(synced.s3.requests) == before


@pytest.mark.parametrize("method", ["TRACE", "CONNECT", "BREW"])
def test_odd_methods_are_refused(synced: Running, method: str) -> None:
    assert synced.daemon.get("/healthz", method).status in (405, 501)


@pytest.mark.parametrize("query", ["?", "?verbose=1", "?a=b&c=d"])
def test_a_query_does_not_matter(synced: Running, query: str) -> None:
    assert synced.daemon.get(f"/readyz{query}").status == 200


def exchange(daemon: Daemon, data: bytes) -> bytes:
    """
    Send bytes to the HTTP port and return all that comes back.
    """
    with socket.create_connection(daemon.address(), timeout=10) as connection:
        connection.sendall(data)
        connection.shutdown(socket.SHUT_WR)
        return b"".join(iter(lambda: connection.recv(65536), b""))


@pytest.mark.parametrize(
    "data",
    [
        b"nonsense\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET /" + b"a" * 70_000 + b" HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"x: y\r\n" * 500 + b"\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: 5\r\n\r\nGET /GET / HTTP/1.1\r\n\r\n",
    ],
    ids=["nonsense", "TLS", "version", "long path", "many headers", "smuggled"],
)
def test_nonsense_is_survived(synced: Running, data: bytes) -> None:
    answer = exchange(synced.daemon, data)

    assert b"200 OK" not in answer
    assert b"Traceback" not in answer
    assert synced.daemon.get("/healthz").status == 200
    assert synced.daemon.stray_lines == []


def test_silent_connections_do_not_take_the_probes_away(synced: Running) -> None:
    """
    Twenty that say nothing: a scanner, or half-open connections of a node that died.
    """
    silent = [socket.create_connection(synced.daemon.address()) for _ in range(20)]
    try:
        for _ in range(5):
            assert synced.daemon.get("/healthz").status == 200
    finally:
        for connection in silent:
            connection.close()


@pytest.mark.usefixtures("only_in_full")
def test_a_flood_of_silent_connections_ends_by_itself(synced: Running) -> None:
    silent = [socket.create_connection(synced.daemon.address()) for _ in range(200)]
    try:

        def answers() -> bool:
            try:
                return synced.daemon.get("/healthz").status == 200
            except OSError:
                return False

        wait_until(answers, "liveness answers again", timeout_seconds=25)
    finally:
        for connection in silent:
            connection.close()


def test_the_status_page_escapes_hostile_keys(synced: Running) -> None:
    page = synced.daemon.get("/")

    assert page.status == 200
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert "<script" not in page.body
    assert "unsafe_path" in page.body


def test_the_status_page_escapes_hostile_errors(synced: Running) -> None:
    synced.s3.inject(error(400, HOSTILE, HOSTILE))

    synced.fail()

    assert "<script" not in synced.daemon.get("/").body
    assert HOSTILE in synced.daemon.status()["last_error"]["error"]
    synced.recover()


def test_the_status_page_may_load_nothing(synced: Running) -> None:
    page = synced.daemon.get("/")

    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    styles = re.findall(r"<style>(.*?)</style>", page.body, re.DOTALL)
    assert len(styles) == 1
    digest = base64.b64encode(hashlib.sha256(styles[0].encode()).digest()).decode()
    assert f"style-src 'sha256-{digest}'" in policy
    assert "style=" not in page.body
    assert "http-equiv" not in page.body
    assert page.headers["x-content-type-options"] == "nosniff"


def test_status_has_the_documented_keys(synced: Running) -> None:
    status = synced.daemon.status()

    assert set(status) >= {
        "sidecar",
        "version",
        "alive",
        "ready",
        "revision",
        "published_at",
        "source",
        "target",
        "consecutive_failures",
        "last_error",
        "next_cycle_in_seconds",
        "cycles",
        "details",
    }
    assert status["sidecar"] == "s3-sync"
    assert status["source"] == "s3://dags-bucket/dags/"
    assert status["target"] == str(synced.daemon.target)
    assert status["alive"] is True
    assert status["cycles"]
    assert {"started_at", "duration_seconds", "result", "reason"} <= set(status["cycles"][0])


def test_metrics_have_the_documented_names_types_and_label(synced: Running) -> None:
    answer = synced.daemon.get("/metrics")

    families = {family.name: family for family in text_string_to_metric_families(answer.body)}

    assert answer.headers["content-type"].startswith("text/plain")
    for name, kind in (SHARED_METRICS | OWN_METRICS).items():
        assert families[name].type == kind, name
        for sample in families[name].samples:
            if not sample.name.endswith("_created"):
                assert sample.labels.get("sidecar") == "s3-sync", sample
    for family in families.values():
        labels = {label for sample in family.samples for label in sample.labels}
        allowed = {"sidecar", "result", "reason", "operation", "le", "version", "revision"}
        assert labels <= allowed, family.name


def test_metrics_count_what_happened(synced: Running) -> None:
    before = synced.daemon.metrics()
    synced.s3.put("dags/new.py", b"12345")
    synced.daemon.sync()
    (synced.daemon.target / "new.py").unlink()
    synced.daemon.sync()
    synced.daemon.sync()
    synced.s3.delete("dags/new.py")
    synced.daemon.sync()

    after = synced.daemon.metrics()

    def grown(name: str) -> float:
        full = f'{name}{{sidecar="s3-sync"}}'
        return after[full] - before.get(full, 0)

    assert grown("s3_sync_published_files_total") >= 1
    assert grown("s3_sync_healed_files_total") == 1
    assert grown("s3_sync_deleted_files_total") == 1
    assert grown("s3_sync_downloaded_bytes_total") == 10
    assert after['s3_sync_managed_files{sidecar="s3-sync"}'] == len(FILES)
    assert after['s3_sync_skipped_keys{reason="unsafe_path",sidecar="s3-sync"}'] == 1
    assert after['s3_sync_requests_total{operation="list",sidecar="s3-sync"}'] >= 5
    assert after['sidecar_ready{sidecar="s3-sync"}'] == 1


def test_no_secret_is_shown(synced: Running) -> None:
    for path in ("/", "/status", "/readyz", "/metrics"):
        body = synced.daemon.get(path).body
        assert SECRET_KEY not in body
        assert ACCESS_KEY not in body or path != "/metrics"


def test_a_skipped_key_leaves_the_count_when_it_is_gone(synced: Running) -> None:
    synced.s3.put("dags//double", b"x")
    synced.daemon.sync()
    name = 's3_sync_skipped_keys{reason="unsafe_path",sidecar="s3-sync"}'
    assert synced.daemon.metrics()[name] == 2
    synced.s3.delete("dags//double")

    synced.daemon.sync()

    assert synced.daemon.metrics()[name] == 1


@pytest.mark.parametrize("value", ["false", "False", "0"])
def test_the_status_page_can_be_switched_off(
    s3: FakeS3, target: Path, start: StartDaemon, value: str
) -> None:
    daemon = start(s3, target, {"S3_SYNC_STATUS_PAGE": value})
    daemon.wait_until_synced()

    assert [daemon.get(path).status for path in ("/", "/status")] == [404, 404]
    assert [daemon.get(path).status for path in ("/healthz", "/readyz", "/metrics")] == [200] * 3


@pytest.mark.parametrize(
    ("bind", "address"), [("127.0.0.1:0", "127.0.0.1"), ("[::1]:0", "::1"), ("localhost:0", None)]
)
def test_binds_where_it_is_told(
    s3: FakeS3, target: Path, start: StartDaemon, bind: str, address: str | None
) -> None:
    if ":" in (address or "") and not socket.has_ipv6:
        pytest.skip("this kernel has no IPv6")
    daemon = start(s3, target, {"S3_SYNC_HTTP_BIND": bind})

    assert daemon.get("/healthz").status == 200
    assert address in (None, daemon.address()[0])


def test_liveness_and_readiness_before_the_first_cycle_is_done(
    s3: FakeS3, target: Path, start: StartDaemon
) -> None:
    s3.inject(error(503, "SlowDown"))
    daemon = start(s3, target)

    assert daemon.get("/healthz").status == 200
    assert daemon.get("/readyz").status == 503
    assert daemon.get("/readyz").json()["ready"] is False
    assert daemon.get("/readyz").json()["revision"] is None
    assert daemon.get("/metrics").status == 200
    assert daemon.get("/").status == 200
