"""
DAG versions for Airflow 3 over what s3-sync or git-sync-wrapper publishes on the volume of a pod.

A version is the id of a release (64 hex digits) or a commit. Each lies in a folder of its own that
never changes; a link shows the current one. So a refresh is a ``readlink``, and a task whose
version is on the volume has only to look. A version that is not there is asked of the sidecar, over
a Unix socket beside the versions: Airflow needs no credentials for it, no boto and no git.
"""

from __future__ import annotations

import fcntl
import json
import logging
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
except ImportError:  # before Airflow 3.3 a version was its name
    BundleVersion = str

SOCKET = "ask.sock"
# Where the sidecars keep versions, beside the link; once that is there, it says where.
STORES = (".s3-sync/snapshots", ".snapshots")
VERSION = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
ANSWER_SECONDS = 5.0
ANSWER_BYTES = 64 << 10
# A sidecar that starts has its socket this soon after what it shows.
GRACE_SECONDS = 2.0

log = logging.getLogger(__name__)


class VersionUnavailable(AirflowException):  # type: ignore[misc]
    """
    A version is not available; the text says why, and what to do.
    """


class SidecarDagBundle(BaseDagBundle):  # type: ignore[misc]
    """
    The versions that a sidecar publishes on a volume that this process mounts, read-only at best.

    Args:
        path: The link that shows the current version: ``DEST_PATH/current`` of s3-sync with
            ``S3_SYNC_LAYOUT=snapshot``, ``GITSYNC_ROOT/GITSYNC_LINK`` of git-sync-wrapper.
        ask: The sidecar's socket; by default it lies beside the versions.
        subdir: The DAG folder, relative to a version; by default it is the whole of it.
        wait_seconds: How long a version, or the very first one, is waited for.
        view_url_template: Where people can look at a version, with ``{version}`` in it.
        **kwargs: As of every bundle: ``name``, ``refresh_interval``, ``version``.

    Raises:
        AirflowException: ``subdir`` can lead out of a version.
    """

    supports_versioning = True

    def __init__(
        self,
        *,
        path: str,
        ask: str | None = None,
        subdir: str = "",
        wait_seconds: float = 60.0,
        view_url_template: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if Path(subdir).is_absolute() or ".." in Path(subdir).parts:
            raise AirflowException(
                f"subdir {subdir!r} of bundle {self.name!r} is not a folder below a version: "
                "write it relative to the version, without .., such as dags"
            )
        self._view_url_template = view_url_template
        self._link = Path(path)
        self._ask = Path(ask) if ask else None
        self._subdir = subdir
        self._wait_seconds = wait_seconds
        self._folder: Path | None = None
        self._reading: Path | None = None
        self._in_use: Any = None

    @property
    def path(self) -> Path:
        """
        The DAG folder of one version; what is there stays the same until :meth:`refresh`.
        """
        if self._folder is None and self.version:
            return self._versions() / str(self.version) / self._subdir
        return (self._reading or self._folder or self._link) / self._subdir

    def get_current_version(self) -> Any:
        """
        Return the version whose folder :attr:`path` is, or will be.

        Raises:
            VersionUnavailable: What is shown has no version.
        """
        return BundleVersion(self.version or (self._folder or self._shown()).name)

    def initialize(self) -> None:
        """
        Find the version, and wait for it where it is still on its way.

        Raises:
            VersionUnavailable: It is gone at its source, did not come in time, has no DAG folder,
                or its modules would not be those that are imported.
        """
        if self.version:
            self._wait_for(lambda: self._take(self._find(str(self.version))))
            self._refuse_mixture()
            with suppress(OSError):
                # Airflow's clean-up of stale versions expects a folder there, and fails without.
                (self.versions_dir / str(self.version)).mkdir(parents=True, exist_ok=True)
        else:
            self._wait_for(lambda: self._take(self._shown()))
        if os.access(self._versions(), os.W_OK):
            log.warning("%s can be written here: a task can change what others run", self._link)
        super().initialize()

    def refresh(self) -> None:
        """
        Show what is current.

        Raises:
            VersionUnavailable: Nothing is published, or nothing with a version and a DAG folder.
            AirflowException: The bundle is for one version.
        """
        if self.version:
            raise AirflowException("A bundle of one version cannot be refreshed")
        shown = self._shown()
        if shown != self._folder or self._reading is None:
            self._take(shown)
            self._reading = self._turned_link(shown)

    def view_url_template(self) -> str | None:
        """
        Return where people can look at a version, with ``{version}`` in it.
        """
        return self._view_url_template

    def view_url(self, version: str | None = None) -> str | None:
        """
        Return where people can look at a version (Airflow 3.0).
        """
        template = self._view_url_template
        return template.format(version=version) if template and version else None

    def _refuse_mixture(self) -> None:
        """
        Refuse other versions on Python's path, where they come before the folder of this one.
        """
        parent, store = map(os.path.realpath, (self._link.parent, self._versions()))
        others = os.path.join(parent, self._link.name, ""), os.path.join(store, "")
        for entry in map(os.path.abspath, sys.path):
            folder = os.path.realpath(entry)
            is_other = folder == parent or f"{folder}/".startswith(others)
            # By its own name it is this version; through a link only for now.
            if is_other and self.version not in entry.split("/"):
                raise VersionUnavailable(
                    f"{entry} is on Python's path: modules would come from there, and not from "
                    f"version {self.version}; take it out of PYTHONPATH, or, where it is "
                    "Airflow's plugins_folder, have the plugins elsewhere"
                )

    def _current(self) -> Path:
        """
        Return the folder that the link shows, whatever it is.
        """
        try:
            return self._link.parent / os.readlink(self._link)
        except OSError as error:
            if (self._link / "current").is_symlink():
                raise VersionUnavailable(
                    f"{self._link} is the folder of the link: write {self._link}/current"
                ) from None
            raise _NotYet(
                f"nothing is published at {self._link} ({error.strerror}): is the sidecar of this "
                "pod running, and ready?"
            ) from None

    def _shown(self) -> Path:
        """
        Return the folder of the current version.
        """
        folder = self._current()
        if not VERSION.fullmatch(folder.name):
            raise VersionUnavailable(
                f"{self._link} shows {folder.name!r}, which has no version: set "
                "S3_SYNC_SOURCE=release and publish releases, or use a LocalDagBundle"
            )
        return folder

    def _versions(self) -> Path:
        """
        Return the folder of all versions, which is there before the link.
        """
        try:
            return (self._folder or self._current()).parent
        except _NotYet:
            stores = [self._ask.parent] if self._ask else map(self._link.parent.joinpath, STORES)
            if store := next(filter(Path.is_dir, stores), None):
                return store
            raise

    def _find(self, version: str) -> Path:
        """
        Return the folder of a version, once it is there.
        """
        if not VERSION.fullmatch(version):
            raise VersionUnavailable(f"{version!r} is not a version of a release or a commit")
        folder = self._versions() / version
        if not folder.is_dir():
            self._request(version, self._ask or folder.with_name(SOCKET))
        return folder

    def _take(self, folder: Path) -> None:
        """
        Use a folder from now on; the sidecar removes none that is in use.
        """
        if folder == self._folder:
            return
        try:
            opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        except OSError as error:
            raise _NotYet(f"{folder} cannot be opened: {error.strerror}") from None
        try:
            _mark_in_use(opened, folder)
            if not (folder / self._subdir).is_dir():
                raise VersionUnavailable(
                    f"version {folder.name} of bundle {self.name!r} has no folder "
                    f"{self._subdir!r}: correct subdir, or publish a version that has it"
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
        Return a link of this process to a folder, or the folder where there can be none.

        The dag-processor keeps a queue of paths, and stores what it reads there under the version
        of its last refresh: at the path of an older version it would read other code.
        """
        link: Path = self.base_dir / f"{socket.gethostname()}-{os.getpid()}"
        new = link.with_name(f"{link.name}.new")
        try:
            self.base_dir.mkdir(parents=True, exist_ok=True)
            new.unlink(missing_ok=True)
            new.symlink_to(os.path.abspath(folder))
            return new.replace(link)
        except OSError as error:
            log.warning("%s cannot be made: %s", link, error.strerror)
            return folder

    def _request(self, version: str, place: Path) -> None:
        """
        Ask the sidecar for a version; it is there when this returns.
        """
        said: dict[str, Any] = {}
        try:
            status, said = _ask(place, version)
        except FileNotFoundError:
            self._current()  # where nothing is shown yet, the sidecar is about to start
            raise _NotYet(
                f"version {version} of bundle {self.name!r} is not here, and this volume has "
                "nobody to ask: what is kept on it is all there is",
                GRACE_SECONDS,
            ) from None
        except (OSError, HTTPException, ValueError) as error:
            said["error"] = (
                f"nobody answers at {place} ({error}): is the sidecar of this pod running? If "
                "another node writes this volume, what is kept on it is all there is"
            )
            status = 0
        why = str(said.get("error") or said.get("state") or f"{place} answers {status}")
        if status == 404:
            raise VersionUnavailable(
                f"version {version} of bundle {self.name!r} is gone: {why}. Run the DAG on its "
                "newest version, or publish that one again"
            )
        if status != 200:
            raise _NotYet(f"version {version} of bundle {self.name!r} is not here: {why}")

    def _wait_for(self, step: Callable[[], None]) -> None:
        """
        Repeat a step until it succeeds, or time is up.
        """
        began, pause = time.monotonic(), 0.02
        while True:
            try:
                step()
                return
            except _NotYet as error:
                seconds = min(self._wait_seconds, error.patience_seconds)
                if time.monotonic() + pause > began + seconds:
                    raise VersionUnavailable(f"{error} (waited {seconds:g} s)") from None
            time.sleep(pause)
            pause = min(2 * pause, 1.0)


class _NotYet(VersionUnavailable):
    """
    It may be different in a moment; or, for some reasons, soon or never.
    """

    def __init__(self, text: str, patience_seconds: float = float("inf")) -> None:
        super().__init__(text)
        self.patience_seconds = patience_seconds


def _mark_in_use(opened: int, folder: Path) -> None:
    """
    Take a shared lock on an open folder: the sidecar removes none that has one.
    """
    try:
        fcntl.flock(opened, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:  # for the moment of its removal; a task could hold it longer
        raise _NotYet(f"{folder} is locked by another process") from None
    except OSError as error:
        log.debug("%s has no locks (%s): only time keeps it", folder, error.strerror)  # NFS
    try:
        is_there = os.path.samestat(os.fstat(opened), os.stat(folder))
    except OSError:
        is_there = False
    if not is_there:
        raise _NotYet(f"{folder} was just removed")


def _ask(place: Path, version: str) -> tuple[int, dict[str, Any]]:
    """
    Ask one question; return the status, and what was said.
    """
    folder = os.open(place.parent, os.O_RDONLY | os.O_DIRECTORY)
    connection = HTTPConnection("sidecar", timeout=ANSWER_SECONDS)
    try:
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.settimeout(ANSWER_SECONDS)
        # The path itself may be longer than the 107 bytes of an address.
        connection.sock.connect(f"/proc/self/fd/{folder}/{place.name}")
        connection.request("GET", f"/revisions/{version}", headers={"Connection": "close"})
        answer = connection.getresponse()
        said = json.loads(answer.read(ANSWER_BYTES))
        return answer.status, said if isinstance(said, dict) else {}
    finally:
        connection.close()
        os.close(folder)
