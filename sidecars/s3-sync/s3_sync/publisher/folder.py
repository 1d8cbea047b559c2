"""
The folder to publish, and the release in hand: built from a folder, or downloaded and
verified.
"""

from __future__ import annotations

import hashlib
import os
import platform
import stat
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from io import BufferedRandom
from itertools import count
from pathlib import Path
from typing import BinaryIO, NamedTuple

from pathspec import GitIgnoreSpec

from s3_sync.names import release_id_of, sha256_of
from s3_sync.publisher.bucket import Boto3Store
from s3_sync.publisher.catalog import InputError, damaged, read_manifest, resolve
from s3_sync.reasons import ObjectError
from s3_sync.release.format import (
    FILE_LIMIT_BYTES,
    FILES_LIMIT,
    HEADER_BYTES,
    RATIO_LIMIT,
    TOTAL_LIMIT_BYTES,
    File,
    IncomingContent,
    Invalid,
    Manifest,
    bundle_key,
    is_left_out,
    parse_manifest,
    problem_of,
    time_text,
    write_manifest,
)
from sidecar_runtime.child import PrivateFolder, parent_folder

IGNORE_FILE = ".s3-sync-ignore"
# Files that version control, Python and editors leave in a folder. The last matching
# rule wins, so a later `!rule` includes a file again. `.airflowignore` is content:
# Airflow reads it.
_DEFAULT_RULES = """\
.s3-sync-ignore *.py[co] *~ .DS_Store .*.sw[a-p]
.hg/ .svn/ .venv/ .*_cache/ .ipynb_checkpoints/ .idea/ .vscode/
"""
_LEAVE_OUT = "Fix it, or exclude it: --exclude, or a line in .s3-sync-ignore."

# Each as often as a path leads to it: symlinks to folders of symlinks multiply them.
FOLDERS_LIMIT = 10_000
LEVEL = 6

# The variables of each CI for what an origin tells.
# https://docs.github.com/en/actions/reference/workflows-and-actions/variables
# https://docs.gitlab.com/ci/variables/predefined_variables/
# https://www.jenkins.io/doc/book/pipeline/jenkinsfile/#using-environment-variables
# https://docs.aws.amazon.com/codebuild/latest/userguide/build-env-ref-env-vars.html
_OF_CI = {
    "by": "GITHUB_ACTOR GITLAB_USER_LOGIN BUILD_USER_ID CODEBUILD_INITIATOR",
    "commit": "GITHUB_SHA CI_COMMIT_SHA GIT_COMMIT CODEBUILD_RESOLVED_SOURCE_VERSION",
    "branch": "GITHUB_REF_NAME CI_COMMIT_REF_NAME GIT_BRANCH CODEBUILD_WEBHOOK_HEAD_REF",
    "author": "CI_COMMIT_AUTHOR",
    "message": "CI_COMMIT_TITLE",
    "ci_url": "CI_JOB_URL BUILD_URL CODEBUILD_BUILD_URL",
}


# Who made a release current, and from what: texts by name.
Origin = Mapping[str, str]


# --- the files of a folder


class Found(NamedTuple):
    """
    One file that belongs to the release.

    Args:
        real: The path to read; for a symlink, its target.
    """

    path: str
    real: str
    is_executable: bool
    size_bytes: int


def _rules(folder: str, exclude: Sequence[str]) -> GitIgnoreSpec:
    """
    Return the rules of a folder, with the syntax of ``.gitignore``.

    Raises:
        InputError: A rule is invalid.
        OSError: The file with rules cannot be read.
    """
    lines = []
    try:
        with suppress(FileNotFoundError):
            lines = Path(folder, IGNORE_FILE).read_text("utf-8").splitlines()
        return GitIgnoreSpec.from_lines([*_DEFAULT_RULES.split(), *lines, *exclude])
    except ValueError as error:
        raise InputError(
            "ignore_rule_invalid",
            f"{IGNORE_FILE} or .airflowignore in {folder}, or --exclude: {error}",
        ) from error


@contextmanager
def _reading() -> Iterator[None]:
    """
    Raises:
        InputError: Something in the folder cannot be read, or a link leads nowhere.
    """
    try:
        yield
    except OSError as error:
        raise InputError(
            "file_unreadable",
            f"cannot read {error.filename!r:.300}: {error.strerror}",
            f"Run as a user who can read all of it, after the checkout or build. {_LEAVE_OUT}",
        ) from error


