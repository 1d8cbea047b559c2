"""
The pipelines of the how-to and of `charts-snippets/ci` are valid in their CI, publish
releases, and wait for them.

Each runs unchanged in bash. A stand-in for `docker run` starts the real s3-sync with
only the variables that were passed on; another replaces the Airflow of the image.
"""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import yaml

from tests import Facts, Texts
from tests.chart import files
from tests.support.airflow.fake_api import FakeAirflow
from tests.support.aws.writable_s3 import WritableS3
from tests.support.daemon import VENV_BIN
from tests.support.ledger.documented import section
from tests.support.s3_sync.publishing import (
    EXAMPLES_PREFIX,
    GITHUB,
    PREFIX,
    read_release,
    write_files,
)
from tests.support.s3_sync.releases import make_release
from tests.support.scripts import script

PAGE = (
    Path(__file__).parents[2] / "docs/how-to/publish-releases-from-ci.md"
).read_text()
# The Python of the image: its Airflow finds one DAG in any folder.
PYTHON = """
echo '{"airflow": "3.3.2", "dags": 1, "errors": []}' >"$2/answer"
"""
# Where pods with releases have them.
FOLDER = files.load("make values SOURCE=release")["dagProcessor"]["env"][0]["value"]
FILES = {"a.py": b"print()\n", "sql/a.sql": b"select 1;\n"}
DOCKER = f"""
import json, os, sys

arguments, environment, options = sys.argv[1:], dict(json.load(open(os.environ["CONTAINER"]))), []
if arguments[0] == "login":
    sys.exit(0 if sys.stdin.read() == "token" else 1)
assert arguments[:2] == ["run", "--rm"], arguments
rest = arguments[2:]
folders = {{}}
while rest[0].startswith("--"):
    option, value, rest = rest[0], rest[1], rest[2:]
    if option == "--env":
        name, found, text = value.partition("=")
        if found or name in os.environ:
            environment[name] = text if found else os.environ[name]
    elif option == "--volume":
        here, there, mode = value.split(":")
        assert (there, mode) == ("{FOLDER}", "ro")
        folders[there] = here
    else:
        assert option == "--network", option
assert "/dag-publisher:" in rest[0], rest
os.execve("{VENV_BIN}/s3-sync", ["s3-sync", *(folders.get(a, a) for a in rest[1:])], environment)
"""


def block(language: str, title: str) -> str:
    """
    Return the code block of a section.
    """
    return section(PAGE, title).partition(f"```{language}\n")[2].partition("```")[0]


def github(workflow: str, job: str) -> tuple[str, Texts]:
    """
    Return the commands of a pipeline and the variables that it sets.
    """
    said = yaml.safe_load(workflow)
    commands = "\n".join(
        step["run"] for step in said["jobs"][job]["steps"] if "run" in step
    )
    return commands, said.get("env", {}) | said["jobs"][job]["env"]


def gitlab() -> tuple[str, Texts]:
    job = yaml.safe_load(block("yaml", "GitLab"))["publish-dags"]
    return "\n".join(job["script"]), job["variables"]


def jenkins(text: str) -> tuple[str, Texts]:
    scripts = re.findall(r"sh '''\n(.*?)'''", text, re.DOTALL)
    assert text.count("{") == text.count("}")
    return scripts[-1].replace("\\\\", "\\"), dict(re.findall(r"(\w+) = '(.*)'", text))


def codebuild() -> tuple[str, Texts]:
    spec = yaml.safe_load(block("yaml", "CodeBuild"))
    return "\n".join(
        [line for phase in spec["phases"].values() for line in phase["commands"]]
    ), spec["env"]["variables"]


