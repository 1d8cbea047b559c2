"""
Whoever can write to the volume plants links, files and configurations where the wrapper
works: nothing outside the root changes, nothing is executed, and it publishes again.
"""

from __future__ import annotations

import itertools
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.conftest import Counts
from tests.scenarios.git_sync_wrapper.test_fallback import good as next_commit
from tests.support.daemon import SidecarProcess
from tests.support.git.git_server import GitServer
from tests.support.git.git_sync import GitSite
from tests.support.machine.plants import PLANTS, STRANGER, Canary
from tests.support.scripts import script

SUBFOLDER = {
    "GITSYNC_LINK": "links/repo",
    "GITSYNC_TOUCH_FILE": "touches/touched",
    "GITSYNC_ERROR_FILE": "errors/error.json",
}


class Outside(Canary):
    """
    A folder outside the root that nobody may change, with a repository, and a program
    that leaves a mark.
    """

    def __init__(self, folder: Path) -> None:
        self.mark = folder / "executed"
        self.program = script(folder / "program", f"echo $0 $@ >> {self.mark}")
        git = folder / "outside/repository/.git"
        subprocess.run(["git", "init", "-q", git.parent], check=True)
        with (git / "config").open("a") as config:
            config.write(f"[core]\n\tfsmonitor = {self.program}\n")
        (folder / "outside/sub").mkdir()
        names = ("a.lock", "gc.pid", "sub/b.lock", "sub/tmp_obj_c", "touched")
        for path in (*names, "repository/.git/shallow.lock"):
            (folder / "outside" / path).write_text("keep me\n")
        super().__init__(folder / "outside")

    def check(self, wrapper: SidecarProcess) -> None:
        """
        Check that nothing has changed and that nothing was executed.
        """
        assert not self.mark.exists(), f"see {self.mark}: {wrapper.log()[-4000:]}"
        self.assert_untouched()


@pytest.fixture
def outside(tmp_path: Path) -> Outside:
    return Outside(tmp_path)


def plant_strangers_folder(path: Path, _: Canary) -> None:
    (path / "deep").mkdir(parents=True)
    (path / "deep/file.lock").write_text("planted")
    os.chown(path, STRANGER, 0)


def plant_unreadable(path: Path, _: Canary) -> None:
    path.write_text("planted")
    path.chmod(0)


KINDS: dict[str, Callable[[Path, Canary], object]] = {
    **PLANTS,
    "unreadable file": plant_unreadable,
    "rubbish": lambda path, _: path.write_bytes(bytes(range(256)) * 300),
    "link to a repository": lambda path, canary: path.symlink_to(
        canary.folder / "repository/.git"
    ),
}
if os.getuid() == 0:
    KINDS["folder of another uid"] = plant_strangers_folder
else:
    KINDS.pop("file of another uid")
WORK = ".git-sync"
# By folder; NEW is the commit that comes next, and links, touches and errors are named
# in the settings.
NAMES = {
    "": """.git-sync .git-sync/.git .git-sync/.worktrees .git-sync/.worktrees/NEW
        .git-sync/candidate .git-sync/tmp-link .snapshots links links/repo
        links/repo.next-snapshot touches touches/touched errors errors/error.json""",
    ".git-sync/.git/": """config .config.new HEAD FETCH_HEAD index shallow logs hooks
        info objects objects/pack refs refs/heads/published worktrees worktrees/NEW
        restored""",
    ".snapshots/": """lock failed .failed.new published.json .published.json.new NEW
        NEW.files .NEW.files.new""",
}


def replace(path: Path, kind: str, outside: Outside) -> None:
    """
    Plant something; what was there is moved away, at once, since the wrapper runs.
    """
    # Nobody may have needed the folder since something was planted instead of it.
    for place in (path.parent, path):
        if os.path.lexists(place) and (place == path or not place.is_dir()):
            place.rename(outside.folder.with_name(f"away-{time.monotonic_ns()}"))
    with suppress(FileExistsError):  # the wrapper has made it meanwhile
        path.parent.mkdir(parents=True)
    KINDS[kind](path, outside)


def plants(place: str, counts: Counts) -> Iterator[tuple[str, str]]:
    """
    Yield names of a folder and what to plant there: at some names one kind, and at each
    all with `--full`.
    """
    kinds = itertools.cycle(KINDS)
    names = NAMES[place].split()
    random.Random(place).shuffle(names)
    for name in names[: counts.planted_names]:
        for kind in itertools.islice(kinds, counts.plants):
            yield f"{place}{name}", kind


def shown(here: GitSite) -> str:
    """If the store is moved away during a cycle, the link leads nowhere until the next."""
    place = (here.root / "links/repo").resolve()
    return place.name.partition(".")[0] if place.exists() else ""


