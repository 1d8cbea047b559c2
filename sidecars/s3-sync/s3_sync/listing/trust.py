"""
Decides whether an ETag that looks like an MD5 is one, and must match the downloaded bytes.

AWS documents when it is: https://docs.aws.amazon.com/AmazonS3/latest/API/API_Object.html
Other stores may use ETags that only look like an MD5; their responses show which kind a store has.
"""

from __future__ import annotations

from collections.abc import Collection

from s3_sync.s3.refusals import ObjectError


class EtagTrust:
    """
    Tracks whether the ETags of one store are MD5s.

    Args:
        verify: ``auto``, ``strict`` or ``lenient``.
        is_aws: Whether the store is AWS itself.

    Attributes:
        doubtful: Paths that were accepted despite a contradicting ETag, while no other object had
            proved that this store's ETags are MD5s.
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
