"""The wrapper sends a password to the server and writes it nowhere else."""

import base64
import json
import re
import stat
from pathlib import Path
from urllib.parse import quote

import pytest

from tests import Texts
from tests.support.daemon import SidecarProcess
from tests.support.git.git_sync import GitSite
from tests.support.http.faults import answer_with
from tests.support.http.loopback import Answer
from tests.support.scripts import script
from tests.support.waiting import wait_until

PASSWORD = "Secret+Of/The=Suite%42"
FORMS = {
    PASSWORD,
    quote(PASSWORD, safe=""),
    base64.b64encode(PASSWORD.encode()).decode().rstrip("="),
    base64.b64encode(f"deploy:{PASSWORD}".encode()).decode().rstrip("="),
    PASSWORD.encode().hex(),
}


def recorder(here: GitSite) -> str:
    """
    Create a git that records its arguments, its core size limit and its configuration,
    which holds the commands that become arguments of a shell.
    """
    out = here.folder / "recorded"
    out.mkdir()
    return script(
        here.folder / "git",
        f'out={out}/$$\nprintf "%s\\n" "$@" > $out.argv\n'
        "grep core /proc/self/limits > $out.limits\n"
        '[ -z "$GIT_CONFIG_GLOBAL" ] || cat "$GIT_CONFIG_GLOBAL" > $out.config\n'
        "env | grep ^GIT_CONFIG_VALUE > $out.values\n"
        'exec /usr/bin/git "$@"',
    )


def said(wrapper: SidecarProcess) -> str:
    """Return all that the wrapper reports: events, stray lines and pages."""
    pages = "".join(
        wrapper.get(path).body for path in ("/", "/status", "/readyz", "/metrics")
    )
    return json.dumps(wrapper.events) + "\n".join(wrapper.stray_lines) + pages


def written(here: GitSite) -> Texts:
    """Return all files of the volume, HOME and TMPDIR, but not the mounted secret."""
    paths = (
        path
        for path in here.folder.rglob("*")
        if path.is_file() and "secret" not in path.parts
    )
    return {str(path): path.read_bytes().decode(errors="replace") for path in paths}


def leaks(text: str) -> list[str]:
    return [form for form in FORMS if form in text]


@pytest.mark.parametrize("way", ["variable", "file", "url", "credential"])
def test_password_is_in_no_argument_log_page_or_file(here: GitSite, way: str) -> None:
    here.server.accept(("deploy", PASSWORD))
    secret = here.folder / "secret"
    secret.mkdir()
    (secret / "password").write_text(PASSWORD)
    credential = {"url": here.server.url(), "username": "deploy", "password": PASSWORD}
    settings = {
        "variable": {"GITSYNC_USERNAME": "deploy", "GITSYNC_PASSWORD": PASSWORD},
        "file": {
            "GITSYNC_USERNAME": "deploy",
            "GITSYNC_PASSWORD_FILE": str(secret / "password"),
        },
        "url": {
            "GITSYNC_REPO": here.server.url(
                userinfo=f"deploy:{quote(PASSWORD, safe='')}"
            )
        },
        "credential": {"GITSYNC_CREDENTIAL": json.dumps(credential)},
    }[way]
    wrapper = here.publish(
        **settings,
        GITSYNC_GIT=recorder(here),
        GITSYNC_VERBOSE="9",
        GITSYNC_ERROR_FILE="error.json",
    )
    here.wait_until_shown(here.commit_revision(2), wrapper)
    here.server.inject(answer_with(Answer(403)))
    wrapper.wait_for_event("cycle_failed")
    wait_until((here.root / "error.json").exists, "an error file")

    recorded = list((here.folder / "recorded").iterdir())
    assert [path for path in recorded if path.suffix == ".config"]
    assert {} == {
        path: found for path, text in written(here).items() if (found := leaks(text))
    }
    assert [] == leaks(said(wrapper))
    (private,) = here.tmp.glob("git-sync-wrapper-*")
    assert 0o700 == stat.S_IMODE(private.stat().st_mode)
    limits = [path for path in recorded if path.suffix == ".limits"]
    for path in (*limits, Path(f"/proc/{wrapper.pid}/limits")):
        assert re.search("core file size +[01] +[01] ", path.read_text()), path
