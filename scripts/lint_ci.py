"""
Checks the pipelines of this repository and of charts-snippets/ci: syntax, shell scripts, and the
make targets and variables that they use.

    .venv/bin/python scripts/lint_ci.py

Exits with 1 and prints a line for each problem. check-jsonschema validates the workflows against
GitHub's own schema; for Jenkins no checker works without Jenkins.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import tree_sitter
import tree_sitter_groovy
import yaml

ROOT = Path(__file__).parents[1]
CI = ROOT / "charts-snippets" / "ci"
OWN_WORKFLOWS = ROOT / ".github" / "workflows"
# The sections of Declarative Pipeline that we use, and their allowed parents:
# https://www.jenkins.io/doc/book/pipeline/syntax/
SECTIONS = {
    "pipeline": {""},
    "agent": {"pipeline"},
    "options": {"pipeline"},
    "environment": {"pipeline"},
    "stages": {"pipeline"},
    "post": {"pipeline"},
    "stage": {"stages"},
    "when": {"stage"},
    "steps": {"stage"},
    "withCredentials": {"steps"},
    "always": {"post"},
}
STATEMENTS = {
    "agent": {"label"},
    "options": {"disableConcurrentBuilds", "timeout", "buildDiscarder"},
    "when": {"branch"},
    "steps": {"sh", "archiveArtifacts"},
    "withCredentials": {"sh"},
    "always": {"sh"},
}
# Variables that Jenkins or the credentials in the file define.
GIVEN = {"WORKSPACE_TMP"}
INPUTS = {
    "actions/checkout": {"fetch-depth", "persist-credentials"},
    "actions/setup-python": {"python-version"},
    "actions/upload-artifact": {"name", "path"},
    "aws-actions/configure-aws-credentials": {"role-to-assume", "aws-region"},
}


def shell_complaints(script: str, shell: str) -> list[str]:
    """
    Return shellcheck's findings for a script, and the make targets in it that do not exist.
    """
    done = subprocess.run(
        [Path(sys.executable).with_name("shellcheck"), f"--shell={shell}", "--format=gcc", "-"],
        input=script,
        capture_output=True,
        text=True,
        check=False,
    )
    targets = re.findall(r"^\s*make ([\w-]+)", script, re.MULTILINE)
    makefile = (ROOT / "Makefile").read_text()
    return done.stdout.splitlines() + [
        f"make {target}: no such target"
        for target in targets
        if not re.search(rf"^{target}[ :]", makefile, re.MULTILINE)
    ]


def exported() -> set[str]:
    """
    Return the variables that make reads from the environment.
    """
    return set(
        re.findall(r"\w+", (ROOT / "Makefile").read_text().split("\nexport ")[1].split("\n")[0])
    )


# Jenkins


def _nodes(node: tree_sitter.Node) -> Iterator[tree_sitter.Node]:
    yield node
    for child in node.children:
        yield from _nodes(child)


def _stripped(text: str) -> str:
    """
    Return the program without comments and strings, so that only its structure remains.
    """
    text = re.sub(r"'''.*?'''|'[^'\n]*'|\"[^\"\n]*\"", "''", text, flags=re.DOTALL)
    return re.sub(r"//[^\n]*", "", text)


def section_complaints(text: str) -> list[str]:
    """
    Return the sections and statements that are misplaced or misspelled.
    """
    found, inside = [], [""]
    skeleton = re.sub(r"\((?:[^()]|\([^()]*\))*\)", " ", _stripped(text))
    for words, mark in re.findall(r"([^{}\n]*)([{}\n])", skeleton):
        first, here = words.split()[:1], inside[-1]
        if mark == "{":
            if here not in SECTIONS.get("".join(first), set()):
                found.append(f"{words.strip()} is not allowed in {here or 'the file'}")
            inside.append("".join(first))
        elif first and here != "environment" and first[0] not in STATEMENTS.get(here, set()):
            found.append(f"{first[0]} is not allowed in {here or 'the file'}")
        if mark == "}":
            inside.pop()
    return found


def jenkinsfile_complaints(text: str) -> list[str]:
    """
    Return the problems of a Jenkinsfile.
    """
    parser = tree_sitter.Parser(tree_sitter.Language(tree_sitter_groovy.language()))
    tree = parser.parse(text.encode())
    found = [
        f"line {node.start_point.row + 1}: not Groovy"
        for node in _nodes(tree.root_node)
        if node.is_error or node.is_missing
    ]
    found = found or section_complaints(text)
    if found:
        return found
    # Groovy would insert the values, which exposes secrets in the log and the process list.
    found = [f"not in single quotes: {call}" for call in re.findall(r'\bsh\s*\(?\s*".*', text)]
    (settings,) = re.findall(r"environment \{(.*?)\n    \}", text, re.DOTALL)
    own = set(re.findall(r"^\s*(\w+) = ", settings, re.MULTILINE))
    known = GIVEN | own | set(re.findall(r"[vV]ariable: '(\w+)'", text))
    scripts = re.findall(r"\bsh '''(.*?)'''|\bsh '([^'\n]*)'", text, re.DOTALL)
    for block, line in scripts:
        script = (block or line).replace("\\\\", "\\")
        found += shell_complaints(script, "sh")
        found += [f"${name} is never set" for name in set(re.findall(r"\$(\w+)", script)) - known]
    used = exported() | set(re.findall(r"\$\{?(\w+)", text)) | {"REGISTRY_AUTH_FILE"}
    return found + [f"{name} is never read" for name in sorted(own - used)]


# GitHub


def _inputs_complaints(step: Mapping[str, Any]) -> list[str]:
    action, _, version = step["uses"].partition("@")
    found = [] if re.fullmatch("[0-9a-f]{40}", version) else [f"{action} is not pinned to a commit"]
    unknown = step.get("with", {}).keys() - INPUTS.get(action, set())
    return found + [f"{action} has no input {name}" for name in sorted(unknown)]


def workflow_complaints(text: str) -> list[str]:
    """
    Return the problems of a workflow that is valid in GitHub's schema.
    """
    said = yaml.safe_load(text)
    found = [f"{name} is never read" for name in sorted(said.get("env", {}).keys() - exported())]
    for job in said["jobs"].values():
        for step in job.get("steps", ()):
            if "uses" in step:
                found += _inputs_complaints(step)
            else:
                found += shell_complaints(step["run"], "bash")
            if "${{" in step.get("run", ""):
                found.append(f"a script contains an expression: {step['run']}")
    return found


def main() -> int:
    """
    Check all files.
    """
    checks = {
        CI / "Jenkinsfile": jenkinsfile_complaints,
        CI / "github-actions.yaml": workflow_complaints,
        **dict.fromkeys(sorted(OWN_WORKFLOWS.iterdir()), workflow_complaints),
    }
    complaints = [
        f"{path.relative_to(ROOT)}: {complaint}"
        for path, check in checks.items()
        for complaint in check(path.read_text())
    ]
    sys.stderr.write("".join(f"{complaint}\n" for complaint in complaints))
    return 1 if complaints else 0


if __name__ == "__main__":
    sys.exit(main())
