"""
A reader of releases written from docs/reference/release-format.md alone; it imports
nothing.
"""

import base64
import gzip
import hashlib
import json
import zlib
from collections.abc import Iterable, Mapping
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey


def read(
    objects: Mapping[str, bytes], place: tuple[str, str] = ("", ""), key: bytes = b""
) -> tuple[str, dict[str, tuple[bytes, bool]]]:
    """
    Return the id of the current release, and content and executable bit of each file.

    Args:
        objects: The objects under the prefix.
        place: The bucket and the prefix.
        key: The trusted key; empty if none is required.
    """
    pointer = objects["current.json"]
    if key:
        pointer = verified(pointer, place, key)
    version = json.loads(body_of(pointer))["version"]
    manifest = json.loads(gzip.decompress(objects[f"releases/{version}.json.gz"]))
    assert (manifest["format"], manifest["schema_version"]) == (3, 1)
    assert version == id_of(manifest["files"])
    bundle = objects[f"bundles/{manifest['bundle']['sha256']}.zip"]
    assert len(bundle) == manifest["bundle"]["size"]
    found = {}
    end = 0
    for file in manifest["files"]:
        start = end + 30 + len(file["path"].encode())
        end = start + file["stored"]
        data = bundle[start:end]
        if file["stored"] < file["size"]:
            data = zlib.decompress(data, -zlib.MAX_WBITS)
        assert (len(data), hashlib.sha256(data).hexdigest()) == (
            file["size"],
            file["sha256"],
        )
        found[file["path"]] = data, file["executable"]
    return version, found


def id_of(files: Iterable[Mapping[str, Any]]) -> str:
    """
    Return the id of a release with these files, as Airflow's manifest bundles have it:
    airflow/dag_processing/bundles/manifest.py of apache/airflow, 2026-11.
    """
    rows = [
        {name: file[name] for name in ("executable", "path", "sha256", "size")}
        for file in files
    ]
    rows.sort(key=lambda row: str(row["path"]))
    text = json.dumps(
        {"files": rows, "schema_version": 1}, sort_keys=True, separators=(",", ":")
    )
    return f"sha256-{hashlib.sha256(text.encode()).hexdigest()}"


def body_of(pointer: bytes) -> bytes:
    """Return a pointer without its signature."""
    start = pointer.rfind(b'\n{"signature": "')
    return pointer[: start + 1] if start >= 0 else pointer


def verified(pointer: bytes, place: tuple[str, str], key: bytes) -> bytes:
    """Return a pointer without its signature, which must be that of the key."""
    body = body_of(pointer)
    algorithm, key_id, proof = json.loads(pointer[len(body) :])["signature"].split(":")
    assert (algorithm, key_id) == ("ed25519", hashlib.sha256(key).hexdigest()[:16])
    Ed25519PublicKey.from_public_bytes(key).verify(
        base64.b64decode(proof),
        b"\0".join([b"s3-sync pointer", place[0].encode(), place[1].encode(), body]),
    )
    return body
