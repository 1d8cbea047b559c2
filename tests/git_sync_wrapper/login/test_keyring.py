"""
Which credentials are used for which server, and which settings contradict each other.
"""

import pytest

from git_sync_wrapper.login.credential import Credential, Wanted
from git_sync_wrapper.login.keyring import Keyring
from git_sync_wrapper.login.secret import Cleaner
from sidecar_runtime.errors import SettingsError
from sidecar_runtime.fence import Fence
from tests.git_sync_wrapper.access import given
from tests.support.raising import raised

REPO = "https://git.example.com/team/dags.git"
CODECOMMIT = "https://git-codecommit.eu-central-1.amazonaws.com/v1/repos/dags"
CREDENTIALS = "GIT_SYNC_WRAPPER_CREDENTIALS"
DEPLOY = {"GITSYNC_USERNAME": "deploy", "GITSYNC_PASSWORD": "secret"}


def keyring(repo: str = REPO, **variables: str) -> Keyring:
    return Keyring(*given(repo, **variables), Cleaner())


def who(found: Keyring, url: str) -> str | None:
    credential = found.credential(Wanted.by_url(url), Fence())
    return credential.username if isinstance(credential, Credential) else None


@pytest.mark.parametrize(
    ("repo", "variables", "expected"),
    [
        (REPO, {}, {REPO: None}),
        (REPO, DEPLOY, {REPO: "deploy", "https://github.com/x": None, CODECOMMIT: "AKIDEXAMPLE"}),
        (CODECOMMIT.replace("https://", "https://someone@"), {}, {CODECOMMIT: "AKIDEXAMPLE"}),
    ],
    ids=["without settings", "the flags, and submodules of CodeCommit", "a user in the URL"],
)
def test_chooses_the_credential_for_each_server(
    aws: None, repo: str, variables: dict[str, str], expected: dict[str, str | None]
) -> None:
    found = keyring(repo, **variables)

    assert expected == {url: who(found, url) for url in expected}


@pytest.mark.parametrize(
    ("login", "expected"),
    [("deploy:s%2Fcret", Credential("deploy", "s/cret")), ("t0ken", Credential("t0ken", ""))],
)
def test_logs_in_with_the_user_or_token_of_the_url(login: str, expected: Credential) -> None:
    found = keyring(REPO.replace("https://", f"https://{login}@"))

    assert expected == found.credential(Wanted.by_url(REPO), Fence())


def test_the_repositorys_own_pair_overrides_a_list_for_its_server() -> None:
    found = keyring(
        GITSYNC_USERNAME="own",
        GITSYNC_PASSWORD="secret",
        GITSYNC_CREDENTIAL='[{"url": "https://git.example.com", "username": "all", '
        '"password": "x"}, {"url": "https://other.example", "username": "other", "password": "y"}]',
    )

    assert ["own", "all", "other"] == [
        who(found, url)
        for url in (REPO, "https://git.example.com/team/sub.git", "https://other.example/x")
    ]


def test_codecommit_needs_no_setting_but_prefers_iam_git_credentials(aws: None) -> None:
    found = keyring(CODECOMMIT)
    iam = keyring(CODECOMMIT, GITSYNC_USERNAME="dags-at-123", GITSYNC_PASSWORD="secret")

    assert ["AKIDEXAMPLE", "dags-at-123"] == [who(one, CODECOMMIT) for one in (found, iam)]
    assert [True, False] == [one.signs_for(Wanted.by_url(CODECOMMIT)) for one in (found, iam)]
    assert not found.signs_for(Wanted.by_url(REPO))
    assert None is iam.explain(Wanted.by_url(CODECOMMIT), Fence())


def test_a_github_app_logs_in_with_the_token_that_git_sync_stores() -> None:
    found = keyring(
        GITSYNC_GITHUB_APP_CLIENT_ID="Iv1",
        GITSYNC_GITHUB_APP_INSTALLATION_ID="1",
        GITSYNC_GITHUB_APP_PRIVATE_KEY_FILE="/key",
    )
    assert None is who(found, REPO)

    found.store(Wanted.by_url(REPO), Credential("-", "ghs_token"))

    assert "-" == who(found, REPO)


def test_stores_no_approved_credential_without_a_github_app() -> None:
    found = keyring()

    found.store(Wanted.by_url(REPO), Credential("deploy", "secret"))

    assert None is who(found, REPO)


@pytest.mark.parametrize(
    ("repo", "variables", "setting"),
    [
        ("git@github.com:acme/dags.git", {CREDENTIALS: "codecommit"}, CREDENTIALS),
        (
            REPO,
            {CREDENTIALS: "secrets-manager:x", "GITSYNC_USERNAME": "u", "GITSYNC_PASSWORD": "p"},
            CREDENTIALS,
        ),
        (REPO, {CREDENTIALS: "codecommit", "GITSYNC_ASKPASS_URL": "http://x"}, CREDENTIALS),
        (REPO, {CREDENTIALS: "codecommit", "GIT_SYNC_WRAPPER_USERNAME_FILE": "/u"}, CREDENTIALS),
        (
            REPO,
            {
                "GIT_SYNC_WRAPPER_USERNAME_FILE": "/u",
                "GITSYNC_USERNAME": "u",
                "GITSYNC_PASSWORD": "p",
            },
            "GIT_SYNC_WRAPPER_USERNAME_FILE",
        ),
        (REPO, {"GITSYNC_ASKPASS_URL": "ftp://x"}, "GITSYNC_ASKPASS_URL"),
        (
            REPO,
            {"GITSYNC_ASKPASS_URL": "http://x", "http_proxy": "socks5://p"},
            "GITSYNC_ASKPASS_URL",
        ),
    ],
)
def test_reports_contradicting_settings(repo: str, variables: dict[str, str], setting: str) -> None:
    error = raised(SettingsError, keyring, repo, **variables)

    assert setting in [problem.setting for problem in error.problems]
    assert all(problem.problem for problem in error.problems)


def test_a_username_file_requires_a_password_a_password_file_or_a_secret() -> None:
    variables = {"GIT_SYNC_WRAPPER_USERNAME_FILE": "/u"}

    keyring(**variables, GITSYNC_PASSWORD="p")
    keyring(**variables, GITSYNC_PASSWORD_FILE="/p")
    keyring(**variables, **{CREDENTIALS: "secrets-manager:x"})
    (problem,) = raised(SettingsError, keyring, **variables).problems
    needs = "needs GITSYNC_PASSWORD or --password-file"
    assert ("GIT_SYNC_WRAPPER_USERNAME_FILE", "/u", needs) == problem


def test_hides_the_secret_in_a_contradiction() -> None:
    variables = {CREDENTIALS: "codecommit", "GITSYNC_ASKPASS_URL": "http://u:hunter2@x"}
    assert "hunter2" not in str(raised(SettingsError, keyring, REPO, **variables))