@_reading()
def look(folder: str, exclude: Sequence[str]) -> tuple[list[Found], list[str]]:
    """
    Return the files of a release, sorted by path, and the paths that rules leave out,
    of which folders end in a slash. Symlinks are followed.

    Args:
        exclude: More rules, from the command line.

    Raises:
        InputError: It is not a folder, is empty, or contains something that cannot be
            released.
    """
    if not os.path.isdir(folder):  # also the empty name of an unset CI variable
        raise InputError("folder_missing", f"{folder!r} is not a folder")
    files = []
    left_out = []
    bad = []
    size_bytes = 0
    rules = _rules(folder, exclude)
    for number, one in enumerate(
        _walk("", (os.path.realpath(folder),), rules, count(1)), 1
    ):
        match one:
            case Found():
                files.append(one)
                size_bytes += one.size_bytes
            case InputError():
                bad.append(one)
            case _:
                left_out.append(one)
        # While it walks: sparse files would take long to read.
        if size_bytes > TOTAL_LIMIT_BYTES or number > FILES_LIMIT:
            raise _too_large(
                f"{folder} has over {FILES_LIMIT} files or {TOTAL_LIMIT_BYTES} bytes"
            )
    if bad:
        bad[0].message = f"{'; '.join(one.message for one in bad):.10000}"
        raise bad[0]
    if not files:
        raise InputError(
            "folder_empty",
            f"{folder} contains no files to release ({len(left_out)} left out)",
            "A release without files would empty every target. Pass the right folder.",
        )
    return sorted(files), sorted(left_out)


def _walk(
    prefix: str, above: tuple[str, ...], rules: GitIgnoreSpec, folders: Iterator[int]
) -> Iterator[Found | InputError | str]:
    """
    Yield the files of one folder, what cannot be released, and the paths that are left
    out.

    Args:
        prefix: Its path in the release, with a trailing slash; empty for the root.
        above: The real paths of its parent folders, and its own.
        folders: Counts those that it enters.
    """
    for name in os.listdir(above[-1]):
        path = prefix + name
        place = os.path.join(above[-1], name)
        real = os.path.realpath(place)
        is_folder = os.path.isdir(real)
        shown = f"{path}/" if is_folder else path
        if is_left_out(path) or rules.match_file(shown):
            yield shown
        elif (
            real in above
            or not real.startswith(f"{above[0]}/")
            or (os.path.islink(place) and not os.path.exists(real))
        ):
            yield _refused(
                "link_outside",
                path,
                f"is a symlink out of the folder, to one that contains it, or to nowhere: {real}",
            )
        elif problem := problem_of(path).replace("_", " "):
            yield _refused("name_refused", path, f"cannot become a file: {problem}")
        elif is_folder:
            if next(folders) > FOLDERS_LIMIT:
                raise _too_large(
                    f"{path!r:.300} is one of over {FOLDERS_LIMIT} folders"
                )
            yield from _walk(shown, (*above, real), rules, folders)
        else:
            found = os.stat(real)
            if not stat.S_ISREG(found.st_mode) or found.st_size > FILE_LIMIT_BYTES:
                yield _refused(
                    "file_too_large",
                    path,
                    f"is not a regular file of at most {FILE_LIMIT_BYTES} bytes",
                )
            else:
                yield Found(path, real, bool(found.st_mode & 0o111), found.st_size)


def _too_large(what: str) -> InputError:
    return InputError("release_too_large", what, _LEAVE_OUT)


def _refused(reason: str, path: str, what: str) -> InputError:
    return InputError(reason, f"{path!r:.300} {what:.300}", _LEAVE_OUT)


# --- the bundle


class FileContent(NamedTuple):
    """
    One file, in memory.
    """

    path: str
    data: bytes
    is_executable: bool = False


@_reading()
def read(file: Found) -> FileContent:
    return FileContent(file.path, Path(file.real).read_bytes(), file.is_executable)


def write_bundle(contents: Iterable[FileContent], out: BinaryIO) -> dict[str, File]:
    """
    Write an ordinary zip of independently compressed files; return its files by path.

    Its bytes depend only on the content and the version of zlib: one date, one level.

    Args:
        contents: The files, sorted by path.
        out: An empty, seekable file.

    Raises:
        OSError: It cannot be written; the file is then unusable.
    """
    with zipfile.ZipFile(out, "w") as bundle:
        return {content.path: _add(content, bundle) for content in contents}


