"""
Prints values, or generates the files of charts-snippets that contain a sidecar.

    python3 -m sidecar_values AIRFLOW=3 EXECUTOR=LocalExecutor SOURCE=git
    python3 -m sidecar_values write    write the files that differ
    python3 -m sidecar_values check    write nothing; exit with 1 if a file differs
"""

from __future__ import annotations

import sys

from sidecar_values.deployment import CHOICES, complaints, values
from sidecar_values.files import SNIPPETS, files

REFUSED = "*make-values-was-refused  # not YAML, so that helm refuses the file\n"
"""Instead of values: from an empty file, helm would install Airflow without sidecars."""


def main(words: list[str]) -> int:
    """
    Do what the words say, and return the exit code.
    """
    if words[:1] in (["write"], ["check"]):
        return _generate(is_check=words == ["check"])
    given = dict(word.partition("=")[::2] for word in words)
    choice = {**dict.fromkeys(CHOICES, ""), **given}
    bare = [word for word in words if "=" not in word]
    problems = [f"{word} has no value: write NAME=VALUE" for word in bare]
    problems += complaints(choice)
    if problems:
        sys.stderr.writelines(f"{problem}\n" for problem in problems)
        sys.stdout.write(REFUSED)
        return 2
    sys.stdout.write(values(choice))
    return 0


def _generate(*, is_check: bool) -> int:
    stale = {
        path: text
        for path, text in files().items()
        if not path.is_file() or path.read_text() != text
    }
    for path, text in stale.items():
        name = path.relative_to(SNIPPETS.parent)
        if is_check:
            sys.stdout.write(f"{name} differs from its source: run `make snippets`\n")
        else:
            path.write_text(text)
            sys.stdout.write(f"wrote {name}\n")
    return 1 if stale and is_check else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
