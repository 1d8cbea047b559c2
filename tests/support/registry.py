"""
A real image registry on loopback, plain or like ECR: with TLS, ECR's host name and a
password.
"""

import json
import ssl
import urllib.request
from base64 import b64encode
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self
from urllib.error import HTTPError

from tests.support.http.certificates import self_signed
from tests.support.program import own_port, start_server

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


class Registry:
    """
    `docker-registry` (Debian's package of the CNCF's distribution), started by a `with`
    statement.

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

    def __enter__(self) -> Self:
        self._process = start_server(
            self._command(), self._folder / "log", self._answers
        )
        return self

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait()

    def tags(self, repository: str) -> list[str]:
        """
        Return the tags of a repository; none if it does not exist.
        """
        try:
            found: list[str] = json.loads(self._get(f"/v2/{repository}/tags/list")[1])[
                "tags"
            ]
        except HTTPError as error:
            if error.code != 404:
                raise
            return []
        return found

    def manifest(self, repository: str, reference: str) -> tuple[str, dict[str, Any]]:
        """
        Return digest and manifest of a tag or digest.
        """
        headers, body = self._get(f"/v2/{repository}/manifests/{reference}")
        return headers["docker-content-digest"], json.loads(body)

    def config(self, repository: str, manifest: Mapping[str, Any]) -> dict[str, Any]:
        """
        Return the configuration of an image: architecture, labels, history.
        """
        digest = manifest["config"]["digest"]
        config: dict[str, Any] = json.loads(
            self._get(f"/v2/{repository}/blobs/{digest}")[1]
        )
        return config

    def _command(self) -> list[str]:
        folder = self._folder
        http: dict[str, Any] = {"addr": self.address}
        config: dict[str, Any] = {
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

    def _answers(self) -> bool:
        return self._get("/v2/")[1] == b"{}"

    def _get(self, path: str) -> tuple[dict[str, str], bytes]:
        scheme = "https" if self.certificate else "http"
        credentials = b64encode(f"AWS:{PASSWORD}".encode()).decode()
        request = urllib.request.Request(
            f"{scheme}://{self.address}{path}",
            headers={
                "Accept": ", ".join(KINDS_OF_MANIFEST),
                "Authorization": f"Basic {credentials}",
            },
        )
        context = (
            ssl.create_default_context(cafile=self.certificate)
            if self.certificate
            else None
        )
        opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({}),
            urllib.request.HTTPSHandler(context=context),
        )
        with opener.open(request, timeout=30) as answer:
            return {
                name.lower(): text for name, text in answer.headers.items()
            }, answer.read()
