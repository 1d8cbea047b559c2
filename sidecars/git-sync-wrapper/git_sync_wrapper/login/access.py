"""
How git-sync gets in: credentials by a helper of ours, keys and known hosts by files.

git-sync itself puts each password into git's credential cache for an hour, where the oldest
username wins. So it gets none, but a helper that asks here at each login.
"""

from __future__ import annotations

import os
import shlex
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import NamedTuple

from git_sync_wrapper.flags.options import Options
from git_sync_wrapper.login import credential_helper
from git_sync_wrapper.login.credential import Credential, Wanted
from git_sync_wrapper.login.credential_server import CredentialServer
from git_sync_wrapper.login.keyring import Keyring
from git_sync_wrapper.login.private_folder import PrivateFolder
from git_sync_wrapper.login.secret import Cleaner
from git_sync_wrapper.login.ssh_files import SshFiles
from git_sync_wrapper.login.user_entry import user_entry
from git_sync_wrapper.settings import Settings
from sidecar_runtime.errors import SidecarError
from sidecar_runtime.fence import Fence
from sidecar_runtime.volume.files import write_file

SOCKET = "credentials"
GIT_CONFIG = "gitconfig"
PROBE_BYTES = 1 << 16
# Beside these, which are not passwords, the username is a token: an old custom of GitHub's.
TOKEN_PASSWORDS = ("", "x-oauth-basic")
# What git-sync would put into git's cache.
KEPT_BACK = ("username", "password", "password-file", "credential", "askpass-url")


class Prepared(NamedTuple):
    """
    What git-sync and git are given instead of what the user said.

    Args:
        flags: git-sync's flags with their values; `None` for those that must not reach it.
        git_config: What git gets, beside what the user has configured.
        environ: Added to the environment.
    """

    flags: Mapping[str, str | None]
    git_config: Mapping[str, str]
    environ: Mapping[str, str] = {}


