"""The meaning of S3's error responses."""

from xml.sax.saxutils import escape

import pytest

from s3_sync.s3.refusals import (
    STALE_CREDENTIALS,
    ObjectError,
    ObjectMoved,
    Operation,
    Permission,
    Request,
    S3Error,
    SealedError,
    SourceError,
    explain,
    is_denied,
    read_refusal,
)
from s3_sync.s3.wire import Answer
from sidecar_runtime.errors import SidecarError

LIST = Request("list", "a-bucket", "dags/", "dags/", "eu-central-1")
POINTER = Request("pointer", "a-bucket", "dags/current.json", "dags/", "eu-central-1")
GET = Request("get", "a-bucket", "dags/pkg/a.py", "dags/", "eu-central-1")
WRITES_AND_GET: tuple[Operation, ...] = ("get", "put", "delete")
BUCKET_ARN = "arn:aws:s3:::a-bucket"
POINT = "arn:aws:s3:eu-central-1:123456789012:accesspoint/dags"
ROLE = "arn:aws:sts::123456789012:assumed-role/airflow/pod"
KEY_ARN = "arn:aws:kms:eu-central-1:123456789012:key/1234"


def answer(status: int, code: str = "", message: str = "", **headers: str) -> Answer:
    said = f"<Code>{code}</Code><Message>{escape(message)}</Message><RequestId>1</RequestId>"
    document = f'<?xml version="1.0"?>\n<Error>{said}</Error>' if code else ""
    return Answer(status, headers, document.encode())


def explained(
    request: Request, found: Answer, identity: str | None = None
) -> SidecarError | ObjectMoved:
    return explain(found, read_refusal(found), request, identity)


def reason_of(request: Request, found: Answer) -> str:
    error = explained(request, found)
    return error.reason if isinstance(error, SidecarError) else "moved"


# --- the error document


@pytest.mark.parametrize(
    "body",
    [
        b"<Error><Code>NoSuchKey</Code><Message>gone &amp; lost</Message></Error>",
        b"<Error><Message>gone &amp; lost</Message><Code>NoSuchKey</Code></Error>",
        b'<Error xmlns="x"><Code> NoSuchKey </Code>\n<Message>\ngone &#38; lost</Message></Error>',
    ],
)
def test_reads_code_and_message_in_any_order(body: bytes) -> None:
    refusal = read_refusal(Answer(404, {}, body))

    assert (refusal.code, refusal.message) == ("NoSuchKey", "gone & lost")


@pytest.mark.parametrize("body", [b"", b"<html>no", b"\xff\xfe", b"<Code>", b"{}", b"<" * 200_000])
def test_an_invalid_error_document_has_no_code(body: bytes) -> None:
    refusal = read_refusal(Answer(503, {}, body))

    assert (refusal.code, refusal.message, refusal.region) == ("", "", "")


def test_reads_the_region_from_the_header_or_the_document() -> None:
    document = b"<Error><Code>X</Code><Region>eu-west-1</Region></Error>"

    assert read_refusal(Answer(400, {}, document)).region == "eu-west-1"
    header = {"x-amz-bucket-region": "eu-north-1"}
    assert read_refusal(Answer(400, header, document)).region == "eu-north-1"
    assert read_refusal(Answer(301, header, b"")).region == "eu-north-1"


@pytest.mark.parametrize(
    "region",
    ["evil.example/", "eu-west-1.evil.example", "x@y", "EU", "a b", "eu\r\nHost: x", "x" * 33, "#"],
)
def test_ignores_an_invalid_region(region: str) -> None:
    """It would become part of the host name of a signed request."""
    document = f"<Error><Region>{escape(region)}</Region></Error>".encode()

    assert read_refusal(Answer(400, {"x-amz-bucket-region": region}, b"")).region == ""
    assert read_refusal(Answer(400, {}, document)).region == ""


# --- ARNs


def test_partitions_of_arns_equal_botocores() -> None:
    import botocore.session

    session = botocore.session.Session()
    for partition in session.get_available_partitions():
        for region in session.get_available_regions("s3", partition):
            found = Request("list", "b-1", "", "", region).arn
            assert found == f"arn:{partition}:s3:::b-1", region


def test_an_access_point_keeps_its_own_arn() -> None:
    assert Request("list", POINT, "dags/", "dags/", "eu-central-1").arn == POINT
    assert Request("get", POINT, "dags/a", "dags/", "eu-central-1").arn == f"{POINT}/object/dags/a"
    assert Request("get", POINT, "dags/a", "dags/", "eu-central-1").folder_arn == (
        f"{POINT}/object/dags/*"
    )


