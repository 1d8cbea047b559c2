"""
A GitHub App: git-sync requests tokens, git and the poll use them, and old ones are
refused.
"""

from tests.support.git.git_sync import GitSite
from tests.support.git.github import GitHubApi, write_key


def test_no_sync_fails_when_a_token_becomes_invalid(here: GitSite) -> None:
    """Only the app's newest token gives access to the repository."""
    write_key(here.folder / "key.pem")
    here.server.refusal = 403
    with GitHubApi() as app:
        here.server.judge = lambda username, password, path: password == app.token
        given = {
            "GITSYNC_GITHUB_BASE_URL": f"{app.endpoint}/",
            "GITSYNC_GITHUB_APP_CLIENT_ID": "Iv1.0123456789abcdef",
            "GITSYNC_GITHUB_APP_INSTALLATION_ID": "7",
            "GITSYNC_GITHUB_APP_PRIVATE_KEY_FILE": str(here.folder / "key.pem"),
        }
        wrapper = here.publish(**given)
        here.run_once(**given)  # only the holder can ask
        for number in range(2, 5):
            app.tokens += 1  # git-sync's token becomes invalid
            here.wait_until_shown(here.commit_revision(number), wrapper)

    assert [] == wrapper.find_events("cycle_failed"), wrapper.log()
    assert app.token not in wrapper.log()
