"""
`make push` to a plain registry, and to ECR: moto, and a real registry behind ECR's host
name.

The content of the image does not matter: it is a sidecar with one file in a copy of the
repository.
"""

import base64
import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import boto3
import pytest

from tests import ROOT, Texts
from tests.support.aws.fake_s3 import ACCESS_KEY, SECRET_KEY
from tests.support.aws.servers import MotoServer
from tests.support.http.fake_proxy import FakeProxy
from tests.support.registry import ACCOUNT, PASSWORD, Registry

REGION = "eu-central-1"
ECR = f"{ACCOUNT}.dkr.ecr.{REGION}.amazonaws.com"
PLATFORMS = "linux/amd64,linux/arm64"
TOOLS = ("buildah", "podman")

pytestmark = pytest.mark.skipif(
    shutil.which("docker-registry") is None,
    reason="docker-registry is missing: make setup-test",
)


Done = subprocess.CompletedProcess[str]


@dataclass
class Project:
    """
    A copy of the repository with one sidecar, and a container tool with a store of its
    own.
    """

    folder: Path
    tool: str
    variables: Texts = field(default_factory=dict)

    def run(self, *command: str, **variables: str) -> Done:
        """
        Run a command in the copy, without this machine's settings for registries and
        storage.
        """
        base = {
            "PATH": f"{ROOT}/.venv/bin:{os.environ['PATH']}",
            "HOME": str(self.folder),
            "BUILDER": self.tool,
            "CONTAINERS_STORAGE_CONF": str(self.folder.parent / "storage.conf"),
            "CONTAINERS_REGISTRIES_CONF": str(self.folder.parent / "registries.conf"),
            "REGISTRY_AUTH_FILE": str(self.folder.parent / "auth.json"),
        }
        kept = {
            name: os.environ[name]
            for name in ("CONTAINERS_CONF",)
            if name in os.environ
        }
        return subprocess.run(
            command,
            cwd=self.folder,
            env=base | kept | self.variables | variables,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
        )

    def succeed(self, *command: str, **variables: str) -> str:
        """
        Run a command that must succeed, and return what it wrote.
        """
        done = self.run(*command, **variables)
        assert 0 == done.returncode, done.stdout + done.stderr
        return done.stdout

    def commit(self) -> str:
        """
        Commit everything and return the commit.
        """
        who = ["-c", "user.name=test", "-c", "user.email=test@example.com"]
        self.succeed("git", "add", "--all")
        self.succeed("git", *who, "commit", "--quiet", "--message=tiny")
        return self.succeed("git", "rev-parse", "HEAD").strip()


def works(tool: str) -> bool:
    """
    Whether this container tool works on this machine.
    """
    return shutil.which(tool) is not None and (
        subprocess.run([tool, "info"], capture_output=True).returncode == 0
    )


def path_with(tool: str) -> str:
    """
    Return a PATH with a Go tool: an installed one, or the one that `scripts/go-tool`
    has built.
    """
    cache = (
        Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
        / "airflow-sidecars"
    )
    path = os.pathsep.join([os.environ["PATH"], *map(str, cache.glob(f"{tool}-*"))])
    if shutil.which(tool, path=path) is None:
        pytest.skip(f"{tool} is missing: scripts/go-tool {tool} builds it")
    return path


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    """
    A registry without TLS or a password.
    """
    with Registry(tmp_path_factory.mktemp("registry") / "plain") as registry:
        yield registry