# --- denials


def denied_message(action: str, resource: str | None, quotes: str = '"') -> str:
    on = f" on resource: {quotes}{resource}{quotes}" if resource else ""
    return (
        f"User: {ROLE} is not authorized to perform: {action}{on} because no identity-based "
        f"policy allows the {action} action"
    )


@pytest.mark.parametrize(
    ("request_", "kind", "reason", "action", "arn", "scope"),
    [
        (LIST, SourceError, "access_denied_list", "s3:ListBucket", BUCKET_ARN, BUCKET_ARN),
        *(
            (
                GET._replace(operation=operation),
                ObjectError,
                f"access_denied_{operation}",
                f"s3:{operation.title()}Object",
                f"{BUCKET_ARN}/dags/pkg/a.py",
                f"{BUCKET_ARN}/dags/*",
            )
            for operation in WRITES_AND_GET
        ),
    ],
)
@pytest.mark.parametrize("says", ["all", "nothing"])
def test_a_denial_reports_action_resource_and_identity(
    request_: Request,
    kind: type[S3Error],
    reason: str,
    action: str,
    arn: str,
    scope: str,
    says: str,
) -> None:
    message = denied_message(action, arn) if says == "all" else "Access Denied"
    error = explained(
        request_, answer(403, "AccessDenied", message), None if says == "all" else ROLE
    )

    assert isinstance(error, kind)
    assert error.reason == reason
    assert error.message.startswith(f"{ROLE} is not allowed to perform {action} on {arn}")
    assert f"Allow {action} on {scope} in the role's policy" in error.advice
    assert error.permission == Permission(action, scope)


def test_prefers_the_identity_that_s3_reports() -> None:
    found = answer(403, "AccessDenied", denied_message("s3:ListBucket", None))

    error = explained(LIST, found, "arn:aws:iam::1:user/other")

    assert isinstance(error, S3Error)
    assert error.message.startswith(ROLE)


def test_an_unknown_identity_is_reported_as_unknown() -> None:
    error = explained(LIST, answer(403, "AccessDenied"))

    assert isinstance(error, S3Error)
    said = "an unknown identity (STS did not report it) is not allowed to perform s3:ListBucket"
    assert error.message.startswith(said)


@pytest.mark.parametrize(
    ("action", "reason"),
    [
        ("s3:GetObjectVersion", "access_denied_get"),
        # S3 reports this for a missing object if the caller may not list the bucket.
        ("s3:ListBucket", "access_denied_list"),
        ("kms:Decrypt", "access_denied_kms"),
        ("kms:GenerateDataKey", "access_denied_kms"),
        ("s3express:CreateSession", "access_denied_get"),
    ],
)
def test_a_denial_reports_the_action_that_s3_denied(action: str, reason: str) -> None:
    error = explained(GET, answer(403, "AccessDenied", denied_message(action, None)))

    assert isinstance(error, S3Error)
    assert error.permission is not None
    assert (action, reason) == (error.permission.action, error.reason)


@pytest.mark.parametrize(
    ("message", "arn"),
    [
        (denied_message("kms:Decrypt", KEY_ARN), KEY_ARN),
        (denied_message("kms:Decrypt", KEY_ARN, ""), KEY_ARN),
        (denied_message("kms:Decrypt", None), f"the KMS key of {GET.url}"),
        (
            "The ciphertext refers to a customer master key that you are not allowed to access.",
            f"the KMS key of {GET.url}",
        ),
    ],
)
def test_a_kms_denial_reports_the_key_and_its_policy(message: str, arn: str) -> None:
    error = explained(GET, answer(403, "AccessDenied", message), ROLE)

    assert isinstance(error, ObjectError)
    assert "access_denied_kms" == error.reason
    assert f"kms:Decrypt on {arn}" in error.message
    assert "and the key's policy" in error.advice
    assert error.permission == Permission("kms:Decrypt", arn)


# --- other failures


