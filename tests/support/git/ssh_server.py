"""
A real git server over SSH: sshd on loopback as the user of the tests, with its own
keys.
"""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support.program import Program, listens, own_port, start_server

SSHD = shutil.which("sshd", path="/usr/sbin:/usr/bin:/sbin:/bin")


def skip_without_sshd() -> None:
    """
    Skip if sshd or an ssh client is missing.
    """
    if None in (SSHD, shutil.which("ssh"), shutil.which("ssh-keygen")):
        pytest.skip(
            "SSH needs openssh-server and openssh-client: make setup-test as root"
        )


class SshServer(Program):
    """
    An sshd that accepts one key.
    """

    def __init__(self, folder: Path) -> None:
        """
        Create the host key and the client key.

        Args:
            folder: The folder for keys and configuration; only its owner can enter it.
        """
        self.folder = folder
        self.port = 0
        folder.mkdir(parents=True, mode=0o700)
        for name in ("host_key", "client_key"):
            self.make_key(folder / name)
        self.authorize(self.client_key)

    @property
    def client_key(self) -> Path:
        """
        The accepted private key.
        """
        return self.folder / "client_key"

    @property
    def known_hosts(self) -> str:
        """
        The line of a known_hosts file for this server.
        """
        kind, key, *_ = (self.folder / "host_key.pub").read_text().split()
        return f"[127.0.0.1]:{self.port} {kind} {key}\n"

    def url(self, repository: Path) -> str:
        """
        Return the URL of a repository, for the only user who can log in: the user of
        the tests.
        """
        return f"ssh://{pwd.getpwuid(os.getuid()).pw_name}@127.0.0.1:{self.port}{repository}"

    @staticmethod
    def make_key(path: Path) -> Path:
        """
        Create a key pair without a passphrase; replaces an existing one.
        """
        path.unlink(missing_ok=True)
        subprocess.run(
            [
                "ssh-keygen",
                "-q",
                "-t",
                "ed25519",
                "-N",
                "",
                "-C",
                "test",
                "-f",
                str(path),
            ],
            check=True,
            timeout=30,
        )
        return path

    def authorize(self, *keys: Path) -> None:
        """
        Accept only these keys from now on.
        """
        lines = [key.with_name(f"{key.name}.pub").read_text() for key in keys]
        (self.folder / "authorized_keys").write_text("".join(lines))

    def start(self) -> None:
        assert SSHD
        self.port = self.port or own_port()
        if os.getuid() == 0:
            # as root, sshd chroots to this folder
            Path("/run/sshd").mkdir(exist_ok=True)
        config = self.folder / "sshd_config"
        config.write_text(
            f"Port {self.port}\nListenAddress 127.0.0.1\nHostKey {self.folder}/host_key\n"
            f"AuthorizedKeysFile {self.folder}/authorized_keys\nPidFile none\n"
            "StrictModes no\nUsePAM no\nPasswordAuthentication no\n"
            "KbdInteractiveAuthentication no\nPermitRootLogin prohibit-password\n"
        )
        self._process = start_server(
            [SSHD, "-D", "-e", "-f", config],
            self.folder / "sshd.log",
            lambda: listens("127.0.0.1", self.port),
            start_new_session=True,
        )
