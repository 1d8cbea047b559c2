"""Older commits that a consumer asks for: what it gets, who decides, and what stays."""

import os
import shutil
from pathlib import Path

import pytest

from tests.scenarios.git_sync_wrapper.situations import is_pack
from tests.support.asking import ask, asked, kept
from tests.support.daemon import SidecarProcess
from tests.support.git_sync import GitSite, git_site
from tests.support.loopback import Answer, Exchange, Request
from tests.support.scripted import published
from tests.support.scripts import script
from tests.support.volumes import small_volume
from tests.support.waiting import wait_until

# The volume keeps nothing that is not in use or asked for.
KEEPS_NONE = {"GIT_SYNC_WRAPPER_RETAIN_COUNT": "0", "GIT_SYNC_WRAPPER_RETAIN_FOR": "0"}
COMMON = {f"common{n}.py": f'x = "{os.urandom(10_000).hex()}"\n'.encode() for n in range(5)}
BLOCK_BYTES = 4096
BROUGHT = 'sidecar_asked_revisions_total{result="brought",sidecar="git-sync-wrapper"}'
KEPT = 'sidecar_asked_snapshots{sidecar="git-sync-wrapper"}'
MISSING, UNAVAILABLE = (404, "commit_missing"), 503


def files_of(number: int) -> dict[str, bytes]:
    """A commit of which one file is its own."""
    return {**COMMON, "own.py": f"number = {number}\n".encode() * 200}


@pytest.fixture
def commits(here: GitSite) -> list[str]:
    """Six commits, the last of them the head."""
    return [here.repository.commit(files_of(number), whole=True) for number in range(6)]


def begin(here: GitSite, **more: str) -> SidecarProcess:
    return here.publish(**KEEPS_NONE, **more)


def files_in(folder: Path) -> dict[str, bytes]:
    return {path: content for path, content in published(folder).items() if path != ".git"}


def refusal(store: Path, commit: str) -> tuple[int, str]:
    """What is said in the end of a commit that is not given."""
    last: list[tuple[int, str]] = []

    def is_final() -> bool:
        status, said = asked(store, commit, lambda status: status not in (200, 202))
        last[:] = [(status, said["reason"])]
        return "looked up again" not in said["error"]

    wait_until(is_final, "it is sure")
    return last[0]


def test_an_older_commit_comes_beside_what_is_shown(here: GitSite, commits: list[str]) -> None:
    wrapper = begin(here)
    times = {path.name: path.stat().st_mtime_ns for path in here.link.glob("*.py")}

    assert (200, {"name": commits[1]}) == asked(here.store, commits[1])

    assert files_of(1) == files_in(here.store / commits[1])
    assert (commits[5], files_of(5)) == (here.shown(), here.files())
    shared = (here.store / commits[1] / "common1.py").stat()
    assert os.path.samestat(shared, (here.link / "common1.py").stat())
    assert times == {path.name: path.stat().st_mtime_ns for path in here.link.glob("*.py")}
    wrapper.wait_for_event("revision_brought", revision=commits[1])
    wait_until(lambda: 1 == wrapper.metrics()[KEPT], "one is kept")
    assert 1 == wrapper.metrics()[BROUGHT]
    here.wait_until_shown(here.repository.commit(files_of(6), whole=True), wrapper)
    assert files_of(6) == here.files()


def test_only_commits_of_the_ref_are_given(here: GitSite, commits: list[str]) -> None:
    """The server gives any commit by its hash, as forges give those of every fork."""
    fork = here.repository.commit({"evil.py": "x"}, branch="fork", onto=commits[2])
    other = here.repository.commit({"evil.py": "y"}, branch="other", onto="")
    begin(here)

    assert {MISSING} == {
        refusal(here.store, commit) for commit in (fork, other, "f" * 40, "f" * 64)
    }
    assert {commits[5]} == kept(here.store)
    asked(here.store, commits[2])
    assert {commits[2], commits[5]} == kept(here.store)


def test_a_forced_push_takes_commits_out_of_history(here: GitSite, commits: list[str]) -> None:
    wrapper = begin(here)
    asked(here.store, commits[1])
    head = here.repository.commit({"new.py": "x = 1\n"}, onto=commits[0], whole=True)
    here.wait_until_shown(head, wrapper)

    assert MISSING == refusal(here.store, commits[3])
    assert 200 == ask(here.store, f"/revisions/{commits[1]}")[0]
    asked(here.store, commits[0])


