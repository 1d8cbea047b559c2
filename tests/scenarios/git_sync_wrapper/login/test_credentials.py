"""Credentials change at run time: no sync fails, although old ones immediately become invalid."""

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import boto3
import pytest
import yaml

from tests.conftest import Counts
from tests.scenarios.git_sync_wrapper.git_sync.situations import after
from tests.support.aws.codecommit import judge
from tests.support.aws.fake_aws import FakeSts, session_credentials
from tests.support.aws.servers import MotoServer
from tests.support.git.askpass import AskpassServer
from tests.support.git.git_server import GitServer
from tests.support.git.git_sync import GitSite

REGION = "us-east-1"
SNIPPETS = Path(__file__).parents[4] / "charts-snippets"
EXTERNAL_SECRETS = SNIPPETS / "secrets/external-secrets.yaml"
NATIVE = SNIPPETS / "git-sync-wrapper.native.yaml"


def test_no_sync_fails_while_a_slow_askpass_server_rotates(here: GitSite) -> None:
    """git-sync itself waits one second for an answer."""
    here.server.refusal = 403
    with AskpassServer("", "") as askpass:

        def rotate(number: int) -> None:
            askpass.username, askpass.password = f"user-{number}", f"password-{number}"
            here.server.accept((askpass.username, askpass.password))

        askpass.inject(after(1.5), times=1)
        follow(here, rotate, 2, GITSYNC_ASKPASS_URL=askpass.endpoint)


def test_no_sync_fails_while_sts_issues_sessions_and_old_ones_get_403(
    here: GitSite, counts: Counts
) -> None:
    """On AWS a session stays valid until it expires; here it ends with the next one."""
    here.server.refusal = 403
    token = here.folder / "token"
    token.write_text("web identity")
    with FakeSts(session_credentials(1)) as sts:
        here.server.judge = judge(lambda: sts.credentials, "127.0.0.1", REGION)
        follow(
            here,
            lambda number: sts.issue(session_credentials(number)),
            counts.credential_rotations,
            GIT_SYNC_WRAPPER_CREDENTIALS="codecommit",
            **sts.environment(token),
        )


def secrets_manager(moto: MotoServer) -> Any:
    return boto3.client(
        "secretsmanager",
        region_name=REGION,
        endpoint_url=moto.endpoint,
        aws_access_key_id="AKIATEST",
        aws_secret_access_key="secret",
    )


class Mounted:
    """A Secret of an ExternalSecret in charts-snippets, mounted as the kubelet does."""

    def __init__(self, folder: Path, name: str, client: Any) -> None:
        objects = yaml.safe_load_all(EXTERNAL_SECRETS.read_text())
        (self._spec,) = [
            one["spec"]
            for one in objects
            if (one["kind"], one["metadata"]["name"]) == ("ExternalSecret", name)
        ]
        ((self.remote,),) = [one["extract"].values() for one in self._spec["dataFrom"]]
        self.folder = folder
        folder.mkdir()
        self._client = client

    def refresh(self) -> None:
        """Replace all files in one step, by swapping a link."""
        said = self._client.get_secret_value(SecretId=self.remote)["SecretString"]
        made = self.folder / f"..{len(list(self.folder.iterdir()))}"
        made.mkdir()
        for key, template in self._spec["target"]["template"]["data"].items():
            field = template.removeprefix("{{ .").removesuffix(" }}")
            (made / key).write_text(json.loads(said)[field])
            if not (self.folder / key).is_symlink():
                (self.folder / key).symlink_to(f"..data/{key}")
        (self.folder / "..new").symlink_to(made.name)
        (self.folder / "..new").rename(self.folder / "..data")


