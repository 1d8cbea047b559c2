"""
How git logs in: what the settings and Secrets say now, as variables and files for one
child.

All of it is read again for each child, because Secrets rotate. git-sync itself puts
each password into git's credential cache for an hour, where the oldest user name wins;
so it gets no password. git finds them in its environment, by a credential helper for
each URL. :meth:`Logins.prepare` reads them; :meth:`Access.explain` names the one that a
server refused.
"""

from __future__ import annotations

import base64
import glob
import os
import pwd
import re
import shlex
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlsplit

from git_sync_wrapper.http_request import send
from git_sync_wrapper.options import Options, split_url
from git_sync_wrapper.reasons import failure
from git_sync_wrapper.settings import PREFIX, Settings
from sidecar_runtime.child import PrivateFolder, parent_folder
from sidecar_runtime.errors import Problem, SettingsError, SidecarError
from sidecar_runtime.fence import Fence
from sidecar_runtime.volume.files import read_file, write_file

if TYPE_CHECKING:
    from sidecar_runtime.aws.credentials import Chain

PINNED_HOSTS = os.path.join(os.path.dirname(__file__), "known_hosts")
CODECOMMIT = os.path.join(os.path.dirname(__file__), "codecommit_helper.py")
_CODECOMMIT_HOST = re.compile(
    r"(?:vpce-[a-z0-9-]+\.)?git-codecommit(?:-fips)?\.([a-z0-9-]{1,32})(?:\.vpce)?"
    r"\.amazonaws\.com(?:\.cn)?"
)
SECRET_BYTES = 1 << 20
ASKPASS_SECONDS = 10.0
ANSWER_BYTES = 1 << 16
# ssh needs an entry in /etc/passwd for its user. git-sync's --add-user writes one into
# the file, which needs a writable root; this library shows another file instead.
LIBRARY = "libnss_wrapper.so"
LIBRARIES = f"/usr/lib/*/{LIBRARY}"
# The exclamation mark makes git run it in a shell.
# https://git-scm.com/docs/gitcredentials
_HELPER = (
    '!f() { test "$1" != get || '
    'printf "username=%s\\npassword=%s\\n" "$GSW_USERNAME_{0}" "$GSW_PASSWORD_{0}"; }; f'
)
SSH = "ssh:"
_KEY = re.compile(rb"PRIVATE KEY-----| (ssh|ecdsa)-")
_BASE64 = re.compile(r"[A-Za-z0-9+/]{8,}={0,2}")


class Sent(NamedTuple):
    """
    A login that git sends to a server, for messages.

    Args:
        url: The URLs that begin with this one get it; of a key, `SSH`.
        who: User and source, without a secret.
        reason: What a refusal of it is.
        doubt: What is suspicious about the secret.
    """

    url: str
    who: str
    reason: str = "credentials_refused"
    doubt: str = ""


@dataclass(frozen=True)
class Access:
    """
    What a child gets so that its git can log in.

    Args:
        repo: The URL of the repository.
        configs: git's configurations: key and value.
    """

    sent: list[Sent]
    repo: str
    configs: list[tuple[str, str]] = field(default_factory=list, repr=False)
    environ: dict[str, str] = field(default_factory=dict, repr=False)

    def explain(self, error: SidecarError) -> SidecarError:
        """
        Return the error of a refused login with the login that was sent to that server.
        """
        if error.reason == "ssh_key_refused":
            who = ", ".join(one.who for one in self.sent if one.url == SSH)
            said = who or "no file of GITSYNC_SSH_KEY_FILE exists"
            return failure(error.reason, f"{error.message} ({said})")
        if error.reason != "credentials_refused":
            return error
        # Some lines of git name no URL, and a server may name any, unquoted.
        found = re.search(r"'(https?://[^']+)'", f"{error.message} '{self.repo}'")
        if found is None:
            return error
        url = found[1]
        server = server_of(url)
        there = [one for one in self.sent if server_of(one.url) == server]
        if not there:
            said = f"no login is set for {server}, or one in .netrc or http.extraHeader is refused"
            return failure("login_missing", f"{error.message} ({said})")
        # In the order of their helpers, of which git takes the last that fits.
        sent = ([one for one in there if f"{url}/".startswith(one.url)] or there)[-1]
        refused = failure(sent.reason, f"{error.message} ({sent.who})")
        refused.advice = f"{sent.doubt}{refused.advice}"
        return refused


