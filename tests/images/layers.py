"""
The files in the layers that an image adds to its base.
"""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.images.container import Image

LARGEST_BYTES = 64 * 2**20


@dataclass(frozen=True)
class Entry:
    """
    One file of a layer; the content of a link is its target.
    """

    path: str
    content: bytes


def own_entries(image: Image, folder: Path) -> Iterator[Entry]:
    """
    Yield every file and link in the layers above the base.

    Args:
        folder: Where the archive of the image is stored meanwhile.
    """
    labels = image.inspect()["Config"]["Labels"]
    base = Image(image.tool, labels["org.opencontainers.image.base.name"])
    above = len(base.inspect()["RootFS"]["Layers"])
    archive = folder / "image.tar"
    image.run_tool("save", f"--output={archive}", image.name)
    with tarfile.open(archive) as saved:
        (manifest,) = json.loads(_read(saved, "manifest.json"))
        for layer in manifest["Layers"][above:]:
            with tarfile.open(fileobj=saved.extractfile(saved.getmember(layer))) as opened:
                for member in opened:
                    if member.isfile():
                        assert member.size < LARGEST_BYTES, member.name
                        yield Entry(member.name, _read(opened, member.name))
                    elif member.issym() or member.islnk():
                        yield Entry(member.name, member.linkname.encode())
    archive.unlink()


def _read(archive: tarfile.TarFile, name: str) -> bytes:
    file = archive.extractfile(name)
    assert file is not None
    return file.read()
