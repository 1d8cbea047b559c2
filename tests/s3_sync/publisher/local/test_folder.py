"""Reading a folder: included and excluded files, errors, and concurrent changes."""

import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from s3_sync.publisher.local.folder import Look, check_same, contents, digests_of, look
from s3_sync.publisher.local.folder_errors import NAMED
from s3_sync.publisher.local.ignore import Ignore
from s3_sync.release.rows import FILES_LIMIT
from sidecar_runtime.errors import SidecarError
from tests.s3_sync.failing import failure


def look_at(folder: Path, *exclude: str) -> Look:
    """Look at a folder with these exclusion rules."""
    return look(str(folder), Ignore(str(folder), exclude))


def paths(seen: Look) -> list[str]:
    return [file.path for file in seen.files]


def fill(folder: Path, *names: str) -> None:
    """Write files whose content is their name."""
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)


def refusal(folder: Path) -> SidecarError:
    """Return why a folder cannot be released."""
    error = failure(look_at, folder)
    assert 2 == error.exit_code
    return error


def test_sorts_files_by_the_bytes_of_their_paths(tmp_path: Path) -> None:
    fill(tmp_path, "b.py", "a/z.py", "a-b.py", "a.py", "\u00fc.py", "\U0001f600.py", "\uffee.py")

    seen = look_at(tmp_path)

    assert sorted(paths(seen), key=str.encode) == paths(seen)
    expected = ["a-b.py", "a.py", "a/z.py", "b.py", "\u00fc.py", "\uffee.py", "\U0001f600.py"]
    assert expected == paths(seen)
    assert sum(len(path.encode()) for path in paths(seen)) == seen.size_bytes


def test_accepts_unusual_file_names(tmp_path: Path) -> None:
    names = ["new\nline", "Q3 report (final).sql", "a\\b", "%2e%2e", "-rf", "*", "...", "nu\u0308"]
    fill(tmp_path, *names)

    assert sorted(names) == paths(look_at(tmp_path))


def test_only_the_execute_bit_of_the_owner_counts(tmp_path: Path) -> None:
    fill(tmp_path, "a", "b", "c")
    (tmp_path / "a").chmod(0o700)
    (tmp_path / "b").chmod(0o677)
    (tmp_path / "c").chmod(0o444)

    assert [True, False, False] == [file.is_executable for file in look_at(tmp_path).files]


def test_leaves_out_files_of_tools_and_reports_them(tmp_path: Path) -> None:
    kept = [".airflowignore", ".gitignore", "a.py", "sub/b.py"]
    left = [".DS_Store", ".a.py.swp", ".git/", ".venv/", "a.pyc", "a.py~", "sub/.git"]
    fill(tmp_path, *kept, *(f"{name}x" if name.endswith("/") else name for name in left))
    fill(tmp_path, "sub/__pycache__/a.cpython-313.pyc")

    seen = look_at(tmp_path)

    assert kept == paths(seen)
    assert [*left, "sub/__pycache__/"] == list(seen.left_out)


def test_ignore_rules_of_folder_and_command_line_work_like_gitignore(tmp_path: Path) -> None:
    fill(tmp_path, "a.md", "keep.md", "docs/a.txt", "docs/deep/b.txt", "tests/t.py", "x/tests/t.py")
    rules = "# a comment\n\n*.md\n!keep.md\n/tests/\ndocs/**/b.txt\n"
    (tmp_path / ".s3-sync-ignore").write_text(rules)

    seen = look_at(tmp_path, "docs/a.txt")

    assert ["keep.md", "x/tests/t.py"] == paths(seen)
    assert ".s3-sync-ignore" in seen.left_out


def test_a_rule_can_include_files_that_are_left_out_by_default(tmp_path: Path) -> None:
    fill(tmp_path, "a.pyc", "b.py")

    assert ["a.pyc", "b.py"] == paths(look_at(tmp_path, "!*.pyc"))


@pytest.mark.parametrize("content", [b"a\xff\n", b"ok\n!\n", b"ends in a backslash\\\n"])
def test_reports_the_file_of_an_invalid_ignore_rule(tmp_path: Path, content: bytes) -> None:
    fill(tmp_path, "a.py")
    (tmp_path / ".s3-sync-ignore").write_bytes(content)

    error = refusal(tmp_path)

    assert "ignore_rule_invalid" == error.reason
    assert ".s3-sync-ignore" in error.message


