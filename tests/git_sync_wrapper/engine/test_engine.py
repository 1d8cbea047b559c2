"""
One run of git-sync; a shell script stands in for it.
"""

import os
import shutil
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from git_sync_wrapper.engine.engine import Engine, GitSyncFailed
from git_sync_wrapper.flags.options import read_options
from git_sync_wrapper.login.access import Access
from git_sync_wrapper.login.ssh_files import PINNED
from git_sync_wrapper.settings import load_settings
from sidecar_runtime import child
from sidecar_runtime.errors import SidecarError
from sidecar_runtime.fence import CycleAbandoned, Fence
from tests.support import scripts
from tests.support.git.git_repository import Repository
from tests.support.raising import raised
from tests.support.waiting import wait_until

COMMIT = "c" * 40
CHECK_OUT = f"""
mkdir -p "$GITSYNC_ROOT/.worktrees/{COMMIT}" "$GITSYNC_ROOT/.git/worktrees/{COMMIT}"
touch "$GITSYNC_ROOT/.git/worktrees/{COMMIT}/index"
ln -sfn ".worktrees/{COMMIT}" "$GITSYNC_ROOT/candidate"
"""


class Site:
    """Makes engines, and reads the environment that their program received."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.root = folder / "volume" / ".git-sync"
        self.root.mkdir(parents=True)
        self.seen = folder / "seen"
        self.healed: list[int] = []
        self._open: list[Access] = []

    def engine(self, script: str, *arguments: str, **variables: str) -> Engine:
        program = scripts.script(self._folder / "git-sync", script)
        environ = {
            "PATH": os.environ["PATH"],
            "HOME": str(self._folder),
            "GITSYNC_REPO": "https://git.example.com/dags.git",
            "GITSYNC_ROOT": str(self._folder / "volume"),
            "GIT_SYNC_WRAPPER_GIT_SYNC": program,
            **variables,
        }
        settings, _ = load_settings(environ)
        options = read_options(arguments, environ)
        access = Access(settings, options, environ)
        access.start()
        self._open.append(access)
        return Engine(
            settings.git_sync,
            options,
            access,
            environ,
            root=str(self.root),
            count_healed=self.healed.append,
        )

    def environment(self) -> dict[str, str]:
        lines = self.seen.read_text().splitlines()
        return dict(line.split("=", 1) for line in lines if "=" in line)

    def close(self) -> None:
        for access in self._open:
            access.close()


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    site = Site(tmp_path)
    yield site
    site.close()


def alive(group: str) -> list[str]:
    """Return the processes of a group, without zombies."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            state, _, its_group = path.read_text().rpartition(")")[2].split()[:3]
            if its_group == group and state != "Z":
                found.append(path.parent.name)
    return found


def failure(engine: Engine, fence: Fence) -> SidecarError:
    return raised(SidecarError, engine.run, fence)


def test_returns_the_commit_that_git_sync_checked_out(site: Site, fence: Fence) -> None:
    engine = site.engine(CHECK_OUT)

    assert COMMIT == engine.run(fence)
    assert str(site.root / ".worktrees" / COMMIT) == engine.worktree()


def test_passes_settings_only_in_the_environment_under_new_names(site: Site, fence: Fence) -> None:
    engine = site.engine(
        f'{CHECK_OUT}\n{{ env; echo "arguments=$*"; }} > {site.seen}',
        GIT_SYNC_BRANCH="main",
        GIT_SYNC_WAIT="5",
        GITSYNC_USERNAME="me",
        GITSYNC_PASSWORD="hush",
        GITSYNC_EXECHOOK_COMMAND="/hook",
        GITSYNC_HTTP_BIND=":1234",
        GITSYNC_ERROR_FILE="error",
        GITSYNC_MAX_FAILURES="7",
        GITSYNC_DEPTH="3",
        GITSYNC_GIT_CONFIG="a.b:c",
        OTHER="kept",
    )

    engine.run(fence)

    seen = site.environment()
    assert "" == seen["arguments"]
    assert "hush" not in site.seen.read_text()
    told = {name: value for name, value in seen.items() if name.startswith(("GITSYNC", "GIT_SYNC"))}
    allowed = "REPO REF DEPTH ROOT LINK ONE_TIME STALE_WORKTREE_TIMEOUT ERROR_FILE "
    allowed += "SSH_KEY_FILE SSH_KNOWN_HOSTS_FILE SUBMODULES"
    assert {f"GITSYNC_{name}" for name in allowed.split()} >= told.keys()
    assert ("main", "3") == (told["GITSYNC_REF"], told["GITSYNC_DEPTH"])
    assert "true" == told["GITSYNC_ONE_TIME"]
    assert "kept" == seen["OTHER"]