def test_what_the_gate_refuses_is_not_given_though_it_is_of_the_ref(
    here: GitSite, commits: list[str]
) -> None:
    wrapper = begin(here, GIT_SYNC_WRAPPER_GATE="syntax")
    refused = here.repository.commit({"bad.py": "def 1\n"})
    wrapper.wait_for_event("revision_refused", revision=refused)

    assert (UNAVAILABLE, "commit_not_shown") == refusal(here.store, refused)
    asked(here.store, commits[4])
    assert {commits[4], commits[5]} == kept(here.store)


def test_an_outage_is_the_answer_and_its_end_too(here: GitSite, commits: list[str]) -> None:
    wrapper = begin(here)
    here.server.inject(lambda exchange: exchange.send(Answer(503)), is_pack)
    assert (UNAVAILABLE, "server_error") == refusal(here.store, commits[0])
    here.server.heal()
    asked(here.store, commits[0])

    here.server.stop()
    ask(here.store, f"/revisions/{commits[1]}")  # before anybody knows of the outage
    wrapper.wait_for_event("cycle_failed")
    assert (UNAVAILABLE, "asked_in_outage") == refusal(here.store, commits[1])
    assert 200 == ask(here.store, f"/revisions/{commits[0]}")[0]
    assert (200, commits[5]) == (wrapper.get("/readyz").status, here.shown())
    here.server.start()
    asked(here.store, commits[1])


def test_what_is_shown_is_repaired_without_the_remote_after_a_question(
    here: GitSite, commits: list[str]
) -> None:
    """git-sync's checkout is that of the shown commit again."""
    wrapper = begin(here)
    asked(here.store, commits[1])
    shared = here.store / commits[1] / "common1.py"
    here.server.stop()
    damaged = here.link / "common1.py"
    damaged.chmod(0o644)
    damaged.write_bytes(b"damaged")
    wrapper.sighup()

    wait_until(lambda: files_of(5) == here.files(), "it is whole again")
    assert COMMON["common1.py"] == shared.read_bytes()


def test_the_checkout_of_what_is_shown_is_tried_again(here: GitSite, commits: list[str]) -> None:
    """Else what is shown could not be repaired without the remote any more."""
    wrapper = begin(here)
    candidate = here.root / ".git-sync/candidate"

    def is_of_shown(request: Request) -> bool:
        return is_pack(request) and commits[5].encode() in request.body.partition(b"have")[0]

    asked(here.store, commits[1])
    wrapper.sync()  # the one before has ended
    assert commits[5] == candidate.readlink().name
    here.server.inject(lambda exchange: exchange.send(Answer(503)), is_of_shown)
    shutil.rmtree(here.root / ".git-sync")  # so that the shown one must be fetched again
    asked(here.store, commits[2])
    wrapper.wait_for_event("checkout_failed", revision=commits[5])
    assert commits[2] == candidate.readlink().name
    here.server.heal()

    wrapper.sync()

    assert commits[5] == candidate.readlink().name


def test_what_a_hook_kept_from_being_shown_is_not_given_and_older_ones_are(
    here: GitSite, commits: list[str]
) -> None:
    refusing = here.folder / "refusing"
    hook = script(here.folder / "hook", f"[ ! -e {refusing} ]")
    wrapper = begin(here, GITSYNC_PRE_PUBLISH_EXECHOOK_COMMAND=hook)
    refusing.touch()
    new = here.repository.commit(files_of(6), whole=True)
    wrapper.wait_for_event("cycle_failed", reason="pre_publish_hook_failed")

    assert (UNAVAILABLE, "commit_not_shown") == refusal(here.store, new)
    asked(here.store, commits[1])
    assert {commits[1], commits[5]} == kept(here.store)
    refusing.unlink()
    here.wait_until_shown(new, wrapper)


def test_what_a_hook_has_not_decided_about_yet_is_not_given(
    here: GitSite, commits: list[str]
) -> None:
    began, may_end = here.folder / "began", here.folder / "may_end"
    may_end.touch()
    hook = script(
        here.folder / "hook", f"touch {began}; while [ ! -e {may_end} ]; do sleep 0.05; done"
    )
    wrapper = begin(here, GITSYNC_PRE_PUBLISH_EXECHOOK_COMMAND=hook)
    may_end.unlink()
    began.unlink()
    new = here.repository.commit(files_of(6), whole=True)
    wait_until(began.exists, "the hook runs")

    assert 202 == ask(here.store, f"/revisions/{new}")[0]
    may_end.touch()
    here.wait_until_shown(new, wrapper)
    assert 200 == ask(here.store, f"/revisions/{new}")[0]


