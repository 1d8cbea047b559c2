"""
Names in Hangul, composed (NFC, as most systems write them) and decomposed (NFD, as macOS does),
are two names, unchanged from the repository to the status page, whatever the locale.
"""

import json
import subprocess
import unicodedata
from html import unescape
from pathlib import Path

import pytest

from tests.support.aws.writable_s3 import WritableS3
from tests.support.git.git_repository import Repository
from tests.support.s3_sync.publishing import Publishing, write_files
from tests.support.s3_sync.scripted import published
from tests.support.s3_sync.shelf import release_daemon

COMPOSED = unicodedata.normalize("NFC", "매출_보고서.py")
DECOMPOSED = unicodedata.normalize("NFD", COMPOSED)
NAMES = [f"영업팀/{name}" for name in (COMPOSED, DECOMPOSED)]
AUTHOR = "김민지"
SUBJECT = "월말 매출을 더한다"


@pytest.mark.parametrize("locale", ["C.UTF-8", "POSIX"])
def test_korean_names_stay_unchanged_from_the_repository_to_the_status_page(
    tmp_path: Path, locale: str
) -> None:
    repository = Repository(tmp_path / "dags.git", "기능/매출")
    files = {name: f"VALUE = {number}\n".encode() for number, name in enumerate(NAMES)}
    repository.commit(files, message=SUBJECT, author=AUTHOR)
    checkout = tmp_path / "checkout"
    subprocess.run(["git", "clone", "--quiet", repository.folder, checkout], check=True)
    language = {"LC_ALL": locale, "S3_SYNC_LOG_LEVEL": "info"}
    with WritableS3() as s3:
        person = Publishing(s3, s3.bucket, tmp_path / "home", language)
        person.succeed("publish", write_files(tmp_path / "before", {"a.py": b""}))
        said = person.run("publish", checkout, "--message", SUBJECT)
        assert 0 == said.code, said
        listed = person.run("releases")
        with release_daemon(s3, tmp_path / "dags", language) as daemon:
            daemon.wait_until_synced()
            page = unescape(daemon.get("/").body.replace("<wbr>", ""))
            status = daemon.get("/status").json()
            log = json.dumps(daemon.events, ensure_ascii=False)

    assert files == published(tmp_path / "dags/current")
    assert 2 == len(files)
    for text in (said.out, log, page):
        assert all(name in text for name in NAMES), text
    for text in (listed.out, page):
        assert SUBJECT in text
    assert AUTHOR in page
    release = status["details"]["release"]
    assert (f"{AUTHOR} <test@example.com>", SUBJECT) == (release["author"], release["message"])