def test_no_sync_fails_while_external_secrets_syncs_rotated_secrets(
    here: GitSite, moto: MotoServer
) -> None:
    """It uses the objects of charts-snippets and the file names in the snippet."""
    client = secrets_manager(moto)
    mounted = Mounted(here.folder / "git-credentials", "git-credentials", client)
    client.create_secret(Name=mounted.remote, SecretString="{}")

    def rotate(number: int) -> None:
        pair = (f"user-{number}", f"password-{number}")
        text = json.dumps(dict(zip(("username", "password"), pair, strict=True)))
        client.put_secret_value(SecretId=mounted.remote, SecretString=text)
        mounted.refresh()
        here.server.accept(pair)

    values = yaml.safe_load(NATIVE.read_text())
    (container,) = values["dagProcessor"]["extraInitContainers"]
    env = {one["name"]: str(one.get("value")) for one in container["env"]}
    names = ("GIT_SYNC_WRAPPER_USERNAME_FILE", "GITSYNC_PASSWORD_FILE")
    place = "/etc/git-credentials"
    assert all(env[name].startswith(f"{place}/") for name in names)
    follow(
        here, rotate, 2, **{name: env[name].replace(place, str(mounted.folder)) for name in names}
    )
    client.delete_secret(SecretId=mounted.remote, ForceDeleteWithoutRecovery=True)


def follow(
    here: GitSite, rotate: Callable[[int], None], times: int, **settings: str | None
) -> None:
    """Rotate and commit `times` times; check that each commit arrives and that no cycle fails."""
    rotate(1)
    wrapper = here.publish(**settings)
    for number in range(2, 2 + times):
        rotate(number)
        here.wait_until_shown(here.commit_revision(number), wrapper)

    assert [] == wrapper.find_events("cycle_failed"), wrapper.log()


def test_submodules_on_other_servers_use_their_own_credentials(
    here: GitSite, tmp_path: Path
) -> None:
    """The two servers on loopback differ only in their port."""
    with GitServer(tmp_path / "other") as other:
        library = other.repository("library.git")
        commit = library.commit({"library.py": "x = 1\n"})
        other.accept(("library", "other password"))
        here.server.accept(("deploy", "password"))
        here.repository.commit_submodule("library", other.url("library.git"), commit)
        credential = {"url": other.endpoint, "username": "library", "password": "other password"}
        here.publish(
            GITSYNC_USERNAME="deploy",
            GITSYNC_PASSWORD="password",
            GITSYNC_CREDENTIAL=json.dumps([credential]),
        )

        assert "x = 1\n" == (here.link / "library/library.py").read_text()


@pytest.mark.parametrize("refusal", [401, 403])
def test_a_refused_password_that_was_encoded_twice_is_named(here: GitSite, refusal: int) -> None:
    here.server.accept(("deploy", "correct horse battery"))
    here.server.refusal = refusal
    encoded = base64.b64encode(b"correct horse battery").decode()
    wrapper = here.wrapper(GITSYNC_USERNAME="deploy", GITSYNC_PASSWORD=encoded)

    failed = wrapper.wait_for_event("cycle_failed")

    assert "credentials_refused" == failed["reason"]
    assert "(user deploy, from GITSYNC_PASSWORD)" in failed["error"]
    assert failed["advice"].startswith("GITSYNC_PASSWORD looks encoded twice")


def test_a_login_that_git_itself_finds_serves_polls_and_runs(here: GitSite) -> None:
    here.server.accept(("deploy", "password"))
    (here.folder / "home").mkdir()
    (here.folder / "home/.netrc").write_text("machine 127.0.0.1 login deploy password password\n")
    wrapper = here.publish()
    here.wait_until_shown(here.commit_revision(2), wrapper)

    assert [] == wrapper.find_events("cycle_failed"), wrapper.log()
    assert 2 == len(wrapper.find_events("commit_published"))


def test_the_login_of_the_repository_is_not_blamed_for_a_private_submodule(
    here: GitSite, tmp_path: Path
) -> None:
    with GitServer(tmp_path / "other") as other:
        library = other.repository("library.git")
        commit = library.commit({"library.py": "x = 1\n"})
        other.accept(("library", "other password"))
        here.server.accept(("deploy", "password"))
        here.repository.commit_submodule("library", other.url("library.git"), commit)
        wrapper = here.wrapper(GITSYNC_USERNAME="deploy", GITSYNC_PASSWORD="password")

        failed = wrapper.wait_for_event("cycle_failed")

    assert "login_missing" == failed["reason"], failed
    assert other.endpoint.removeprefix("http://") in failed["error"]
    assert "deploy" not in failed["error"]