@pytest.fixture(scope="module")
def protected(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    """
    The registry behind ECR's host name.
    """
    with Registry(tmp_path_factory.mktemp("registry") / "ecr", ECR) as registry:
        yield registry


@pytest.fixture(params=TOOLS)
def project(
    request: pytest.FixtureRequest, registry: Registry, tmp_path: Path
) -> Project:
    """
    A project whose base image is in the plain registry, for two architectures.
    """
    if not works(request.param):
        pytest.skip(f"{request.param} does not work here: make setup-test")
    graph = {"graphroot": tmp_path / "graph", "runroot": tmp_path / "run"}
    settings = "".join(f'{name} = "{path}"\n' for name, path in graph.items())
    (tmp_path / "storage.conf").write_text(f'[storage]\ndriver = "vfs"\n{settings}')
    (tmp_path / "registries.conf").write_text(
        f'[[registry]]\nlocation = "{registry.address}"\ninsecure = true\n'
    )
    (tmp_path / "auth.json").write_text("{}")
    folder = tmp_path / "project"
    tiny = folder / "sidecars" / "tiny"
    tiny.mkdir(parents=True)
    shutil.copytree(ROOT / "scripts", folder / "scripts")
    shutil.copy(ROOT / "Makefile", folder)
    project = Project(
        folder, request.param, {"BASE_IMAGE": f"{registry.address}/base:1"}
    )
    (tiny / "pyproject.toml").write_text('[project]\nversion = "1.2.3"\n')
    for name in ("content", "base-amd64", "base-arm64"):
        (tiny / name).write_text(f"{name} {tmp_path}\n")
    (tiny / "Dockerfile").write_text(
        "FROM scratch\nARG TARGETARCH\nCOPY sidecars/tiny/base-${TARGETARCH} /base\n"
    )
    project.succeed("git", "init", "--quiet")
    project.commit()
    project.succeed(
        project.tool,
        "build",
        "--quiet",
        f"--platform={PLATFORMS}",
        "--manifest=base",
        "--file=sidecars/tiny/Dockerfile",
        ".",
    )
    project.succeed(
        project.tool,
        "manifest",
        "push",
        "--all",
        "--tls-verify=false",
        "base",
        f"docker://{project.variables['BASE_IMAGE']}",
    )
    (tiny / "Dockerfile").write_text(
        "ARG BASE_IMAGE=nowhere.example.com/base:1\nFROM ${BASE_IMAGE}\n"
        "COPY sidecars/tiny/content /content\n"
    )
    return project


def complaint(done: Done) -> str:
    """
    Return the standard error of a command that must fail.
    """
    assert 0 != done.returncode
    return done.stderr


def test_never_overwrites_a_tag(project: Project, registry: Registry) -> None:
    commit = project.commit()
    name = f"again/{project.tool}/tiny"
    push = (
        "make",
        "--silent",
        "push",
        f"REGISTRY={registry.address}/again/{project.tool}",
    )
    project.succeed(*push, "TAG=0.1.0")
    digest, _ = registry.manifest(name, "0.1.0")
    (project.folder / "sidecars/tiny/content").write_text("changed\n")
    project.commit()

    refused = project.run(*push, "TAG=0.1.0")
    project.succeed(*push, "TAG=0.1.1")

    assert "0.1.0 exists, and a pushed tag is never overwritten" in complaint(refused)
    assert digest == registry.manifest(name, "0.1.0")[0]
    assert digest != registry.manifest(name, "0.1.1")[0]
    _, manifest = registry.manifest(name, "0.1.0")
    labels = registry.config(name, manifest)["config"]["Labels"]
    assert commit == labels["org.opencontainers.image.revision"]
    assert "1.2.3" == labels["org.opencontainers.image.version"]
    assert {"0.1.0", "0.1.1"} == set(registry.tags(name))


@pytest.fixture
def keys(project: Project, tmp_path: Path) -> Path:
    """
    The folder of a key pair for cosign: `cosign.key`, with a password, and
    `cosign.pub`.
    """
    project.variables |= {"COSIGN_PASSWORD": "open sesame", "PATH": path_with("cosign")}
    project.succeed(
        "cosign", "generate-key-pair", f"--output-key-prefix={tmp_path}/cosign"
    )
    return tmp_path


def test_signs_the_manifests_of_both_architectures_and_attests_the_digest(
    project: Project, registry: Registry, keys: Path
) -> None:
    """
    The image has no Python to list its packages, so a stand-in writes the SBOM.
    """
    bill = '{"bomFormat": "CycloneDX", "specVersion": "1.6", "version": 1}'
    (project.folder / "scripts/sbom").write_text(
        f"mkdir -p dist; echo '{bill}' >dist/$1.cdx.json; echo dist/$1.cdx.json\n"
    )
    commit = project.commit()
    repository = f"signed/{project.tool}"
    image = f"{registry.address}/{repository}/tiny"
    settings = {
        "REGISTRY": f"{registry.address}/{repository}",
        "TAG": "1",
        "SIGN_KEY": f"{keys}/cosign.key",
        "PLATFORMS": PLATFORMS,
        "SOURCE": "https://git.example.com/sidecars",
    }
    key = ("--insecure-ignore-tlog", f"--key={keys}/cosign.pub")

    said = project.run("make", "push/tiny", **settings)

    assert 0 == said.returncode, said.stderr
    assert "sesame" not in said.stdout + said.stderr
    digest, manifest = registry.manifest(f"{repository}/tiny", "1")
    assert {"amd64": "amd64", "arm64": "arm64"} == {
        entry["platform"]["architecture"]: registry.config(
            f"{repository}/tiny",
            registry.manifest(f"{repository}/tiny", entry["digest"])[1],
        )["architecture"]
        for entry in manifest["manifests"]
    }
    for signed in [digest, *(entry["digest"] for entry in manifest["manifests"])]:
        project.succeed("cosign", "verify", *key, f"{image}@{signed}")

    attested = project.succeed("scripts/attest", "tiny", **settings).splitlines()[-1]

    for kind in ("cyclonedx", "slsaprovenance1"):
        done = project.succeed(
            "cosign", "verify-attestation", *key, f"--type={kind}", attested
        )
        statement = json.loads(base64.b64decode(json.loads(done)["payload"]))
        assert digest == f"sha256:{statement['subject'][0]['digest']['sha256']}"
    built = statement["predicate"]["buildDefinition"]["resolvedDependencies"]
    assert commit == built[0]["digest"]["gitCommit"]
    assert re.fullmatch("[0-9a-f]{64}", built[1]["digest"]["sha256"])


def test_refuses_uncommitted_changes_no_registry_and_an_unreachable_one(
    project: Project, registry: Registry
) -> None:
    project.commit()
    unreachable = project.run("make", "push/tiny", "REGISTRY=127.0.0.1:9")
    (project.folder / "sidecars/tiny/content").write_text("changed\n")
    changed = project.run(
        "make", "push/tiny", f"REGISTRY={registry.address}/dirty/{project.tool}"
    )

    # Not taken for a missing tag.
    assert "Cannot determine whether 127.0.0.1:9/tiny:" in complaint(unreachable)
    assert "there are uncommitted changes" in complaint(changed)
    assert [] == registry.tags(f"dirty/{project.tool}/tiny")
    assert "REGISTRY is not set" in complaint(project.run("make", "push/tiny"))


@pytest.fixture
def ecr(project: Project, protected: Registry, moto: MotoServer) -> Iterator[Project]:
    """
    The project with AWS: moto as ECR's API, the protected registry behind ECR's host
    name.
    """
    with FakeProxy(protected.port) as proxy:
        project.variables |= {
            "AWS_ACCESS_KEY_ID": ACCESS_KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
            "AWS_ENDPOINT_URL_ECR": moto.endpoint,
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_MAX_ATTEMPTS": "1",
            "HTTPS_PROXY": proxy.endpoint,
            "NO_PROXY": "127.0.0.1",
            "SSL_CERT_FILE": str(protected.certificate),
        }
        project.commit()
        yield project


def test_ecr_push_logs_in_creates_the_repository_and_never_shows_the_password(
    ecr: Project, protected: Registry, moto: MotoServer
) -> None:
    name = f"new/{ecr.tool}/tiny"
    refused = ecr.run(ecr.tool, "pull", f"{ECR}/{name}:0.1.0")

    said = ecr.run("make", "push", f"REGISTRY={ECR}/new/{ecr.tool}", "TAG=0.1.0")

    assert "unauthorized" in complaint(refused) or "authentication" in refused.stderr
    assert 0 == said.returncode, said.stderr
    assert PASSWORD not in said.stdout + said.stderr
    session = boto3.Session(ACCESS_KEY, SECRET_KEY, region_name=REGION)
    repositories = session.client("ecr", endpoint_url=moto.endpoint)
    (made,) = repositories.describe_repositories(repositoryNames=[name])["repositories"]
    assert "IMMUTABLE_WITH_EXCLUSION" == made["imageTagMutability"]
    assert [{"filterType": "WILDCARD", "filter": "sha256-*"}] == (
        made["imageTagMutabilityExclusionFilters"]
    )
    assert made["imageScanningConfiguration"]["scanOnPush"] is True
    assert ["0.1.0"] == protected.tags(name)
