"""The settings of s3-sync: valid values, and likely mistakes."""

import shutil
from pathlib import Path

import pytest

from s3_sync.settings import INSTEAD, Settings, bucket, key_path, load_settings
from sidecar_runtime.errors import Problem, SettingsError
from tests.support.raising import raised

EXAMPLE = {"AWS_BUCKET": "a-bucket", "KEY_PATH": "dags", "DEST_PATH": "/opt/dags", "INTERVAL": "10"}
WITHOUT_KEY_PATH = {name: value for name, value in EXAMPLE.items() if name != "KEY_PATH"}
ARN = "arn:aws:s3:eu-central-1:123456789012:accesspoint/dags"


NO_BUCKETS = ["ab", "a" * 64, "a bucket", "-bucket", "bucket/dags", "bucket\r\nHost:x",
              "bucket@evil.example", "../bucket"]  # fmt: skip


def read(**environ: str) -> Settings:
    return load_settings(EXAMPLE | environ)[0]


def problem_of(**environ: str) -> Problem:
    (problem,) = raised(SettingsError, load_settings, EXAMPLE | environ).problems
    return problem


def test_the_published_example_is_complete() -> None:
    settings, unknown = load_settings(EXAMPLE)

    assert ("a-bucket", "dags", "/opt/dags", 10.0) == (
        settings.bucket,
        settings.key_path,
        settings.dest_path,
        settings.interval_seconds,
    )
    assert [] == unknown
    assert (settings.prefix, settings.source) == ("dags/", "s3://a-bucket/dags/")


def test_the_defaults_match_the_contract() -> None:
    assert {
        "http_bind": ("", 9811), "delete": "managed", "allow_empty": False, "file_mode": 0o644,
        "fsync": False, "include": (), "exclude": (),
        "timeout_seconds": 600.0, "max_failures": 0,
        # These keep the behavior of earlier versions.
        "layout": "in-place", "gate": "off", "settle_seconds": 0.0, "retain_count": 2,
        "retain_seconds": 600.0, "gate_grammar": None, "gate_command": None,
        "gate_timeout_seconds": 60.0,
    }.items() <= vars(read()).items()  # fmt: skip


def test_reads_the_settings_for_layout_gate_and_settling() -> None:
    settings = read(
        S3_SYNC_LAYOUT="Snapshot",
        S3_SYNC_GATE="command",
        S3_SYNC_GATE_COMMAND="python3 -m compileall 'with blank'",
        S3_SYNC_GATE_TIMEOUT="5m",
        S3_SYNC_SETTLE="1m30s",
        S3_SYNC_RETAIN_COUNT="0",
        S3_SYNC_RETAIN_FOR="0",
    )

    assert ("snapshot", 300.0, 90.0) == (
        settings.layout, settings.gate_timeout_seconds, settings.settle_seconds
    )  # fmt: skip
    assert (0, 0.0) == (settings.retain_count, settings.retain_seconds)
    assert (shutil.which("python3"), "-m", "compileall", "with blank") == settings.gate_command


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("S3_SYNC_LAYOUT", "symlink", "is not one of in-place, snapshot"),
        ("S3_SYNC_RETAIN_COUNT", "-1", "is not a whole number, 0 or more"),
        ("S3_SYNC_RETAIN_FOR", "ever", "is not a duration"),
        ("S3_SYNC_SETTLE", "8d", "is not"),
        ("S3_SYNC_GATE", "pylint", "is not one of off, syntax, command"),
    ],
)
def test_refuses_invalid_values(name: str, value: str, said: str) -> None:
    problem = problem_of(**{name: value})

    assert (name, value) == (problem.setting, problem.value)
    assert said in problem.problem


def test_refuses_a_command_gate_without_a_command() -> None:
    gate = problem_of(S3_SYNC_LAYOUT="snapshot", S3_SYNC_GATE="command")

    assert "S3_SYNC_GATE_COMMAND" == gate.setting


@pytest.mark.parametrize(
    ("text", "prefix"),
    [("", ""), ("/", ""), ("dags", "dags/"), ("/dags/", "dags/"), ("//a/b//", "a/b/"),
     ("a//b", "a//b/"), ("with space/ü", "with space/ü/")],
)  # fmt: skip
def test_a_prefix_is_a_whole_folder(text: str, prefix: str) -> None:
    """`dags` does not match `dags-old/`."""
    assert read(KEY_PATH=text).prefix == prefix
    assert read(KEY_PATH=text).source == f"s3://a-bucket/{prefix}"


def test_bucket_access_is_private_unless_set() -> None:
    assert "private" == read().bucket_access
    for access in ("private", "requester-pays", "public"):
        assert access == read(S3_SYNC_BUCKET_ACCESS=access).bucket_access
    problem = problem_of(S3_SYNC_BUCKET_ACCESS="anonymous")
    assert ("S3_SYNC_BUCKET_ACCESS", "anonymous") == (problem.setting, problem.value)