def test_symlinks_become_copies_of_their_targets(tmp_path: Path) -> None:
    fill(tmp_path, "common/a.py", "b.py")
    (tmp_path / "link.py").symlink_to("b.py")
    (tmp_path / "absolute.py").symlink_to(tmp_path / "common" / "a.py")
    (tmp_path / "team").symlink_to("common", target_is_directory=True)

    seen = look_at(tmp_path)

    assert ["absolute.py", "b.py", "common/a.py", "link.py", "team/a.py"] == paths(seen)
    bodies = {c.path: c.data for c in contents(seen, digests_of(seen.files, print), print)}
    assert b"b.py" == bodies["link.py"] and b"common/a.py" == bodies["team/a.py"]


def test_the_folder_itself_can_be_a_symlink(tmp_path: Path) -> None:
    fill(tmp_path / "real", "a.py", "b.py")
    (tmp_path / "real" / "c.py").symlink_to(tmp_path / "real" / "a.py")
    (tmp_path / "dags").symlink_to("real")

    assert ["a.py", "b.py", "c.py"] == paths(look_at(tmp_path / "dags"))


def test_an_excluded_symlink_can_point_anywhere(tmp_path: Path) -> None:
    fill(tmp_path, "a.py")
    (tmp_path / ".venv").symlink_to("/usr")
    (tmp_path / "b~").symlink_to("/etc/passwd")

    assert ["a.py"] == paths(look_at(tmp_path))


def link(name: str, to: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).symlink_to(to)


def fifo(folder: Path) -> None:
    os.mkfifo(folder / "pipe")


def listener(folder: Path) -> None:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(folder / "sock"))


def latin_1(folder: Path) -> None:
    Path(os.fsdecode(bytes(folder / "caf") + b"\xe9")).touch()


@pytest.mark.parametrize(
    ("make", "reason", "names"),
    [
        (link("out", "/etc/passwd"), "link_outside", ["'out'", "/etc/passwd"]),
        (link("out", "../../secret"), "link_outside", ["'out'"]),
        (link("out", ".."), "link_outside", ["'out'"]),
        (link("out", "/"), "link_outside", ["'out'"]),
        (link("gone", "nowhere"), "link_dangling", ["'gone'", "nowhere"]),
        (link("self", "self"), "link_dangling", ["'self'"]),
        (link("round", "."), "link_loop", ["'round'"]),
        (link("sub/round", "../sub"), "link_loop", ["'sub/round'"]),
        (fifo, "file_special", ["'pipe'"]),
        (listener, "file_special", ["'sock'"]),
        (lambda folder: fill(folder, ".s3-sync/managed"), "name_refused", [".s3-sync/managed"]),
        (latin_1, "name_refused", ["UTF-8"]),
    ],
)
def test_refuses_links_special_files_and_names_that_cannot_be_released(
    tmp_path: Path, make: Callable[[Path], object], reason: str, names: list[str]
) -> None:
    fill(tmp_path, "a.py", "sub/b.py")
    make(tmp_path)

    error = refusal(tmp_path)

    assert reason == error.reason
    assert all(name in error.message for name in names), error.message
    assert ".s3-sync-ignore" in error.advice


def test_refuses_a_symlink_to_a_neighbor_with_a_similar_name(tmp_path: Path) -> None:
    fill(tmp_path, "dags/a.py", "dags-secret/b.py")
    (tmp_path / "dags" / "link.py").symlink_to("../dags-secret/b.py")

    assert "link_outside" == refusal(tmp_path / "dags").reason


def test_lists_the_first_problems_of_a_folder_and_counts_the_rest(tmp_path: Path) -> None:
    for number in range(NAMED + 3):
        (tmp_path / f"link-{number:02d}").symlink_to("/etc/passwd")

    message = refusal(tmp_path).message

    assert "'link-00'" in message and "'link-09'" in message and "'link-10'" not in message
    assert message.endswith("3 more")


def test_refuses_a_path_that_is_not_a_folder(tmp_path: Path) -> None:
    fill(tmp_path, "file")

    for path in (tmp_path / "nowhere", tmp_path / "file"):
        error = refusal(path)
        assert ("folder_missing", f"{path} is not a folder") == (error.reason, error.message)