@pytest.mark.parametrize("is_running", [False, True])
@pytest.mark.parametrize("place", NAMES)
def test_whatever_is_planted_at_a_name_is_replaced(
    here: GitSite, outside: Outside, counts: Counts, place: str, *, is_running: bool
) -> None:
    """While the wrapper runs, or before it starts."""
    wrapper = here.describe(**SUBFOLDER)
    if is_running:
        wrapper.start().wait_until_ready()
    for number, (name, kind) in enumerate(plants(place, counts)):
        what = f"{kind} at {name}"
        commit = next_commit(here, number) if "NEW" in name else ""
        replace(here.root / name.replace("NEW", commit), kind, outside)
        commit = commit or next_commit(here, number)
        if is_running:
            wrapper.wait_for(lambda: commit == shown(here), what)  # noqa: B023 - called at once
        else:
            wrapper = here.run_once(**SUBFOLDER)

        assert commit == shown(here), f"{what}: {wrapper.log()[-4000:]}"
        assert f"x = {number}\n" == (here.root / "links/repo/dag.py").read_text(), what
        outside.check(wrapper)
    if is_running:  # the cycle that showed it may still be at its end
        wrapper.wait_for(
            lambda: commit == wrapper.get("/readyz").json()["revision"], "it is told"
        )


Plant = Callable[[Path, Outside], None]
"""Plants something in git-sync's repository."""


def config(text: str) -> Plant:
    """
    Return what appends to the configuration of git-sync's repository.
    """

    def plant(git: Path, outside: Outside) -> None:
        with (git / "config").open("a") as file:
            file.write(text.format(program=outside.program, folder=outside.folder))

    return plant


def lead_away(name: str, to: str) -> Plant:
    """
    Return what writes a file, in each folder that its name fits.
    """

    def plant(git: Path, outside: Outside) -> None:
        for folder in git.parent.glob(os.path.dirname(f"{git.name}/{name}")):
            (folder / os.path.basename(name)).write_text(
                to.format(folder=outside.folder)
            )

    return plant


def git_file(git: Path, outside: Outside) -> None:
    shutil.rmtree(git)
    git.write_text(f"gitdir: {outside.folder}/repository/.git\n")


def above(git: Path, _: Outside) -> None:
    """
    Plant a repository around the work folder, which is its worktree.
    """
    shutil.rmtree(git)
    subprocess.run(
        [
            "git",
            f"--git-dir={git.parent.parent}/.git",
            f"--work-tree={git.parent}",
            "init",
            "-q",
        ],
        check=True,
    )


def folders(git: Path, _: Outside) -> None:
    """
    Plant a path that is much longer than the kernel accepts.
    """
    code = f"""import os
for name in ["{"x" * 250}"] * 900:
    os.makedirs(name, exist_ok=True)
    os.chdir(name)"""
    subprocess.run([sys.executable, "-c", code], cwd=git, check=True)


PROGRAMS = """
[core]
\taskPass = {program}
\tfsmonitor = {program}
\tgitProxy = {program}
\tpager = {program}
\tsshCommand = {program}
[alias]
\tfetch = !{program}
[credential]
\thelper = {program}
[include]
\tpath = {folder}/repository/.git/config
[protocol "ext"]
\tallow = always
"""
PLACES = """
[core]
\tworktree = {folder}/sub
[url "http://127.0.0.1:1/"]
\tinsteadOf = http://
"""
WRITTEN_AGAIN: dict[str, Plant] = {
    "programs": config(PROGRAMS),
    "places": config(PLACES),
    "a path without end": folders,
    "a repository above": above,
    "a quoted line": config('[x]\n\ty = "\\\n[core]\n\tfsmonitor = {program}\n'),
}
"""Of a configuration only what the next run needs stays."""
FETCHED_AGAIN: dict[str, Plant] = {
    "filter": lead_away("info/attributes", "* filter=x\n"),
    "hooks": lead_away("hooks/post-checkout", "echo\n"),
    "config.worktree": lead_away("config.worktree", "[core]\n\tbare = true\n"),
    ".git file": git_file,
    "alternates": lead_away(
        "objects/info/alternates", "{folder}/repository/.git/objects\n"
    ),
    "commondir": lead_away("commondir", "{folder}/repository/.git\n"),
    "pipe": lambda git, _: os.mkfifo(git / "pipe"),
    "modules": lambda git, _: (git / "modules").mkdir(),
    "commondir of a checkout": lead_away(
        "worktrees/*/commondir", "{folder}/repository/.git\n"
    ),
    "gitdir of a checkout": lead_away("worktrees/*/gitdir", "{folder}/a.lock\n"),
}
if os.getuid() == 0:
    FETCHED_AGAIN["another uid"] = lambda git, _: os.chown(git.parent, STRANGER, 0)
    FETCHED_AGAIN["its file"] = lambda git, _: os.chown(git / "HEAD", STRANGER, 0)
