"""Requests for older commits: which are served, which are refused, and which are kept."""

import os
import shutil
from pathlib import Path

import pytest

from tests.scenarios.git_sync_wrapper.git_sync.situations import is_pack
from tests.support.airflow.asking import ask, asked, kept
from tests.support.daemon import SidecarProcess
from tests.support.git.git_sync import GitSite, git_site
from tests.support.http.loopback import Answer, Exchange, Request
from tests.support.machine.volumes import small_volume
from tests.support.s3_sync.scripted import published
from tests.support.scripts import script
from tests.support.waiting import wait_until

# The volume keeps only commits that are in use or were requested.
KEEPS_NONE = {"GIT_SYNC_WRAPPER_RETAIN_COUNT": "0", "GIT_SYNC_WRAPPER_RETAIN_FOR": "0"}
COMMON = {f"common{n}.py": f'x = "{os.urandom(10_000).hex()}"\n'.encode() for n in range(5)}
BLOCK_BYTES = 4096
BROUGHT = 'sidecar_requested_revisions_total{result="success",sidecar="git-sync-wrapper"}'
KEPT = 'sidecar_requested_snapshots{sidecar="git-sync-wrapper"}'
MISSING, UNAVAILABLE = (404, "commit_missing"), 503


def files_of(number: int) -> dict[str, bytes]:
    """Return the files of a commit; only `own.py` differs between commits."""
    return {**COMMON, "own.py": f"number = {number}\n".encode() * 200}


@pytest.fixture
def commits(here: GitSite) -> list[str]:
    """Six commits; the last one is the head."""
    return [here.repository.commit(files_of(number), whole=True) for number in range(6)]


def begin(here: GitSite, **more: str) -> SidecarProcess:
    return here.publish(**KEEPS_NONE, **more)


def files_in(folder: Path) -> dict[str, bytes]:
    return {path: content for path, content in published(folder).items() if path != ".git"}


def refusal(store: Path, commit: str) -> tuple[int, str]:
    """Wait until a commit is refused for good; return the status and the reason."""
    last: list[tuple[int, str]] = []

    def is_final() -> bool:
        status, said = asked(store, commit, lambda status: status not in (200, 202))
        last[:] = [(status, said["reason"])]
        return "looked up again" not in said["error"]

    wait_until(is_final, "it is sure")
    return last[0]


def test_serves_an_older_commit_without_changing_the_published_one(
    here: GitSite, commits: list[str]
) -> None:
    wrapper = begin(here)
    times = {path.name: path.stat().st_mtime_ns for path in here.link.glob("*.py")}

    assert (200, {"name": commits[1]}) == asked(here.store, commits[1])

    assert files_of(1) == files_in(here.store / commits[1])
    assert (commits[5], files_of(5)) == (here.shown(), here.files())
    shared = (here.store / commits[1] / "common1.py").stat()
    assert os.path.samestat(shared, (here.link / "common1.py").stat())
    assert times == {path.name: path.stat().st_mtime_ns for path in here.link.glob("*.py")}
    wrapper.wait_for_event("requested_revision_ready", revision=commits[1])
    wait_until(lambda: 1 == wrapper.metrics()[KEPT], "one is kept")
    assert 1 == wrapper.metrics()[BROUGHT]
    here.wait_until_shown(here.repository.commit(files_of(6), whole=True), wrapper)
    assert files_of(6) == here.files()


def test_serves_only_commits_in_the_history_of_the_ref(here: GitSite, commits: list[str]) -> None:
    """The server serves any commit by its hash, as forges do for the commits of every fork."""
    fork = here.repository.commit({"evil.py": "x"}, branch="fork", onto=commits[2])
    other = here.repository.commit({"evil.py": "y"}, branch="other", onto="")
    begin(here)

    assert {MISSING} == {
        refusal(here.store, commit) for commit in (fork, other, "f" * 40, "f" * 64)
    }
    assert {commits[5]} == kept(here.store)
    asked(here.store, commits[2])
    assert {commits[2], commits[5]} == kept(here.store)


def test_refuses_commits_that_a_force_push_removed_unless_already_kept(
    here: GitSite, commits: list[str]
) -> None:
    wrapper = begin(here)
    asked(here.store, commits[1])
    head = here.repository.commit({"new.py": "x = 1\n"}, onto=commits[0], whole=True)
    here.wait_until_shown(head, wrapper)

    assert MISSING == refusal(here.store, commits[3])
    assert 200 == ask(here.store, f"/revisions/{commits[1]}")[0]
    asked(here.store, commits[0])