class Access:
    """
    Everything that logs in, from `start` to `close`.

    Attributes:
        failure: Why git's helper got no answer since `prepare`; None where it did.

    Raises:
        SettingsError: Settings contradict each other.
    """

    def __init__(self, settings: Settings, options: Options, environ: Mapping[str, str]) -> None:
        self.environ = environ
        self._options = options
        self._repo = Wanted.by_url(options.repo)
        self._cleaner = Cleaner()
        self._keyring = Keyring(settings, options, environ, self._cleaner)
        self.failure: SidecarError | None = None

    def start(self) -> None:
        """
        Make the private folder, and answer git's helper from now on.

        Raises:
            SidecarError: There is no place for the folder.
        """
        with _explained("cannot make a private folder for git's credential helper"):
            self._folder = PrivateFolder()
            self._socket = os.path.join(self._folder.path, SOCKET)
            self._server = CredentialServer(self._socket, self._keyring, self._note)
            self._server.start()
            # What git keeps for the other end where that is this machine (file://): of all ways to
            # configure it the only one. Nothing secret is in it.
            self.git_config = os.path.join(self.folder, GIT_CONFIG)
            write_file(self.git_config, b"[safe]\n\tdirectory = *\n", 0o600, fsync=False)
        options = self._options
        self._ssh = SshFiles(
            options.ssh_key_files, options.ssh_known_hosts_file, self._folder.path, self._cleaner
        )

    @property
    def folder(self) -> str:
        """
        The private folder, for what else is nobody's business; it goes with us.
        """
        return self._folder.path

    @contextmanager
    def scratch(self) -> Iterator[str]:
        """
        Make a folder in the private one, for as long as it lasts.

        Raises:
            SidecarError: It cannot be made.
        """
        with _explained(f"cannot make a folder in {self.folder}"):
            folder = tempfile.TemporaryDirectory(
                prefix="run-", dir=self.folder, ignore_cleanup_errors=True
            )
        with folder as path:
            yield path

    def check_room(self, root: str) -> None:
        """
        Tell a full private folder from a full volume, where git only says that there is no room.

        Args:
            root: A folder of the volume; where both are one file system, that is what is full.

        Raises:
            SidecarError: The private folder is full.
        """
        with _explained(f"cannot write to {self.folder}"):
            if os.stat(self.folder).st_dev != os.stat(root).st_dev:
                with tempfile.TemporaryFile(dir=self.folder) as file:
                    file.write(bytes(PROBE_BYTES))

    def prepare(self) -> Prepared:
        """
        Return what git-sync and git are given now; files are read again.

        Raises:
            SidecarError: A file of a key or of known hosts cannot be used, or no copy be written.
        """
        self.failure = None
        with _explained(f"cannot write to {self.folder}"):
            environ = user_entry(self.folder)
            flags: dict[str, str | None] = {
                "ssh-key-file": ":".join(self._ssh.keys()),
                "ssh-known-hosts-file": self._ssh.known_hosts(),
            }
        if self._has_own_helper:
            return Prepared(flags, {}, environ)
        flags |= dict.fromkeys(KEPT_BACK)
        config = {"credential.helper": self._helper(), "credential.useHttpPath": "true"}
        if self._keyring.signs_for(self._repo):
            # CodeCommit may answer 403 without a login, and git asks nobody after that.
            server = f"{self._repo.protocol}://{self._repo.host}/"
            config[f"http.{server}.proactiveAuth"] = "basic"
        return Prepared(flags, config, environ)

    def credential(self, url: str, fence: Fence) -> Credential | None:
        """
        Return what logs in to a URL, as git would get it.

        Raises:
            SidecarError: Who should know cannot tell.
            CycleAbandoned: The fence was revoked meanwhile.
        """
        return self._keyring.credential(Wanted.by_url(url), fence)

    def who(self, fence: Fence) -> str:
        """
        Return who logs in to the repository, and by what, in words without a secret.

        Raises:
            SidecarError: Who should know cannot tell.
            CycleAbandoned: The fence was revoked meanwhile.
        """
        credential = self._keyring.credential(self._repo, fence)
        if credential is None:
            return ""
        if self._keyring.signs_for(self._repo):
            name = self._keyring.identity(self._repo, fence) or "an AWS identity (STS did not say)"
        else:
            is_token = credential.password in TOKEN_PASSWORDS
            name = "a token" if is_token else f"user {credential.username}"
        return f"{name}, by {credential.origin}"

    def start_over(self) -> None:
        """
        Drop what is kept for one cycle: another begins.
        """
        self._keyring.start_over()

    def refused(self, url: str) -> None:
        """
        Drop what is kept for the server of a URL: it was refused.
        """
        self._keyring.refused(Wanted.by_url(url))

    def explain(self, url: str, fence: Fence) -> SidecarError | None:
        """
        Return what a refusal by the server of a URL means, where more is known than it says.

        Raises:
            SidecarError: What is known is that there are no credentials at all.
            CycleAbandoned: The fence was revoked meanwhile.
        """
        return self._keyring.explain(Wanted.by_url(url), fence)

    def close(self) -> None:
        """
        Answer no more, end what asks AWS, and remove the private folder.
        """
        self._server.close()
        self._folder.remove()

    def _helper(self) -> str:
        """
        Return the command that git gives to a shell for credentials.

        The mark at its start says that it is one; git looks at the first letter, and a path with a
        blank in it begins with a quotation mark. https://git-scm.com/docs/gitcredentials
        """
        # Without `site` nobody else tells it where the image has its bytecode.
        prefix = sys.pycache_prefix
        bytecode = ["-X", f"pycache_prefix={prefix}"] if prefix else []
        program = [sys.executable, "-I", "-S", *bytecode, credential_helper.__file__]
        return "!" + shlex.join([*program, self._socket])

    @property
    def _has_own_helper(self) -> bool:
        return any(
            key.lower().startswith("credential.") and key.lower().endswith(".helper")
            for key, _ in self._options.configs
        )

    def _note(self, error: SidecarError) -> None:
        self.failure = error


@contextmanager
def _explained(what: str) -> Iterator[None]:
    """
    Turn failures of the private folder's file system into an error that says what to do.
    """
    try:
        yield
    except OSError as error:
        raise SidecarError(
            "private_folder_failed",
            f"{what}: {error}",
            "Let /tmp be writable (an emptyDir where the root is read-only), with some room left, "
            "or set TMPDIR.",
        ) from None
