"""
Writes a CycloneDX 1.6 SBOM of an image to standard output; run with the image's own
Python.

    python3 - NAME VERSION IMAGE CREATED < scripts/list_packages.py

Finds Python distributions of all environments through their metadata, and Debian
packages in dpkg's list. It uses no network, random numbers or clock: the same image
yields the same document. Specification: https://cyclonedx.org/docs/1.6/json/
"""

import hashlib
import json
import os
import platform
import sys
import uuid
from collections.abc import Iterator
from email.message import Message
from email.parser import HeaderParser
from typing import Any
from urllib.parse import quote

Component = dict[str, Any]

OUTSIDE = ("/dev", "/proc", "/sys")
DPKG_STATUS = "/var/lib/dpkg/status"


def main() -> None:
    """
    Write the document.
    """
    name, version, image, created = sys.argv[1:]
    found = [*distributions(), *packages(), operating_system()]
    components = sorted(found, key=lambda one: one["bom-ref"])
    digest = hashlib.sha256(json.dumps([image, components]).encode()).hexdigest()
    document = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid.UUID(digest[:32], version=4)}",
        "version": 1,
        "metadata": {
            "timestamp": created,
            "component": {
                "type": "container",
                "bom-ref": name,
                "name": name,
                "version": version,
                "properties": [{"name": "oci:image", "value": image}],
            },
        },
        "components": components,
    }
    sys.stdout.write(json.dumps(document, indent=2) + "\n")


def distributions() -> Iterator[Component]:
    """
    Yield every installation of every Python distribution.
    """
    for folder, folders, files in os.walk("/"):
        folders[:] = [
            one for one in folders if os.path.join(folder, one) not in OUTSIDE
        ]
        for name in files:
            is_wheel = name == "METADATA" and folder.endswith(".dist-info")
            if is_wheel or (name == "PKG-INFO" and folder.endswith(".egg-info")):
                with open(
                    os.path.join(folder, name), encoding="utf-8", errors="replace"
                ) as file:
                    said = HeaderParser().parse(file)
                yield distribution(said, os.path.dirname(folder))


def distribution(said: Message, environment: str) -> Component:
    """
    Return a distribution's component from its metadata.

    Args:
        environment: The folder that contains it.
    """
    name = said["Name"].lower().replace("_", "-")
    version = said["Version"]
    url = f"pkg:pypi/{quote(name)}@{quote(version)}"
    found: Component = {
        "type": "library",
        "bom-ref": f"{url}#{environment}",
        "name": name,
        "version": version,
        "purl": url,
        "properties": [{"name": "path", "value": environment}],
    }
    if expression := said["License-Expression"]:
        found["licenses"] = [{"expression": expression}]
    elif (license_name := said["License"]) and len(license_name.splitlines()) == 1:
        found["licenses"] = [{"license": {"name": license_name}}]
    return found


def packages() -> Iterator[Component]:
    """
    Yield the Debian packages; none if the image is not based on Debian.
    """
    if not os.path.exists(DPKG_STATUS):
        return
    system = operating_system()
    distro = f"{system['name']}-{system['version']}"
    with open(DPKG_STATUS, encoding="utf-8") as file:
        blocks = file.read().split("\n\n")
    for block in filter(str.strip, blocks):
        said = HeaderParser().parsestr(block.lstrip("\n"))
        if said["Status"] == "install ok installed":
            name = said["Package"]
            version = said["Version"]
            url = f"pkg:deb/debian/{quote(name)}@{quote(version)}"
            url += f"?arch={said['Architecture']}&distro={quote(distro)}"
            yield {
                "type": "library",
                "bom-ref": url,
                "name": name,
                "version": version,
                "purl": url,
            }


def operating_system() -> Component:
    """
    Return the distribution: without it, scanners match no Debian package.
    """
    said = platform.freedesktop_os_release()
    name = said["ID"]
    version = said.get("VERSION_ID", "")
    return {
        "type": "operating-system",
        "bom-ref": "os",
        "name": name,
        "version": version,
    }


main()
