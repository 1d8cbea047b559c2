"""Author, time, subject and changes of the published commit, on page, in log and record."""

import json

from tests.support.daemon import SidecarProcess
from tests.support.git.git_sync import GitSite


def test_page_log_and_record_report_author_time_subject_and_changes(here: GitSite) -> None:
    here.repository.commit({"old.py": "1", "a.py": "1"}, whole=True, author="Ada", message="Begin")
    wrapper = here.publish()
    assert "Ada" == wrapper.wait_for_event("commit_published")["author"]
    commit = here.repository.commit(
        {"a.py": "2", "new.py": "1", "old.py": None}, author="김민지", message="보고서 추가"
    )
    here.wait_until_shown(commit, wrapper)

    told = {"author": "김민지", "subject": "보고서 추가", "changed": ["a.py", "new.py"]}
    found = json.loads((here.root / ".snapshots/published.json").read_bytes())
    assert told.items() <= found.items()
    assert found["committed_at"].startswith("2023-11-14T22:13:")
    said = wrapper.wait_for_event("commit_published", revision=commit)
    assert {"files_changed": 2, **told}.items() <= said.items()

    def check(process: SidecarProcess) -> None:
        process.wait_until_ready()
        details = process.status()["details"]
        shown = details["commit"]
        assert ("김민지", "보고서 추가") == (shown["author"], shown["subject"])
        assert "a.py, new.py" == details["last_change"]

    check(wrapper)
    # From the record: after a restart and beside a lock holder, git and remote are not needed.
    here.server.stop()
    wrapper.kill()
    check(wrapper.start())
    check(here.wrapper())
    check(here.wrapper(GITSYNC_ONE_TIME="false"))