def _add(content: FileContent, bundle: zipfile.ZipFile) -> File:
    path, data, is_executable = content
    info = zipfile.ZipInfo(path)  # with the oldest date that a zip can contain
    info.create_system = 3  # Unix, for the modes
    info.external_attr = (stat.S_IFREG | (0o755 if is_executable else 0o644)) << 16
    # Stored if deflating makes it no smaller, or so small that a reader would refuse
    # it.
    deflated_bytes = len(zlib.compress(data, LEVEL, -zlib.MAX_WBITS))
    is_worth = deflated_bytes < len(data) <= deflated_bytes * RATIO_LIMIT
    how = zipfile.ZIP_DEFLATED if is_worth else zipfile.ZIP_STORED
    bundle.writestr(info, data, how, LEVEL)
    offset = info.header_offset + HEADER_BYTES + len(path.encode())
    return File(
        path, sha256_of(data), len(data), is_executable, info.compress_size, offset
    )


# --- a release in hand


class Parcel(NamedTuple):
    """
    A release: its manifest, and its bundle in a file.

    Args:
        data: The manifest as it is in the bucket, or will be.
        left_out: What rules left out of the folder; folders end in a slash.
    """

    manifest: Manifest
    data: bytes
    bundle: BufferedRandom
    left_out: Sequence[str] = ()

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
            path = Path(folder, content.path)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content.data)
            path.chmod(0o755 if content.is_executable else 0o644)

    def contents(self) -> Iterator[FileContent]:
        """
        Yield each file, verified in the same way as in a pod.

        Raises:
            ObjectError: The bundle does not match the manifest.
        """
        for path, file in self.manifest.files.items():
            data = bytearray()
            content = IncomingContent(file, data.extend)
            self.bundle.seek(file.offset)
            content.write(self.bundle.read(file.stored_bytes))
            content.finish()
            yield FileContent(path, bytes(data), file.is_executable)


@contextmanager
def scratch() -> Iterator[str]:
    """
    Yield a temporary folder, removed at the end, or by the next publisher if this one
    is killed.

    Raises:
        InputError: It cannot be created, or written inside the context.
    """
    try:
        folder = PrivateFolder("s3-sync-scratch-", parent_folder())
        try:
            yield folder.path
        finally:
            folder.remove()
    except OSError as error:
        raise InputError(
            "temporary_failed",
            f"cannot read or write {error.filename or 'a temporary file'}: {error.strerror}",
            "The temporary folder needs room for all files. Set TMPDIR to use another place.",
        ) from error


def build_parcel(
    folder: str,
    exclude: Sequence[str],
    origin: Origin,
    store: Boto3Store,
    bundle: BufferedRandom,
) -> Parcel:
    """
    Build a release from a folder, which is read once.

    Args:
        exclude: As for :func:`look`.
        store: Knows the time.
        bundle: Receives the bundle.

    Raises:
        InputError: The folder cannot be released.
        OSError: The bundle cannot be written.
    """
    found, left_out = look(folder, exclude)
    files = write_bundle(map(read, found), bundle)
    size = bundle.tell()
    bundle.seek(0)
    sha256 = hashlib.file_digest(bundle, "sha256").hexdigest()
    revision = release_id_of(file[:4] for file in files.values())
    data = write_manifest(
        Manifest(revision, files, sha256, size, time_text(store.now()), origin)
    )
    try:
        return Parcel(parse_manifest(data, revision), data, bundle, left_out)
    except Invalid as error:
        raise _too_large(f"readers would refuse the manifest: {error}") from error


def download_parcel(store: Boto3Store, name: str, bundle: BufferedRandom) -> Parcel:
    """
    Download a release, and verify every file.

    Args:
        name: Names the release, as in :func:`catalog.resolve`.

    Raises:
        InputError: It does not exist.
        ReleaseError: It is damaged.
        OSError: It cannot be stored.
    """
    revision = resolve(store, name)
    manifest, data = read_manifest(store, revision)
    parcel = Parcel(manifest, data, bundle)
    key = bundle_key(manifest.bundle_sha256)
    sha256 = store.download(key, manifest.bundle_bytes, bundle)
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


def find_origin(environ: Mapping[str, str]) -> dict[str, str]:
    """
    Return the origin according to the variables of the CI; without one, who is user and
    machine.
    """
    origin = {
        fact: next(filter(None, map(environ.get, names.split())), "")
        for fact, names in _OF_CI.items()
    }
    with suppress(KeyError):  # a container has those that it was given
        origin["ci_url"] = (
            f"{environ['GITHUB_SERVER_URL']}/{environ['GITHUB_REPOSITORY']}"
            f"/actions/runs/{environ['GITHUB_RUN_ID']}"
        )
    if not origin["by"]:
        origin["by"] = f"{environ.get('USER') or os.getuid()}@{platform.node()}"
    return origin