def test_does_not_serve_a_commit_of_the_ref_that_the_gate_refused(
    here: GitSite, commits: list[str]
) -> None:
    wrapper = begin(here, GIT_SYNC_WRAPPER_GATE="syntax")
    refused = here.repository.commit({"bad.py": "def 1\n"})
    wrapper.wait_for_event("revision_refused", revision=refused)

    assert (UNAVAILABLE, "commit_not_shown") == refusal(here.store, refused)
    asked(here.store, commits[4])
    assert {commits[4], commits[5]} == kept(here.store)


def test_requests_fail_during_an_outage_and_succeed_after_it(
    here: GitSite, commits: list[str]
) -> None:
    wrapper = begin(here)
    here.server.inject(lambda exchange: exchange.send(Answer(503)), is_pack)
    assert (UNAVAILABLE, "throttled") == refusal(here.store, commits[0])
    here.server.heal()
    asked(here.store, commits[0])

    here.server.stop()
    ask(here.store, f"/revisions/{commits[1]}")  # before the wrapper notices the outage
    wrapper.wait_for_event("cycle_failed")
    assert (UNAVAILABLE, "request_in_outage") == refusal(here.store, commits[1])
    assert 200 == ask(here.store, f"/revisions/{commits[0]}")[0]
    assert (200, commits[5]) == (wrapper.get("/readyz").status, here.shown())
    here.server.start()
    asked(here.store, commits[1])


def test_serves_older_commits_although_the_newest_cannot_be_checked_out(
    here: GitSite, commits: list[str]
) -> None:
    wrapper = begin(here)
    missing = here.server.url("missing.git")
    here.repository.commit_submodule("inner", missing, commits[0])
    wrapper.wait_for_event("cycle_failed")

    assert 200 == asked(here.store, commits[1])[0]

    assert files_of(1) == files_in(here.store / commits[1])
    assert commits[5] == here.shown()
    new = here.repository.commit(files_of(6), whole=True)
    here.wait_until_shown(new, wrapper)


def test_repairs_the_published_commit_offline_after_a_request(
    here: GitSite, commits: list[str]
) -> None:
    """After the request, git-sync's checkout is restored to the published commit."""
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


def test_retries_a_failed_checkout_of_the_published_commit(
    here: GitSite, commits: list[str]
) -> None:
    """Without that checkout, the published commit could not be repaired offline."""
    wrapper = begin(here)
    candidate = here.root / ".git-sync/candidate"

    def is_of_shown(request: Request) -> bool:
        return is_pack(request) and commits[5].encode() in request.body.partition(b"have")[0]

    asked(here.store, commits[1])
    wrapper.sync()  # so that the cycle before it has ended
    assert commits[5] == candidate.readlink().name
    here.server.inject(lambda exchange: exchange.send(Answer(503)), is_of_shown)
    shutil.rmtree(here.root / ".git-sync")  # so that the published commit must be fetched again
    asked(here.store, commits[2])
    wrapper.wait_for_event("checkout_failed", revision=commits[5])
    assert commits[2] == candidate.readlink().name
    here.server.heal()

    wrapper.sync()

    assert commits[5] == candidate.readlink().name


def test_serves_older_commits_but_not_one_that_failed_its_pre_publish_hook(
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


def test_does_not_serve_a_commit_while_its_pre_publish_hook_runs(
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


def test_refuses_the_hash_of_an_annotated_tag_object(here: GitSite, commits: list[str]) -> None:
    here.repository.tag("v1", commits[5], "annotated")
    wrapper = here.wrapper(GITSYNC_REF="v1", **KEEPS_NONE)
    here.wait_until_shown(commits[5], wrapper)

    assert MISSING == refusal(here.store, here.repository.git("rev-parse", "refs/tags/v1"))
    asked(here.store, commits[1])
    assert {commits[1], commits[5]} == kept(here.store)


def test_switching_repositories_drops_the_kept_commits_of_the_old_one(
    here: GitSite, commits: list[str]
) -> None:
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
        {"GIT_SYNC_WRAPPER_KEEP_REQUESTED": "2"},
        # Two commits: each has one file of its own and `.git`; shared files do not count.
        {"GIT_SYNC_WRAPPER_KEEP_REQUESTED_BYTES": str(4 * BLOCK_BYTES)},
    ],
    ids=["number", "bytes"],
)
def test_keeps_the_most_recently_used_requested_commits(
    here: GitSite, commits: list[str], limit: dict[str, str]
) -> None:
    wrapper = begin(here, **limit)
    for commit in commits[:4]:
        asked(here.store, commit)

    wrapper.sync()

    assert {*commits[2:4], commits[5]} == kept(here.store)


