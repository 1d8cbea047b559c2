"""
The folder to publish: which of its files become a release, and where they come from.
"""

from __future__ import annotations

import getpass
import os
import platform
import stat
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

from pathspec import GitIgnoreSpec

from s3_sync.keys import DEPTH_LIMIT
from s3_sync.release import format as form
from s3_sync.release.bundle import FileContent
from sidecar_runtime.errors import EXIT_SETTINGS, SidecarError

IGNORE_FILE = ".s3-sync-ignore"
# Files that version control, Python and editors leave in a folder. The last matching rule wins, so
# a later `!rule` includes a file again. `.airflowignore` is content: Airflow reads it.
DEFAULT_RULES = (
    IGNORE_FILE,
    ".hg/",
    ".svn/",
    "*.py[co]",
    ".venv/",
    ".*_cache/",
    ".ipynb_checkpoints/",
    ".idea/",
    ".vscode/",
    ".DS_Store",
    "*~",
    ".*.sw[a-p]",
)
NAMED = 10
GIT_SECONDS = 10

_LEAVE_OUT = "Fix it, or exclude it: --exclude, or a line in .s3-sync-ignore."
# https://docs.github.com/en/actions/reference/workflows-and-actions/variables
# https://docs.gitlab.com/ci/variables/predefined_variables/
# https://www.jenkins.io/doc/book/pipeline/jenkinsfile/#using-environment-variables
# https://docs.aws.amazon.com/codebuild/latest/userguide/build-env-ref-env-vars.html
_COMMIT = ("GITHUB_SHA", "CI_COMMIT_SHA", "GIT_COMMIT", "CODEBUILD_RESOLVED_SOURCE_VERSION")
_BRANCH = ("GITHUB_REF_NAME", "CI_COMMIT_REF_NAME", "GIT_BRANCH", "CODEBUILD_WEBHOOK_HEAD_REF")
_URL = ("CI_JOB_URL", "BUILD_URL", "CODEBUILD_BUILD_URL")
_BY = ("GITHUB_ACTOR", "GITLAB_USER_LOGIN", "BUILD_USER_ID", "CODEBUILD_INITIATOR")


class FolderError(SidecarError):
    """
    The folder or an argument cannot be used; nothing was uploaded.
    """

    exit_code = EXIT_SETTINGS


class Found(NamedTuple):
    """
    One file that belongs to the release.

    Args:
        real: The path to read; for a symlink, its target.
        state: Fields of its stat, to detect a change.
    """

    path: str
    real: str
    size_bytes: int
    is_executable: bool
    state: tuple[int, ...]


class Look(NamedTuple):
    """
    The content of a folder at one moment.

    Args:
        files: The files to release, sorted by path.
        left_out: The paths that rules exclude; folders end in a slash.
    """

    files: tuple[Found, ...]
    left_out: tuple[str, ...]


def make_rules(folder: str, exclude: Sequence[str]) -> GitIgnoreSpec:
    """
    Return the rules of a folder, with the syntax of ``.gitignore``.

    Args:
        exclude: More rules, from the command line.

    Raises:
        FolderError: A rule is invalid, or the file with rules cannot be read.
    """
    rules = [(rule, "") for rule in DEFAULT_RULES]
    path = os.path.join(folder, IGNORE_FILE)
    try:
        with open(path, encoding="utf-8") as file:
            lines = file.read().splitlines()
        rules += [(rule, f"line {at} of {IGNORE_FILE}") for at, rule in enumerate(lines, start=1)]
    except (FileNotFoundError, NotADirectoryError):
        pass
    except (OSError, ValueError) as error:
        if os.access(folder, os.R_OK | os.X_OK):  # else it is reported later
            raise FolderError("ignore_rule_invalid", f"cannot read {path}: {error}") from error
    spec = GitIgnoreSpec(())
    for rule, where in [*rules, *((rule, "--exclude") for rule in exclude)]:
        try:
            spec += GitIgnoreSpec.from_lines([rule])
        except ValueError as error:
            raise FolderError(
                "ignore_rule_invalid", f"{where}: {rule!r} is not a valid .gitignore pattern"
            ) from error
    return spec


