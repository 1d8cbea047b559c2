"""Shared by tests of the layouts: a volume on which one layout follows another."""

import hashlib
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from s3_sync.keys import RESERVED
from s3_sync.layouts.layout import Layout
from s3_sync.layouts.open import open_layout
from s3_sync.listing.entries import Entry
from s3_sync.result import CycleResult
from s3_sync.settings import Settings, load_settings
from s3_sync.tree.download import Download
from s3_sync.tree.volume import Volume
from sidecar_runtime.fence import Fence

DIRECT = {"S3_SYNC_LAYOUT": "in-place"}
STAGED = {"S3_SYNC_LAYOUT": "in-place", "S3_SYNC_GATE": "syntax"}
SNAPSHOT = {"S3_SYNC_LAYOUT": "snapshot"}
LAYOUTS = {"direct": DIRECT, "staged": STAGED, "snapshot": SNAPSHOT}


def settings_of(folder: Path, **environ: str) -> Settings:
    """Return the settings of a layout for a folder."""
    given = {"AWS_BUCKET": "a-bucket", "DEST_PATH": str(folder), **environ}
    return load_settings(given)[0]


class Stage:
    """
    A volume with its layout; tests take the steps of cycles by hand.

    Attributes:
        layout: The current layout.
        folder: The folder that consumers mount.
        published: The recorded revision.
    """

    layout: Layout

    def __init__(self, folder: Path, **environ: str) -> None:
        self.folder = folder
        self._environ: dict[str, str] = {}
        self._volume: Volume | None = None
        self.published = ""
        self.begin(**environ)

    @property
    def state(self) -> Path:
        """The state folder of the sidecar."""
        return self.folder / RESERVED

    @property
    def snapshots(self) -> set[str]:
        """The names of the snapshots in the store."""
        found = os.listdir(self.state / "snapshots")
        return {name for name in found if not name.endswith(".managed")}

    def begin(self, **environ: str) -> None:
        """Open the volume as a new process does; settings stay unless given."""
        self.close()
        self._environ |= environ
        settings = settings_of(self.folder, **self._environ)
        self._volume = Volume(settings.dest_path, fsync=settings.fsync)
        self.layout = open_layout(settings, self._volume, self.published)

    def close(self) -> None:
        """Close the volume, as an ending process does."""
        if self._volume is not None:
            self.layout.close()
            self._volume.close()
            self._volume = None

    def put(self, **files: str) -> None:
        """Write files to the tree; in names, `__` stands for a slash, and `.py` is added."""
        for name, content in files.items():
            path, body = f"{name.replace('__', '/')}.py", content.encode()
            entry = Entry(path, hashlib.md5(body).hexdigest(), len(body))
            download = Download(path, len(body), self.layout.tree.staging.open)
            download.write(body)
            self.layout.tree.publish(path, entry, download, Fence(), lambda _: False)

    def drop(self, *paths: str) -> None:
        """Remove files whose keys are gone."""
        for path in paths:
            self.layout.tree.delete(path, Fence())

    def publish(self, revision: str, **files: str) -> CycleResult:
        """Write files to the tree, publish the revision, and record it."""
        self.put(**files)
        result = self.layout.publish(revision, Fence())
        self.published = revision
        return result

    def damaged(self) -> set[str]:
        """Return the damaged files of the published revision."""
        shown = self.layout.shown
        return shown.damaged(iter(list(shown.managed.files))) if shown else set()

    def torn(self) -> set[str]:
        """Return the damaged files of the tree."""
        tree = self.layout.tree
        return tree.damaged(iter(list(tree.managed.files)))

    def repair(self) -> CycleResult:
        """Repair what can be repaired without the source."""
        return self.layout.repair(self.damaged() - self.torn(), Fence())

    def seen(self) -> dict[str, str]:
        """Return the content by path that consumers find, without the state folder."""
        return files_of(self.folder)

    def current(self) -> dict[str, str]:
        """Return the content by path that consumers find behind the link."""
        return files_of(self.folder / "current")


Begin = Callable[..., Stage]


def files_of(folder: Path) -> dict[str, str]:
    """Return the content of each file below a folder, by path; for a symlink, its target."""
    found = {}
    for here, folders, files in os.walk(folder):
        with suppress(ValueError):
            folders.remove(RESERVED)
        for name in [*files, *folders]:
            place = Path(here, name)
            if place.is_symlink():
                found[str(place.relative_to(folder))] = f"-> {place.readlink()}"
            elif place.is_file():
                found[str(place.relative_to(folder))] = place.read_text()
    return found