def test_a_restart_after_a_kill_keeps_requested_commits_and_cleans_up(
    here: GitSite, commits: list[str]
) -> None:
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
def test_the_history_contains_no_password_and_no_file_contents(
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
    assert sum(path.stat().st_size for path in inside) < 20_000  # a commit has 100 kB


@pytest.mark.parametrize("lacking", ["allowAnySHA1InWant", "allowFilter"])
def test_serves_older_commits_from_servers_that_lack_a_git_feature(
    here: GitSite, commits: list[str], lacking: str
) -> None:
    """The server refuses commits by hash (possible only in the old protocol) or has no filters."""
    here.repository.git("config", f"uploadpack.{lacking}", "false")
    begin(here, GITSYNC_GIT_CONFIG="protocol.version:0")

    for number in (4, 1):
        asked(here.store, commits[number])
        assert files_of(number) == files_in(here.store / commits[number])


def test_an_older_commit_has_its_submodules_at_their_old_commits(here: GitSite) -> None:
    inner = here.server.repository("inner.git")
    old = inner.commit({"inner.py": "x = 1\n"})
    first = here.repository.commit_submodule("inner", here.server.url("inner.git"), old)
    new = inner.commit({"inner.py": "x = 2\n"})
    here.repository.commit_submodule("inner", here.server.url("inner.git"), new)
    begin(here)

    asked(here.store, first)

    assert b"x = 1\n" == (here.store / first / "inner/inner.py").read_bytes()
    assert b"x = 2\n" == (here.link / "inner/inner.py").read_bytes()


def test_a_standby_serves_requests_only_after_it_takes_over(
    here: GitSite, commits: list[str]
) -> None:
    holder = begin(here)
    waiting = here.wrapper(**KEEPS_NONE)
    waiting.wait_for_event("target_waiting")
    asked(here.store, commits[0])
    holder.wait_for_event("requested_revision_ready", revision=commits[0])
    holder.kill()

    wait_until((here.store / "ask.sock").is_socket, "a socket")
    waiting.sync()
    asked(here.store, commits[1])
    waiting.wait_for_event("requested_revision_ready", revision=commits[1])


@pytest.mark.parametrize(("size", "least"), [("12m", 1), ("16m", 4)])
def test_on_a_small_volume_serves_requests_and_drops_them_for_a_new_commit(
    tmp_path: Path, size: str, least: int
) -> None:
    """Otherwise a cache would stop the pod from following its ref."""
    with git_site(tmp_path) as site, small_volume(site.folder / "root", size):
        files = ({"data.bin": os.urandom(1_500_000)} for _ in range(4))
        made = [site.repository.commit(one, whole=True) for one in files]
        wrapper = begin(site)
        store = site.root / ".snapshots"
        for commit in made[:3]:
            assert 200 == asked(store, commit, lambda status: status != 202)[0]
        assert least <= len(kept(store))

        for _ in range(4):
            new = site.repository.commit({"data.bin": os.urandom(1_500_000)}, whole=True)
            site.wait_until_shown(new, wrapper, 60)
        assert not kept(store) & {*made}
        wrapper.kill()


def test_requests_report_the_outage_after_a_restart_during_it(
    here: GitSite, commits: list[str]
) -> None:
    begin(here).kill()
    here.server.stop()
    wrapper = here.wrapper(**KEEPS_NONE)
    wrapper.wait_for_event("cycle_failed")

    assert (UNAVAILABLE, "request_in_outage") == refusal(here.store, commits[1])
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


def test_drops_an_unfiltered_history_to_publish_on_a_full_volume(tmp_path: Path) -> None:
    """A server without filters sends a history with all files."""
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


def test_a_history_fetch_that_times_out_leaves_no_temporary_packs(
    here: GitSite, commits: list[str]
) -> None:
    """A server without filters sends all files, and a killed git leaves a partial pack."""

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
