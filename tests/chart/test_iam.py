"""
The IAM policies allow the requests that their users need, and refuse similar ones.
"""

from __future__ import annotations

import pytest

from tests.chart import files, policies
from tests.chart.policies import NAMES, Ask, allows, load

BUCKET = "arn:aws:s3:::my-airflow-bucket"
OTHER = "arn:aws:s3:::another-bucket"
KEY = "arn:aws:kms:eu-central-1:111122223333:key/00000000-0000-0000-0000-000000000000"
SECRETS = "arn:aws:secretsmanager:eu-central-1:111122223333:secret"
REPOSITORIES = "arn:aws:ecr:eu-central-1:111122223333:repository"
CODE = "arn:aws:codecommit:eu-central-1:111122223333"
OIDC = "oidc.eks.eu-central-1.amazonaws.com/id/EXAMPLE"
FEDERATED = ("Federated", f"arn:aws:iam::111122223333:oidc-provider/{OIDC}")
POD_IDENTITY = ("Service", "pods.eks.amazonaws.com")
PULL = ("BatchCheckLayerAvailability", "BatchGetImage", "GetDownloadUrlForLayer")
RELEASED = ("releases", "bundles", "pins")
PUSH = (
    *("CompleteLayerUpload", "CreateRepository", "DescribeRepositories"),
    *("InitiateLayerUpload", "PutImage", "UploadLayerPart"),
)


def in_prefix(prefix: str, bucket: str = BUCKET) -> Ask:
    return Ask("s3:ListBucket", bucket, {"s3:prefix": prefix})


def through(service: str) -> Ask:
    return Ask("kms:Decrypt", KEY, {"kms:ViaService": f"{service}.eu-central-1.amazonaws.com"})


def by_token(account: str, audience: str = "sts.amazonaws.com") -> Ask:
    context = {f"{OIDC}:sub": f"system:serviceaccount:{account}", f"{OIDC}:aud": audience}
    return Ask("sts:AssumeRoleWithWebIdentity", context=context, principal=FEDERATED)


def by_pod(action: str, namespace: str, cluster: str = "my-cluster") -> Ask:
    arn = f"arn:aws:eks:eu-central-1:111122223333:cluster/{cluster}"
    context = {"aws:RequestTag/eks-cluster-arn": arn}
    context["aws:RequestTag/kubernetes-namespace"] = namespace
    return Ask(action, context=context, principal=POD_IDENTITY)


