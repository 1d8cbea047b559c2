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
_REDIRECT = re.compile(r"(?<![<>&\d])>\s*(?:[\w./-]*/)?([\w.-]+)")
_QUOTED = re.compile(r"'[^']*'|\"[^\"]*\"")
# What the reader typed is in the file.
_SAFE = re.compile(r"echo |.*<<$")


def harmful(block: str) -> Iterator[str]:
    """
    Yield each file that a failed command leaves empty, and that a later command uses
    nevertheless: one that does not follow with `&&`, or any after a pipeline, which the
    shell takes for done if its last command is.
    """
    typed = _HEREDOC.sub("<<", block)
    typed = re.sub(r" # .*$| +#$", "", typed, flags=re.MULTILINE)
    joined = re.sub(r"\\\n|\n(?= *(?:&&|\|))|(?<=\|)\n|(?<=&&)\n", " ", typed)
    chains = [line.strip() for line in joined.splitlines()]
    for number, chain in enumerate(chains):
        later = " ".join(chains[number + 1 :])
        is_pipeline = "|" in _QUOTED.sub("", chain)
        for name in () if _SAFE.match(chain) else _REDIRECT.findall(chain):
            if name in later or (is_pipeline and chain.count(name) > 1):
                yield name


@pytest.mark.parametrize(
    "path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT))
)
def test_no_command_uses_the_empty_file_of_one_that_failed(path: Path) -> None:
    blocks = _BLOCK.findall(path.read_text())

    assert [] == [name for block in blocks for name in harmful(block)]
