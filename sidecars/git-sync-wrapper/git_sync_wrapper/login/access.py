"""
How git-sync logs in: credentials through our credential helper, keys and known hosts as files.

git-sync itself puts each password into git's credential cache for an hour, where the oldest
username wins. So it receives no password; git runs a helper that asks the wrapper at each login.
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
from git_sync_wrapper.login.credential import UNKNOWN_IDENTITY, Credential, Wanted
from git_sync_wrapper.login.credential_server import CredentialServer, parent_folder
from git_sync_wrapper.login.keyring import Keyring
from git_sync_wrapper.login.secret import Cleaner
from git_sync_wrapper.login.ssh_files import SshFiles
from git_sync_wrapper.login.user_entry import user_entry
from git_sync_wrapper.settings import Settings
from sidecar_runtime.errors import SidecarError
from sidecar_runtime.fence import Fence
from sidecar_runtime.private_folder import PrivateFolder
from sidecar_runtime.volume.files import write_file

SOCKET = "credentials"
GIT_CONFIG = "gitconfig"
PROBE_BYTES = 1 << 16
# With these placeholders as the password, the username is a token: an old custom of GitHub's.
TOKEN_PASSWORDS = ("", "x-oauth-basic")
# Flags that git-sync would use to fill git's cache.
KEPT_BACK = ("username", "password", "password-file", "credential", "askpass-url")


class Prepared(NamedTuple):
    """
    Settings for git-sync and git that replace or extend the user's.

    Args:
        flags: git-sync's flags with their values; `None` for flags that must not reach it.
        git_config: Added to the user's git configuration.
        environ: Added to the environment.
    """

    flags: Mapping[str, str | None]
    git_config: Mapping[str, str]
    environ: Mapping[str, str] = {}


class Access:
    """
    Everything that logs in, from `start` to `close`.

    Attributes:
        failure: The last error of git's helper since `prepare`; None without one.

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
        Create the private folder, and start to answer git's helper.

        Raises:
            SidecarError: The folder cannot be created.
        """
        with _explained("cannot create a private folder for git's credential helper"):
            self._folder = PrivateFolder("git-sync-wrapper-", parent_folder())
            self._socket = os.path.join(self._folder.path, SOCKET)
            self._server = CredentialServer(self._socket, self._keyring, self._note)
            self._server.start()
            # For file:// git runs its server side on this machine, and this file is the only way to
            # configure that. It contains no secret.
            self.git_config = os.path.join(self.folder, GIT_CONFIG)
            write_file(self.git_config, b"[safe]\n\tdirectory = *\n", 0o600, fsync=False)
        options = self._options
        self._ssh = SshFiles(
            options.ssh_key_files, options.ssh_known_hosts_file, self._folder.path, self._cleaner
        )

    @property
    def folder(self) -> str:
        """
        The path of the private folder, for other private files; `close` removes it.
        """
        return self._folder.path

    @contextmanager
    def scratch(self) -> Iterator[str]:
        """
        Create a temporary folder in the private one; the context manager removes it.

        Raises:
            SidecarError: It cannot be created.
        """
        with _explained(f"cannot create a folder in {self.folder}"):
            folder = tempfile.TemporaryDirectory(
                prefix="run-", dir=self.folder, ignore_cleanup_errors=True
            )
        with folder as path:
            yield path

    def check_room(self, root: str) -> None:
        """
        Check whether the private folder is full: git's error does not show which file system is.

        Args:
            root: A folder of the volume. If both are on one file system, the volume is full.

        Raises:
            SidecarError: The private folder is full.
        """
        with _explained(f"cannot write to {self.folder}"):
            if os.stat(self.folder).st_dev != os.stat(root).st_dev:
                with tempfile.TemporaryFile(dir=self.folder) as file:
                    file.write(bytes(PROBE_BYTES))

    def prepare(self) -> Prepared:
        """
        Return the settings for the next run of git-sync or git; files are read again.

        Raises:
            SidecarError: A key or known_hosts file cannot be used, or its copy cannot be written.
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
            # CodeCommit may answer 403 without a login; then git does not ask its helper.
            server = f"{self._repo.protocol}://{self._repo.host}/"
            config[f"http.{server}.proactiveAuth"] = "basic"
        return Prepared(flags, config, environ)

    def credential(self, url: str, fence: Fence) -> Credential | None:
        """
        Return the credential for a URL, the same that git would receive.

        Raises:
            SidecarError: The responsible provider failed.
            CycleAbandoned: The fence was revoked meanwhile.
        """
        return self._keyring.credential(Wanted.by_url(url), fence)

    def who(self, fence: Fence) -> str:
        """
        Return who logs in to the repository and with which setting or secret, as text for people.

        Raises:
            SidecarError: The responsible provider failed.
            CycleAbandoned: The fence was revoked meanwhile.
        """
        credential = self._keyring.credential(self._repo, fence)
        if credential is None:
            return ""
        if self._keyring.signs_for(self._repo):
            name = self._keyring.identity(self._repo, fence) or UNKNOWN_IDENTITY
        else:
            is_token = credential.password in TOKEN_PASSWORDS
            name = "a token" if is_token else f"user {credential.username}"
        return f"{name}, from {credential.origin}"

    def start_over(self) -> None:
        """
        Drop credentials that are cached for one cycle.
        """
        self._keyring.start_over()

    def refused(self, url: str) -> None:
        """
        Drop cached credentials for the server of a URL, because it refused them.
        """
        self._keyring.refused(Wanted.by_url(url))

    @property
    def is_decoding(self) -> bool:
        """
        Whether a secret is decoded because it was refused unchanged.
        """
        return self._cleaner.is_decoding

    def explain(self, url: str, fence: Fence) -> SidecarError | None:
        """
        Return a more exact error for a refusal by the server of a URL, or None.

        Raises:
            SidecarError: There are no credentials at all.
            CycleAbandoned: The fence was revoked meanwhile.
        """
        return self._keyring.explain(Wanted.by_url(url), fence)

    def close(self) -> None:
        """
        Stop answering, end a child that asks AWS, and remove the private folder.
        """
        self._server.close()
        self._folder.remove()

    def _helper(self) -> str:
        """
        Return the shell command that git runs for credentials.

        The exclamation mark marks it as a command. Otherwise git judges by the first character, and
        a quoted path begins with a quotation mark. https://git-scm.com/docs/gitcredentials
        """
        # -S skips `site`, which would set the folder of the image's bytecode.
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
    Turn failures of the private folder's file system into an error with advice.
    """
    try:
        yield
    except OSError as error:
        raise SidecarError(
            "private_folder_failed",
            f"{what}: {error}",
            "Mount a writable /tmp with free space (an emptyDir if the root is read-only), or set "
            "TMPDIR.",
        ) from None
