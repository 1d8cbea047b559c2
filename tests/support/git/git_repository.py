"""
A bare git repository that tests write to: one process per commit, no working copy.
"""

from __future__ import annotations

import itertools
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

ENVIRONMENT = {
    "PATH": "/usr/local/bin:/usr/bin:/bin",
    "HOME": "/nonexistent",
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_COMMITTER_NAME": "Test",
    "GIT_COMMITTER_EMAIL": "test@example.com",
    "GIT_AUTHOR_NAME": "Test",
    "GIT_AUTHOR_EMAIL": "test@example.com",
}

SUBMODULE = "160000"

Files = Mapping[str, str | bytes | None]
"""Path → content; `None` removes the file."""


class Repository:
    """
    A bare repository in a folder; created if missing.
    """

    def __init__(self, folder: Path, object_format: str = "sha1") -> None:
        """
        Create the repository, without a commit.

        Args:
            folder: Its folder; servers use the folder's name (`dags.git`).
            object_format: `sha1` or `sha256`.
        """
        self.folder = folder
        self.branch = "main"
        self._clock = itertools.count(1_700_000_000)
        if not (folder / "HEAD").exists():
            folder.parent.mkdir(parents=True, exist_ok=True)
            form = f"--object-format={object_format}"
            _run(
                [
                    "git",
                    "init",
                    "--quiet",
                    "--bare",
                    form,
                    f"--initial-branch={self.branch}",
                    str(folder),
                ]
            )
            # As on large forges: commits can be fetched by hash, and partial clones are
            # allowed.
            for name in ("uploadpack.allowAnySHA1InWant", "uploadpack.allowFilter"):
                self.git("config", name, "true")

    def git(self, *arguments: str, stdin: bytes = b"") -> str:
        """
        Run a git command in the repository and return its output without the last
        newline.
        """
        return _run(["git", "-C", str(self.folder), *arguments], stdin).rstrip("\n")

    def commit(
        self,
        files: Files,
        branch: str | None = None,
        message: str = "change",
        onto: str | None = None,
        modes: Mapping[str, str] | None = None,
        *,
        author: str = "Test",
        whole: bool = False,
    ) -> str:
        """
        Commit changes and return the hash.

        Args:
            files: Changes relative to the parent.
            branch: The branch; created without a parent if missing.
            message: The commit message.
            onto: A parent other than the branch's head, as in a force push; empty: no
                parent.
            modes: Path → git's mode, if it is not 100644 (`120000` is a symlink,
                `160000` a submodule, whose content is its commit).
            author: The name of the author; git allows no `<` or `>` in it.
            whole: Whether the files are the complete tree.
        """
        reference = f"refs/heads/{branch or self.branch}"
        parent = self.head(branch) if onto is None else onto
        stamp = f"<test@example.com> {next(self._clock)} +0000"
        head = f"commit {reference}\nauthor {author} {stamp}\ncommitter Test {stamp}\n"
        out = [head.encode(), _data(message), f"from {parent}\n".encode()]
        if not parent:
            out = [f"reset {reference}\n".encode(), *out[:2]]
        if whole:
            out.append(b"deleteall\n")
        for path, content in files.items():
            name = os.fsencode(path) + b"\n"
            mode = (modes or {}).get(path, "100644")
            if content is None:
                out += [b"D ", name]
            elif mode == SUBMODULE:
                out += [f"M {mode} {content!s} ".encode(), name]
            else:
                out += [f"M {mode} inline ".encode(), name, _data(content)]
        self.git("fast-import", "--quiet", "--force", stdin=b"".join(out))
        return self.head(branch)

    def commit_submodule(self, path: str, url: str, commit: str) -> str:
        """
        Commit a submodule to the default branch, which must have a commit, and return
        the hash.
        """
        return self.commit(
            {
                ".gitmodules": f'[submodule "{path}"]\n\tpath = {path}\n\turl = {url}\n',
                path: commit,
            },
            modes={path: SUBMODULE},
        )

    def head(self, branch: str | None = None) -> str:
        """
        Return the head of a branch; empty if the branch does not exist.
        """
        return self.git(
            "for-each-ref",
            "--format=%(objectname)",
            f"refs/heads/{branch or self.branch}",
        )

    def tag(self, name: str, commit: str) -> None:
        """
        Create or move an annotated tag.
        """
        self.git("tag", "--force", "-a", "-m", "annotated", name, commit)

    def delete_branch(self, branch: str) -> None:
        """
        Delete a branch, even the one that HEAD points to.
        """
        self.git("update-ref", "-d", f"refs/heads/{branch}")


def _data(content: str | bytes) -> bytes:
    data = content.encode() if isinstance(content, str) else content
    return b"data %d\n%s\n" % (len(data), data)


def _run(command: list[str], stdin: bytes = b"") -> str:
    done = subprocess.run(
        command,
        input=stdin,
        capture_output=True,
        env={**ENVIRONMENT, "TMPDIR": os.environ.get("TMPDIR", "/tmp")},
        timeout=120,
    )
    assert 0 == done.returncode, f"{command}: {done.stderr.decode(errors='replace')}"
    return done.stdout.decode()