class Logins:
    """
    The logins of the settings, and the private folder for what must be a file.

    Attributes:
        git_config: The path of a configuration file without secrets.

    Raises:
        SettingsError: A password lacks its user, or a user's file its password.
        SidecarError: The private folder cannot be created.
    """

    def __init__(self, settings: Settings, options: Options) -> None:
        file = settings.username_file
        has_password = bool(options.password or options.password_file)
        lacks_user = has_password and not (file or options.username)
        if lacks_user or (file and not has_password):
            raise SettingsError(
                [
                    Problem(
                        "GITSYNC_PASSWORD", None, "and GITSYNC_USERNAME need each other"
                    )
                ]
            )
        self._settings = settings
        self._options = options
        self._chain: Chain | None = None
        self._said: tuple[str, str] | None = None
        with _explained("cannot create a private folder"):
            self._private = PrivateFolder("git-sync-wrapper-", parent_folder())
            self.folder = self._private.path
            self.git_config = os.path.join(self.folder, "gitconfig")
            write_file(
                self.git_config, b"[safe]\n\tdirectory = *\n", 0o600, fsync=False
            )

    def close(self) -> None:
        """
        Remove the private folder.
        """
        self._private.remove()

    def prepare(self, fence: Fence) -> Access:
        """
        Return what the next child needs; files, services and AWS are asked again.

        Raises:
            SidecarError: A secret cannot be read, or is not one.
            CycleAbandoned: The fence was revoked.
        """
        repo = self._options.repo
        server = server_of(repo)
        access = Access([], repo)
        with _explained(f"cannot write to {self.folder}"):
            self._add_ssh(access)
        pairs = list(self._pairs())
        is_given = any(server_of(url) == server for url, *_ in pairs)
        if self._options.askpass_url and not is_given:
            self._said = self._said or self._ask()
            pairs.append((server, *self._said, "GITSYNC_ASKPASS_URL"))
            is_given = True
        elif self._options.is_github_app:
            # git-sync requests the token and lets git store it: for the polls, and the
            # next run.
            store = (
                f"store --file={shlex.quote(os.path.join(self.folder, 'github-token'))}"
            )
            access.configs.append(("credential.helper", store))
            access.sent.append(Sent(server, "the token of the GitHub App"))
        _add_pairs(access, pairs)
        if self._is_codecommit and not is_given:
            self._add_codecommit(access, fence)
        return access

    def forget(self, *, is_refused: bool) -> None:
        """
        Ask the service at ``--askpass-url`` again, which is asked once a cycle, as by
        git-sync; and AWS, if a server refused its login.
        """
        self._said = None
        if is_refused and self._chain:
            self._chain.forget()

    def check_room(self, root: str) -> None:
        """
        Check whether the private folder is full: git's error does not tell which file
        system is.

        Raises:
            SidecarError: It is, and it is not on the volume of `root`.
        """
        with _explained(f"cannot write to {self.folder}"):
            if os.stat(self.folder).st_dev != os.stat(root).st_dev:
                write_file(
                    os.path.join(self.folder, "probe"),
                    bytes(1 << 16),
                    0o600,
                    fsync=False,
                )

    def scratch(self) -> tempfile.TemporaryDirectory[str]:
        """
        Return a folder for one child, in the private folder.
        """
        with _explained(f"cannot write to {self.folder}"):
            return tempfile.TemporaryDirectory(
                dir=self.folder, ignore_cleanup_errors=True
            )

    # --- user and password

    def _pairs(self) -> Iterator[tuple[str, str, str, str]]:
        """
        Yield URL, user, password and source of each login in the settings.
        """
        options = self._options
        file = self._settings.username_file
        for number, one in enumerate(options.credential, 1):
            name = f"GITSYNC_CREDENTIAL, entry {number}"
            password = _secret(name, one.get("password", ""), one.get("password-file"))
            yield one["url"], _secret(name, one["username"], None), password, name
        if not (file or options.username):
            return
        name = f"{PREFIX}USERNAME_FILE" if file else "GITSYNC_USERNAME"
        user = _secret(name, options.username, file)
        password = ""  # https://TOKEN@host/…: as in git-sync
        if options.password or options.password_file:
            name = "GITSYNC_PASSWORD" + ("_FILE" if options.password_file else "")
            password = _secret(name, options.password, options.password_file)
        yield server_of(options.repo), user, password, name

    def _ask(self) -> tuple[str, str]:
        """
        Return user and password from the service at ``--askpass-url``.
        """
        url = self._options.askpass_url
        try:
            answer = send(
                "GET", url, {}, seconds=ASKPASS_SECONDS, body_bytes=ANSWER_BYTES
            )
        except OSError as error:
            said = f"no login from --askpass-url: {error}"
            raise failure("askpass_failed", said) from None
        if answer.location:  # whoever answers there would choose the login
            to = server_of(answer.location)
            said = f"--askpass-url redirects from {server_of(url)} to {to}"
            raise failure("redirect_refused", said)
        fields = dict(line.partition("=")[::2] for line in answer.body.splitlines())
        user = fields.get("username", "")
        password = fields.get("password", "")
        if answer.status != 200 or not user + password or "\0" in answer.body:
            said = f"--askpass-url answers {answer.status}, without a login"
            raise failure("askpass_failed", said)
        return user, password

    # --- CodeCommit

    @property
    def _is_codecommit(self) -> bool:
        url = split_url(self._options.repo)
        is_codecommit = url.scheme == "https" and region_of(url.netloc) is not None
        return is_codecommit or self._settings.credentials == "codecommit"

    def _add_codecommit(self, access: Access, fence: Fence) -> None:
        """
        Add the helper that signs with the pod's AWS identity; a signature lasts for
        minutes.
        """
        from sidecar_runtime.aws.credentials import Chain  # noqa: PLC0415 - only for AWS

        self._chain = self._chain or Chain()
        found, config = self._chain.current(fence)
        server = server_of(self._options.repo)
        host = urlsplit(server).netloc
        region = region_of(host) or config.region
        if region is None:
            raise failure("region_missing", f"no region is known for {host}")
        program = shlex.join([sys.executable, "-I", CODECOMMIT])
        helper = f"credential.{server}.helper"
        access.configs.extend(
            [
                (helper, ""),
                (helper, f"!{program}"),
                (f"credential.{server}.useHttpPath", "true"),
                # CodeCommit may answer 403 without a login; then git does not ask its
                # helper.
                (f"http.{server}/.proactiveAuth", "basic"),
            ]
        )
        access.environ.update(
            GSW_AWS_USER="%".join(filter(None, (found.access_key, found.token))),
            GSW_AWS_SECRET=found.secret_key,
            GSW_AWS_REGION=region,
        )
        who = self._chain.identity(fence) or f"access key {found.access_key}"
        access.sent.append(Sent(server, f"{who}, from {found.method}", "access_denied"))

    # --- ssh

    def _add_ssh(self, access: Access) -> None:
        """
        Add keys and known hosts, as copies that ssh accepts, and an entry in
        /etc/passwd.
        """
        options = self._options
        name = "GITSYNC_SSH_KEY_FILE"
        keys = [
            self._usable(name, path, f"key-{number}")
            for number, path in enumerate(options.ssh_key_file)
        ]
        access.sent.extend(
            Sent(SSH, f"{path}, from {name}")
            for path in filter(os.path.exists, options.ssh_key_file)
        )
        hosts = PINNED_HOSTS
        if os.path.exists(options.ssh_known_hosts_file):
            hosts = self._usable(
                "GITSYNC_SSH_KNOWN_HOSTS_FILE",
                options.ssh_known_hosts_file,
                "known_hosts",
            )
        # As git-sync builds it from these files; it adds the same once more.
        command = os.environ.get("GIT_SSH_COMMAND") or "ssh"
        command += "".join(f" -i {key}" for key in keys if key)
        known = (
            f"=yes -o UserKnownHostsFile={hosts}" if options.ssh_known_hosts else "=no"
        )
        access.environ.update(
            self._user_entry(),
            GIT_SSH_COMMAND=f"{command} -o StrictHostKeyChecking{known}",
            GITSYNC_SSH_KEY_FILE=":".join(keys),
            GITSYNC_SSH_KNOWN_HOSTS_FILE=hosts,
        )

    def _usable(self, setting: str, path: str, name: str) -> str:
        """
        Return the path of a private copy with clean line ends, which ssh accepts; ssh
        itself reports a file that is missing.
        """
        if not os.path.exists(path):
            return path
        text = _read(setting, path).replace(b"\r\n", b"\n").strip() + b"\n"
        if _KEY.search(_decoded(b"".join(text.split()))):
            raise failure("secret_encoded", f"{setting} contains a base64-encoded key")
        copy = os.path.join(self.folder, name)
        write_file(copy, text, 0o600, fsync=False)
        return copy

    def _user_entry(self) -> dict[str, str]:
        """
        Return the variables that give ssh an entry for our UID; empty if there is one.
        """
        with suppress(KeyError):
            pwd.getpwuid(os.getuid())
            return {}
        if not glob.glob(LIBRARIES):
            return {}
        path = os.path.join(self.folder, "passwd")
        home = os.environ.get("HOME", "/tmp")  # noqa: S108 - the image's value
        own = f"git-sync:x:{os.getuid()}:{os.getgid()}::{home}:/usr/sbin/nologin\n"
        with open("/etc/passwd", "rb") as file:
            write_file(path, file.read() + own.encode(), 0o600, fsync=False)
        return {
            "LD_PRELOAD": LIBRARY,
            "NSS_WRAPPER_PASSWD": path,
            "NSS_WRAPPER_GROUP": "/etc/group",
        }


