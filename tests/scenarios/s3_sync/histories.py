"""
Random histories of a bucket and its target, reproducible from a seed, with known
content.
"""

import os
import random
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

from botocore.exceptions import ClientError

from tests import Bodies
from tests.support.aws.servers import S3Server

FOREIGN = b"foreign"
"""Content of the files that other processes own in the target."""

NAMES = (
    "a.py", "b.py", "dag.py", "__init__.py", "pkg", "pkg2", "sub", "README", "Readme", "readme",
    ".airflowignore", ".hidden", "with space.py", " leading", "trailing ", "a+b.py", "100%.py",
    "pct%2Fslash", "caf\u00e9.py", "cafe\u0301.py",  # NFC and NFD
    "\u65e5\u672c\u8a9e.txt", "\U0001f680.py", 'it\'s "quoted"', "tab\there", "ctrl\x01\x1f",
    "cr\rhere", "line\nbreak", "back\\slash", "&amp;<b>", "a?b#c=d;e", "$HOME ${x} `id` *", "-rf",
    "\u202eyp.live", ".s3-sync", "x" * 255,
)  # fmt: skip
"""Names that are valid as files."""

NAMES_OF_NO_FILE = ("", ".", "..", "y" * 256, "\u00e9" * 128)
"""Components of keys that must be skipped."""


class Bucket:
    """
    A bucket and its expected content, derived from the accepted requests.

    `objects` omits rejected requests, because some servers cannot store every key.
    """

    def __init__(self, server: S3Server, key_path: str = "") -> None:
        self.server = server
        self.key_path = key_path
        self.name = server.new_bucket("history")
        self.objects: Bodies = {}
        self._client = server.client()

    def put(self, key: str, content: bytes) -> None:
        """Upload an object, if the server can store its key."""
        if self.takes(key):
            try:
                self._client.put_object(Bucket=self.name, Key=key, Body=content)
                self.objects[key] = content
            except ClientError as error:
                if error.response["Error"]["Code"] not in self.server.refusals:
                    raise

    def delete(self, key: str) -> None:
        """Delete an object."""
        self._client.delete_object(Bucket=self.name, Key=key)
        del self.objects[key]

    def takes(self, key: str) -> bool:
        """Whether the server can store this key beside the existing ones."""
        if len(key.encode()) > 1024 or not self.server.takes(key):
            return False
        if self.server.takes_any_key:
            return "\n" not in key
        others = self.objects.keys() - {key}
        spellings = {_nfc(place): place for other in others for place in _places(other)}
        return (
            not {"", ".", ".."} & set(key.split("/"))
            and not any(other.startswith(f"{key}/") for other in others)
            and not any(key.startswith(f"{other}/") for other in others)
            and all(
                spellings.get(_nfc(place), place) == place for place in _places(key)
            )
        )


