"""
The folder to publish, and the release in hand: built from a folder, or downloaded and verified.
"""

from __future__ import annotations

import getpass
import hashlib
import os
import platform
import stat
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import NamedTuple

from pathspec import GitIgnoreSpec

from s3_sync.digest import revision_of
from s3_sync.keys import DEPTH_LIMIT
from s3_sync.publisher.catalog import damaged, read_manifest
from s3_sync.publisher.store import Store
from s3_sync.release import format as form
from s3_sync.release.bundle import FileContent, IncomingContent, write_bundle
from s3_sync.s3.refusals import ObjectError
from sidecar_runtime.errors import EXIT_SETTINGS, SidecarError

IGNORE_FILE = ".s3-sync-ignore"
# Files that version control, Python and editors leave in a folder. The last matching rule wins, so
# a later `!rule` includes a file again. `.airflowignore` is content: Airflow reads it.
_DEFAULT_RULES = f"""\
{IGNORE_FILE} *.py[co] *~ .DS_Store .*.sw[a-p]
.hg/ .svn/ .venv/ .*_cache/ .ipynb_checkpoints/ .idea/ .vscode/
"""
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
    path, lines = os.path.join(folder, IGNORE_FILE), []
    try:
        with open(path, encoding="utf-8") as file:
            lines = file.read().splitlines()
    except (FileNotFoundError, NotADirectoryError):
        pass
    except (OSError, ValueError) as error:
        if os.access(folder, os.R_OK | os.X_OK):  # else it is reported later
            raise FolderError("ignore_rule_invalid", f"cannot read {path}: {error}") from error
    try:
        return GitIgnoreSpec.from_lines([*_DEFAULT_RULES.split(), *lines, *exclude])
    except ValueError as error:
        raise FolderError("ignore_rule_invalid", f"{IGNORE_FILE}, --exclude: {error}") from error


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
    _raise_all(walk.problems)
    if not walk.files:
        raise FolderError(
            "folder_empty",
            f"{folder} contains no files to release ({len(walk.left_out)} left out)",
            "A release without files would empty every target. Pass the right folder.",
        )
    if sum(file.size_bytes for file in walk.files) > form.TOTAL_LIMIT_BYTES:
        raise _too_large(f"{folder} has more than {form.TOTAL_LIMIT_BYTES} bytes")
    return Look(tuple(sorted(walk.files)), tuple(sorted(walk.left_out)))


def _read_files(seen: Look) -> Iterator[FileContent]:
    """
    Read the files, one by one.

    Raises:
        FolderError: Files are gone, or cannot be read; all of the latter are reported together.
    """
    problems = []
    for file in seen.files:
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
        yield FileContent(file.path, data, file.is_executable)
    _raise_all(problems)


def changing(what: str) -> FolderError:
    return FolderError(
        "folder_changing",
        f"the folder changes while it is being published: {what!r:.300}",
        "Publish after the checkout or build has finished.",
    )


def _too_large(what: str) -> FolderError:
    return FolderError("release_too_large", f"{what:.300}", _LEAVE_OUT)


def _unreadable(path: str, error: OSError) -> FolderError:
    said = f"cannot read {path!r:.300}: {error.strerror}"
    return FolderError("file_unreadable", said, "Run as a user who can read the whole folder.")


def _raise_all(problems: Sequence[FolderError]) -> None:
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
        path = prefix or self.root
        try:
            for name in sorted(os.listdir(real)):
                path = prefix + name
                self._take(os.path.join(real, name), path, (*above, real))
        except PermissionError as error:  # also a folder that can be listed but not entered
            self.problems.append(_unreadable(path, error))

    def _take(self, real: str, path: str, above: tuple[str, ...]) -> None:
        is_link, real = os.path.islink(real), os.path.realpath(real)
        is_folder = os.path.isdir(real)
        name = f"{path}/" if is_folder else path
        if form.is_left_out(name) or self._rules.match_file(name):
            self.left_out.append(name)
            return
        problem = form.problem_of(path).replace("_", " ")
        if is_link and not f"{real}/".startswith(f"{self.root}/"):
            self._error("link_outside", path, f"is a symlink to a path outside the folder: {real}")
        elif is_link and (real in above or not os.path.exists(real)):
            why = "to a folder that contains it" if real in above else "to a path that is missing"
            self._error("link_dangling", path, f"is a symlink {why}: {real}")
        elif is_folder and len(above) > DEPTH_LIMIT:
            self._error("name_refused", path, "cannot become files: too deep")
        elif is_folder:
            self.enter(real, name, above)
        elif problem:
            self._error("name_refused", path, f"cannot become a file: {problem}")
        else:
            self._add(path, real)

    def _add(self, path: str, real: str) -> None:
        found = os.stat(real)
        if not stat.S_ISREG(found.st_mode):
            self._error("file_special", path, "is neither a file nor a folder")
        elif found.st_size > form.FILE_LIMIT_BYTES:
            self._error("file_too_large", path, f"has more than {form.FILE_LIMIT_BYTES} bytes")
        elif len(self.files) == form.FILES_LIMIT:  # links can multiply them
            raise _too_large(f"the folder contains more than {form.FILES_LIMIT} files")
        else:
            is_executable = bool(found.st_mode & 0o111)
            state = (found.st_dev, found.st_ino, found.st_mtime_ns, found.st_ctime_ns)
            self.files.append(Found(path, real, found.st_size, is_executable, state))

    def _error(self, reason: str, path: str, what: str) -> None:
        self.problems.append(FolderError(reason, f"{path!r:.300} {what:.300}", _LEAVE_OUT))