TRAPS = {**WRITTEN_AGAIN, **FETCHED_AGAIN}


@pytest.mark.sample(8)
@pytest.mark.parametrize("plant", TRAPS)
def test_no_planted_configuration_executes_anything_or_leads_away(
    here: GitSite, outside: Outside, plant: str
) -> None:
    git = here.root / WORK / ".git"
    here.server.accept(("deploy", "password"))
    wrapper = here.publish(GITSYNC_USERNAME="deploy", GITSYNC_PASSWORD="password")
    wrapper.wait_for_event("cycle_finished")
    TRAPS[plant](git, outside)
    commit = next_commit(here, 1)
    here.wait_until_shown(commit, wrapper)
    outside.check(wrapper)
    assert "fsmonitor" not in (git / "config").read_text()
    assert (plant in FETCHED_AGAIN) == bool(wrapper.find_events("work_folder_foreign"))
    wrapper.kill()
    (here.link / "dag.py").write_text("damaged")
    TRAPS[plant](git, outside)
    here.server.stop()
    wrapper.start()  # repairs from what is there
    wrapper.wait_for_event("cycle_failed")
    here.server.start()
    commit = next_commit(here, 2)
    here.wait_until_shown(commit, wrapper)

    outside.check(wrapper)
    assert {"dag.py": b"x = 2\n"} == here.files()


@pytest.mark.skipif(os.getuid() != 0, reason="only root can act for another uid")
@pytest.mark.parametrize(
    ("moment", "owner", "instead"),
    [
        ("reset --hard", STRANGER, ""),
        ("read-tree --reset", STRANGER, ""),
        ("reset --hard", 0, ""),
        ("read-tree --reset", 0, "{foreign}/"),
        ("fetch", 0, "{foreign}/"),
        ("fetch", 0, "ext::{program} "),
        ("fetch", 0, "git://127.0.0.1:1/"),
        ("fetch", 0, "ssh://127.0.0.1:1/"),
    ],
)
def test_what_another_user_exchanges_while_git_runs_is_never_used(
    here: GitSite, outside: Outside, moment: str, owner: int, instead: str
) -> None:
    """
    As git starts, its repository becomes a copy, a stranger's with a filter for all
    files; even in one of ours, no program of its configuration is executed, wherever it
    leads git.
    """
    work = here.root / WORK
    done = here.folder / "exchanged"
    filtered = "* filter=x" if owner == STRANGER else ""
    programs = here.folder / "programs"
    with GitServer(here.folder / "foreign") as foreign:
        foreign.accept(("nobody", "knows"))
        url = instead.format(foreign=foreign.endpoint, program=outside.program)
        leads = f'[url "{url}"]\n\tinsteadOf = {here.server.endpoint}/\n' if url else ""
        text = f'{PROGRAMS}{leads}[filter "x"]\n\tsmudge = {{program}}\n'
        loses = ""
        if "read-tree" in moment and url:  # git would fetch objects that are not there
            text += f'[remote "x"]\n\tpromisor = true\n\turl = {foreign.url()}\n'
            loses = "rm -r objects/*"
        programs.write_text(text.format(program=outside.program, folder=outside.folder))
        copy = f"""cp -a {work} {work}.x && cd {work}.x/.git
cat {programs} >> config
cp {outside.program} hooks/post-index-change
echo '{filtered}' > info/attributes
{loses}
chown -R {owner} {work}.x && mv {work} {done} && mv {work}.x {work}"""
        # which enters the folder again: it was exchanged a moment before
        git = f"""case "$*" in *"{moment}"*) test -e {done} || ({copy}) ;; esac
cd "$PWD" && exec git "$@\""""
        wrapper = here.publish(GITSYNC_GIT=script(here.folder / "git", git))
        (here.link / "odd1.py").write_text("damaged")
        wrapper.send_signal(signal.SIGHUP)
        wrapper.wait_for(done.exists, "the exchange")

        here.wait_until_shown(next_commit(here, 1), wrapper)
        outside.check(wrapper)
        assert {"dag.py": b"x = 1\n"} == here.files()
        assert moment == "fetch" or not foreign.requests


@pytest.mark.skipif(not shutil.which("gcc"), reason="needs gcc")
def test_works_where_all_files_belong_to_another_uid(
    here: GitSite, tmp_path: Path
) -> None:
    """As on SMB, and on NFS that squashes users: our own files are a stranger's."""
    library = tmp_path / "another.so"
    source = f"int geteuid(void) {{ return {STRANGER}; }}".encode()
    subprocess.run(
        f"gcc -shared -fPIC -xc - -o {library}".split(), input=source, check=True
    )
    wrapper = here.publish(LD_PRELOAD=str(library))

    here.wait_until_shown(next_commit(here, 1), wrapper)
    assert not wrapper.find_events("work_folder_foreign")
