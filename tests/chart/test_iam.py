"""
The IAM policies allow the requests that their users need, and refuse similar ones.

They are evaluated by the rules of AWS, limited to the elements that ours use: a request is allowed
if a statement allows it and no statement denies it.
https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_evaluation-logic.html
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import pytest

from tests.chart import files
from tests.chart.files import SNIPPETS, Values

BUCKET = "arn:aws:s3:::my-airflow-bucket"
OTHER = "arn:aws:s3:::another-bucket"
KEY = "arn:aws:kms:eu-central-1:111122223333:key/00000000-0000-0000-0000-000000000000"
SECRETS = "arn:aws:secretsmanager:eu-central-1:111122223333:secret"
ECR = "arn:aws:ecr:eu-central-1:111122223333:repository"
CODE = "arn:aws:codecommit:eu-central-1:111122223333"
OIDC = "oidc.eks.eu-central-1.amazonaws.com/id/EXAMPLE"
FEDERATED = ("Federated", f"arn:aws:iam::111122223333:oidc-provider/{OIDC}")
POD_IDENTITY = ("Service", "pods.eks.amazonaws.com")


@dataclass(frozen=True)
class Ask:
    """
    A request: the action, its resource or principal, and the condition keys that AWS sets.
    """

    action: str
    resource: str = "*"
    context: Mapping[str, str] = field(default_factory=dict)
    principal: tuple[str, str] | None = None


def load(name: str) -> Values:
    policy: Values = json.loads((SNIPPETS / "iam" / name).read_text())
    return policy


def allows(policy: Values, ask: Ask) -> bool:
    """
    Return whether a policy allows a request.
    """
    effects = {one["Effect"] for one in policy["Statement"] if _applies(one, ask)}
    return effects == {"Allow"}


def _applies(statement: Values, ask: Ask) -> bool:
    if ask.principal is not None:
        kind, name = ask.principal
        if name not in _texts(statement["Principal"].get(kind, [])):
            return False
    elif not any(_like(one, ask.resource) for one in _texts(statement["Resource"])):
        return False
    # AWS ignores case in actions, but not in resources.
    is_meant = any(_like(one.lower(), ask.action.lower()) for one in _texts(statement["Action"]))
    return is_meant and all(
        _holds(operator, _texts(wanted), ask.context.get(key))
        for operator, keys in statement.get("Condition", {}).items()
        for key, wanted in keys.items()
    )


def _holds(operator: str, wanted: Sequence[str], value: str | None) -> bool:
    if value is None:
        return False
    return any(one == value if operator == "StringEquals" else _like(one, value) for one in wanted)


def _like(pattern: str, text: str) -> bool:
    parts = re.escape(pattern).replace(r"\*", ".*").replace(r"\?", ".")
    return re.fullmatch(parts, text, re.DOTALL) is not None


def _texts(value: str | Sequence[str]) -> Sequence[str]:
    return [value] if isinstance(value, str) else value


def in_prefix(prefix: str, bucket: str = BUCKET) -> Ask:
    return Ask("s3:ListBucket", bucket, {"s3:prefix": prefix})


def through(service: str, action: str = "kms:Decrypt") -> Ask:
    return Ask(action, KEY, {"kms:ViaService": f"{service}.eu-central-1.amazonaws.com"})


def by_token(account: str, audience: str = "sts.amazonaws.com") -> Ask:
    context = {f"{OIDC}:sub": f"system:serviceaccount:{account}", f"{OIDC}:aud": audience}
    return Ask("sts:AssumeRoleWithWebIdentity", context=context, principal=FEDERATED)


def by_pod(namespace: str, cluster: str = "my-cluster") -> Ask:
    arn = f"arn:aws:eks:eu-central-1:111122223333:cluster/{cluster}"
    context = {"aws:RequestTag/eks-cluster-arn": arn}
    context["aws:RequestTag/kubernetes-namespace"] = namespace
    return Ask("sts:AssumeRole", context=context, principal=POD_IDENTITY)


def asks(*lines: str | Ask) -> list[Ask]:
    """
    Return requests, written as their action and resource.
    """
    pairs = [line.split() if isinstance(line, str) else line for line in lines]
    return [one if isinstance(one, Ask) else Ask(one[0], one[1]) for one in pairs]


RELEASES, LOGS = f"{BUCKET}/dags-releases", f"{BUCKET}/logs"
# For each policy: the requests that it must allow, and similar ones that it must refuse.
CASES = {
    "codecommit.json": (
        asks(f"codecommit:GitPull {CODE}:dags"),
        asks(f"codecommit:GitPull {CODE}:dags-old", f"codecommit:GitPush {CODE}:dags"),
    ),
    "ecr-pull.json": (
        asks("ecr:GetAuthorizationToken *", f"ecr:BatchGetImage {ECR}/kerberos"),
        asks(f"ecr:BatchGetImage {ECR}/another", f"ecr:PutImage {ECR}/kerberos"),
    ),
    "ecr-push.json": (
        asks(f"ecr:PutImage {ECR}/s3-sync", f"ecr:UploadLayerPart {ECR}/dag-publisher"),
        asks(f"ecr:PutImage {ECR}/another", f"ecr:BatchDeleteImage {ECR}/s3-sync"),
    ),
    "external-secrets.json": (
        asks(
            f"secretsmanager:GetSecretValue {SECRETS}:airflow/keys-AbCdEf",
            through("secretsmanager"),
        ),
        asks(
            f"secretsmanager:GetSecretValue {SECRETS}:airflow-other/keys-AbCdEf",
            f"secretsmanager:PutSecretValue {SECRETS}:airflow/keys-AbCdEf",
            through("s3"),
        ),
    ),
    "kms-decrypt.json": (
        asks(through("s3")),
        asks(f"kms:Decrypt {KEY}", through("secretsmanager"), through("s3", "kms:Encrypt")),
    ),
    # A HEAD of a log before its first upload must be 404: 403 makes Airflow upload nothing.
    "remote-logs.json": (
        asks(f"s3:ListBucket {BUCKET}", f"s3:PutObject {LOGS}/a.log", f"s3:GetObject {LOGS}/a.log"),
        asks(f"s3:PutObject {BUCKET}/dags/a.py", f"s3:DeleteObject {LOGS}/a.log"),
    ),
    "s3-sync-publish.json": (
        asks(in_prefix("dags-releases/"), f"s3:PutObject {RELEASES}/current.json"),
        asks(f"s3:PutObject {RELEASES}-old/a.py", f"s3:DeleteObject {RELEASES}/a.py"),
    ),
    "s3-sync-prune.json": (
        asks(
            in_prefix("dags-releases/releases/"),
            *(f"s3:DeleteObject {RELEASES}/{kind}/x" for kind in ("releases", "bundles", "pins")),
        ),
        asks(f"s3:DeleteObject {RELEASES}/current.json", f"s3:PutObject {RELEASES}/releases/x"),
    ),
    "s3-sync-release.json": (
        asks(f"s3:GetObject {RELEASES}/current.json", f"s3:GetObject {RELEASES}/bundles/x.zip"),
        asks(in_prefix("dags-releases/"), f"s3:GetObject {RELEASES}/a.py"),
    ),
    "s3-sync.json": (
        asks(in_prefix("dags/"), f"s3:GetObject {BUCKET}/dags/team/a.py"),
        asks(
            *(in_prefix(""), in_prefix("dags-old/"), in_prefix("dags/", OTHER)),
            *(f"s3:{action} {BUCKET}/dags/a.py" for action in ("PutObject", "DeleteObject")),
            f"s3:GetObject {BUCKET}/dags-old/a.py",
        ),
    ),
    "trust-irsa.json": (
        [by_token("airflow:airflow-worker"), by_token("airflow:airflow-dag-processor")],
        [by_token("another:airflow-worker"), by_token("airflow:airflow-worker", "someone.else")],
    ),
    "trust-pod-identity.json": (
        [by_pod("airflow")],
        [by_pod("another"), by_pod("airflow", cluster="another")],
    ),
}


def test_every_policy_has_test_cases() -> None:
    assert sorted(CASES) == sorted(path.name for path in (SNIPPETS / "iam").glob("*.json"))


@pytest.mark.parametrize("name", CASES)
def test_policy_allows_needed_requests_and_refuses_similar_ones(name: str) -> None:
    policy = load(name)
    needed, refused = CASES[name]

    assert [] == [ask for ask in needed if not allows(policy, ask)]
    assert [] == [ask for ask in refused if allows(policy, ask)]


def test_policies_match_the_bucket_and_the_prefixes_of_the_values() -> None:
    block = files.load("s3-sync.native.yaml")["sidecars"]

    assert BUCKET == f"arn:aws:s3:::{block['bucket']}"
    assert allows(load("s3-sync.json"), in_prefix(f"{block['s3Sync']['keyPath']}/"))