def test_refuses_a_folder_without_files(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    fill(tmp_path, ".git/config")

    error = refusal(tmp_path)

    assert "folder_empty" == error.reason
    assert "1 left out" in error.message


def test_refuses_a_file_that_is_too_large(tmp_path: Path) -> None:
    fill(tmp_path, "a.py")
    with open(tmp_path / "big.bin", "wb") as file:
        file.truncate((256 << 20) + 1)

    error = refusal(tmp_path)

    assert "file_too_large" == error.reason
    assert "'big.bin' has 257 MiB; the limit is 256" in error.message


def test_refuses_a_folder_that_is_too_large(tmp_path: Path) -> None:
    for number in range(9):
        with open(tmp_path / f"{number}", "wb") as file:
            file.truncate(256 << 20)

    error = refusal(tmp_path)

    assert "release_too_large" == error.reason
    assert "2304 MiB" in error.message and "2048" in error.message


def test_refuses_names_that_exceed_the_manifest_limit(tmp_path: Path) -> None:
    """Each non-ASCII letter takes six bytes; links to one folder multiply its 85 files."""
    deep = tmp_path.joinpath("dags", *["ü" * 127] * 13)
    fill(deep, *(f"first/{number}" for number in range(85)))
    for number in range(84):
        (deep / f"{number}").symlink_to("first")

    error = refusal(tmp_path / "dags")

    assert "release_too_large" == error.reason
    assert "the names of the 7225 files" in error.message
    assert error.message.endswith("take 69 MiB of a manifest; the limit is 64")


def test_refuses_folders_that_link_to_each_other(tmp_path: Path) -> None:
    """Twenty of them make a million paths, without a single file."""
    for number in range(20):
        (tmp_path / f"{number}").mkdir()
        for name in ("a", "b"):
            (tmp_path / f"{number}" / name).symlink_to(f"../{number + 1}")
    fill(tmp_path, "20/.git/config")

    error = refusal(tmp_path)

    assert "release_too_large" == error.reason
    assert "more than 10000 paths lead through folder symlinks" in error.message


def test_refuses_too_many_files(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    if not request.config.getoption("--full"):
        pytest.skip("takes a minute: runs with make test-full")
    for number in range(FILES_LIMIT + 1):
        (tmp_path / f"{number}").touch()

    assert "release_too_large" == refusal(tmp_path).reason


Change = Callable[[Path], object]


@pytest.mark.parametrize(
    "change",
    [
        lambda f: (f / "new").touch(),
        lambda f: (f / "a.py").unlink(),
        lambda f: (f / "a.py").rename(f / "sub/c.py"),
        lambda f: (f / "a.py").write_text("A.PY"),
        lambda f: (f / "a.py").chmod(0o755),
        lambda f: (f / "sub/b.py").write_text("longer than before"),
    ],
)
def test_detects_a_change_between_two_looks(tmp_path: Path, change: Change) -> None:
    fill(tmp_path, "a.py", "sub/b.py")
    before = look_at(tmp_path)
    check_same(before, look_at(tmp_path))

    change(tmp_path)

    assert "folder_changing" == failure(check_same, before, look_at(tmp_path)).reason


def test_detects_a_change_that_keeps_size_and_modification_time(tmp_path: Path) -> None:
    fill(tmp_path, "a.py")
    before = look_at(tmp_path)
    found = (tmp_path / "a.py").stat()

    (tmp_path / "a.py").write_text("A.PY")
    os.utime(tmp_path / "a.py", ns=(found.st_atime_ns, found.st_mtime_ns))

    assert "the folder changes" in failure(check_same, before, look_at(tmp_path)).message


@pytest.mark.parametrize(
    "change",
    [
        lambda f: (f / "a.py").unlink(),
        lambda f: (f / "a.py").write_text("A.PY"),
        lambda f: (f / "a.py").write_text("longer than before"),
    ],
)
def test_detects_a_change_before_a_file_is_bundled(tmp_path: Path, change: Change) -> None:
    fill(tmp_path, "a.py", "b.py")
    seen = look_at(tmp_path)
    digests = digests_of(seen.files, print)

    change(tmp_path)

    error = failure(list, contents(seen, digests, print))
    assert "folder_changing" == error.reason
    assert "a.py" in error.message


def test_a_file_that_vanishes_before_it_is_read_counts_as_a_change(tmp_path: Path) -> None:
    fill(tmp_path, "a.py", "b.py")
    seen = look_at(tmp_path)
    (tmp_path / "b.py").unlink()

    assert "folder_changing" == failure(digests_of, seen.files, print).reason