def region_of(host: str) -> str | None:
    """
    Return the region of a CodeCommit host, VPC or FIPS endpoint; None for other hosts.

    Args:
        host: A host with or without a port.
    """
    match = _CODECOMMIT_HOST.fullmatch(host.partition(":")[0].lower())
    return match and match[1]


def _add_pairs(access: Access, pairs: list[tuple[str, str, str, str]]) -> None:
    """
    Add a helper for each login: for all paths of its server, as in git-sync, then for
    its own.

    ssh and git@HOST:PATH have no use for a login, and git would give one without a
    scheme to every server.
    """
    narrow: list[tuple[str, str]] = []
    # the best match last
    ordered = sorted(enumerate(pairs), key=lambda item: len(item[1][0]))
    for number, (url, user, password, origin) in ordered:
        if split_url(url).scheme not in ("http", "https", "file"):
            continue
        who = "a token" if password in ("", "x-oauth-basic") else f"user {user}"
        doubt = f"{origin} looks encoded twice. " if is_encoded(password) else ""
        access.sent.append(
            Sent(f"{url.rstrip('/')}/", f"{who}, from {origin}", doubt=doubt)
        )
        access.environ[f"GSW_USERNAME_{number}"] = user
        access.environ[f"GSW_PASSWORD_{number}"] = password
        helper = _HELPER.replace("{0}", str(number))
        for place, kept in ((server_of(url), access.configs), (url, narrow)):
            kept.extend((f"credential.{place}.helper", text) for text in ("", helper))
    access.configs.extend(narrow)


