"""
Answers git's logins: asks the providers that the settings select, in order.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from git_sync_wrapper.flags.options import Options
from git_sync_wrapper.login.codecommit import CodeCommit
from git_sync_wrapper.login.credential import Credential, CredentialError, Provider, Wanted
from git_sync_wrapper.login.providers import Given, Pair, Stored
from git_sync_wrapper.login.secret import Cleaner, Secret
from git_sync_wrapper.settings import PREFIX, Settings
from sidecar_runtime.errors import Problem, SettingsError
from sidecar_runtime.fence import Fence

if TYPE_CHECKING:
    from git_sync_wrapper.login.askpass import Askpass


class Keyring:
    """
    Asks its providers in turn; used from several threads.

    Raises:
        SettingsError: Settings contradict each other.
    """

    def __init__(
        self, settings: Settings, options: Options, environ: Mapping[str, str], cleaner: Cleaner
    ) -> None:
        if problems := list(_contradictions(settings, options)):
            raise SettingsError(problems)
        repo = Wanted.by_url(options.repo)
        source = settings.credentials
        self._codecommit = CodeCommit(repo if source.kind == "codecommit" else None)
        self._stored = Stored() if options.is_github_app else None
        username = _username(settings, options, cleaner)
        self._providers: list[Provider] = [Given(_pairs(options, repo, username, cleaner))]
        if source.kind == "secrets-manager":
            # A one-shot does not load providers that it does not use.
            from git_sync_wrapper.login.secrets_manager import SecretsManager  # noqa: PLC0415

            self._providers.append(
                SecretsManager(source.secret, settings.secret_stage, repo, username, cleaner)
            )
        self._askpass: Askpass | None = None
        if options.askpass_url:
            self._askpass = _askpass(options.askpass_url, repo, environ)
            self._providers.append(self._askpass)
        self._providers.append(self._codecommit)
        if self._stored:
            self._providers.append(self._stored)
        if username and not (options.password or options.password_file):
            # https://TOKEN@host/…: like git-sync, log in with an empty password.
            self._providers.append(Given([Pair(repo, username, None)]))

    def credential(self, wanted: Wanted, fence: Fence) -> Credential | None:
        """
        Return the credential for a server; None if no provider has one.

        Raises:
            SidecarError: The responsible provider failed.
            CycleAbandoned: The fence was revoked meanwhile.
        """
        for provider in self._providers:
            if found := provider.credential(wanted, fence):
                return found
        return None

    def refused(self, wanted: Wanted) -> None:
        """
        Drop cached credentials for this server.
        """
        for provider in self._providers:
            provider.refused(wanted)

    def start_over(self) -> None:
        """
        Drop credentials that are cached for one cycle.
        """
        if self._askpass:
            self._askpass.start_over()

    def store(self, wanted: Wanted, credential: Credential) -> None:
        """
        Keep the token of a GitHub App, which git-sync requests itself; ignore our own credentials.
        """
        if self._stored:
            self._stored.store(wanted, credential)

    def explain(self, wanted: Wanted, fence: Fence) -> CredentialError | None:
        """
        Return a more exact error for a refusal by this server, or None.

        Raises:
            SidecarError: There are no AWS credentials at all.
            CycleAbandoned: The fence was revoked meanwhile.
        """
        return self._codecommit.explain(wanted, fence) if self.signs_for(wanted) else None

    def identity(self, wanted: Wanted, fence: Fence) -> str | None:
        """
        Return the ARN that signs for this server; None if nothing signs, or if STS fails.
        """
        return self._codecommit.identity(fence) if self.signs_for(wanted) else None

    def signs_for(self, wanted: Wanted) -> bool:
        """
        Whether logins to this server use CodeCommit signatures.
        """
        given = self._providers[0]
        assert isinstance(given, Given)
        return self._codecommit.is_for(wanted) and not given.is_for(wanted)


def _askpass(url: str, repo: Wanted, environ: Mapping[str, str]) -> Askpass:
    from git_sync_wrapper.http.route import Unheeded  # noqa: PLC0415 - as above
    from git_sync_wrapper.login.askpass import Askpass  # noqa: PLC0415

    try:
        return Askpass(url, repo, environ)
    except Unheeded as why:
        problem = Problem("GITSYNC_ASKPASS_URL", "", f"cannot be used: {why}")
        raise SettingsError([problem]) from None


def _username(settings: Settings, options: Options, cleaner: Cleaner) -> Secret | None:
    if settings.username_file:
        return Secret(f"{PREFIX}USERNAME_FILE", cleaner, file=settings.username_file)
    if options.username:
        return Secret("GITSYNC_USERNAME", cleaner, options.username)
    return None


def _pairs(
    options: Options, repo: Wanted, username: Secret | None, cleaner: Cleaner
) -> Iterator[Pair]:
    for number, given in enumerate(options.credentials, 1):
        name = f"GITSYNC_CREDENTIAL, entry {number}"
        yield Pair(
            Wanted.by_url(given.url),
            Secret(f"{name}, username", cleaner, given.username),
            Secret(f"{name}, password", cleaner, given.password, given.password_file),
        )
    if username and options.password_file:
        yield Pair(
            repo, username, Secret("GITSYNC_PASSWORD_FILE", cleaner, file=options.password_file)
        )
    elif username and options.password:
        yield Pair(repo, username, Secret("GITSYNC_PASSWORD", cleaner, options.password))


def _contradictions(settings: Settings, options: Options) -> Iterator[Problem]:
    source, name = settings.credentials, f"{PREFIX}CREDENTIALS"
    has_password = bool(options.password or options.password_file)
    if source.kind != "auto":
        if not options.repo.startswith(("http://", "https://")):
            yield Problem(name, source.kind, "needs a repository over https")
        if has_password:
            yield Problem(
                name, source.kind, "replaces GITSYNC_PASSWORD and --password-file: unset them"
            )
        if options.askpass_url or options.is_github_app:
            yield Problem(name, source.kind, "replaces --askpass-url and a GitHub App: unset them")
    has_username = bool(options.username or settings.username_file)
    if source.kind == "codecommit" and has_username:
        yield Problem(name, source.kind, "signs requests: unset the username")
    if settings.username_file:
        file = f"{PREFIX}USERNAME_FILE"
        if options.username:
            yield Problem(
                file, settings.username_file, "replaces GITSYNC_USERNAME: set only one of them"
            )
        if not has_password and source.kind != "secrets-manager":
            yield Problem(file, settings.username_file, "needs GITSYNC_PASSWORD or --password-file")
    if options.askpass_url and not options.askpass_url.startswith(("http://", "https://")):
        yield Problem("GITSYNC_ASKPASS_URL", "", "is not http(s)://HOST/…")
