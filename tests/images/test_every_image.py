"""
Checks for the image of every sidecar: start, contents, labels, layers, digest, bill of
materials.
"""

import json
import os
import re
import subprocess
import tarfile
import tomllib
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from tests import ROOT, Facts
from tests.images.container import Image
from tests.support.package_mirror import PackageMirror

PACKAGES = {
    path.parent.parent.name: path.parent.name
    for path in ROOT.glob("sidecars/*/*/__main__.py")
}
# Programs and folders that only a build needs, without Debian's own documentation and
# menus.
UNWANTED = re.compile(
    r"(^|/)(pip|uv|uvx|gcc|g\+\+|cc|c\+\+|clang|make|cython|flit|ninja|cmake)[-0-9.]*$"
    r"|(^|/)(kinit|klist|kadmin|krb5-config|gssapi\.h)$"
    r"|\.whl$|(^|/)\.git(/|$)|(^|/)(src|tests)/(?!.*\.so)|^opt/backend(/|$)"
)
SECRETS = re.compile(
    rb"-----BEGIN (?:[A-Z]+ )?PRIVATE KEY-----\s+[A-Za-z0-9+/]"
    rb"|\b(?:AKIA|ASIA)(?![A-Z0-9]{9}EXAMPLE)[A-Z0-9]{16}\b"
    rb"|\bgh[pousr]_[A-Za-z0-9]{36}\b|\bglpat-[A-Za-z0-9_-]{20}\b"
    rb"|://[\w.+-]+:(?!pass(?:word)?@|pw@|secret@)[^@\s/'\"{}<>$%]{8,}@(?:\d|[\w-]+\.)"
)
LARGEST_BYTES = 64 * 2**20
LIST_DISTRIBUTIONS = """
import importlib.metadata, json
print(json.dumps([one.name for one in importlib.metadata.distributions()]))
"""


@dataclass(frozen=True, kw_only=True)
class Expected:
    """
    The expectations that differ between the images.

    Args:
        entrypoint: The command, without a shell.
        user: The user of this container in the chart.
        variables: Variables that the image sets.
        python: The interpreter of the sidecar.
    """

    entrypoint: tuple[str, ...]
    user: str = "50000:0"
    variables: frozenset[str] = frozenset({"HOME=/tmp", "PYTHONUNBUFFERED=1"})
    python: str = "python"


EXPECTED = {
    "git-sync-wrapper": Expected(
        entrypoint=("tini", "--", "git-sync-wrapper"),
        user="65533:0",  # the user of git-sync
        variables=frozenset({"HOME=/tmp", "GIT_SYNC_WRAPPER_GIT_SYNC=/git-sync"}),
    ),
    "kerberos": Expected(entrypoint=("kerberos-sidecar",)),
    "s3-sync": Expected(entrypoint=("s3-sync",)),
    "sync-perm": Expected(
        entrypoint=("/opt/sync-perm/bin/sync-perm",),
        variables=frozenset(),
        python="/opt/sync-perm/bin/python",
    ),
}
PRIVATE_FILES = re.compile(
    r"(^|/)(\.netrc|pip\.conf|\.pypirc|\.aws|\.ssh|\.docker|\.env|id_(rsa|ed25519)|[^/]+\.keytab)(/|$)"
)


Entry = tuple[str, bytes]
"""The path and content of one file of a layer; the content of a link is its target."""


def own_entries(image: Image, folder: Path) -> Iterator[Entry]:
    """
    Yield every file and link in the layers above the base.

    Args:
        folder: Where the archive of the image is stored meanwhile.
    """
    above = len(
        Image(image.tool, image.labels()["base.name"]).inspect()["RootFS"]["Layers"]
    )
    archive = folder / "image.tar"
    image.run_tool("save", f"--output={archive}", image.name)
    with tarfile.open(archive) as saved:
        (manifest,) = json.loads(_read(saved, "manifest.json"))
        for layer in manifest["Layers"][above:]:
            with tarfile.open(
                fileobj=saved.extractfile(saved.getmember(layer))
            ) as opened:
                for member in opened:
                    if member.isfile():
                        assert member.size < LARGEST_BYTES, member.name
                        yield member.name, _read(opened, member.name)
                    elif member.issym() or member.islnk():
                        yield member.name, member.linkname.encode()
    archive.unlink()


def _read(archive: tarfile.TarFile, name: str) -> bytes:
    file = archive.extractfile(name)
    assert file
    return file.read()


@pytest.fixture(scope="module")
def name(image: Image) -> str:
    """
    The name of the sidecar.
    """
    return image.labels()["title"]


@pytest.fixture(scope="module")
def project(name: str) -> Facts:
    """
    The project table in the sidecar's pyproject.toml.
    """
    found: Facts = tomllib.loads(
        (ROOT / f"sidecars/{name}/pyproject.toml").read_text()
    )["project"]
    return found


@pytest.fixture(scope="module")
def entries(image: Image, tmp_path_factory: pytest.TempPathFactory) -> list[Entry]:
    """
    Every file that the image adds to its base.
    """
    return list(own_entries(image, tmp_path_factory.mktemp("image")))


