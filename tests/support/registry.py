"""
A real image registry on loopback, plain or like ECR: with TLS, ECR's host name and a
password.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from urllib3 import BaseHTTPResponse, PoolManager, make_headers

from tests import Facts
from tests.support.http.certificates import self_signed
from tests.support.program import Program, listens, own_port, start_server

ACCOUNT = "123456789012"
PASSWORD = f"{ACCOUNT}-auth-token"
"""The answer of moto's GetAuthorizationToken."""
HTPASSWD = "AWS:$2y$05$abcdefghijklmnopqrstuu/4ofrUS75HrKu6f.iuRo0I/XlrmpqlC\n"
"""The password in bcrypt, the only format that the registry supports."""
KINDS_OF_MANIFEST = (
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.docker.distribution.manifest.v2+json",
)


class Registry(Program):
    """
    `docker-registry` (Debian's package of the CNCF's distribution).

    Attributes:
        certificate: The certificate that clients of a protected registry must trust.
    """

    def __init__(self, folder: Path, *hosts: str) -> None:
        """
        Describe a registry.

        Args:
            folder: The folder for all its data.
            hosts: Names in its certificate; if any, it uses TLS and requires the
                password.
        """
        folder.mkdir(parents=True)
        self.port = own_port()
        self.certificate: Path | None = None
        self._folder = folder
        if hosts:
            _, self.certificate = self_signed(folder, *hosts)
            (folder / "htpasswd").write_text(HTPASSWD)

    def start(self) -> None:
        self._process = start_server(
            self._command(),
            self._folder / "log",
            lambda: listens("127.0.0.1", self.port),
        )

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def tags(self, repository: str) -> list[str]:
        """
        Return the tags of a repository; none if it does not exist.
        """
        answer = self._get(f"/v2/{repository}/tags/list")
        found: list[str] = answer.json().get("tags", [])
        assert found or answer.status == 404, answer.data
        return found

    def manifest(self, repository: str, reference: str) -> tuple[str, Facts]:
        """
        Return digest and manifest of a tag or digest.
        """
        answer = self._get(f"/v2/{repository}/manifests/{reference}")
        return answer.headers["docker-content-digest"], answer.json()

    def config(self, repository: str, manifest: Mapping[str, Any]) -> Facts:
        """
        Return the configuration of an image: architecture, labels, history.
        """
        digest = manifest["config"]["digest"]
        config: Facts = self._get(f"/v2/{repository}/blobs/{digest}").json()
        return config

    def _command(self) -> list[str]:
        folder = self._folder
        http: Facts = {"addr": self.address}
        config: Facts = {
            "version": 0.1,
            "log": {"accesslog": {"disabled": True}, "level": "error"},
            "storage": {"filesystem": {"rootdirectory": str(folder / "images")}},
            "http": http,
        }
        if self.certificate:
            http["tls"] = {
                "certificate": str(self.certificate),
                "key": str(folder / "key.pem"),
            }
            config["auth"] = {
                "htpasswd": {"realm": "ECR", "path": str(folder / "htpasswd")}
            }
        (folder / "config.yml").write_text(json.dumps(config))
        return ["docker-registry", "serve", str(folder / "config.yml")]

    def _get(self, path: str) -> BaseHTTPResponse:
        accepted = {"Accept": ", ".join(KINDS_OF_MANIFEST)}
        login = make_headers(basic_auth=f"AWS:{PASSWORD}")
        scheme = "http"
        trusted = None
        if self.certificate:
            scheme = "https"
            trusted = str(self.certificate)
        with PoolManager(headers=accepted | login, ca_certs=trusted) as pool:
            return pool.request("GET", f"{scheme}://{self.address}{path}", timeout=30)
