"""
How a person says where credentials come from.
"""

import pytest

from git_sync_wrapper.credential_source import Source, region_of_arn, source, stage

ARN = "arn:aws:secretsmanager:eu-central-1:123456789012:secret:airflow/git-AbCdEf"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("auto", Source("auto")),
        (" Auto ", Source("auto")),
        ("codecommit", Source("codecommit")),
        ("secrets-manager:airflow/git", Source("secrets-manager", "airflow/git")),
        (f"secrets-manager:{ARN}", Source("secrets-manager", ARN)),
        (
            f"secrets-manager:{ARN.replace('aws', 'aws-cn', 1)}",
            Source("secrets-manager", ARN.replace("aws", "aws-cn", 1)),
        ),
    ],
)
def test_reads_what_is_allowed(text: str, expected: Source) -> None:
    assert expected == source(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "iam",
        "auto:x",
        "codecommit:x",
        "secrets-manager",
        "secrets-manager:",
        "secrets-manager:two words",
        "secrets-manager:arn:aws:s3:::bucket",
        ARN,
    ],
)
def test_refuses_the_rest_and_says_what_is_allowed(text: str) -> None:
    with pytest.raises(ValueError, match="auto, codecommit, or secrets-manager:NAME"):
        source(text)


def test_an_arn_tells_its_region() -> None:
    assert ("eu-central-1", None) == (region_of_arn(ARN), region_of_arn("airflow/git"))


def test_a_stage_is_one_word() -> None:
    assert "AWSPREVIOUS" == stage("AWSPREVIOUS")
    with pytest.raises(ValueError, match="staging label"):
        stage("AWS CURRENT")