def look(folder: str, rules: GitIgnoreSpec) -> Look:
    """
    Find the files of a release; symlinks are followed.

    Raises:
        FolderError: It is not a folder, is empty, or contains something that cannot be released;
            all problems are reported together.
    """
    if not folder:  # an unset CI variable; realpath would take it for the working directory
        raise FolderError("folder_missing", "the name of the folder is empty")
    walk = _Walk(os.path.realpath(folder), rules)
    try:
        walk.enter(walk.root, "", ())
    except (FileNotFoundError, NotADirectoryError) as error:
        if os.path.isdir(folder):
            raise changing(f"{error.filename} is gone") from error
        raise FolderError("folder_missing", f"{folder} is not a folder") from error
    raise_all(walk.problems)
    if not walk.files:
        raise FolderError(
            "folder_empty",
            f"{folder} contains no files to release ({len(walk.left_out)} left out)",
            "A release without files would empty every target. Pass the right folder.",
        )
    if sum(file.size_bytes for file in walk.files) > form.TOTAL_LIMIT_BYTES:
        raise too_large(f"{folder} has more than {form.TOTAL_LIMIT_BYTES} bytes")
    return Look(tuple(sorted(walk.files)), tuple(sorted(walk.left_out)))


def read_files(seen: Look, tell: Callable[[int], object]) -> Iterator[FileContent]:
    """
    Read the files, one by one.

    Args:
        tell: Called with the number of files read.

    Raises:
        FolderError: Files are gone, or cannot be read; all of the latter are reported together.
    """
    problems = []
    for number, file in enumerate(seen.files, start=1):
        try:
            with open(file.real, "rb") as source:
                data = source.read(form.FILE_LIMIT_BYTES + 1)
        except FileNotFoundError as error:
            raise changing(f"{file.path} is gone") from error
        except OSError as error:
            problems.append(_unreadable(file.path, error))
            continue
        if len(data) != file.size_bytes:
            raise changing(f"{file.path} has changed")
        tell(number)
        yield FileContent(file.path, data, file.is_executable)
    raise_all(problems)


def check_same(before: Look, after: Look) -> None:
    """
    Check that a folder has not changed while it was read.

    Raises:
        FolderError: It has changed.
    """
    if before.files != after.files:
        raise changing(f"{min(set(before.files) ^ set(after.files)).path} has changed")


def changing(what: str) -> FolderError:
    return FolderError(
        "folder_changing",
        f"the folder changes while it is being published: {what!r:.300}",
        "Publish after the checkout or build has finished.",
    )


def too_large(what: str) -> FolderError:
    return FolderError("release_too_large", f"{what:.300}", _LEAVE_OUT)


def raise_all(problems: Sequence[FolderError]) -> None:
    """
    Raise several problems as one error, with the reason and the advice of the first.
    """
    if not problems:
        return
    texts = [problem.message for problem in problems[:NAMED]]
    if len(problems) > NAMED:
        texts.append(f"{len(problems) - NAMED} more")
    raise FolderError(problems[0].reason, "; ".join(texts), problems[0].advice)


