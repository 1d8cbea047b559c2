"""The answers of a volume's socket to valid and invalid requests."""

import os
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from sidecar_runtime.asking.ask_socket import NAME, AskSocket
from sidecar_runtime.errors import SidecarError
from tests.support.airflow.asking import ask

THERE, AWAY, GONE, FAILED = ("a" * 64, "b" * 40, "c" * 64, "d" * 64)
ANSWERS = {
    AWAY: None,
    GONE: SidecarError("release_missing", "there is none"),
    FAILED: SidecarError("endpoint_unreachable", "nobody answers"),
}
HOSTILE = [
    "/revisions/../../../etc/passwd",
    "/revisions/",
    "/revisions/current",
    f"/revisions/{'A' * 64}",
    f"/revisions/{'a' * 63}",
    f"/revisions/{'a' * 64}/..",
    f"/revisions/{'a' * 64}?x=1",
    f"/revisions/{'a' * 64}%00",
    f"/revisions/{'a' * 5000}",
    "/revisions/%2e%2e",
    "/revisions/\N{LATIN SMALL LETTER A WITH DIAERESIS}",
    f"/other/{'a' * 64}",
    "/metrics",
    "/",
]


class Volume:
    """A folder with a socket; `asked` lists the requested revisions that are missing."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.store = os.open(folder, os.O_RDONLY)
        self.asked: list[str] = []

    def begin(self) -> AskSocket:
        return AskSocket(self.store, lambda name: name == THERE, self._ask)

    def _ask(self, name: str) -> SidecarError | None:
        self.asked.append(name)
        return ANSWERS[name]


@pytest.fixture
def volume(tmp_path: Path) -> Iterator[Volume]:
    volume = Volume(tmp_path)
    yield volume
    os.close(volume.store)


def test_answers_with_a_status_code_for_each_state(volume: Volume) -> None:
    with closing(volume.begin()):
        answers = [ask(volume.folder, f"/revisions/{name}") for name in (THERE, *ANSWERS)]

    assert [
        (200, {"name": THERE}),
        (202, {"state": "on its way"}),
        (404, {"reason": "release_missing", "error": "there is none"}),
        (503, {"reason": "endpoint_unreachable", "error": "nobody answers"}),
    ] == answers
    assert [*ANSWERS] == volume.asked


def test_refuses_invalid_paths_and_requests_no_revision(volume: Volume) -> None:
    with closing(volume.begin()):
        answers = {question: ask(volume.folder, question)[0] for question in HOSTILE}
        assert 405 == ask(volume.folder, f"/revisions/{THERE}", "DELETE")[0]

    assert dict.fromkeys(HOSTILE, 404) == answers
    assert [] == volume.asked and [NAME] == os.listdir(volume.folder)


def test_the_next_process_replaces_the_socket(volume: Volume) -> None:
    with closing(volume.begin()) as first, closing(volume.begin()) as second:
        assert second.is_at(volume.store) and not first.is_at(volume.store)
        assert 200 == ask(volume.folder, f"/revisions/{THERE}")[0]