@pytest.mark.parametrize(
    ("indexes", "arguments", "said"),
    [
        (["", ""], [], [["off"], ["off"]]),
        (["", "gitlink", "gitlink", ""], [], [["off"], ["off", ""], [""], [""]]),
        (["gone", ""], ["--submodules=shallow"], [["off", "shallow"], ["shallow"]]),
        (["gitlink"], ["--submodules=off"], [["off"]]),
        ([""], ["--sparse-checkout-file=/sparse"], [[""]]),
    ],
    ids=["none", "added and removed", "index missing", "switched off", "sparse checkout"],
)
def test_updates_submodules_only_for_a_commit_that_may_have_some(
    site: Site, fence: Fence, indexes: list[str], arguments: list[str], said: list[list[str]]
) -> None:
    """If the previous commit had no submodules, git-sync first runs without updating any."""
    stale = site.seen.with_name("stale")
    entry = {"gitlink": "'\\0\\0\\340\\0'", "": "''"}
    folder = f"$GITSYNC_ROOT/.git/worktrees/{COMMIT}"
    for index, expected in zip(indexes, said, strict=True):
        site.seen.unlink(missing_ok=True)
        make = (
            f"rm {folder}/index" if index == "gone" else f"printf {entry[index]} > {folder}/index"
        )
        engine = site.engine(
            f'{CHECK_OUT}\n{make}\necho "$GITSYNC_SUBMODULES" >> {site.seen}\n'
            f'[ "$GITSYNC_SUBMODULES" = off ] || echo "$GITSYNC_STALE_WORKTREE_TIMEOUT" > {stale}',
            *arguments,
        )

        assert COMMIT == engine.run(fence)

        assert expected == site.seen.read_text().splitlines()
        if len(expected) == 2:  # keeps the previous commit for a comparison
            assert "180s" == stale.read_text().strip()


def configs(seen: dict[str, str]) -> list[tuple[str, str]]:
    """Return git's configuration from the environment."""
    return [
        (seen[f"GIT_CONFIG_KEY_{number}"], seen[f"GIT_CONFIG_VALUE_{number}"])
        for number in range(int(seen["GIT_CONFIG_COUNT"]))
    ]


def test_passes_git_config_to_git_and_not_to_git_sync(site: Site, fence: Fence) -> None:
    """git-sync would put each value into an argument list and into a file."""
    engine = site.engine(
        f"{CHECK_OUT}\nenv > {site.seen}",
        *("--git-config-add=g.h:1", "--git-config-add=g.h:2"),
        GITSYNC_GIT_CONFIG='a.b:c,http.extraHeader:"Authorization: Basic aHVzaA==",'
        '"url.https://me:hush@x/.insteadOf":"https://x/",http.proxy:"http://me:hush@proxy:1"',
        GIT_CONFIG_COUNT="1",
        GIT_CONFIG_KEY_0="d.e",
        GIT_CONFIG_VALUE_0="f",
    )

    engine.run(fence)

    seen = site.environment()
    assert "GITSYNC_GIT_CONFIG" not in seen
    told = configs(seen)
    # This clears git-sync's helper. Of two values of a key, git-sync would keep only the last.
    assert ("credential.helper", "") == told[0]
    assert [
        ("a.b", "c"),
        ("http.extraHeader", "Authorization: Basic aHVzaA=="),
        ("url.https://me:hush@x/.insteadOf", "https://x/"),
        ("http.proxy", "http://me:hush@proxy:1"),
        ("g.h", "1"),
        ("g.h", "2"),
    ] == told[1:7]
    assert ["credential.helper", "credential.useHttpPath"] == [key for key, _ in told[7:-1]]
    assert ("d.e", "f") == told[-1], "git uses the last value"


@pytest.mark.parametrize(
    ("flag", "key", "is_instead"),
    [
        ("--git-config", "credential.helper", True),
        ("--git-config", "credential.https://git.example.com.helper", False),
        ("--git-config-add", "credential.helper", False),
    ],
)
def test_treats_the_users_credential_helper_as_git_sync_does(
    site: Site, fence: Fence, flag: str, key: str, *, is_instead: bool
) -> None:
    """A helper for all servers replaces git-sync's; other helpers follow it."""
    script = f"{CHECK_OUT}\nenv > {site.seen}"
    site.engine(script, f'{flag}="{key}":"store"').run(fence)

    reset = [("credential.helper", "")] if is_instead else []
    assert [*reset, (key, "store")] == configs(site.environment())