COMMIT = "1" * 40
CI = Path(__file__).parents[2] / "charts-snippets/ci"
RUN = (GITHUB, "https://github.example.com/team/dags/actions/runs/7")
BUILD_URL = "https://jenkins.example.com/7/"
BUILD = (
    {"GIT_COMMIT": COMMIT, "GIT_BRANCH": "main", "BUILD_URL": BUILD_URL},
    BUILD_URL,
)
# The pipeline, the variables of its CI, and the CI URL that the release should record.
PIPELINES: Facts = {
    "github": (partial(github, block("yaml", "GitHub Actions"), "publish"), *RUN),
    "github images": (
        partial(github, (CI / "github-actions.yaml").read_text(), "dags"),
        *RUN,
    ),
    "gitlab": (
        gitlab,
        {
            "CI_COMMIT_SHA": COMMIT,
            "CI_COMMIT_REF_NAME": "main",
            "GITLAB_USER_LOGIN": "ada",
            "CI_JOB_URL": "https://gitlab.example.com/7",
            "AWS_TOKEN": "token",
            "CI_COMMIT_TITLE": "Sales by country",
        },
        "https://gitlab.example.com/7",
    ),
    "jenkins": (partial(jenkins, block("groovy", "Jenkins")), *BUILD),
    "jenkins images": (partial(jenkins, (CI / "Jenkinsfile").read_text()), *BUILD),
    "codebuild": (
        codebuild,
        {
            "CODEBUILD_RESOLVED_SOURCE_VERSION": COMMIT,
            "CODEBUILD_WEBHOOK_HEAD_REF": "main",
            "CODEBUILD_INITIATOR": "ada",
            "CODEBUILD_BUILD_URL": "https://codebuild.example.com/7",
        },
        "https://codebuild.example.com/7",
    ),
}


@pytest.fixture
def bucket() -> Iterator[WritableS3]:
    with WritableS3("my-airflow-bucket") as bucket:
        yield bucket


@pytest.fixture
def airflow_3() -> Iterator[FakeAirflow]:
    with FakeAirflow() as server:
        yield server


@pytest.mark.parametrize("name", PIPELINES)
def test_a_pipeline_publishes_with_the_metadata_of_its_ci(
    bucket: WritableS3, airflow_3: FakeAirflow, tmp_path: Path, name: str
) -> None:
    """It ends when Airflow shows the release."""
    airflow_3.show("sales", make_release(FILES).revision, ended=60)
    pipeline, given, url = PIPELINES[name]
    commands, variables = pipeline()
    write_files(tmp_path / "dags", FILES)
    programs = tmp_path / "bin"
    airflow = tmp_path / "image"
    programs.mkdir()
    airflow.mkdir()
    for builder in ("docker", "podman"):
        script(programs / builder, DOCKER, sys.executable)
    script(programs / "aws", "printf token")
    script(programs / "git", "echo 'Sales by country'")
    script(airflow / "python", PYTHON)
    container = tmp_path / "container.json"
    container.write_text(
        json.dumps(
            {
                "PATH": f"{airflow}:/usr/bin:/bin",
                "HOME": str(tmp_path),
                **bucket.environment(),
            }
        )
    )
    # Only GitLab runs its job in the image itself.
    path = f"{airflow}:{VENV_BIN}" if name == "gitlab" else str(programs)
    environment = {
        "CONTAINER": str(container),
        "WORKSPACE": str(tmp_path),
        **variables,
        **given,
        **airflow_3.settings(),
        "AWS_WEB_IDENTITY_TOKEN_FILE": str(tmp_path / "token"),
        **bucket.environment(),
        "PATH": f"{path}:/usr/bin:/bin",
        "HOME": str(tmp_path),
    }

    ran = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", commands],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    )

    assert ran.returncode == 0, ran
    objects = {
        PREFIX + key.removeprefix(EXAMPLES_PREFIX): stored.body
        for key, stored in bucket.objects.items()
    }
    assert FILES == read_release(objects)
    origin = json.loads(objects[f"{PREFIX}current.json"])["origin"]
    assert (COMMIT, "main", url) == (
        origin["commit"],
        origin["branch"],
        origin["ci_url"],
    )
    assert name.startswith("jenkins") or origin["by"] == "ada"
    assert name == "codebuild" or origin["message"] == "Sales by country"
    assert "Checked with Airflow 3.3.2" in ran.stdout
    assert "Live: Airflow runs" in ran.stdout