def test_the_hash_of_a_tag_is_no_version(here: GitSite, commits: list[str]) -> None:
    here.repository.tag("v1", commits[5], "annotated")
    wrapper = here.wrapper(GITSYNC_REF="v1", **KEEPS_NONE)
    here.wait_until_shown(commits[5], wrapper)

    assert MISSING == refusal(here.store, here.repository.git("rev-parse", "refs/tags/v1"))
    asked(here.store, commits[1])
    assert {commits[1], commits[5]} == kept(here.store)


def test_another_repository_has_other_versions(here: GitSite, commits: list[str]) -> None:
    wrapper = begin(here)
    asked(here.store, commits[1])
    wrapper.kill()
    other = here.server.repository("other.git").commit({"other.py": "x = 1\n"})
    wrapper = here.wrapper(GITSYNC_REPO=here.server.url("other.git"), **KEEPS_NONE)
    here.wait_until_shown(other, wrapper)
    wrapper.sync()

    assert {other} == kept(here.store)
    assert MISSING == refusal(here.store, commits[1])


@pytest.mark.parametrize(
    "limit",
    [
        {"GIT_SYNC_WRAPPER_KEEP_ASKED": "2"},
        # One file of each, and its pointer to the repository: what they share does not count.
        {"GIT_SYNC_WRAPPER_KEEP_ASKED_BYTES": str(4 * BLOCK_BYTES)},
    ],
    ids=["number", "bytes"],
)
def test_those_used_last_stay(here: GitSite, commits: list[str], limit: dict[str, str]) -> None:
    wrapper = begin(here, **limit)
    for commit in commits[:4]:
        asked(here.store, commit)

    wrapper.sync()

    assert {*commits[2:4], commits[5]} == kept(here.store)


def test_a_kill_forgets_nothing_and_leaves_nothing(here: GitSite, commits: list[str]) -> None:
    wrapper = begin(here)
    asked(here.store, commits[2])
    wrapper.kill()
    with pytest.raises(OSError, match="refused"):
        ask(here.store, f"/revisions/{commits[2]}")
    (here.store / f".{commits[0]}").mkdir()
    (here.store / f"{commits[0]}.files").write_text("{}")

    begin(here).until_synced().sync()

    assert {commits[2], commits[5]} == kept(here.store)
    assert 200 == ask(here.store, f"/revisions/{commits[2]}")[0]
    assert [] == [name for name in os.listdir(here.store) if commits[0] in name]


@pytest.mark.parametrize("url", ["http", "password"])
def test_the_history_has_no_secret_and_no_files(
    here: GitSite, commits: list[str], url: str
) -> None:
    here.server.accept(("bob", "geheim-123"))
    userinfo = "bob:geheim-123" if url == "password" else ""
    login = {} if userinfo else {"GITSYNC_USERNAME": "bob", "GITSYNC_PASSWORD": "geheim-123"}
    begin(here, GITSYNC_REPO=here.server.url(userinfo=userinfo), **login)
    asked(here.store, commits[0])

    inside = [path for path in (here.store / ".history").rglob("*") if path.is_file()]
    assert inside
    assert not any(b"geheim" in path.read_bytes() for path in inside)
    assert sum(path.stat().st_size for path in inside) < 20_000  # of 100 kB a commit


@pytest.mark.parametrize("lacking", ["allowAnySHA1InWant", "allowFilter"])
def test_servers_that_lack_something_give_older_commits_too(
    here: GitSite, commits: list[str], lacking: str
) -> None:
    """A commit by its hash, which only the old protocol lets a server refuse; or commits alone."""
    here.repository.git("config", f"uploadpack.{lacking}", "false")
    begin(here, GITSYNC_GIT_CONFIG="protocol.version:0")

    for number in (4, 1):
        asked(here.store, commits[number])
        assert files_of(number) == files_in(here.store / commits[number])