ANSWERS: dict[tuple[str, str], list[Answer]] = {
    ("bucket_not_found",) * 2: [answer(404, "NoSuchBucket"), answer(404, "NoSuchAccessPoint")],
    # An endpoint that already contains the bucket takes its name for a key.
    ("bucket_not_found", "moved"): [answer(404), answer(404, "NoSuchKey")],
    ("client_error", "moved"): [
        answer(412, "PreconditionFailed"),
        answer(412),
        answer(416, "InvalidRange"),
    ],
    ("clock_skew",) * 2: [answer(403, "RequestTimeTooSkewed")],
    ("credentials_invalid",) * 2: [
        answer(403, "SignatureDoesNotMatch"),
        answer(403, "InvalidAccessKeyId"),
    ],
    ("credentials_expired",) * 2: [answer(400, "ExpiredToken")],
    ("object_archived",) * 2: [answer(403, "InvalidObjectState")],
    ("kms_key_unusable",) * 2: [
        answer(400, "KMS.DisabledException"),
        answer(400, "KMS.NotFoundException"),
        answer(403, "KMS.X"),
    ],
    ("throttled",) * 2: [answer(503, "SlowDown"), answer(429, "TooManyRequests")],
    ("server_error",) * 2: [answer(500, "InternalError"), *map(answer, (502, 503, 504))],
    ("redirect_refused",) * 2: [answer(301, "PermanentRedirect"), *map(answer, (307, 302, 304))],
    ("client_error",) * 2: [
        answer(400, "InvalidArgument"),
        answer(405),
        answer(403, "AllAccessDisabled"),
    ],
    ("access_denied_list", "access_denied_get"): [answer(403, "AccessDenied")],
    ("answer_foreign",) * 2: [answer(403)],
}


@pytest.mark.parametrize(
    ("reasons", "found"),
    [(reasons, found) for reasons, answers in ANSWERS.items() for found in answers],
)
def test_every_response_has_a_reason_for_a_list_and_for_a_get(
    reasons: tuple[str, str], found: Answer
) -> None:
    assert reasons == (reason_of(LIST, found), reason_of(GET, found))
    for error in (explained(LIST, found), explained(GET, found)):
        assert isinstance(error, ObjectMoved) or error.advice


def test_distinguishes_failures_of_one_object_from_those_of_the_source() -> None:
    of_one = [answer(500), answer(400, "X"), answer(403)]
    sealed = [answer(403, "InvalidObjectState"), answer(400, "KMS.DisabledException")]
    by_what_was_asked = [answer(503), answer(301), answer(403, "SignatureDoesNotMatch")]
    of_all = [answer(400, "ExpiredToken"), answer(404, "NoSuchBucket")]

    assert {ObjectError} == {type(explained(GET, found)) for found in of_one + by_what_was_asked}
    assert {SealedError} == {type(explained(GET, found)) for found in sealed}
    assert {SourceError} == {type(explained(LIST, found)) for found in by_what_was_asked}
    assert {SourceError} == {type(explained(GET, found)) for found in of_all}


@pytest.mark.parametrize("code", sorted(STALE_CREDENTIALS))
def test_rejected_credentials_are_reported_with_their_access_key(code: str) -> None:
    error = explained(LIST, answer(400, code, "old"), "the access key AKIA1")

    assert isinstance(error, SourceError)
    assert "S3 rejected the access key AKIA1" in error.message
    assert f"400 {code} old" in error.message


def test_an_error_quotes_the_response_of_s3() -> None:
    for status, code in ((500, "InternalError"), (400, "Odd"), (503, "SlowDown"), (403, "Denied")):
        error = explained(GET, answer(status, code, "because & so"), ROLE)
        assert isinstance(error, SidecarError)
        assert f"({status} {code} because & so)" in error.message


def test_a_refused_redirect_reports_its_destination() -> None:
    error = explained(LIST, answer(307, location="http://portal.example/login"))

    assert isinstance(error, SidecarError)
    assert "'http://portal.example/login'" in error.message
    assert "credentials are never sent to another host" in error.message


def test_a_redirect_of_s3_itself_reports_the_bucket_s_region() -> None:
    message = "The bucket you are attempting to access must be addressed using its own endpoint."
    found = answer(301, "PermanentRedirect", message, **{"x-amz-bucket-region": "eu-central-1"})

    error = explained(LIST, found)

    assert isinstance(error, SidecarError)
    assert message in error.message
    assert "region eu-central-1" in error.message


@pytest.mark.parametrize(
    ("status", "code", "denied"),
    [
        (403, "AccessDenied", True),
        (403, "", False),
        *((403, code, False) for code in ("SignatureDoesNotMatch", "InvalidAccessKeyId")),
        *((403, code, False) for code in ("RequestTimeTooSkewed", "InvalidObjectState")),
        (400, "AccessDenied", False),
        (500, "", False),
    ],
)
def test_only_s3_denies_a_permission(status: int, code: str, denied: bool) -> None:
    found = answer(status, code)

    assert is_denied(found, read_refusal(found)) is denied
