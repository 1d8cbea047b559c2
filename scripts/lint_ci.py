"""
Checks the scripts in the pipelines of this repository and of charts-snippets/ci.

    .venv/bin/python scripts/lint_ci.py

Exits with 1 and prints a line for each problem: what shellcheck finds, a make target or
a variable that does not exist, an action that is not pinned. check-jsonschema validates
the workflows against GitHub's own schema; for Jenkins no checker works without Jenkins.
"""

import re
import subprocess
import sys
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[1]
CI = ROOT / "charts-snippets" / "ci"
OWN_WORKFLOWS = ROOT / ".github" / "workflows"
MAKEFILE = (ROOT / "Makefile").read_text()
EXPORTED = set(re.findall(r"\w+", MAKEFILE.split("\nexport ")[1].split("\n")[0]))
"""The variables that make reads from the environment."""


def shell_complaints(script: str, shell: str) -> list[str]:
    """
    Return shellcheck's findings for a script, and the make targets in it that do not
    exist.
    """
    done = subprocess.run(
        [
            Path(sys.executable).with_name("shellcheck"),
            f"--shell={shell}",
            "--format=gcc",
            "-",
        ],
        input=script,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout.splitlines() + [
        f"make {target}: no such target"
        for target in re.findall(r"^\s*make ([\w-]+)", script, re.MULTILINE)
        if not re.search(rf"^(?:[\w-]+ )?{target}[ :]", MAKEFILE, re.MULTILINE)
    ]


def jenkinsfile_complaints(text: str) -> list[str]:
    """
    Return the problems of the scripts of a Jenkinsfile, and of its variables.
    """
    # Groovy would insert the values, which exposes secrets in the log and the process
    # list.
    found = [
        f"not in single quotes: {call}"
        for call in re.findall(r'\bsh\s*\(?\s*".*', text)
    ]
    (settings,) = re.findall(r"environment \{(.*?)\n    \}", text, re.DOTALL)
    own = set(re.findall(r"^\s*(\w+) = ", settings, re.MULTILINE))
    known = {"WORKSPACE_TMP", *own, *re.findall(r"[vV]ariable: '(\w+)'", text)}
    for block, line in re.findall(
        r"\bsh '''(.*?)'''|\bsh '([^'\n]*)'", text, re.DOTALL
    ):
        script = (block or line).replace("\\\\", "\\")
        found += shell_complaints(script, "sh")
        found += [
            f"${name} is never set"
            for name in set(re.findall(r"\$(\w+)", script)) - known
        ]
    used = EXPORTED | set(re.findall(r"\$\{?(\w+)", text)) | {"REGISTRY_AUTH_FILE"}
    return found + [f"{name} is never read" for name in sorted(own - used)]


def workflow_complaints(text: str) -> list[str]:
    """
    Return the problems of a workflow that is valid in GitHub's schema.
    """
    said = yaml.safe_load(text)
    found = [
        f"{name} is never read"
        for name in sorted(said.get("env", {}).keys() - EXPORTED)
    ]
    for step in (
        step for job in said["jobs"].values() for step in job.get("steps", ())
    ):
        found += shell_complaints(step.get("run", ""), "bash")
        if "${{" in step.get("run", ""):
            found.append(f"a script contains an expression: {step['run']}")
        if "uses" in step and not re.search("@[0-9a-f]{40}$", step["uses"]):
            found.append(f"{step['uses']} is not pinned to a commit")
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