@pytest.mark.parametrize(
    "name",
    ["abc", "a-bucket", "my.dotted.bucket", "1bucket", "Legacy_Bucket", "a" * 63, ARN,
     ARN.replace("/", ":"), ARN.replace("aws", "aws-cn", 1)],
)  # fmt: skip
def test_accepts_buckets_and_access_points(name: str) -> None:
    assert bucket(name) == name


@pytest.mark.parametrize(
    ("name", "what"),
    [
        *((name, "digits, dots, hyphens, underscores") for name in NO_BUCKETS),
        ("arn:aws:s3:::a-bucket", "is not the ARN of an S3 access point"),
        ("arn:aws:s3::123456789012:accesspoint/m.mrap", "multi-region access point"),
        (ARN.replace(":s3:", ":s3-object-lambda:"), "Object Lambda access point"),
        (
            "arn:aws:s3-outposts:eu-central-1:123456789012:outpost/op-1/accesspoint/x",
            "S3 on Outposts",
        ),
        ("bucket--use1-az4--x-s3", "S3 Express directory bucket"),
        ("access-point--use1-az4--xa-s3", "S3 Express directory bucket"),
        ("access-point-a1b2c3--ol-s3", "Object Lambda access point"),
        ("access-point-a1b2c3--op-s3", "S3 on Outposts"),
        ("mfzwi23gnjvgw.mrap", "multi-region access point"),
    ],
)
def test_refuses_unsupported_buckets_with_a_reason(name: str, what: str) -> None:
    with pytest.raises(ValueError, match=what):
        bucket(name)


@pytest.mark.parametrize("scheme", ["s3://", "S3://"])
def test_suggests_bucket_and_key_path_for_a_url(scheme: str) -> None:
    answer = "write AWS_BUCKET=a-bucket and KEY_PATH=team/dags"

    assert answer in problem_of(AWS_BUCKET=f"{scheme}a-bucket/team/dags/").problem
    assert answer in problem_of(KEY_PATH=f"{scheme}a-bucket/team/dags").problem


def test_reports_all_missing_settings_together() -> None:
    error = raised(SettingsError, load_settings, {})

    assert ["AWS_BUCKET", "DEST_PATH"] == [one.setting for one in error.problems]


@pytest.mark.parametrize(
    ("slip", "right"),
    [("S3_SYNC_LAYUOT", "S3_SYNC_LAYOUT"), ("S3_SYNC_INCLUDES", "S3_SYNC_INCLUDE"),
     ("S3_SYNC_EXLUDE", "S3_SYNC_EXCLUDE"), ("S3_SYNC_DELETES", "S3_SYNC_DELETE"),
     ("S3_SYNC_BUCKET", "AWS_BUCKET"), ("S3_SYNC_INTERVAL", "INTERVAL"),
     ("S3_SYNC_KEY_PATH", "KEY_PATH"), ("S3_SYNC_MAXFAILURES", "S3_SYNC_MAX_FAILURES")],
)  # fmt: skip
def test_suggests_the_right_name_for_a_misspelled_one(slip: str, right: str) -> None:
    assert f"is not a setting; did you mean {right}?" == problem_of(**{slip: "x"}).problem


@pytest.mark.parametrize("slip", ["S3_BUCKET", "BUCKET", "AWS_BUKET"])
def test_names_a_variable_that_may_be_meant_as_the_missing_bucket(slip: str) -> None:
    given = {"DEST_PATH": "/opt/dags", slip: "a-bucket"}

    (problem,) = raised(SettingsError, load_settings, given).problems

    assert "AWS_BUCKET" == problem.setting
    assert problem.problem.endswith(f"({slip} is set: is it a typo?)")


@pytest.mark.parametrize("slip", sorted(INSTEAD))
def test_a_wrong_name_of_key_path_does_not_select_the_whole_bucket(slip: str) -> None:
    problem = "is not a setting; did you mean KEY_PATH?"

    error = raised(SettingsError, load_settings, WITHOUT_KEY_PATH | {slip: "dags"})

    assert [Problem(slip, None, problem)] == error.problems


@pytest.mark.parametrize("whole", ["/", "dags"])
def test_a_wrong_name_of_key_path_does_not_matter_if_it_is_set(whole: str) -> None:
    given = EXAMPLE | {"S3_PREFIX": "dags", "KEY_PATH": whole}

    assert [] == load_settings(given)[1]