def is_encoded(password: str) -> bool:
    """
    Whether a password looks like base64 of another one; many tokens look like base64 of
    rubbish.
    """
    if not _BASE64.fullmatch(password):
        return False
    inner = _decoded(password)
    return len(inner) >= 6 and all(32 <= byte < 127 for byte in inner.strip())


def _decoded(text: str | bytes) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except ValueError:
        return b""


def server_of(url: str) -> str:
    """
    Return scheme, host and port of a URL.
    """
    parts = split_url(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2].lower()}"


def _secret(setting: str, value: str, path: str | None) -> str:
    """
    Return a secret from its file or setting, without line breaks around it.

    Raises:
        SidecarError: It cannot be read, is empty, or is not one line.
    """
    text = _read(setting, path).decode("utf-8", "surrogateescape") if path else value
    text = text.strip("\r\n")
    if not text or "\n" in text or "\0" in text:
        raise failure(
            "secret_malformed", f"{setting} is empty, has several lines or a NUL byte"
        )
    return text


def _read(setting: str, path: str) -> bytes:
    try:
        return read_file(path, SECRET_BYTES, follow=True)
    except OSError as error:
        raise failure(
            "secret_unreadable", f"{setting}: cannot read {path}: {error.strerror}"
        ) from None


@contextmanager
def _explained(what: str) -> Iterator[None]:
    """
    Turn failures of the private folder's file system into an error with advice.
    """
    try:
        yield
    except OSError as error:
        raise failure("private_folder_failed", f"{what}: {error}") from None
