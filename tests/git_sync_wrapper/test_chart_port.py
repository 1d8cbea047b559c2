"""
git-sync's own port.
"""

from collections.abc import Iterator

import pytest

from git_sync_wrapper.chart_port import ChartPort, address
from git_sync_wrapper.metrics import GitSyncMetrics
from sidecar_runtime.errors import SettingsError
from tests.support.daemon import ask


class Port:
    """A port whose readiness a test sets."""

    def __init__(self, metrics: GitSyncMetrics | None = None) -> None:
        self.is_ready = False
        families = metrics.families if metrics else None
        self.server = ChartPort("127.0.0.1:0", lambda: self.is_ready, families)
        self.server.start()

    def get(self, path: str = "/", method: str = "GET") -> tuple[int, str]:
        answer = ask(("127.0.0.1", self.server.port), path, method, 10)
        return answer.status, answer.body


@pytest.fixture
def metrics() -> GitSyncMetrics:
    return GitSyncMetrics()


@pytest.fixture
def port() -> Iterator[Port]:
    port = Port()
    yield port
    port.server.close()


@pytest.mark.parametrize("path", ["/", "/anything?x", "/metrics"])
def test_any_path_answers_503_until_a_commit_can_be_read_then_200(port: Port, path: str) -> None:
    assert (503, "repo is not ready\n") == port.get(path)

    port.is_ready = True

    assert (200, "") == port.get(path)
    assert 405 == port.get(path, "POST")[0]
    port.is_ready = False  # the chart would restart the container, which repairs nothing
    assert (200, "") == port.get(path)


def test_metrics_use_git_sync_names_and_whole_numbers(metrics: GitSyncMetrics) -> None:
    port = Port(metrics)
    metrics.count_sync("success", 0.5)
    metrics.count_fetch()
    metrics.count_hook("webhook", "error")
    metrics.count_noop()

    status, body = port.get("/metrics")
    port.server.close()

    lines = set(body.splitlines())
    assert 200 == status
    assert {
        'git_sync_count_total{status="success"} 1',
        'git_sync_count_total{status="noop"} 1',
        'git_sync_duration_seconds_sum{status="success"} 0.5',
        "git_fetch_count_total 1",
        'git_sync_hook_run_count_total{name="webhook",status="error"} 1',
    } <= lines


@pytest.mark.parametrize(
    ("bind", "expected"),
    [(":1234", ("", 1234)), ("0.0.0.0:80", ("0.0.0.0", 80)), ("[::1]:1", ("::1", 1))],
)
def test_reads_addresses_as_go_does(bind: str, expected: tuple[str, int]) -> None:
    assert expected == address(bind)


@pytest.mark.parametrize("bind", ["1234", ":x", ":70000"])
def test_refuses_an_invalid_address(bind: str) -> None:
    with pytest.raises(SettingsError, match="GITSYNC_HTTP_BIND"):
        address(bind)


def test_a_port_in_use_is_a_settings_error(port: Port) -> None:
    with pytest.raises(SettingsError, match="GITSYNC_HTTP_BIND"):
        ChartPort(f"127.0.0.1:{port.server.port}", lambda: True, None)
