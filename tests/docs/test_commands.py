"""
Blocks of commands, as a reader pastes them: the shell goes on after a failed one.
"""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docs.test_documents import DOCUMENTS, ROOT

_BLOCK = re.compile(r"^ *```(?:console|bash|sh)\n(.*?)^ *```", re.MULTILINE | re.DOTALL)
_HEREDOC = re.compile(r"<<'(\w+)'.*?^\1$", re.MULTILINE | re.DOTALL)
_REDIRECT = re.compile(r"(?<![<>&\d])>\s*([\w./-]+)")
_QUOTED = re.compile(r"'[^']*'|\"[^\"]*\"")
# What the reader typed is in the file.
_SAFE = re.compile(r"echo |.*<<$")


def commands(block: str) -> list[str]:
    """
    Return the commands of a block, each in one line that still ends with its `&&`.
    """
    typed = _HEREDOC.sub("<<", block)
    typed = re.sub(r" # .*$| +#$", "", typed, flags=re.MULTILINE)
    joined = re.sub(r"\\\n|\n(?= *(?:&&|\|))|(?<=\|)\n", " ", typed)
    return [line.strip() for line in joined.splitlines() if line.strip()]


def harmful(block: str) -> Iterator[str]:
    """
    Yield each file that a failed command leaves empty, and that a later command uses
    nevertheless.
    """
    lines = commands(block)
    for number, line in enumerate(lines):
        if _SAFE.match(line):
            continue
        # the shell takes a pipeline for done if its last command is
        is_pipeline = "|" in _QUOTED.sub("", line)
        for made in _REDIRECT.findall(line):
            name = Path(made).name
            rest = lines[number + 1 :]
            users = [at for at, other in enumerate(rest) if name in other]
            until = lines[number : number + 1 + min(users, default=0)]
            is_chain = all(one.endswith("&&") for one in until)
            if users and (is_pipeline or not is_chain):
                yield name


@pytest.mark.parametrize(
    "path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT))
)
def test_no_command_uses_the_empty_file_of_one_that_failed(path: Path) -> None:
    blocks = _BLOCK.findall(path.read_text())

    assert [] == [name for block in blocks for name in harmful(block)]