# For each policy: the requests that it must allow, and similar ones that it must refuse.
CASES: dict[str, tuple[list[Ask], list[Ask]]] = {
    "codecommit.json": (
        [Ask("codecommit:GitPull", f"{CODE}:dags")],
        [
            Ask("codecommit:GitPull", f"{CODE}:dags-old"),
            Ask("codecommit:GitPush", f"{CODE}:dags"),
        ],
    ),
    "ecr-pull.json": (
        [
            Ask("ecr:GetAuthorizationToken"),
            *(Ask(f"ecr:{action}", f"{REPOSITORIES}/kerberos") for action in PULL),
        ],
        [
            Ask("ecr:BatchGetImage", f"{REPOSITORIES}/another"),
            *(Ask(f"ecr:{action}", f"{REPOSITORIES}/kerberos") for action in PUSH),
        ],
    ),
    "ecr-push.json": (
        [
            Ask("ecr:GetAuthorizationToken"),
            *(
                Ask(f"ecr:{action}", f"{REPOSITORIES}/{name}")
                for action in PULL + PUSH
                for name in ("s3-sync", "dag-publisher")
            ),
        ],
        [
            Ask("ecr:PutImage", f"{REPOSITORIES}/another"),
            Ask("ecr:BatchDeleteImage", f"{REPOSITORIES}/s3-sync"),
            Ask("ecr:PutImageTagMutability", f"{REPOSITORIES}/s3-sync"),
            Ask("ecr:DeleteRepository", f"{REPOSITORIES}/s3-sync"),
        ],
    ),
    "external-secrets.json": (
        [
            Ask("secretsmanager:GetSecretValue", f"{SECRETS}:airflow/git-credentials-AbCdEf"),
            Ask("secretsmanager:DescribeSecret", f"{SECRETS}:airflow/keys-AbCdEf"),
            through("secretsmanager"),
        ],
        [
            Ask("secretsmanager:GetSecretValue", f"{SECRETS}:airflow-other/keys-AbCdEf"),
            Ask("secretsmanager:PutSecretValue", f"{SECRETS}:airflow/keys-AbCdEf"),
            Ask("kms:Decrypt", KEY),
            through("s3"),
        ],
    ),
    "kms-decrypt.json": (
        [through("s3")],
        [
            Ask("kms:Decrypt", KEY),
            through("secretsmanager"),
            Ask("kms:Encrypt", KEY, through("s3").context),
            Ask("kms:Decrypt", KEY[:-1] + "1", through("s3").context),
        ],
    ),
    "remote-logs.json": (
        [
            # HEAD of a log before its first upload: 403 instead of 404 if listing needs a prefix,
            # and then Airflow uploads nothing (S3RemoteLogIO.write).
            Ask("s3:ListBucket", BUCKET),
            in_prefix("logs/dag_id=a/"),
            Ask("s3:PutObject", f"{BUCKET}/logs/dag_id=a/attempt=1.log"),
            Ask("s3:GetObject", f"{BUCKET}/logs/dag_id=a/attempt=1.log"),
        ],
        [
            Ask("s3:PutObject", f"{BUCKET}/dags/a.py"),
            Ask("s3:DeleteObject", f"{BUCKET}/logs/dag_id=a/attempt=1.log"),
            Ask("s3:GetObject", f"{BUCKET}/dags/a.py"),
            in_prefix("logs/", OTHER),
        ],
    ),
    "s3-sync-publish.json": (
        [
            in_prefix("dags-releases/"),
            in_prefix("dags-releases/.releases/"),
            Ask("s3:PutObject", f"{BUCKET}/dags-releases/.releases/pointer"),
            Ask("s3:GetObject", f"{BUCKET}/dags-releases/.releases/pointer"),
        ],
        [
            Ask("s3:PutObject", f"{BUCKET}/dags-releases-old/a.py"),
            Ask("s3:PutObject", f"{OTHER}/dags-releases/a.py"),
            Ask("s3:DeleteObject", f"{BUCKET}/dags-releases/a.py"),
        ],
    ),
    "s3-sync-prune.json": (
        [
            in_prefix("dags-releases/releases/"),
            Ask("s3:GetObject", f"{BUCKET}/dags-releases/current.json"),
            *(Ask("s3:DeleteObject", f"{BUCKET}/dags-releases/{kind}/x") for kind in RELEASED),
        ],
        [
            Ask("s3:DeleteObject", f"{BUCKET}/dags-releases/current.json"),
            Ask("s3:PutObject", f"{BUCKET}/dags-releases/current.json"),
            Ask("s3:PutObject", f"{BUCKET}/dags-releases/releases/x"),
            Ask("s3:DeleteObject", f"{BUCKET}/dags-releases-old/releases/x"),
            Ask("s3:DeleteObject", f"{OTHER}/dags-releases/releases/x"),
        ],
    ),
    "s3-sync-release.json": (
        [
            Ask("s3:GetObject", f"{BUCKET}/dags-releases/current.json"),
            Ask("s3:GetObject", f"{BUCKET}/dags-releases/releases/0123456789ab.json"),
            Ask("s3:GetObject", f"{BUCKET}/dags-releases/bundles/x.zip"),
        ],
        [
            in_prefix("dags-releases/"),
            Ask("s3:GetObject", f"{BUCKET}/dags-releases/a.py"),
            Ask("s3:GetObject", f"{OTHER}/dags-releases/current.json"),
            Ask("s3:PutObject", f"{BUCKET}/dags-releases/current.json"),
        ],
    ),
    "s3-sync.json": (
        [in_prefix("dags/"), Ask("s3:GetObject", f"{BUCKET}/dags/team/a.py")],
        [
            in_prefix(""),
            in_prefix("dags-old/"),
            in_prefix("dags/", OTHER),
            Ask("s3:ListBucket", BUCKET),
            Ask("s3:GetObject", f"{BUCKET}/dags-old/a.py"),
            Ask("s3:GetObject", f"{OTHER}/dags/a.py"),
            Ask("s3:PutObject", f"{BUCKET}/dags/a.py"),
            Ask("s3:DeleteObject", f"{BUCKET}/dags/a.py"),
        ],
    ),
    "trust-irsa.json": (
        [
            by_token(f"airflow:airflow-{name}")
            for name in ("dag-processor", "triggerer", "worker", "worker-kubernetes", "api-server")
        ],
        [
            by_token("another:airflow-worker"),
            by_token("airflow:default"),
            by_token("airflow:airflow-worker", audience="someone.else"),
            Ask(
                "sts:AssumeRole",
                context=by_token("airflow:airflow-worker").context,
                principal=FEDERATED,
            ),
        ],
    ),
    "trust-pod-identity.json": (
        [by_pod("sts:AssumeRole", "airflow"), by_pod("sts:TagSession", "airflow")],
        [
            by_pod("sts:AssumeRole", "another"),
            by_pod("sts:AssumeRole", "airflow", cluster="another"),
            Ask("sts:AssumeRole", principal=POD_IDENTITY),
        ],
    ),
}


def test_every_policy_has_test_cases() -> None:
    assert sorted(CASES) == NAMES


@pytest.mark.parametrize("name", CASES)
def test_policy_allows_needed_requests_and_refuses_similar_ones(name: str) -> None:
    policy = load(name)
    needed, refused = CASES[name]

    assert [] == list(policies.form_complaints(policy))
    assert [] == [ask for ask in needed if not allows(policy, ask)]
    assert [] == [ask for ask in refused if allows(policy, ask)]


def test_policies_match_the_bucket_and_the_prefixes_of_the_values() -> None:
    block = files.load("s3-sync.native.yaml")["sidecars"]

    assert BUCKET == f"arn:aws:s3:::{block['bucket']}"
    assert allows(load("s3-sync.json"), in_prefix(f"{block['s3Sync']['keyPath']}/"))


def test_external_secrets_policy_allows_every_secret_that_its_objects_read() -> None:
    asked = {
        remote["key"]
        for one in files.load_objects("secrets/external-secrets.yaml")
        if one["kind"] == "ExternalSecret"
        for remote in (
            *(entry["remoteRef"] for entry in one["spec"].get("data", [])),
            *(entry["extract"] for entry in one["spec"].get("dataFrom", []) if "extract" in entry),
        )
    }

    policy = load("external-secrets.json")

    assert {"airflow/git-credentials", "airflow/kerberos-keytab"} <= asked
    for name in asked:
        assert allows(policy, Ask("secretsmanager:GetSecretValue", f"{SECRETS}:{name}-AbCdEf"))
