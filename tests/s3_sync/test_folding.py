"""File systems that take different names for the same: one file is kept, the others are skipped."""

import os
from pathlib import Path

import pytest

from s3_sync.folder.volume import find_folding
from s3_sync.pages import Entry
from s3_sync.plan import State, without_clashes
from sidecar_runtime.errors import SidecarError
from tests.support.machine.volumes import ignoring_case


def state_of(*paths: str, is_whole: bool = False) -> State:
    files = {path: Entry(path, "etag", 1) for path in paths}
    return State("revision", files, {"dags/x//y": "unsafe_path"}, is_whole=is_whole)


@pytest.mark.parametrize(
    ("kept", "skipped"),
    [
        (["a.py", "b.py"], []),
        (["A.py", "b.py"], ["a.py"]),
        (["A.PY"], ["A.py", "a.py"]),
        (["Pkg/a.py", "b.py"], ["pkg/b.py"]),
        (["Pkg/sub/a.py"], ["pkg/sub/a.py", "pkg/other/a.py"]),
        (["A"], ["a/b.py"]),
        (["pkg/a.py", "pkg/b.py", "pkgs/a.py"], []),
    ],
)
def test_keeps_the_first_of_several_names_that_the_volume_does_not_distinguish(
    kept: list[str], skipped: list[str]
) -> None:
    found = without_clashes(state_of(*kept, *skipped), str.casefold, "dags/")

    assert set(kept) == set(found.files)
    clashes = {f"dags/{path}": "name_clash" for path in skipped}
    assert {"dags/x//y": "unsafe_path", **clashes} == found.skipped
    assert "revision" == found.revision


def test_keeps_all_names_where_the_volume_distinguishes_them() -> None:
    state = state_of("a.py", "A.py")

    assert state is without_clashes(state, None, "dags/")


def test_refuses_a_release_with_names_that_the_volume_does_not_distinguish() -> None:
    with pytest.raises(SidecarError, match="does not distinguish") as caught:
        without_clashes(state_of("a.py", "A.py", is_whole=True), str.casefold)

    assert "release_invalid" == caught.value.reason


def fold_in(folder: Path) -> object:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        return find_folding(fd)
    finally:
        os.close(fd)


def test_linux_file_systems_distinguish_all_names(tmp_path: Path) -> None:
    assert fold_in(tmp_path) is None
    assert [] == list(tmp_path.iterdir())


def test_finds_out_that_a_volume_ignores_case(tmp_path: Path) -> None:
    with ignoring_case(tmp_path / "volume") as volume:
        fold = fold_in(volume)

        assert callable(fold)
        assert fold("Pkg/\u00c9.py") == fold("pkg/\u00e9.py") != fold("pkg/e.py")
        assert [] == list(volume.iterdir())
