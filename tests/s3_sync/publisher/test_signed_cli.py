"""The commands that sign and verify, and their errors about keys."""

import signal
from collections.abc import Callable, Iterator
from operator import itemgetter
from pathlib import Path
from typing import Any

import pytest

from s3_sync import command
from s3_sync.release.names import POINTER_KEY
from tests.runtime.recording import handlers_kept
from tests.s3_sync.bucket import Bucket
from tests.support.s3_sync.publishing import PREFIX, Ran, write_files
from tests.support.s3_sync.signing import Key, write_keys

A = {"a.py": b"print('a')\n", "sql/a.sql": b"select 1;\n" * 40}
B = {"a.py": b"print('b')\n", "c.py": b""}
KEY, OTHER = Key(), Key()
JSON = ("--output", "json")

Run = Callable[..., Ran]


@pytest.fixture
def run(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Run]:
    """A function that runs a command in this process, which saves a second of imports."""
    monkeypatch.setenv("AWS_BUCKET", bucket.server.bucket)
    monkeypatch.setenv("KEY_PATH", PREFIX)
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def run_one(*arguments: str | Path) -> Ran:
        monkeypatch.setattr("sys.argv", ["s3-sync", *map(str, arguments)])
        code = command.run()
        return Ran(code, *capsys.readouterr())

    with handlers_kept():
        yield run_one
    for number, handler in before.items():
        signal.signal(number, handler)


def test_commands_sign_and_verify_and_report_it(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def succeed(*arguments: str | Path) -> Any:
        ran = run(*arguments, "--output", "json")
        assert 0 == ran.code, ran
        return ran.facts()

    private = KEY.write_private(tmp_path / "key.pem")
    trusted = ["--trusted-keys", str(write_keys(tmp_path / "keys", KEY))]
    others = ["--trusted-keys", str(write_keys(tmp_path / "others", OTHER))]
    url = f"s3://dags-bucket/{PREFIX}"
    folder = write_files(tmp_path / "dags", A)
    unsigned = succeed("publish", folder)
    assert "signed_by" not in unsigned

    said = run("publish", folder, "--sign-key", private, *trusted)
    assert (0, f"Signed by {KEY.key_id}\n") == (said.code, said.out[-27:]), said
    assert "pointer_untrusted" in said.err
    monkeypatch.setenv("S3_SYNC_SIGN_KEY", str(private))
    write_files(folder, B)
    assert KEY.key_id == succeed("publish", folder)["signed_by"]
    assert KEY.key_id == succeed("rollback")["signed_by"]
    promoted = succeed("promote", url, f"{url}prd", *trusted)
    assert ("promoted", KEY.key_id) == (promoted["result"], promoted["signed_by"])

    monkeypatch.delenv("S3_SYNC_SIGN_KEY")
    listed = succeed("releases", *trusted)
    assert {(KEY.key_id, None)} == {(r["signed_by"], r["refused"]) for r in listed["releases"]}
    assert (KEY.key_id, None) == (listed["signed_by"], listed["refused"])
    listed = succeed("releases", *others)
    assert all("not trusted" in one["refused"] for one in [listed, *listed["releases"]])
    text = run("releases", *others)
    assert f"current.json is refused: it is signed by {KEY.key_id}" in text.out
    assert 2 == text.out.count("untrusted")
    revision = unsigned["revision"]
    for arguments in (
        ["diff", "current", "current"],
        ["diff", revision, revision],
        ["pin", revision],
        ["prune-releases"],
        ["promote", url, f"{url}other"],
    ):
        refused = run(*arguments, *others, "--output", "json")
        assert (3, "release_untrusted") == (refused.code, refused.facts()["reason"]), arguments
        assert 0 == run(*arguments, *trusted).code, arguments


@pytest.mark.parametrize("name", ["current", "previous"])
def test_diff_reports_a_missing_current_or_previous(run: Run, bucket: Bucket, name: str) -> None:
    if name == "previous":
        bucket.publish(A)

    said = run("diff", name, name, *JSON)

    assert (3, "history_empty") == (said.code, said.facts()["reason"])
    assert "`s3-sync releases`" in said.facts()["advice"]


def test_lists_releases_despite_an_invalid_or_restored_pointer(run: Run, bucket: Bucket) -> None:
    revision = bucket.publish(A).revision
    pointer = bucket.bodies()[PREFIX + POINTER_KEY]
    assert (None, None) == itemgetter("refused", "replayed")(run("releases", *JSON).facts())

    bucket.put_back(pointer)
    text, facts = run("releases").out, run("releases", *JSON).facts()
    assert "an old pointer was restored" in text and revision[:12] in text
    assert facts["replayed"] in text

    bucket.server.put(PREFIX + POINTER_KEY, b"{}")
    text, facts = run("releases").out, run("releases", *JSON).facts()
    assert f"current.json is refused: {facts['refused']}" in text and revision[:12] in text
    stopped = run("publish", bucket.folder, *JSON)
    assert (3, "pointer_invalid") == (stopped.code, stopped.facts()["reason"])
    assert 0 == run("publish", bucket.folder, "--repair").code
    assert A == bucket.current()


def test_a_repair_of_the_current_release_suggests_no_undo(run: Run, bucket: Bucket) -> None:
    revision = bucket.publish(A).revision

    said = run("rollback", revision, "--repair").out

    assert f" back to {revision[:12]}" in said
    assert "undo" not in said


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["publish", "dags", "--sign-key", "nowhere"], "cannot be read: No such file"),
        (["publish", "dags", "--sign-key", "keys"], "cannot be read: Is a directory"),
        (["publish", "dags", "--sign-key", "other.pem", "--trusted-keys", "keys"],
         "which is not in S3_SYNC_TRUSTED_KEYS"),
        (["publish", "dags", "--trusted-keys", "keys"], "requires --sign-key"),
        (["publish", "dags", "--sign-key", ""], "is empty: name a file"),
        (["releases", "--trusted-keys", ""], "is empty: name a file"),
        (["rollback", "--trusted-keys", "keys"], "requires --sign-key"),
        (["promote", "s3://dev", "s3://prd", "--sign-key", "key.pem"], "requires --trusted-keys"),
        (["releases", "--trusted-keys", "key.pem"], "contains a private key in key.pem"),
        (["releases", "--trusted-keys", "nowhere"], "cannot be read"),
    ],
)  # fmt: skip
def test_refuses_unusable_key_options_with_one_error(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], said: str
) -> None:
    KEY.write_private(tmp_path / "key.pem")
    OTHER.write_private(tmp_path / "other.pem")
    write_keys(tmp_path / "keys", KEY)
    write_files(tmp_path / "dags", A)
    monkeypatch.chdir(tmp_path)

    ran = run(*arguments, "--output", "json")

    assert 2 == ran.code
    assert said in ran.facts()["error"]
    assert "PRIVATE" not in ran.out + ran.err


@pytest.mark.parametrize("option", ["--sign-key", "--trusted-keys"])
def test_does_not_show_a_key_that_is_given_instead_of_its_file(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, option: str
) -> None:
    """A CI variable that should be a file contains the key itself."""
    KEY.write_private(tmp_path / "key.pem")
    pem = (tmp_path / "key.pem").read_text()
    write_files(tmp_path / "dags", A)
    monkeypatch.chdir(tmp_path)

    ran = run("publish", "dags", option, pem, "--output", "json")

    assert 2 == ran.code
    assert "is a key; write the path of the file that contains it" in ran.facts()["error"]
    assert pem.splitlines()[1] not in ran.out + ran.err
