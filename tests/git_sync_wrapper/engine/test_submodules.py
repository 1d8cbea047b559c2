"""
Whether a checkout has submodules, according to git's index.
"""

import shutil
from pathlib import Path

import pytest

from git_sync_wrapper.engine.submodules import may_have_submodules
from tests.support.git.git_repository import Repository


def checked_out(folder: Path, *, submodule: bool, configs: list[str]) -> str:
    """Check a commit out as git-sync does; return it."""
    repository = Repository(folder / "remote")
    commit = repository.commit({f"d/{number}.py": f"{number}\n" for number in range(50)})
    if submodule:
        commit = repository.commit_submodule("d/lib", "https://git.example.com/lib.git", "1" * 40)
    repository.git(
        "clone", "--quiet", "--no-checkout", str(repository.folder), str(folder / "root")
    )
    clone = Repository(folder / "root")
    tree = folder / "root/.worktrees" / commit
    clone.git("worktree", "add", "--quiet", "--detach", "--no-checkout", str(tree), commit)
    clone.git(*configs, "-C", str(tree), "reset", "--quiet", "--hard", commit)
    return commit


@pytest.mark.parametrize("version", ["2", "4"])
@pytest.mark.parametrize("submodule", [False, True])
def test_finds_submodules_in_the_index(tmp_path: Path, version: str, *, submodule: bool) -> None:
    configs = ["-c", f"index.version={version}"]
    commit = checked_out(tmp_path, submodule=submodule, configs=configs)

    assert submodule == may_have_submodules(str(tmp_path / "root"), commit)


@pytest.mark.parametrize("submodule", [False, True])
def test_assumes_submodules_without_a_readable_index(tmp_path: Path, *, submodule: bool) -> None:
    """The index is split over two files, or missing."""
    configs = ["-c", "core.splitIndex=true"]
    commit = checked_out(tmp_path, submodule=submodule, configs=configs)
    root = str(tmp_path / "root")

    assert may_have_submodules(root, commit)
    shutil.rmtree(tmp_path / "root/.git/worktrees")
    assert may_have_submodules(root, commit)
