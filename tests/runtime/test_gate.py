"""
The gate with real programs: what it accepts, what it refuses and how it says so.
"""

import os
import shlex
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from sidecar_runtime import gate as module
from sidecar_runtime.ask import KEPT_BYTES
from sidecar_runtime.errors import SidecarError
from sidecar_runtime.fence import CycleAbandoned, Fence
from sidecar_runtime.gate import NAMED_FINDINGS, VERDICTS, Gate, GateMetrics, RevisionRefused
from sidecar_runtime.gate_check import (
    PROBLEM_CHARACTERS,
    Check,
    Finding,
    command_check,
    syntax_check,
)
from sidecar_runtime.gate_settings import command_line
from sidecar_runtime.metrics import Metrics
from sidecar_runtime.syntax import NEWEST
from tests.runtime.recording import Log
from tests.support.waiting import wait_until

PATIENCE_SECONDS = 30.0


class Door:
    """
    A gate before a folder, with what it reports to.
    """

    def __init__(self, folder: Path, check: Check, timeout_seconds: float) -> None:
        self.folder = folder
        self.metrics = Metrics("box", "1", "r")
        self.gate = Gate(check, timeout_seconds, GateMetrics(self.metrics))
        self.fence = Fence()

    def judge(self, revision: str = "r1", changed: Sequence[str] = ()) -> RevisionRefused | None:
        return self.gate.judge(revision, str(self.folder), changed, self.fence)

    def findings(self, revision: str = "r1", changed: Sequence[str] = ()) -> list[Finding]:
        """
        Why it is refused; nothing where it is accepted.
        """
        refused = self.judge(revision, changed)
        return list(refused.findings) if refused else []

    def checks(self, result: str) -> float:
        labels = {"sidecar": "box", "result": result}
        return self.metrics.registry.get_sample_value("sidecar_gate_checks_total", labels) or 0

    @property
    def refused(self) -> float | None:
        return self.metrics.registry.get_sample_value("sidecar_gate_refused", {"sidecar": "box"})


Knock = Callable[..., Door]


@pytest.fixture
def knock(tmp_path: Path) -> Knock:
    """
    Make a gate of a shell script, or with `grammar` one of the syntax check.
    """
    folder = tmp_path / "candidate"
    folder.mkdir()

    def make(script: str = "", timeout_seconds: float = PATIENCE_SECONDS, **changes: Any) -> Door:
        if "grammar" in changes:
            check = syntax_check(changes["grammar"])
        else:
            check = command_check(("sh", "-c", script))
        return Door(folder, check, timeout_seconds)

    return make


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def pid_in(file: Path) -> int:
    """
    The process number that a script wrote down.
    """
    return int(wait_until(lambda: file.exists() and file.read_text().strip(), f"{file} is there"))


def children() -> set[str]:
    return set(Path(f"/proc/self/task/{threading.get_native_id()}/children").read_text().split())


# --- accepting


@pytest.mark.parametrize("script", ["", "exit 0", "echo a.py:1: a warning; exit 0", "true >&2"])
def test_exit_code_0_accepts_whatever_it_says(knock: Knock, log: Log, script: str) -> None:
    door = knock(script)
    (door.folder / "a.py").write_text("x")

    assert door.judge() is None
    assert (1, 0, 0) == (door.checks("accepted"), door.checks("refused"), door.refused)
    assert log.events("revision_refused") == []


def test_a_command_gets_the_folder_the_revision_and_the_changed_paths(knock: Knock) -> None:
    door = knock('pwd; echo "$GATE_FOLDER $GATE_REVISION"; od -An -c; exit 1')
    paths = ["a b.py", "d/new\nline.txt", "ü"]
    refused: list[str] = []
    door.gate._check = Check(
        door.gate._check.argv, lambda said, code, is_file: refused.append(said) or []
    )

    assert door.judge("r7", paths) is None

    where, what, *bytes_ = refused[0].splitlines()
    assert os.path.realpath(door.folder) == os.path.realpath(where)
    assert f"{door.folder} r7" == what
    question = b"".join(os.fsencode(path) + b"\0" for path in paths)
    assert question == b"".join(
        {"\\0": b"\0", "\\n": b"\n", "": b" "}.get(one)
        or (bytes([int(one, 8)]) if len(one) == 3 else one.encode())
        for line in bytes_
        for one in (line[i : i + 4].strip() for i in range(0, len(line), 4))
    )


