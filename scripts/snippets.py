"""
Write the values in charts-snippets/ from their source, or print those of one deployment.

    python -m scripts.snippets              write what differs
    python -m scripts.snippets --check      write nothing; 1 when something differs
    python -m scripts.snippets values AIRFLOW=3 EXECUTOR=LocalExecutor SOURCE=git ENV=dev

The source is in charts-snippets/source: `containers/` has each container once, `files/` a template
for each file that has some, `values.yaml.jinja` the one that is printed.
They are Jinja with square brackets, because the chart has `{{ }}`; a line that is only `[[ … ]]` is
pasted with its indentation, and left out when empty.
"""

from __future__ import annotations

import itertools
import re
import sys
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path

import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from jinja2.ext import Extension

SNIPPETS = Path(__file__).parents[1] / "charts-snippets"
SOURCE = SNIPPETS / "source"
SUFFIX = ".jinja"

# What may be chosen, and the words for it.
CHOICES: Mapping[str, tuple[str, ...]] = {
    "AIRFLOW": ("2", "3"),
    "EXECUTOR": ("LocalExecutor", "CeleryExecutor", "KubernetesExecutor"),
    "SOURCE": ("listing", "release", "git"),
    "ENV": ("dev", "prd"),
    "KERBEROS": ("", "1"),
    "SYNC_PERM": ("", "1"),
}


class _Pasted(Extension):
    """
    Paste at the indentation of the line.
    """

    def preprocess(self, source: str, name: str | None, filename: str | None = None) -> str:
        pasted = r'[% filter pasted("\1") %][[ \2 ]][% endfilter %]'
        return re.sub(r"^( *(?:- )?)\[\[ (.+) \]\]$", pasted, source, flags=re.MULTILINE)


def _pasted(text: str, before: str) -> str:
    lines = textwrap.indent(str(text).strip("\n"), " " * len(before))
    return f"{before}{lines.lstrip()}\n" if lines else ""


def _scalar(text: str) -> str:
    """
    Quote a text where YAML would take it for something else.
    """
    if "{{" in text:
        return f"'{text}'"
    return text if yaml.safe_load(text) == text else f'"{text}"'


def _templates() -> Environment:
    templates = Environment(  # noqa: S701 (it writes YAML)
        loader=FileSystemLoader([SOURCE, SOURCE / "containers"]),
        extensions=[_Pasted],
        undefined=StrictUndefined,
        block_start_string="[%",
        block_end_string="%]",
        variable_start_string="[[",
        variable_end_string="]]",
        comment_start_string="[#",
        comment_end_string="#]",
        keep_trailing_newline=True,
        lstrip_blocks=True,
        trim_blocks=True,
    )
    templates.filters |= {"pasted": _pasted, "scalar": _scalar}
    return templates


_TEMPLATES = _templates()


def files() -> dict[Path, str]:
    """
    Return every file that is written, with what it should be.
    """
    found = sorted((SOURCE / "files").rglob(f"*{SUFFIX}"))
    return {
        SNIPPETS / path.relative_to(SOURCE / "files").with_suffix(""): _TEMPLATES.get_template(
            str(path.relative_to(SOURCE))
        ).render()
        for path in found
    }


def values(choice: Mapping[str, str]) -> str:
    """
    Return the values of one deployment.

    Args:
        choice: A word of each of CHOICES.
    """
    words = {name.lower(): word for name, word in choice.items()}
    return _TEMPLATES.get_template(f"values.yaml{SUFFIX}").render(words)


def combinations() -> Iterator[dict[str, str]]:
    """
    Yield every choice that there is.
    """
    for words in itertools.product(*CHOICES.values()):
        yield dict(zip(CHOICES, words, strict=True))


def complaints(choice: Mapping[str, str]) -> list[str]:
    """
    Name the words that nothing is known of.

    Args:
        choice: A word for each of CHOICES.
    """
    return [
        f"{name}={word}: write {' or '.join(filter(None, CHOICES[name]))}"
        f"{', or leave it out' if '' in CHOICES[name] else ''}"
        for name, word in choice.items()
        if word not in CHOICES[name]
    ]


def main() -> int:
    """
    Do what the arguments say.
    """
    if sys.argv[1:2] == ["values"]:
        choice = dict.fromkeys(CHOICES, "") | dict(one.split("=", 1) for one in sys.argv[2:])
        problems = complaints(choice)
        sys.stderr.writelines(f"{problem}\n" for problem in problems)
        sys.stdout.write("" if problems else values(choice))
        return 2 if problems else 0
    stale = {
        path: text
        for path, text in files().items()
        if not path.is_file() or path.read_text() != text
    }
    for path, text in stale.items():
        name = path.relative_to(SNIPPETS.parent)
        if "--check" in sys.argv[1:]:
            sys.stdout.write(f"{name} differs from its source: run `make snippets`\n")
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
            sys.stdout.write(f"wrote {name}\n")
    return 1 if stale and "--check" in sys.argv[1:] else 0


if __name__ == "__main__":
    sys.exit(main())