def test_configures_both_ends_of_a_local_repository(site: Site, fence: Fence) -> None:
    """git removes the variables from the environment of its server side, which reads the file."""
    config = "uploadpack.allowFilter:true"
    script = f"{CHECK_OUT}\nenv > {site.seen}"
    site.engine(script, GITSYNC_REPO="file:///dags.git", GITSYNC_GIT_CONFIG=config).run(fence)

    seen = site.environment()
    assert config == seen["GITSYNC_GIT_CONFIG"]
    assert ("uploadpack.allowFilter", "true") in configs(seen)

    secret = f"{config},http.extraHeader:hush"
    site.engine(script, GITSYNC_REPO="file:///dags.git", GITSYNC_GIT_CONFIG=secret).run(fence)

    assert not site.environment().get("GITSYNC_GIT_CONFIG")


def test_heals_the_root_pins_host_keys_and_removes_leftovers(site: Site, fence: Fence) -> None:
    (site.root / "tmp-link").symlink_to("x")
    healed = 'test ! -L "$GITSYNC_ROOT/tmp-link" || exit 1'
    leaves = f'touch "$TMPDIR/gitconfig"; env > {site.seen}'
    repo = "ssh://git@github.com/acme/dags.git"

    site.engine(f"{healed}\n{CHECK_OUT}\n{leaves}", GITSYNC_REPO=repo).run(fence)

    assert [1] == site.healed
    assert PINNED == site.environment()["GITSYNC_SSH_KNOWN_HOSTS_FILE"]
    assert not Path(site.environment()["TMPDIR"]).exists()


def test_explains_a_failure_from_the_error_file(site: Site, fence: Fence) -> None:
    report = '{"Msg":"x","Err":"fatal: couldn\'t find remote ref nope"}'
    error = failure(site.engine(f"cat > $GITSYNC_ERROR_FILE <<'END'\n{report}\nEND\nexit 1"), fence)

    assert "ref_not_found" == error.reason
    assert isinstance(error, GitSyncFailed) and report == error.report.strip()


@pytest.mark.parametrize(
    ("script", "reason", "said"),
    [
        (
            'echo \'{"msg":"FATAL","error":"Could not resolve host: x"}\' >&2; exit 1',
            "name_unresolved",
            "git-sync ended with exit code 1",
        ),
        ("kill -9 $$", "git_sync_failed", "git-sync ended with signal 9"),
        ("exit 0", "git_sync_failed", "does not lead to a commit"),
    ],
)
def test_explains_a_failure_without_an_error_file_from_log_and_exit(
    site: Site, fence: Fence, script: str, reason: str, said: str
) -> None:
    error = failure(site.engine(script), fence)

    assert (reason, True) == (error.reason, said in error.message)


def test_reports_a_missing_private_folder(site: Site, fence: Fence) -> None:
    engine = site.engine(CHECK_OUT)
    shutil.rmtree(engine.access.folder)

    assert "private_folder_failed" == failure(engine, fence).reason


def test_reports_a_program_that_cannot_be_started(site: Site, fence: Fence) -> None:
    engine = site.engine(CHECK_OUT)
    Path(engine.program).unlink()

    assert "git_sync_unusable" == failure(engine, fence).reason


def test_an_abandoned_run_is_killed_with_its_children(site: Site, fence: Fence) -> None:
    engine = site.engine(f"echo pid=$$ > {site.seen}; sleep 600 & exec sleep 600")

    def abandon() -> None:
        wait_until(lambda: site.seen.exists() and site.seen.read_text().endswith("\n"), "it runs")
        fence.revoke()

    threading.Thread(target=abandon).start()
    with pytest.raises(CycleAbandoned):
        engine.run(fence)

    group = site.environment()["pid"]
    wait_until(lambda: not alive(group), "none of its group is alive")


@pytest.mark.parametrize(
    "rest",
    ["x" * child.KEPT_BYTES, f"parent {'d' * 40}\n" * 2000],
    ids=["long", "names another"],
)
def test_finds_the_parent_of_a_commit_with_a_long_or_misleading_message(
    site: Site, tmp_path: Path, fence: Fence, rest: str
) -> None:
    repository = Repository(tmp_path / "r.git")
    (site.root / "candidate").symlink_to(repository.folder)
    first = repository.commit({"a.py": "1"}, message=f"First\n\n{rest}\n\nend")
    second = repository.commit({"a.py": "2"}, message=f"Second\n\n{rest}\n\nend")
    engine = site.engine("exit 1")

    assert ("", first) == (engine.parent(first, fence), engine.parent(second, fence))
