"""
The keys of the parts of a release, relative to the prefix. Pure.

See docs/reference/release-format.md.
"""

from __future__ import annotations

POINTER_KEY = "current.json"
MANIFEST_FOLDER = "releases/"
MANIFEST_SUFFIX = ".manifest"
BUNDLE_FOLDER = "bundles/"
PIN_FOLDER = "pins/"
LEFT_FOLDER = "left/"


def manifest_key(revision: str) -> str:
    """
    Return the key of a manifest, relative to the prefix.
    """
    return f"{MANIFEST_FOLDER}{revision}{MANIFEST_SUFFIX}"


def bundle_key(sha256: str) -> str:
    """
    Return the key of a bundle, relative to the prefix.
    """
    return f"{BUNDLE_FOLDER}{sha256}.zip"


def pin_key(revision: str) -> str:
    """
    Return the key of a pin, relative to the prefix.
    """
    return f"{PIN_FOLDER}{revision}"


def left_key(revision: str) -> str:
    """
    Return the key, relative to the prefix, of the mark that dates when a release was replaced or
    was about to become current.
    """
    return f"{LEFT_FOLDER}{revision}"
