"""
Random histories of a bucket and its target, reproducible from a seed, with known
content.
"""

import contextlib
import os
import random
import unicodedata
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from botocore.exceptions import ClientError

from tests.support.aws.servers import S3Server

MULTIPART_MINIMUM = 5 << 20
FOREIGN_TIME = 1_500_000_000
"""
Modification time of the files that other processes own in the target, in Unix seconds.
"""

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
        self.objects: dict[str, bytes] = {}
        self._client = server.client()

    def put(self, key: str, content: bytes) -> None:
        """Upload an object, if the server can store its key."""
        if self.takes(key):
            with self._unless_refused():
                self._client.put_object(Bucket=self.name, Key=key, Body=content)
                self.objects[key] = content

    def put_in_parts(self, key: str, content: bytes) -> None:
        """Upload an object in parts, so that its ETag is not an MD5."""
        # Moto answers with invalid XML if the key contains a control character.
        if not self.takes(key) or not key.isprintable():
            return
        with self._unless_refused():
            self._put_in_parts({"Bucket": self.name, "Key": key}, content)
            self.objects[key] = content

    def _put_in_parts(self, place: dict[str, str], content: bytes) -> None:
        upload = {
            **place,
            "UploadId": self._client.create_multipart_upload(**place)["UploadId"],
        }
        parts: list[dict[str, Any]] = []
        for offset in range(0, len(content), MULTIPART_MINIMUM):
            body = content[offset : offset + MULTIPART_MINIMUM]
            number = len(parts) + 1
            answer = self._client.upload_part(**upload, PartNumber=number, Body=body)
            parts.append({"PartNumber": number, "ETag": answer["ETag"]})
        self._client.complete_multipart_upload(
            **upload, MultipartUpload={"Parts": parts}
        )

    @contextlib.contextmanager
    def _unless_refused(self) -> Iterator[None]:
        try:
            yield
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

    def assert_known(self) -> None:
        """Assert that the server lists exactly the expected objects."""
        pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=self.name)
        listed = {
            entry["Key"]: entry["Size"]
            for page in pages
            for entry in page.get("Contents", [])
        }
        assert {key: len(content) for key, content in self.objects.items()} == listed


class History:
    """
    Random changes to a bucket and to a target, all from one seed.

    Attributes:
        foreign: Relative path → content of the files in the target that other processes
            own.
        deeds: The changes in words, for the message of a failure.
    """

    def __init__(self, bucket: Bucket, target: Path, seed: int) -> None:
        self.bucket = bucket
        self.target = target
        self.foreign: dict[str, bytes] = {}
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
            self._put_big: 2,
            self._plant_foreign: 12,
            self._remove_foreign: 4,
            self._tamper: 12,
        }
        self.deeds.append("--- step")
        chosen = self._random.choices(
            list(kinds), weights=list(kinds.values()), k=deeds
        )
        # Tamper last, so that no edited file loses its key in the same step.
        for kind in sorted(chosen, key=lambda kind: kind == self._tamper):
            kind()
        self.bucket.assert_known()

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
            size = self._random.choice((None, len(self.bucket.objects[key])))
            self._put(key, self._content(size))

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

    def _put_big(self) -> None:
        key = self.key(self._path())
        if self._random.random() < 0.5:
            self._put(key, self._content(self._random.randrange(3 << 20, 9 << 20)))
        elif not key.startswith(self._anchor):
            self._did("put in parts", key)
            self.bucket.put_in_parts(key, self._content(MULTIPART_MINIMUM + 12_345))

    def _published(self) -> list[str]:
        """Return the paths of keys that are published as files now."""
        paths = [key.removeprefix(self.key("")) for key in self.bucket.objects]
        return [
            path
            for path in sorted(paths)
            if path not in self.foreign
            and not path.endswith("/")
            and not {"..", ".", "", ".s3-sync"} & set(path.split("/"))
            and _is_plain_file(self.target / path)
        ]

    def _plant_foreign(self) -> None:
        """Put a foreign file at a free path that no key uses or contains."""
        if not self.target.is_dir():
            return
        roots = [""] + [os.path.dirname(path) for path in self._published()]
        root = self._random.choice(roots)
        name = self._random.choice(
            ("__pycache__/a.cpython-311.pyc", "own.log", "pkg", "b.py")
        )
        path = os.path.join(root, name)
        place = self.target / path
        folders = [self.target / parent for parent in Path(path).parents]
        if os.path.lexists(place) or any(
            os.path.lexists(f) and not f.is_dir() for f in folders
        ):
            return
        if any(
            _has_path(key.removeprefix(self.key("")), path)
            for key in self.bucket.objects
        ):
            return
        self._did("plant foreign", path)
        place.parent.mkdir(parents=True, exist_ok=True)
        self.foreign[path] = b"foreign " + self._content(50)
        place.write_bytes(self.foreign[path])
        os.utime(place, (FOREIGN_TIME, FOREIGN_TIME))

    def _remove_foreign(self) -> None:
        if self.foreign:
            path = self._random.choice(sorted(self.foreign))
            self._did("remove foreign", path)
            (self.target / path).unlink()
            del self.foreign[path]
            # up to the first folder that is not empty
            with contextlib.suppress(OSError):
                os.removedirs((self.target / path).parent)

    def _tamper(self) -> None:
        """Edit, truncate, remove or replace a published file, or make it a link."""
        keys = self.bucket.objects
        published = [
            path
            for path in self._published()
            if not any(key.startswith(f"{self.key(path)}/") for key in keys)
        ]
        if not published:
            return
        path = self._random.choice(published)
        place = self.target / path
        how = self._random.choice(("edit", "truncate", "remove", "replace", "link"))
        self._did(f"{how} on disk", path)
        if how == "edit":
            place.write_bytes(self._content(place.stat().st_size))
        elif how == "truncate":
            place.write_bytes(b"")
        else:
            place.unlink()
            if how == "replace":
                place.write_bytes(b"replaced")
            elif how == "link":
                place.symlink_to(
                    self._random.choice(("/etc/passwd", "/nowhere", ".", "anchor.txt"))
                )


def _is_plain_file(path: Path) -> bool:
    """Whether a path is a file and contains no link."""
    try:
        return path.is_file() and path.resolve() == path.absolute()
    except (OSError, RuntimeError):
        return False


def _has_path(key: str, path: str) -> bool:
    return key == path or key.startswith(f"{path}/")


def _places(key: str) -> list[str]:
    """Return a key and every folder above it."""
    parts = key.split("/")
    return ["/".join(parts[:count]) for count in range(1, len(parts) + 1)]


def _nfc(text: str) -> str:
    return unicodedata.normalize("NFC", text)