class _Walk:
    """
    One walk through the folder; collects problems in order to report all of them at once.
    """

    def __init__(self, root: str, rules: GitIgnoreSpec) -> None:
        self.root = root
        self.files: list[Found] = []
        self.left_out: list[str] = []
        self.problems: list[FolderError] = []
        self._rules = rules

    def enter(self, real: str, prefix: str, above: tuple[str, ...]) -> None:
        """
        Add the content of one folder.

        Args:
            prefix: Its path in the release, with a trailing slash; empty for the root.
            above: The real paths of its parent folders.
        """
        try:
            with os.scandir(real) as found:
                entries = sorted(found, key=lambda entry: entry.name)
        except PermissionError as error:
            self.problems.append(_unreadable(prefix or self.root, error))
            return
        for entry in entries:
            try:
                self._take(entry, prefix + entry.name, (*above, real))
            except PermissionError as error:  # a folder that can be listed but not entered
                self.problems.append(_unreadable(prefix + entry.name, error))

    def _take(self, entry: os.DirEntry[str], path: str, above: tuple[str, ...]) -> None:
        is_link = entry.is_symlink()
        real = os.path.realpath(entry.path) if is_link else entry.path
        is_folder = os.path.isdir(real)
        name = f"{path}/" if is_folder else path
        if form.is_left_out(name) or self._rules.match_file(name):
            self.left_out.append(name)
            return
        if is_link and not f"{real}/".startswith(f"{self.root}/"):
            self._error("link_outside", path, f"is a symlink to a path outside the folder: {real}")
        elif is_link and (real in above or not os.path.exists(real)):
            why = "to a folder that contains it" if real in above else "to a path that is missing"
            self._error("link_dangling", path, f"is a symlink {why}: {real}")
        elif is_folder and len(above) > DEPTH_LIMIT:
            self._error("name_refused", path, "cannot become files: too deep")
        elif is_folder:
            self.enter(real, name, above)
        else:
            self._add(path, real)

    def _add(self, path: str, real: str) -> None:
        found = os.stat(real)
        size = found.st_size
        if problem := form.problem_of(path):
            why = problem.replace("_", " ")
            self._error("name_refused", path, f"cannot become a file: {why}")
        elif not stat.S_ISREG(found.st_mode):
            self._error("file_special", path, "is neither a file nor a folder")
        elif size > form.FILE_LIMIT_BYTES:
            self._error("file_too_large", path, f"has more than {form.FILE_LIMIT_BYTES} bytes")
        elif len(self.files) == form.FILES_LIMIT:  # links can multiply them
            raise too_large(f"the folder contains more than {form.FILES_LIMIT} files")
        else:
            is_executable = bool(found.st_mode & 0o111)
            state = (found.st_dev, found.st_ino, found.st_mtime_ns, found.st_ctime_ns)
            self.files.append(Found(path, real, size, is_executable, state))

    def _error(self, reason: str, path: str, what: str) -> None:
        self.problems.append(FolderError(reason, f"{path!r:.300} {what:.300}", _LEAVE_OUT))


def _unreadable(path: str, error: OSError) -> FolderError:
    said = f"cannot read {path!r:.300}: {error.strerror}"
    return FolderError("file_unreadable", said, "Run as a user who can read the whole folder.")


# --- origin


def find_origin(folder: str, environ: Mapping[str, str]) -> form.Origin:
    """
    Return the known origin; git, if available, takes precedence over the variables of the CI.
    """
    log = _ask_git(folder, "log", "-1", "--format=%H%x00%an <%ae>%x00%s")
    commit, _, rest = log.partition("\0")
    author, _, message = rest.partition("\0")
    changes = ("status", "--porcelain", "--untracked-files=no", "--", ".")
    if commit and _ask_git(folder, *changes):
        commit += "-dirty"
    return find_publisher(environ)._replace(
        commit=commit or _first(environ, _COMMIT),
        branch=_first(environ, _BRANCH),
        author=author or environ.get("CI_COMMIT_AUTHOR", ""),
        message=message or environ.get("CI_COMMIT_TITLE", ""),
    )


def find_publisher(environ: Mapping[str, str]) -> form.Origin:
    """
    Return who publishes, and the CI run: from the variables of the CI, or else user and machine.
    """
    by = _first(environ, _BY)
    if not by:
        try:
            by = f"{getpass.getuser()}@{platform.node()}"
        except (KeyError, OSError):  # a uid without a name
            by = platform.node()
    server, repository = environ.get("GITHUB_SERVER_URL"), environ.get("GITHUB_REPOSITORY")
    url = _first(environ, _URL)
    if server and repository:
        url = f"{server}/{repository}/actions/runs/{environ.get('GITHUB_RUN_ID', '')}"
    return form.Origin(by=by, ci_url=url)


def _first(environ: Mapping[str, str], names: tuple[str, ...]) -> str:
    return next((environ[name] for name in names if environ.get(name)), "")


def _ask_git(folder: str, *arguments: str) -> str:
    """
    Return the output of git in a folder; empty without git or a repository.
    """
    try:
        said = subprocess.run(
            ["git", "-C", folder, *arguments], check=True, capture_output=True, timeout=GIT_SECONDS
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return said.stdout.decode(errors="replace").strip()
