"""
Generate the values in charts-snippets/ from their source, or print the values for one deployment.

    python -m scripts.snippets              write the files that differ
    python -m scripts.snippets --check      write nothing; exit with 1 if a file differs
    python -m scripts.snippets values AIRFLOW=3 EXECUTOR=LocalExecutor SOURCE=git ENV=dev

The source is in charts-snippets/source: `containers/` defines each container once, `files/` has a
template for each file with containers, and `values.yaml.jinja` is the template for printed values.
The templates are Jinja with square brackets, because the chart uses `{{ }}`. A line that consists
only of `[[ … ]]` is inserted with its indentation, and omitted if empty.
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

# The arguments of `values`, and their allowed values.
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
    Insert a value with the indentation of its line.
    """

    def preprocess(self, source: str, name: str | None, filename: str | None = None) -> str:
        pasted = r'[% filter pasted("\1") %][[ \2 ]][% endfilter %]'
        return re.sub(r"^( *(?:- )?)\[\[ (.+) \]\]$", pasted, source, flags=re.MULTILINE)


def _pasted(text: str, before: str) -> str:
    lines = textwrap.indent(str(text).strip("\n"), " " * len(before))
    return f"{before}{lines.lstrip()}\n" if lines else ""


def _scalar(text: str) -> str:
    """
    Quote a text that YAML would not read as this text.
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
    Return the path and content of every generated file.
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
    Return the values for one deployment.

    Args:
        choice: A value for each argument in CHOICES.
    """
    words = {name.lower(): word for name, word in choice.items()}
    return _TEMPLATES.get_template(f"values.yaml{SUFFIX}").render(words)


def combinations() -> Iterator[dict[str, str]]:
    """
    Yield every combination of arguments.
    """
    for words in itertools.product(*CHOICES.values()):
        yield dict(zip(CHOICES, words, strict=True))


def complaints(choice: Mapping[str, str]) -> list[str]:
    """
    Return a complaint for each unknown argument value.

    Args:
        choice: A value for each argument in CHOICES.
    """
    return [
        f"{name}={word}: write {' or '.join(filter(None, CHOICES[name]))}"
        f"{', or omit it' if '' in CHOICES[name] else ''}"
        for name, word in choice.items()
        if word not in CHOICES[name]
    ]


def main() -> int:
    """
    Write the files, check them, or print values; return the exit code.
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