def test_submodules_come_as_they_were(here: GitSite) -> None:
    inner = here.server.repository("inner.git")
    old = inner.commit({"inner.py": "x = 1\n"})
    first = here.repository.commit_submodule("inner", here.server.url("inner.git"), old)
    new = inner.commit({"inner.py": "x = 2\n"})
    here.repository.commit_submodule("inner", here.server.url("inner.git"), new)
    begin(here)

    asked(here.store, first)

    assert b"x = 1\n" == (here.store / first / "inner/inner.py").read_bytes()
    assert b"x = 2\n" == (here.link / "inner/inner.py").read_bytes()


def test_who_stands_by_answers_only_once_it_holds_the_volume(
    here: GitSite, commits: list[str]
) -> None:
    holder = begin(here)
    waiting = here.wrapper(**KEEPS_NONE)
    waiting.wait_for_event("target_waiting")
    asked(here.store, commits[0])
    holder.wait_for_event("revision_brought", revision=commits[0])
    holder.kill()

    wait_until((here.store / "ask.sock").is_socket, "a socket")
    waiting.sync()
    asked(here.store, commits[1])
    waiting.wait_for_event("revision_brought", revision=commits[1])


def test_what_was_asked_for_makes_way_for_a_new_commit_on_a_full_volume(tmp_path: Path) -> None:
    """Else a pod would follow nothing any more, for the sake of a cache."""
    with git_site(tmp_path) as site, small_volume(site.folder / "root", "12m"):
        made = [
            site.repository.commit({"data.bin": os.urandom(1_500_000)}, whole=True)
            for _ in range(4)
        ]
        wrapper = begin(site)
        store = site.root / ".snapshots"
        for commit in made[:3]:
            asked(store, commit, lambda status: status != 202)

        for _ in range(4):
            new = site.repository.commit({"data.bin": os.urandom(1_500_000)}, whole=True)
            site.wait_until_shown(new, wrapper, 60)
        wrapper.kill()


def test_a_restart_in_an_outage_says_so_to_whoever_asks(here: GitSite, commits: list[str]) -> None:
    begin(here).kill()
    here.server.stop()
    wrapper = here.wrapper(**KEEPS_NONE)
    wrapper.wait_for_event("cycle_failed")

    assert (UNAVAILABLE, "asked_in_outage") == refusal(here.store, commits[1])
    here.server.start()
    asked(here.store, commits[1])


def test_a_damaged_history_is_fetched_again(here: GitSite, commits: list[str]) -> None:
    begin(here)
    asked(here.store, commits[3])
    for path in (here.store / ".history/objects").rglob("*.pack"):
        path.chmod(0o644)
        path.write_bytes(path.read_bytes()[:-60])

    asked(here.store, commits[1])
    assert files_of(1) == files_in(here.store / commits[1])


def test_a_history_with_all_files_makes_way_for_a_new_commit_on_a_full_volume(
    tmp_path: Path,
) -> None:
    """From a server that knows no filters."""
    with git_site(tmp_path) as site, small_volume(site.folder / "root", "16m"):
        site.repository.git("config", "uploadpack.allowFilter", "false")
        first = site.repository.commit({"a.py": "x = 1\n"})
        for _ in range(5):
            site.repository.commit({"data.bin": os.urandom(1_500_000)}, whole=True)
        site.repository.commit({"data.bin": b"small"}, whole=True)
        wrapper = begin(site)
        asked(site.root / ".snapshots", first)

        new = site.repository.commit({"data.bin": os.urandom(5_000_000)}, whole=True)
        site.wait_until_shown(new, wrapper)
        wrapper.kill()


def test_a_history_that_takes_too_long_leaves_nothing(here: GitSite, commits: list[str]) -> None:
    """A server without filters sends all files, and a killed git leaves what has come of them."""

    def stall(exchange: Exchange) -> None:
        answer = exchange.good()
        exchange.send_head(answer.status, {"Content-Length": str(len(answer.body))})
        exchange.send_bytes(answer.body[: len(answer.body) * 3 // 4])
        exchange.pause(10)

    here.repository.git("config", "uploadpack.allowFilter", "false")
    begin(here, GITSYNC_SYNC_TIMEOUT="3s")
    here.server.inject(
        stall, lambda one: is_pack(one) and b"fetch" in one.body and b"deepen" not in one.body
    )

    assert (UNAVAILABLE, "remote_timeout") == refusal(here.store, commits[0])
    packs = here.store / ".history/objects/pack"
    assert packs.is_dir() and [] == list(packs.glob("tmp_*"))