# --- a release in hand


class Parcel(NamedTuple):
    """
    A release: its manifest, and its bundle in a file.

    Args:
        data: The manifest as it is in the bucket, or will be.
    """

    manifest: form.Manifest
    data: bytes
    path: str

    @property
    def revision(self) -> str:
        return self.manifest.revision

    def write(self, folder: str) -> None:
        """
        Write the files into a folder.

        Raises:
            ObjectError: The bundle does not match the manifest.
            OSError: They cannot be written.
        """
        for content in self.contents():
            path = os.path.join(folder, content.path)
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with open(path, "wb") as file:
                file.write(content.data)
                os.fchmod(file.fileno(), 0o755 if content.is_executable else 0o644)

    def contents(self) -> Iterator[FileContent]:
        """
        Yield each file, verified in the same way as in a pod.

        Raises:
            ObjectError: The bundle does not match the manifest.
        """
        with open(self.path, "rb") as bundle:
            for path, file in self.manifest.files.items():
                data = bytearray()
                content = IncomingContent(file, data.extend)
                bundle.seek(file.offset)
                content.write(bundle.read(file.stored_bytes))
                content.finish()
                yield FileContent(path, bytes(data), file.is_executable)


@contextmanager
def scratch(purpose: str) -> Iterator[str]:
    """
    Yield a temporary folder, removed at the end.

    Raises:
        FolderError: It cannot be created, or written inside the context.
    """
    prefix = f"s3-sync-{purpose}-"
    try:
        with tempfile.TemporaryDirectory(prefix=prefix, ignore_cleanup_errors=True) as path:
            yield path
    except OSError as error:
        raise FolderError(
            "temporary_failed",
            f"cannot read or write {error.filename or 'a temporary file'}: {error.strerror}",
            "The temporary folder needs room for all files. Set TMPDIR to use another place.",
        ) from error


def build_parcel(
    folder: str, rules: GitIgnoreSpec, place: str, origin: form.Origin, now: datetime
) -> tuple[Parcel, Look]:
    """
    Build a release from a folder, which is read once and must not change meanwhile.

    Args:
        place: The folder for the bundle.

    Raises:
        FolderError: The folder cannot be released, or changes.
        OSError: The bundle cannot be written.
    """
    seen = look(folder, rules)
    path = os.path.join(place, "bundle.zip")
    with open(path, "w+b") as bundle:
        files = write_bundle(_read_files(seen), bundle)
        bundle.seek(0)
        sha256 = hashlib.file_digest(bundle, "sha256").hexdigest()
    if changed := set(seen.files) ^ set(look(folder, rules).files):
        raise changing(f"{min(changed).path} has changed")
    revision, size = revision_of(file[:4] for file in files.values()), os.path.getsize(path)
    manifest = form.Manifest(revision, files, sha256, size, form.time_text(now), origin)
    data = form.write_manifest(manifest)
    try:
        form.parse_manifest(data, revision)
    except form.Invalid as error:
        raise _too_large(f"readers would refuse the manifest: {error}") from error
    return Parcel(manifest, data, path), seen


def download_parcel(store: Store, revision: str, place: str) -> Parcel:
    """
    Download a release, and verify every file.

    Raises:
        RevisionError: It does not exist.
        ReleaseError: It is damaged.
        OSError: It cannot be stored.
    """
    manifest, data = read_manifest(store, revision)
    parcel = Parcel(manifest, data, os.path.join(place, "bundle.zip"))
    key = form.bundle_key(manifest.bundle_sha256)
    sha256 = store.download(key, parcel.path)
    if sha256 != manifest.bundle_sha256:
        why = f"its SHA-256 is {sha256}" if sha256 else "it does not exist"
        raise damaged(store, revision, f"{key}: {why}")
    try:
        for _ in parcel.contents():
            pass
    except ObjectError as error:
        raise damaged(store, revision, error.message) from None
    return parcel


# --- origin


def find_origin(folder: str, environ: Mapping[str, str]) -> form.Origin:
    """
    Return the known origin; git, if available, takes precedence over the variables of the CI.
    """
    log = _ask_git(folder, "log", "-1", "--format=%H%x00%an <%ae>%x00%s")
    commit, author, message = log.split("\0", 2) if log else ("", "", "")
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
    command = ["git", "-C", folder, *arguments]
    try:
        said = subprocess.run(command, check=True, capture_output=True, timeout=GIT_SECONDS)
    except (OSError, subprocess.SubprocessError):
        return ""
    return said.stdout.decode(errors="replace").strip()
