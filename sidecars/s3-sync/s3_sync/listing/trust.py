"""
Decides whether an ETag that looks like an MD5 is one, and must match the downloaded bytes.

AWS documents when it is: https://docs.aws.amazon.com/AmazonS3/latest/API/API_Object.html
Other stores may use ETags that only look like an MD5; their responses show which kind a store has.
"""

from __future__ import annotations

import heapq
from collections.abc import Collection

from s3_sync.digest import looks_like_md5
from s3_sync.s3.refusals import ObjectError
from s3_sync.tree.target import Target

# How many files on disk are compared with their ETags to find out if those are MD5s.
WITNESSES = 3


class EtagTrust:
    """
    Tracks whether the ETags of one store are MD5s.

    Args:
        verify: ``auto``, ``strict`` or ``lenient``.
        is_aws: Whether the store is AWS itself.

    Attributes:
        doubtful: Paths that were accepted despite a contradicting ETag, while no other object had
            proved that this store's ETags are MD5s; or perhaps so, by an earlier process.
    """

    def __init__(self, verify: str, *, is_aws: bool) -> None:
        self._verify = verify
        self.is_aws = is_aws
        # None until the first ETag that looks like an MD5 was compared.
        self._has_md5s = True if is_aws else None
        self.doubtful: set[str] = set()

    @property
    def is_strict(self) -> bool:
        """
        Whether bytes that contradict their ETag are refused.
        """
        return self._verify == "strict" or (self._verify == "auto" and self._has_md5s is True)

    @property
    def is_open(self) -> bool:
        """
        Whether it is still unknown if this store's ETags are MD5s.
        """
        return self._verify == "auto" and self._has_md5s is None

    def prove(self) -> None:
        """
        Note that an ETag is the MD5 of its object.
        """
        self._has_md5s = True

    def disprove(self, path: str) -> None:
        """
        Note that an ETag is not an MD5: two equal downloads contradict it.
        """
        if self._has_md5s is None:
            self._has_md5s = False
        self.doubtful.add(path)

    def recall(self, target: Target) -> None:
        """
        Doubt the files that an earlier process could not verify.

        On AWS only under ``strict``: otherwise no contradiction was accepted there, so the files
        are of encrypted objects, and another download would not verify them either.
        """
        if self.is_aws and self._verify != "strict":
            return
        managed = target.managed
        self.doubtful.update(
            path for path in managed.unverified if looks_like_md5(managed.files[path].etag)
        )
        if self.doubtful and self.is_open:
            self.ask_witnesses(target)

    def ask_witnesses(self, target: Target) -> None:
        """
        Compare some files on disk with their ETags.
        """
        held = (
            (path, managed)
            for path, managed in target.managed.files.items()
            if managed.size_bytes and managed.is_verified and looks_like_md5(managed.etag)
        )
        for path, managed in heapq.nsmallest(WITNESSES, held, key=lambda item: item[1].size_bytes):
            if target.holds(path, managed):
                self.prove()
                return

    def suspects(self) -> Collection[str]:
        """
        Return the paths to download again because the ETags turned out to be MD5s.
        """
        return self.doubtful if self.is_strict else ()


def contradiction(key: str, etag: str, md5: str) -> ObjectError:
    """
    Return the error for bytes that contradict their ETag.
    """
    return ObjectError(
        "object_corrupt",
        f"the download of {key!r} was refused: its MD5 is {md5}, but its ETag is {etag}",
        "The file on disk was not changed. If it persists, find out what alters S3's responses, "
        "such as a proxy. If only some of this store's ETags are MD5s and others only look like "
        "MD5s, set S3_SYNC_VERIFY=lenient.",
    )