def test_labels_state_the_commit_and_the_daemon_runs_as_the_charts_user_without_a_shell(
    image: Image, name: str, project: Facts
) -> None:
    commit = subprocess.run(
        ["git", "rev-parse", "--verify", "--quiet", "HEAD"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    ).stdout.strip()

    own = image.labels()

    assert name in image.name
    assert project["version"] == own["version"]
    assert project["license"] == own["licenses"]
    assert commit == own.get("revision", "").removesuffix("-dirty")
    assert f"SIDECAR_REVISION={own['revision']}" in image.inspect()["Config"]["Env"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", own["created"])
    assert re.fullmatch(r"sha256:[0-9a-f]{64}", own["base.digest"])
    assert own["description"]
    assert own["base.name"]
    config = image.inspect()["Config"]
    assert EXPECTED[name].user == config["User"]
    assert [*EXPECTED[name].entrypoint] == config["Entrypoint"]
    assert not config.get("Cmd")
    assert not config.get("Healthcheck")
    assert config.get("StopSignal", "SIGTERM") in ("SIGTERM", "15")
    assert EXPECTED[name].variables <= set(config["Env"])


def test_contains_exactly_the_locked_packages(
    image: Image, name: str, project: Facts
) -> None:
    said = json.loads(
        image.run("-c", LIST_DISTRIBUTIONS, entrypoint=EXPECTED[name].python)
    )

    # for Windows
    locked = {
        *re.findall(
            r"^([a-z0-9.-]+)==",
            (ROOT / f"requirements/{name}.txt").read_text(),
            re.MULTILINE,
        )
    } - {"tzdata"}
    assert locked | {project["name"], "sidecar-runtime"} == {
        package.lower().replace("_", "-") for package in said
    }


def test_layers_contain_no_build_tools_and_no_tests(
    name: str, entries: list[Entry]
) -> None:

    assert {PACKAGES[name], "sidecar_runtime"} == {
        part for path, _ in entries for part in path.split("/")
    } & {
        *PACKAGES.values(),
        "sidecar_runtime",
    }
    assert [] == [path for path, _ in entries if UNWANTED.search(path)]


def test_layers_contain_no_secrets(image: Image, entries: list[Entry]) -> None:
    described = image.inspect()
    said = json.dumps([described["Config"], described.get("History", [])])
    # Debian's cryptography libraries contain keys for self-tests.
    read = [one for one in entries if not re.match(r"usr/lib/.*\.so\b", one[0])]

    assert [] == [path for path, _ in entries if PRIVATE_FILES.search(path)]
    assert [] == [
        (path, found[0]) for path, content in read if (found := SECRETS.search(content))
    ]
    assert "INDEX_URL=" not in said.replace("ARG PIP_INDEX_URL=", "")
    assert not SECRETS.search(said.encode())


def test_version_and_help_run_in_a_hardened_container(
    image: Image, project: Facts
) -> None:
    assert project["version"] in image.run("--version")
    assert "check" in image.run("--help")


def test_rebuild_behind_a_mirror_has_the_same_digest_and_no_password(
    image: Image, name: str
) -> None:
    """
    If the mirror's password were anywhere in the image, the digest would differ.
    """
    if image.tool == "docker":
        pytest.skip(
            "docker leaves the times of the build in layers: take podman or buildah"
        )
    password = f"canary{uuid.uuid4().hex}"
    again = f"again-{uuid.uuid4().hex[:8]}"
    with PackageMirror(password) as mirror:
        # With chroot, the build runs in this machine's network, where the mirror is.
        variables = {
            "TAG": again,
            "PIP_INDEX_URL": mirror.url,
            "BUILDAH_ISOLATION": "chroot",
        }
        built = subprocess.run(
            ["scripts/build-image", name],
            cwd=ROOT,
            env={**os.environ, **variables, "REGISTRY": ""},
            capture_output=True,
            text=True,
        )
    assert 0 == built.returncode, built.stderr
    second = Image(image.tool, built.stdout.splitlines()[-1])
    described = second.inspect()
    second.run_tool("rmi", second.name)

    # never from an index: it is in this repository
    assert "sidecar-runtime" not in mirror.asked
    assert "structlog" in mirror.asked
    assert password not in json.dumps(described)
    if name != "kerberos":  # Cython compiles gssapi in one of two ways
        assert image.inspect()["Digest"] == described["Digest"]


def test_bill_of_materials_is_valid_and_lists_every_locked_package(
    image: Image, name: str
) -> None:
    done = subprocess.run(
        ["scripts/sbom", name],
        cwd=ROOT,
        env={**os.environ, "IMAGE": image.name},
        capture_output=True,
        text=True,
    )
    assert 0 == done.returncode, done.stderr
    text = (ROOT / done.stdout.strip()).read_text()
    said: Facts = json.loads(text)
    references = [component["bom-ref"] for component in said["components"]]
    packages = {
        component["purl"] for component in said["components"] if "purl" in component
    }
    assert "operating-system" in {component["type"] for component in said["components"]}
    pins = re.findall(
        r"^([a-z0-9.-]+)==([^ ]+) \\$",
        (ROOT / f"requirements/{name}.txt").read_text(),
        re.MULTILINE,
    )

    assert pins
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    assert name == said["metadata"]["component"]["name"]
    assert len(references) == len(set(references))
    assert set() == {f"pkg:pypi/{pin}@{version}" for pin, version in pins} - packages
    assert any(package.startswith("pkg:deb/debian/libc6@") for package in packages)
