"""
DAG versions for Airflow 3, from the volume that s3-sync or git-sync-wrapper publishes
to.

A version is the id of a release (`sha256-…`), a commit, or the revision of a listing: a
folder that never changes. A symlink points to the current version, so a refresh is one
``readlink``, and a task reads its version from the volume. If the version is missing
there, the bundle requests it from the sidecar over a Unix socket beside the versions:
Airflow needs no credentials, boto or git.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import re
import socket
import sys
import time
import weakref
from collections.abc import Callable
from contextlib import suppress
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any

from airflow.dag_processing.bundles.base import BaseDagBundle
from airflow.exceptions import AirflowException

try:
    from airflow.dag_processing.bundles.base import BundleVersion
except ImportError:  # before Airflow 3.3, a version was a string
    BundleVersion = str

SOCKET = "ask.sock"
# Where s3-sync keeps versions, relative to the link's folder; used until the link
# exists.
STORE = ".s3-sync/snapshots"
VERSION = re.compile(r"[0-9a-f]{12}|[0-9a-f]{40}|(?:sha256-)?[0-9a-f]{64}")


class VersionUnavailable(AirflowException):  # type: ignore[misc]
    """
    A version is not available; the message contains the reason and advice.
    """


class SidecarDagBundle(BaseDagBundle):  # type: ignore[misc]
    """
    The versions that a sidecar publishes on a volume; mount the volume read-only.

    Args:
        path: The symlink to the current version: ``DEST_PATH/current`` of s3-sync with
            ``S3_SYNC_LAYOUT=snapshot``, ``GITSYNC_ROOT/GITSYNC_LINK`` of
            git-sync-wrapper.
        subdir: The DAG folder, relative to a version; by default the whole version.
        wait_seconds: How long to wait for a version, or for the first one to be
            published.
        **kwargs: The arguments of every bundle: ``name``, ``refresh_interval``,
            ``version``, ``view_url_template``.
    """

    supports_versioning = True

    def __init__(
        self, *, path: str, subdir: str = "", wait_seconds: float = 60.0, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self._link = Path(path)
        self._subdir = subdir
        self._wait_seconds = wait_seconds
        self._folder: Path | None = None
        self._reading: Path | None = None
        self._in_use: Any = None

    @property
    def path(self) -> Path:
        """
        The DAG folder of one version; its content stays the same until :meth:`refresh`.
        """
        if self._folder is None and self.version:
            return self._versions() / str(self.version) / self._subdir
        return (self._reading or self._folder or self._link) / self._subdir

    def get_current_version(self) -> Any:
        """
        Return the version that :attr:`path` shows, or will show.

        Raises:
            VersionUnavailable: The published folder is not a version.
        """
        return BundleVersion(
            self.version or (self._folder or self._shown()).name.partition(".")[0]
        )

    def initialize(self) -> None:
        """
        Find the version, and wait for the sidecar to fetch it if necessary.

        Raises:
            VersionUnavailable: The version no longer exists at its source, did not
                arrive in time, has no DAG folder, or Python would import modules from
                another version.
        """
        if self.version:
            self._wait_for(lambda: self._take(self._find(str(self.version))))
            self._refuse_mixture()
            with suppress(OSError):
                # Airflow's cleanup of stale versions fails unless this folder exists.
                (self.versions_dir / str(self.version)).mkdir(
                    parents=True, exist_ok=True
                )
        else:
            try:
                self._wait_for(lambda: self._take(self._shown()))
            except VersionUnavailable:
                # The dag-processor retries. While it waits, it stops serving its other
                # bundles, and then kills their parsers, which have exceeded their time.
                self._wait_seconds = 0.0
                raise
        super().initialize()

    def refresh(self) -> None:
        """
        Switch to the current version.

        Raises:
            VersionUnavailable: Nothing is published, or it is not a version with a DAG
                folder.
            AirflowException: The bundle is pinned to one version.
        """
        if self.version:
            raise AirflowException(
                "A bundle that is pinned to a version cannot be refreshed"
            )
        shown = self._shown()
        if shown != self._folder or self._reading is None:
            self._take(shown)
            # If the link cannot be turned, the next refresh tries again.
            self._reading = None
            self._reading = self._turned_link(shown)

    def _refuse_mixture(self) -> None:
        """
        Refuse other versions on Python's path: their modules would be imported first.
        """
        parent, store = map(os.path.realpath, (self._link.parent, self._versions()))
        others = os.path.join(parent, self._link.name, ""), os.path.join(store, "")
        for entry in map(os.path.abspath, sys.path):
            folder = os.path.realpath(entry)
            is_other = folder == parent or f"{folder}/".startswith(others)
            # Named by its own path, it is this version; through a link, only until the
            # next swap.
            if is_other and str(self._folder and self._folder.name) not in entry.split(
                "/"
            ):
                raise VersionUnavailable(
                    f"{entry} is on Python's path: modules would be imported from there instead "
                    f"of from version {self.version}. Remove it from PYTHONPATH; if it is "
                    "Airflow's plugins_folder, move the plugins elsewhere"
                )

    def _current(self) -> Path:
        """
        Return the folder that the link points to, version or not.
        """
        try:
            return self._link.parent / os.readlink(self._link)
        except OSError as error:
            if error.errno == errno.EINVAL:
                raise VersionUnavailable(
                    f"{self._link} is not the symlink to the current version, which the sidecar "
                    f"creates: write its path, such as {self._link}/current"
                ) from None
            raise _NotYet(
                f"nothing is published at {self._link} ({error.strerror}): check that the sidecar "
                "of this pod is running and ready"
            ) from None

    def _shown(self) -> Path:
        """
        Return the folder of the current version.
        """
        folder = self._current()
        if not VERSION.fullmatch(folder.name.partition(".")[0]):
            raise VersionUnavailable(
                f"{self._link} points to {folder.name!r}, which is not a version: a listing is "
                "incomplete. Publish releases (S3_SYNC_SOURCE=release), or use a LocalDagBundle"
            )
        return folder

    def _versions(self) -> Path:
        """
        Return the folder of all versions; that of s3-sync exists before the link.
        """
        try:
            return (self._folder or self._current()).parent
        except _NotYet:
            store = self._link.parent / STORE
            if store.is_dir():
                return store
            raise

    def _find(self, version: str) -> Path:
        """
        Return the folder of a version; request the version if it is missing.
        """
        if not VERSION.fullmatch(version):
            raise VersionUnavailable(f"{version!r} is not a version")
        versions = self._versions()
        # Another copy of a commit, as after damage, has a number: HASH.2. The shown one
        # is first.
        shown = self._link.resolve()
        place = versions / version
        copies = [
            path for path in (place, *versions.glob(f"{version}.*")) if path.is_dir()
        ]
        if not copies:
            self._request(version, place.with_name(SOCKET))
        return max(
            copies,
            key=lambda p: (p.resolve() == shown, len(p.name), p.name),
            default=place,
        )

    def _take(self, folder: Path) -> None:
        """
        Use a folder from now on, and lock it: the sidecar removes no folder in use.
        """
        if folder == self._folder:
            return
        try:
            opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        except OSError as error:
            raise _NotYet(f"cannot open {folder}: {error.strerror}") from None
        try:
            _mark_in_use(opened, folder)
            if not (folder / self._subdir).is_dir():
                raise VersionUnavailable(
                    f"version {folder.name} of bundle {self.name!r} has no folder "
                    f"{self._subdir!r}: correct subdir, or publish a version that contains it"
                )
        except BaseException:
            os.close(opened)
            raise
        before, self._in_use = self._in_use, weakref.finalize(self, os.close, opened)
        self._folder = folder
        if before is not None:
            before()

    def _turned_link(self, folder: Path) -> Path:
        """
        Return this process's link to a folder.

        The dag-processor queues paths, and stores the DAGs that it reads there under
        the version of its last refresh: the path of an older version would contain
        other code.
        """
        link: Path = self.base_dir / f"{socket.gethostname()}-{os.getpid()}"
        new = link.with_name(f"{link.name}.new")
        self.base_dir.mkdir(parents=True, exist_ok=True)
        new.unlink(missing_ok=True)
        new.symlink_to(os.path.abspath(folder))
        return new.replace(link)

    def _request(self, version: str, place: Path) -> None:
        """
        Request a version from the sidecar; it is on the volume when this returns.
        """
        name = f"version {version} of bundle {self.name!r}"
        lacks = f"{name} is not on this volume"
        try:
            status, said = _ask(place, version)
        except FileNotFoundError:
            self._current()  # raises _NotYet while the sidecar is still starting
            raise _NotYet(
                f"{lacks}, and no sidecar here accepts requests: only the versions on the volume "
                "are available"
            ) from None
        except (OSError, HTTPException, ValueError) as error:
            raise _NotYet(
                f"{lacks}: no sidecar answers at {place} ({error}). Check that the sidecar of this "
                "pod is running. If another node writes this volume, only the versions on it are "
                "available"
            ) from None
        why = said.get("error") or said.get("state")
        if status == 404:
            raise VersionUnavailable(
                f"{name} is gone: {why}. Run the DAG on its newest version, or publish that "
                "version again"
            )
        if status != 200:
            raise _NotYet(f"{lacks}: {why}")

    def _wait_for(self, step: Callable[[], None]) -> None:
        """
        Repeat a step until it succeeds or the wait time is over.
        """
        until = time.monotonic() + self._wait_seconds
        pause = 0.02
        while True:
            try:
                return step()
            except _NotYet as error:
                if time.monotonic() + pause > until:
                    raise VersionUnavailable(
                        f"{error} (waited {self._wait_seconds:g} s)"
                    ) from None
            time.sleep(pause)
            pause = min(2 * pause, 1.0)


class _NotYet(VersionUnavailable):
    """
    The version is not available yet: retry.
    """


def _mark_in_use(opened: int, folder: Path) -> None:
    """
    Take a shared lock on an open folder: the sidecar does not remove a locked folder.
    """
    try:
        fcntl.flock(opened, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except (
        BlockingIOError
    ):  # the sidecar is removing it; a task could hold the lock longer
        raise _NotYet(f"{folder} is locked by another process") from None
    except OSError:
        pass  # NFS: only time protects it
    with suppress(OSError):
        if os.path.samestat(os.fstat(opened), os.stat(folder)):
            return
    raise _NotYet(f"{folder} was just removed")


def _ask(place: Path, version: str) -> tuple[int, dict[str, Any]]:
    """
    Send one request; return the status and the JSON of the response.
    """
    folder = os.open(place.parent, os.O_RDONLY | os.O_DIRECTORY)
    connection = HTTPConnection("sidecar")
    try:
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.settimeout(5)
        # The full path may exceed the 107 bytes of a Unix socket address.
        connection.sock.connect(f"/proc/self/fd/{folder}/{place.name}")
        connection.request(
            "GET", f"/revisions/{version}", headers={"Connection": "close"}
        )
        answer = connection.getresponse()
        said = json.loads(answer.read(1 << 16))
        return answer.status, said if isinstance(said, dict) else {}
    finally:
        connection.close()
        os.close(folder)