OF_AWS = [
    "AWS_ENDPOINT_URL_STS", "AWS_ENDPOINT_URL_SSO", "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS",
    "AWS_ROLE_ARN", "AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_STS_REGIONAL_ENDPOINTS",
    "AWS_DEFAULT_REGION", "AWS_REGION", "AWS_CA_BUNDLE", "AWS_EC2_METADATA_DISABLED", "AWS_PROFILE",
]  # fmt: skip
OF_A_POD = [
    "PATH", "HOSTNAME", "KUBERNETES_SERVICE_HOST", "S3_SYNC_PORT", "S3_SYNC_PORT_9811_TCP_ADDR",
    "S3_SYNC_SERVICE_PORT_HTTP", "S3_SYNC_EXPORTER_SERVICE_HOST", "AIRFLOW__CORE__DAGS_FOLDER",
    "LANG", "GPG_KEY", "PYTHON_VERSION",
]  # fmt: skip


@pytest.mark.parametrize("value", ["x", "10.0.0.2", "tcp://10.0.0.2:9811"])
@pytest.mark.parametrize("names", [OF_AWS, OF_A_POD], ids=["AWS", "pod"])
def test_ignores_variables_of_other_programs(names: list[str], value: str) -> None:
    assert [] == load_settings(EXAMPLE | dict.fromkeys(names, value))[1]


@pytest.mark.parametrize("name", ["AWS_BUCKET", "KEY_PATH"])
def test_a_password_in_the_url_of_a_bucket_is_never_echoed(name: str) -> None:
    problem = problem_of(**{name: "s3://user:hunt/er2@box/dags"})

    assert "s3://***@box/dags" == problem.value
    assert "is a URL; write AWS_BUCKET=***@box and KEY_PATH=dags" == problem.problem


def test_refuses_a_target_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")

    problem = problem_of(DEST_PATH=str(tmp_path / "file"))

    assert ("DEST_PATH", "is a file, not a folder") == (problem.setting, problem.problem)


@pytest.mark.parametrize("name", ["AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"])
def test_refuses_an_endpoint_that_is_no_url_of_a_server(name: str) -> None:
    problem = problem_of(**{name: "ftp://me:secret@minio"})

    assert (name, "is not http(s)://HOST[:PORT]") == (problem.setting, problem.problem)
    assert "secret" not in str(problem)


def test_filters_are_comma_separated_lists() -> None:
    settings = read(S3_SYNC_INCLUDE="*.py, sql/*", S3_SYNC_EXCLUDE="tests/*")

    assert (("*.py", "sql/*"), ("tests/*",)) == (settings.include, settings.exclude)


@pytest.mark.parametrize("text", ["420", "436", "rw-", "0999"])
def test_refuses_a_mode_that_yaml_converted_to_a_number(text: str) -> None:
    assert problem_of(S3_SYNC_FILE_MODE=text).setting == "S3_SYNC_FILE_MODE"


def test_a_key_path_keeps_unusual_characters() -> None:
    assert key_path(" /a b/+%ü/ ") == "a b/+%ü"


# --- releases

RELEASES = {"S3_SYNC_SOURCE": "release", "S3_SYNC_LAYOUT": "snapshot"}
REVISION = f"sha256-{'0123456789abcdef' * 4}"


@pytest.mark.parametrize(
    "given", [{"S3_SYNC_SOURCE": "release"}, {"S3_SYNC_GATE": "syntax"}], ids=str
)
def test_releases_and_gates_need_snapshots(given: dict[str, str]) -> None:
    problem = problem_of(**given)

    assert given == {problem.setting: problem.value}
    assert "needs S3_SYNC_LAYOUT=snapshot" in problem.problem
    assert f"dags_folder to {EXAMPLE['DEST_PATH']}/current" in problem.problem
    assert read(S3_SYNC_LAYOUT="snapshot", **given).layout == "snapshot"


def test_reads_the_settings_for_releases() -> None:
    plain, pinned = read(**RELEASES), read(**RELEASES, S3_SYNC_REVISION=f" {REVISION} ")

    assert ("release", None) == (plain.source_kind, plain.revision)
    assert REVISION == pinned.revision


@pytest.mark.parametrize(
    ("name", "value"),
    [("S3_SYNC_INCLUDE", "*.py"), ("S3_SYNC_EXCLUDE", "*.md"), ("S3_SYNC_SETTLE", "30s"),
     ("S3_SYNC_ALLOW_EMPTY", "true"), ("S3_SYNC_DELETE", "none")],
)  # fmt: skip
def test_refuses_settings_that_do_not_apply_to_releases(name: str, value: str) -> None:
    problem = problem_of(**RELEASES, **{name: value})

    assert (name, value) == (problem.setting, problem.value)
    assert "cannot be used with S3_SYNC_SOURCE=release" in problem.problem


def test_a_pin_requires_releases_and_a_full_revision() -> None:
    alone = problem_of(S3_SYNC_REVISION=REVISION)
    short = problem_of(**RELEASES, S3_SYNC_REVISION=REVISION[:12])

    assert "requires S3_SYNC_SOURCE=release" in alone.problem
    assert "64 hexadecimal digits" in short.problem