def test_a_command_keeps_the_environment_and_writes_no_bytecode(
    knock: Knock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW_HOME", "/opt/airflow")
    monkeypatch.delenv("PYTHONDONTWRITEBYTECODE", raising=False)
    python = shlex.quote(sys.executable)
    door = knock(f'test "$AIRFLOW_HOME" = /opt/airflow || exit 1; {python} -c "import a"')
    (door.folder / "a.py").write_text("x = 1\n")

    assert door.judge() is None
    assert ["a.py"] == os.listdir(door.folder)


def test_no_shell_is_between(knock: Knock, tmp_path: Path) -> None:
    door = knock()
    door.gate._check = command_check(command_line(f"{sys.executable} -c 'exit(\"$HOME; exit 0\")'"))

    assert [Finding("", None, "$HOME; exit 0")] == door.findings()


@pytest.mark.parametrize("count", [0, 1, 5_000])
def test_a_command_that_reads_nothing_is_no_problem(knock: Knock, count: int) -> None:
    paths = [f"a/long/folder/name/{number}.py" for number in range(count)]

    assert knock("exit 0").judge(changed=paths) is None
    assert knock("exec <&-; sleep 0.1").judge(changed=paths) is None
    assert knock("head -c 10; exec <&-; sleep 0.1").judge(changed=paths) is None


def test_a_long_question_and_a_long_answer_do_not_block_each_other(knock: Knock) -> None:
    """
    `tee` writes as it reads: whoever only writes first waits for ever.
    """
    paths = [f"a/long/folder/name/{number}.py" for number in range(100_000)]

    assert knock("tee /dev/stderr").judge(changed=paths) is None


def test_closing_its_output_is_not_its_end(knock: Knock, tmp_path: Path) -> None:
    door = knock(f"exec >&- 2>&-; sleep 0.2; touch {tmp_path}/done; exit 3")

    assert [Finding("", None, "the command ended with exit code 3")] == door.findings()
    assert (tmp_path / "done").exists()


# --- refusing


def test_a_refused_revision_is_named_in_log_metric_error_and_facts(knock: Knock, log: Log) -> None:
    says = "d/a.py:12: it is broken", "d/b.py:3:7: this too", "d/b.py:9: and this"
    door = knock("; ".join(f"echo '{line}'" for line in says) + "; exit 1")
    (door.folder / "d").mkdir()
    for name in ("a.py", "b.py"):
        (door.folder / "d" / name).write_text("x")

    refused = door.judge("r7")

    assert refused is not None
    assert ("revision_refused", 3) == (refused.reason, refused.exit_code)
    assert "the gate refuses revision r7: d/a.py:12: it is broken; 2 more" == refused.message
    assert "last good revision stays" in refused.advice
    assert {
        "revision": "r7",
        "files_refused": 2,
        "problems": ["d/a.py:12: it is broken", "d/b.py:3: this too", "d/b.py:9: and this"],
    } == refused.facts()
    (event,) = log.events("revision_refused")
    assert {
        "level": "error",
        "revision": "r7",
        "path": "d/a.py",
        "line": 12,
        "problem": "it is broken",
        "files_refused": 2,
        "problems": [
            {"path": "d/a.py", "line": 12, "problem": "it is broken"},
            {"path": "d/b.py", "line": 3, "problem": "this too"},
            {"path": "d/b.py", "line": 9, "problem": "and this"},
        ],
    }.items() <= event.items()
    assert (0, 1, 1) == (door.checks("accepted"), door.checks("refused"), door.refused)


def test_one_problem_has_no_more(knock: Knock) -> None:
    refused = knock("echo it is broken; exit 1").judge()

    assert refused is not None
    assert "the gate refuses revision r1: it is broken" == refused.message


def test_many_problems_are_counted_and_the_first_ones_named(knock: Knock, log: Log) -> None:
    count = NAMED_FINDINGS + 10
    door = knock(f"for i in $(seq {count}); do echo $i.py:1: what; done; exit 1")
    for number in range(1, count + 1):
        (door.folder / f"{number}.py").write_text("x")

    refused = door.judge()

    assert refused is not None
    assert NAMED_FINDINGS == len(refused.findings) and count == refused.files_refused
    assert refused.message.endswith(f"1.py:1: what; {count - 1} more")
    assert NAMED_FINDINGS == len(log.events("revision_refused")[0]["problems"])


# --- what a command says


def said_by(knock: Knock, text: str, *files: str, code: int = 1) -> list[tuple[Any, ...]]:
    """
    The findings of a command that writes a text and refuses, in a folder with these files.
    """
    door = knock(f"cat text; exit {code}")
    for path in ("text", *files):
        (door.folder / path).parent.mkdir(parents=True, exist_ok=True)
        (door.folder / path).write_text("x")
    (door.folder / "text").write_bytes(text.replace("FOLDER", str(door.folder)).encode())
    return [(one.path, one.line, one.problem) for one in door.findings()]


@pytest.mark.parametrize(
    "line",
    [
        "d/a.py:12: what",
        "d/a.py:12:3: what",
        "d/a.py:12:  what  ",
        "d/a.py:12 what",
        "FOLDER/d/a.py:12: what",
        "d/a.py:12: what\r",
    ],
)
def test_a_place_is_path_line_and_problem(knock: Knock, line: str) -> None:
    assert [("d/a.py", 12, "what")] == said_by(knock, f"checking\n{line}\ndone\n", "d/a.py")


@pytest.mark.parametrize(
    "line",
    [
        "2024-01-01 12:30:45 INFO what",
        "12:30:45 what",
        "localhost:5432 refused",
        "/usr/lib/python3/x.py:12: what",
        "other.py:12: what",
        "d:12: a folder",
        "../text:12: what",
        "a.py: what",
        "a.py:x: what",
        ":12: what",
        "  a.py:12: indented",
        "a.py:12:",
    ],
)
def test_what_is_no_place_in_the_revision_is_not_taken_for_one(knock: Knock, line: str) -> None:
    """
    Log lines and libraries; the last line says what it is about.
    """
    expected = ("", None, "the end of it")

    assert [expected] == said_by(knock, f"{line}\nthe end of it\n\n  \n", "d/a.py", "a.py")


def test_a_problem_that_a_name_with_colon_and_blank_has_is_still_told(knock: Knock) -> None:
    assert [("a b.py", 1, "what: ever")] == said_by(knock, "a b.py:1: what: ever\n", "a b.py")


def test_places_stand_in_the_order_of_the_text(knock: Knock) -> None:
    text = "b.py:9: one\nnoise\na.py:1: two\nb.py:9: one\n"

    assert [("b.py", 9, "one"), ("a.py", 1, "two"), ("b.py", 9, "one")] == said_by(
        knock, text, "a.py", "b.py"
    )


TRACEBACK = """Traceback (most recent call last):
  File "/usr/bin/check", line 3, in <module>
    main()
  File "FOLDER/d/a.py", line 7, in <module>
    import b
  File "FOLDER/b.py", line 2, in <module>
    lookup("x")
  File "/usr/lib/python3/site-packages/airflow/x.py", line 99, in lookup
    raise KeyError(name)
KeyError: 'x'
"""


def test_a_traceback_leads_to_its_last_frame_in_the_revision(knock: Knock) -> None:
    """
    Where a library raises, the line that called it is the one to mend.
    """
    assert [("b.py", 2, "KeyError: 'x'")] == said_by(knock, TRACEBACK, "d/a.py", "b.py")


def test_a_traceback_of_the_check_itself_has_no_place(knock: Knock) -> None:
    assert [("", None, "KeyError: 'x'")] == said_by(knock, TRACEBACK)


def test_a_syntax_error_of_python_leads_to_its_line(knock: Knock) -> None:
    door = knock(f"{shlex.quote(sys.executable)} broken.py")
    (door.folder / "broken.py").write_text("x = 1\nx = = 2\n")

    assert [Finding("broken.py", 2, "SyntaxError: invalid syntax")] == door.findings()


def test_a_place_wins_over_a_traceback(knock: Knock) -> None:
    assert [("b.py", 1, "what")] == said_by(knock, TRACEBACK + "b.py:1: what\n", "d/a.py", "b.py")


@pytest.mark.parametrize("text", ["", "\n\n  \n"])
def test_who_says_nothing_is_named_by_its_exit_code(knock: Knock, text: str) -> None:
    assert [("", None, "the command ended with exit code 7")] == said_by(knock, text, code=7)


def test_errors_are_heard_as_output_is(knock: Knock) -> None:
    assert [Finding("", None, "on stderr")] == knock("echo on stderr >&2; exit 1").findings()


@pytest.mark.parametrize("name", ["KILL", "TERM", "SEGV"])
def test_who_is_killed_is_named_by_the_signal(knock: Knock, name: str) -> None:
    number = signal.Signals[f"SIG{name}"].value

    assert [Finding("", None, f"the command ended with signal {number}")] == knock(
        f"kill -{name} $$"
    ).findings()


def test_bytes_that_are_no_text_are_shown_as_well_as_can_be(knock: Knock) -> None:
    (finding,) = knock("printf 'a\\377b\\n'; exit 1").findings()

    assert "a\ufffdb" == finding.problem


def test_a_long_line_is_cut(knock: Knock) -> None:
    assert [("a.py", 1, "x" * PROBLEM_CHARACTERS)] == said_by(
        knock, f"a.py:1: {'x' * 5_000}\n", "a.py"
    )
    (finding,) = said_by(knock, "y" * 5_000)
    assert ("", None, "y" * PROBLEM_CHARACTERS) == finding


def test_of_a_long_text_the_end_is_kept(knock: Knock) -> None:
    noise = "z" * 99 + "\n"
    text = f"a.py:1: first\n{noise * (KEPT_BYTES // 50)}a.py:2: last\n"

    assert [("a.py", 2, "last")] == said_by(knock, text, "a.py")


# --- too slow, endless, not to be ended


@pytest.mark.parametrize(
    "script",
    [
        "sleep 600",
        "exec sleep 600 <&- >&- 2>&-",
        "yes",
        "yes & yes & yes & yes",
        "while :; do :; done",
        "trap '' TERM; sleep 600",
    ],
)
def test_who_takes_too_long_is_killed_and_the_revision_refused(
    knock: Knock, script: str, log: Log
) -> None:
    door = knock(f"echo a.py:1: what; {script}", timeout_seconds=0.5)
    began = time.monotonic()

    assert [Finding("", None, "no verdict within 0.5 s")] == door.findings()

    assert time.monotonic() - began < PATIENCE_SECONDS / 2
    assert 1 == door.checks("refused")
    assert ["no verdict within 0.5 s"] == [
        event["problem"] for event in log.events("revision_refused")
    ]


def test_a_syntax_check_that_takes_too_long_is_a_failure_and_no_verdict(knock: Knock) -> None:
    """
    A compiler does not hang: it has too many files for its share of the CPU.
    """
    door = knock(timeout_seconds=0.3)
    door.gate._check = Check(("sleep", "600"), lambda *_: [], ".py")

    for _ in range(2):
        with pytest.raises(SidecarError) as caught:
            door.judge(changed=["a.py", "b.py", "c.yaml"])

    assert "gate_failed" == caught.value.reason
    assert "2 files were not checked within 0.3 s" == caught.value.message
    assert "GATE_TIMEOUT" in caught.value.advice
    assert (0, 0) == (door.checks("accepted"), door.checks("refused"))


@pytest.mark.parametrize("end", ["exit 0", "exit 1", "exec sleep 600"])
def test_children_that_it_leaves_behind_are_killed(knock: Knock, tmp_path: Path, end: str) -> None:
    """
    And whoever keeps its output open is not waited for.
    """
    door = knock(
        f"sleep 600 & echo $! > {tmp_path}/pid.new; mv {tmp_path}/pid.new {tmp_path}/pid; {end}",
        timeout_seconds=1 if "sleep" in end else PATIENCE_SECONDS,
    )
    before = children()
    began = time.monotonic()

    assert (door.judge() is None) == (end == "exit 0")

    assert time.monotonic() - began < PATIENCE_SECONDS / 2
    wait_until(lambda: not is_alive(pid_in(tmp_path / "pid")), "its child is gone")
    assert before == children()


def test_a_child_that_floods_the_output_does_not_keep_its_parent(knock: Knock) -> None:
    assert knock("yes & exit 0", timeout_seconds=10).judge() is None


def test_no_descriptor_is_left(knock: Knock) -> None:
    knock("true").judge()
    before = os.listdir("/proc/self/fd")

    knock("true").judge()
    knock("echo no; exit 1").judge()
    knock("sleep 600", timeout_seconds=0.2).judge()

    assert before == os.listdir("/proc/self/fd")


# --- abandoned


def test_a_revoked_fence_kills_the_check_with_its_children(knock: Knock, tmp_path: Path) -> None:
    door = knock(
        f"sleep 600 & echo $! > {tmp_path}/child; echo $$ > {tmp_path}/parent; exec sleep 600"
    )
    ends: list[BaseException] = []

    def judge() -> None:
        try:
            door.judge()
        except CycleAbandoned as end:
            ends.append(end)

    thread = threading.Thread(target=judge)
    thread.start()
    pids = [pid_in(tmp_path / name) for name in ("parent", "child")]

    door.fence.revoke()
    thread.join(PATIENCE_SECONDS)

    assert 1 == len(ends)
    wait_until(lambda: not any(map(is_alive, pids)), "both are gone")
    assert (0, 0) == (door.checks("accepted"), door.checks("refused"))


def test_an_abandoned_check_is_no_verdict(knock: Knock) -> None:
    door = knock("exit 0")
    door.fence.revoke()

    with pytest.raises(CycleAbandoned):
        door.judge()
    door.fence = Fence()

    assert door.judge() is None
    assert (1, 0) == (door.checks("accepted"), door.checks("refused"))


def test_a_fence_that_is_revoked_later_kills_nobody(knock: Knock) -> None:
    """
    The number may be another's by then.
    """
    door = knock("exit 0")
    killed: list[int] = []
    assert door.judge() is None
    before, os.killpg = os.killpg, lambda pid, number: killed.append(pid)
    try:
        door.fence.revoke()
    finally:
        os.killpg = before

    assert [] == killed


# --- it cannot be started


def test_a_command_that_cannot_be_started_is_a_failure_and_no_verdict(
    knock: Knock, tmp_path: Path
) -> None:
    program = tmp_path / "check"
    door = knock()
    door.gate._check = command_check((str(program),))

    for content, mode in (
        (None, 0),
        ("#!/bin/sh\n", 0o644),
        ("#!/nowhere\n", 0o755),
        ("\x7fELF", 0o755),
    ):
        if content is not None:
            program.write_text(content)
            program.chmod(mode)
        with pytest.raises(SidecarError) as caught:
            door.judge()
        assert "gate_failed" == caught.value.reason
        assert caught.value.message.startswith("the gate's command cannot be started: ")
        assert "last good revision stays" in caught.value.advice
    program.write_text("#!/bin/sh\nexit 0\n")

    assert door.judge() is None
    assert (1, 0) == (door.checks("accepted"), door.checks("refused"))


def test_a_folder_that_is_gone_is_a_failure_and_no_verdict(knock: Knock) -> None:
    door = knock("exit 0")
    door.folder.rmdir()

    with pytest.raises(SidecarError) as caught:
        door.judge()

    assert "gate_failed" == caught.value.reason


# --- each revision once


@pytest.mark.parametrize("code", [0, 1])
def test_a_verdict_is_final(knock: Knock, tmp_path: Path, log: Log, code: int) -> None:
    door = knock(f"echo x >> {tmp_path}/ran; echo what; exit {code}")

    verdicts = [door.judge() for _ in range(3)]

    assert 1 == len((tmp_path / "ran").read_text().split())
    assert verdicts[0] is verdicts[1] is verdicts[2]
    assert 1 == door.checks("refused" if code else "accepted") and float(code) == door.refused
    assert code == len(log.events("revision_refused"))


def test_the_gauge_follows_the_newest_revision(knock: Knock) -> None:
    door = knock('test "$GATE_REVISION" != bad || { echo what; exit 1; }')
    seen = []
    for revision in ("good", "bad", "good", "bad"):
        door.judge(revision)
        seen.append(door.refused)
    door.gate.rest()

    assert [0, 1, 0, 1] == seen and 0 == door.refused
    assert (1, 1) == (door.checks("accepted"), door.checks("refused"))


def test_verdicts_are_remembered_up_to_a_bound_the_oldest_goes_first(
    knock: Knock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "VERDICTS", 3)
    door = knock("exit 0")
    for number in (1, 2, 3, 4):
        door.judge(f"r{number}")
    assert 4 == door.checks("accepted")

    door.judge("r2")
    door.judge("r4")
    assert 4 == door.checks("accepted")
    door.judge("r1")
    assert 5 == door.checks("accepted")
    assert VERDICTS > 20  # of a bucket that goes to and fro


def test_a_failure_is_asked_again(knock: Knock, tmp_path: Path) -> None:
    program = tmp_path / "check"
    door = knock()
    door.gate._check = command_check((str(program),))
    with pytest.raises(SidecarError):
        door.judge()
    program.write_text("#!/bin/sh\necho no; exit 1\n")
    program.chmod(0o755)

    assert [Finding("", None, "no")] == door.findings()


# --- the syntax check behind it


def test_a_file_that_does_not_compile_is_refused_with_its_line(knock: Knock, log: Log) -> None:
    door = knock(grammar=NEWEST)
    (door.folder / "d").mkdir()
    (door.folder / "d/a.py").write_text("x = 1\nx = = 2\n")
    (door.folder / "b.py").write_text("def f(:\n")
    (door.folder / "good.py").write_text("x = 1\n")

    found = door.findings(changed=["good.py", "d/a.py", "b.py"])

    assert [Finding("d/a.py", 2, "invalid syntax"), Finding("b.py", 1, "invalid syntax")] == found
    (event,) = log.events("revision_refused")
    assert ("d/a.py", 2, "invalid syntax", 2) == (
        event["path"],
        event["line"],
        event["problem"],
        event["files_refused"],
    )


def test_only_new_and_changed_python_is_judged(knock: Knock) -> None:
    door = knock(grammar=NEWEST)
    for name in ("old.py", "a.yaml", "b.pyc", "py"):
        (door.folder / name).write_text("x = = 2\n")

    assert [] == door.findings(changed=["a.yaml", "b.pyc", "py"])
    assert 1 == door.checks("accepted")


def test_where_nothing_is_to_be_judged_nothing_is_started(knock: Knock) -> None:
    door = knock()
    door.gate._check = Check(("/nowhere",), lambda *_: [], ".py")

    assert door.judge(changed=["a.yaml"]) is None
    assert door.judge("r2") is None


def test_the_grammar_of_the_settings_is_the_one(knock: Knock) -> None:
    for version, is_refused in (((3, 9), True), ((3, 10), False)):
        door = knock(grammar=version)
        (door.folder / "a.py").write_text("match x:\n    case 1: pass\n")

        assert is_refused == bool(door.findings(changed=["a.py"]))


@pytest.mark.parametrize("name", ["a b.py", "new\nline.py", "ü日本.py", '"quote\\.py', "-c.py"])
def test_names_come_back_as_they_are(knock: Knock, name: str) -> None:
    door = knock(grammar=NEWEST)
    (door.folder / name).write_text("x = = 2\n")

    assert [Finding(name, 1, "invalid syntax")] == door.findings(changed=[name])


def test_a_problem_without_a_line_is_told_by_its_path(knock: Knock) -> None:
    door = knock(grammar=NEWEST)
    (door.folder / "a.py").write_bytes(b"-" * 200_000 + b"1\n")

    (finding,) = door.findings(changed=["a.py"])

    assert "a.py" == finding.path
    assert str(finding).startswith("a.py")


def test_the_folder_cannot_slip_code_into_the_check(knock: Knock) -> None:
    """
    The check starts in a folder that anybody can upload to.
    """
    door = knock(grammar=NEWEST)
    for name in ("ast.py", "json.py", "sidecar_runtime.py", "sitecustomize.py", "a.py"):
        (door.folder / name).write_text("open('ran', 'w')\n")

    assert [] == door.findings(changed=sorted(os.listdir(door.folder)))
    assert not (door.folder / "ran").exists()


def test_a_broken_check_is_a_failure_and_no_verdict(knock: Knock) -> None:
    """
    A file that vanishes meanwhile, or a compiler that the memory limit kills.
    """
    door = knock(grammar=NEWEST)

    with pytest.raises(SidecarError) as caught:
        door.judge(changed=["missing.py"])

    assert "gate_failed" == caught.value.reason
    assert "the syntax check ended with exit code 1: FileNotFoundError" in caught.value.message
    (door.folder / "missing.py").write_text("x = 1\n")
    assert [] == door.findings(changed=["missing.py"])


def test_more_findings_than_fit_are_still_a_refusal(knock: Knock) -> None:
    door = knock(grammar=NEWEST)
    names = [f"{'a' * 200}{number}.py" for number in range(600)]
    for name in names:
        (door.folder / name).write_text("x = = 2\n")

    refused = door.judge(changed=names)

    assert refused is not None
    assert all(one.path in names and one.line == 1 for one in refused.findings)
    assert NAMED_FINDINGS == len(refused.findings)