class History:
    """
    Random changes to a bucket and to a target, all from one seed.

    Attributes:
        foreign: Relative paths of the files in the target that other processes own.
        deeds: The changes in words, for the message of a failure.
    """

    def __init__(self, bucket: Bucket, target: Path, seed: int) -> None:
        self.bucket = bucket
        self.target = target
        self.foreign: set[str] = set()
        self.deeds: list[str] = []
        self._random = random.Random(seed)
        self._number = 0
        # A key that always exists: an empty listing would fail with `source_empty`.
        self._anchor = self.key("anchor.txt")
        bucket.put(self._anchor, b"stays")

    def key(self, path: str) -> str:
        """Return the key of a path below KEY_PATH."""
        return f"{self.bucket.key_path}/{path}" if self.bucket.key_path else path

    def step(self, deeds: int) -> None:
        """
        Make random changes to the bucket and, between complete cycles, to the target.
        """
        kinds: dict[Callable[[], None], int] = {
            self._put_new: 30,
            self._overwrite: 40,
            self._delete: 35,
            self._file_to_folder: 8,
            self._folder_to_file: 12,
            self._put_marker: 4,
            self._put_beside: 4,
            self._plant_foreign: 6,
            self._damage: 12,
        }
        self.deeds.append("--- step")
        chosen = self._random.choices(
            list(kinds), weights=list(kinds.values()), k=deeds
        )
        # Damage last, so that no lost file loses its key in the same step.
        for kind in sorted(chosen, key=lambda kind: kind == self._damage):
            kind()

    def _content(self, size: int | None = None) -> bytes:
        self._number += 1
        if size is None:
            size = self._random.choice((0, 1, 10, 100, 1_000, 10_000, 100_000))
        return (b"%d\n" % self._number + self._random.randbytes(size))[:size]

    def _path(self) -> str:
        names = NAMES if self._random.random() < 0.9 else NAMES + NAMES_OF_NO_FILE
        depth = self._random.choice((1, 1, 2, 2, 3, 4))
        return "/".join(self._random.choice(names) for _ in range(depth))

    def _some_key(self) -> str | None:
        keys = sorted(self.bucket.objects.keys() - {self._anchor})
        return self._random.choice(keys) if keys else None

    def _did(self, what: str, *about: Any) -> None:
        self.deeds.append(f"{what} {' '.join(ascii(item) for item in about)}")

    def _put(self, key: str, content: bytes) -> None:
        if key != self._anchor and not key.startswith(f"{self._anchor}/"):
            self._did("put", key, len(content))
            self.bucket.put(key, content)

    def _put_new(self) -> None:
        self._put(self.key(self._path()), self._content())

    def _overwrite(self) -> None:
        if key := self._some_key():
            self._put(
                key,
                self._content(
                    self._random.choice((None, len(self.bucket.objects[key])))
                ),
            )

    def _delete(self) -> None:
        if key := self._some_key():
            self._did("delete", key)
            self.bucket.delete(key)

    def _delete_below(self, folder: str) -> None:
        self._did("delete all below", folder)
        for key in [key for key in self.bucket.objects if key.startswith(f"{folder}/")]:
            if key != self._anchor:
                self.bucket.delete(key)

    def _file_to_folder(self) -> None:
        key = self._some_key()
        if key and not key.endswith("/"):
            self._did("file to folder", key)
            self.bucket.delete(key)
            self._put(f"{key}/{self._random.choice(NAMES)}", self._content())

    def _folder_to_file(self) -> None:
        key = self._some_key()
        if key and "/" in key.removeprefix(self.key("")):
            folder = key.rpartition("/")[0]
            self._delete_below(folder)
            self._put(folder, self._content())

    def _put_marker(self) -> None:
        self._put(self.key(self._path()) + "/", b"")

    def _put_beside(self) -> None:
        """
        Put a key that a prefix without a slash would match: `dags-old/x` beside
        `dags/`.
        """
        if self.bucket.key_path:
            self._put(f"{self.bucket.key_path}-old/{self._path()}", self._content())

    def _published(self) -> str:
        """Return the path of a key that is published as a file now; "": there is none."""
        paths = [key.removeprefix(self.key("")) for key in sorted(self.bucket.objects)]
        found = [
            path
            for path in paths
            if not path.endswith("/")
            and not {"..", ".", "", ".s3-sync"} & set(path.split("/"))
            and os.path.isfile(self.target / path)
        ]
        return self._random.choice(found) if found else ""

    def _plant_foreign(self) -> None:
        """Put a foreign file beside a published one."""
        if path := self._published():
            planted = os.path.join(os.path.dirname(path), "own.log")
            self._did("plant foreign", planted)
            self.foreign.add(planted)
            (self.target / planted).write_bytes(FOREIGN)

    def _damage(self) -> None:
        """Remove a published file."""
        if path := self._published():
            self._did("remove on disk", path)
            (self.target / path).unlink()


def _places(key: str) -> list[str]:
    """Return a key and every folder above it."""
    parts = key.split("/")
    return ["/".join(parts[:count]) for count in range(1, len(parts) + 1)]


def _nfc(text: str) -> str:
    return unicodedata.normalize("NFC", text)
