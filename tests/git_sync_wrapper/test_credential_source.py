"""
Parsing of the setting that selects the source of credentials.
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
def test_parses_each_allowed_source(text: str, expected: Source) -> None:
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
def test_refuses_other_values_and_lists_the_allowed_ones(text: str) -> None:
    with pytest.raises(ValueError, match="auto, codecommit, or secrets-manager:NAME"):
        source(text)


def test_reads_the_region_from_an_arn() -> None:
    assert ("eu-central-1", None) == (region_of_arn(ARN), region_of_arn("airflow/git"))


def test_a_staging_label_must_be_one_word() -> None:
    assert "AWSPREVIOUS" == stage("AWSPREVIOUS")
    with pytest.raises(ValueError, match="staging label"):
        stage("AWS CURRENT")
