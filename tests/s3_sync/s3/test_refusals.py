"""The meaning of S3's error responses."""

import time
from xml.sax.saxutils import escape

import pytest

from s3_sync.reasons import ObjectError, ObjectMoved, Permission, S3Error, SourceError
from s3_sync.s3.http import Answer
from s3_sync.s3.refusals import Request, explain, read_refusal
from sidecar_runtime.errors import SidecarError

LIST = Request("list", "a-bucket", "dags/", "dags/", "eu-central-1")
GET = Request("get", "a-bucket", "dags/pkg/a.py", "dags/", "eu-central-1")
BUCKET_ARN = "arn:aws:s3:::a-bucket"
POINT = "arn:aws:s3:eu-central-1:123456789012:accesspoint/dags"
ROLE = "arn:aws:sts::123456789012:assumed-role/airflow/pod"
KEY_ARN = "arn:aws:kms:eu-central-1:123456789012:key/1234"


def answer(status: int, code: str = "", message: str = "", **headers: str) -> Answer:
    said = f"<Code>{code}</Code><Message>{escape(message)}</Message><RequestId>1</RequestId>"
    return Answer(
        status,
        headers,
        (f'<?xml version="1.0"?>\n<Error>{said}</Error>' if code else "").encode(),
    )


def explained(request: Request, found: Answer) -> SidecarError | ObjectMoved:
    return explain(found, read_refusal(found), request)


def failed(request: Request, found: Answer) -> S3Error:
    error = explained(request, found)
    assert isinstance(error, S3Error)
    return error


# --- the error document


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (
            b"<Error><Message>gone &amp; lost</Message><Code>NoSuchKey</Code></Error>",
            ("NoSuchKey", "gone & lost"),
        ),
        (
            b'<Error xmlns="x"><Code> NoSuchKey </Code>\n<Message>\ngone &#38; lost</Message>',
            ("NoSuchKey", "gone & lost"),
        ),
        *(
            (body, ("", ""))
            for body in (b"", b"<html>no", b"\xff", b"<Code>", b"<" * 200_000)
        ),
    ],
)
def test_reads_code_and_message_in_any_order(
    body: bytes, said: tuple[str, str]
) -> None:
    assert (*said, "") == read_refusal(Answer(404, {}, body))


def test_a_document_of_tags_that_never_end_is_read_as_fast_as_any() -> None:
    """While a regular expression searches, no thread answers a probe."""
    spent = []
    for tag in (b"<Else>", b"<Code>"):
        began = time.process_time()
        read_refusal(Answer(500, {}, tag * 11_000))
        spent.append(time.process_time() - began)

    assert spent[1] < 100 * spent[0]


@pytest.mark.parametrize(
    "region",
    [
        "eu-north-1",
        "eu-west-1.evil.example",
        "eu\r\nx",
        "x" * 33,
    ],
)
def test_reads_a_valid_region_from_the_header_or_the_document(region: str) -> None:
    """It becomes part of the host name of a signed request."""
    document = f"<Error><Region>{escape(region)}</Region></Error>".encode()
    expected = region if region == "eu-north-1" else ""

    assert (
        expected
        == read_refusal(Answer(301, {"x-amz-bucket-region": region}, b"")).region
    )
    assert expected == read_refusal(Answer(400, {}, document)).region


# --- denials


@pytest.mark.parametrize(
    ("region", "partition"),
    [
        ("eu-central-1", "aws"),
        ("cn-north-1", "aws-cn"),
        ("us-gov-west-1", "aws-us-gov"),
    ],
)
def test_arns_are_of_the_partition_or_the_access_point(
    region: str, partition: str
) -> None:
    assert f"arn:{partition}:s3:::a-bucket" == LIST._replace(region=region).arn("")
    assert POINT == LIST._replace(bucket=POINT).arn("")
    assert f"{POINT}/object/dags/*" == GET._replace(bucket=POINT).arn("dags/*")


def denied_message(action: str, resource: str | None, quotes: str = '"') -> str:
    on = f" on resource: {quotes}{resource}{quotes}" if resource else ""
    return (
        f"User: {ROLE} is not authorized to perform: {action}{on} because no identity-based "
        f"policy allows the {action} action"
    )


@pytest.mark.parametrize("says", ["all", "nothing"])
@pytest.mark.parametrize("operation", ["list", "get", "put", "delete"])
def test_a_denial_reports_action_resource_and_what_s3_said(
    operation: str, says: str
) -> None:
    request = LIST if operation == "list" else GET._replace(operation=operation)  # type: ignore[arg-type]
    action = "s3:ListBucket" if request is LIST else f"s3:{operation.title()}Object"
    arn = BUCKET_ARN if request is LIST else f"{BUCKET_ARN}/dags/pkg/a.py"
    scope = BUCKET_ARN if request is LIST else f"{BUCKET_ARN}/dags/*"
    message = denied_message(action, arn) if says == "all" else "Access Denied"

    error = failed(request, answer(403, "AccessDenied", message))

    assert type(error) is (SourceError if request is LIST else ObjectError)
    assert error.reason == f"access_denied_{operation}"
    assert (
        f"S3 denied {action} for {request.url}: 403 AccessDenied {message}"
        == error.message
    )
    assert f"Allow {action} on {scope} in the role's policy" in error.advice
    assert error.permission == Permission(action, scope)


@pytest.mark.parametrize(
    ("message", "reason", "action", "arn"),
    [
        (
            denied_message("s3:GetObjectVersion", None),
            "get",
            "s3:GetObjectVersion",
            None,
        ),
        # S3 reports this for a missing object if the caller may not list the bucket.
        (
            denied_message("s3:ListBucket", BUCKET_ARN),
            "list",
            "s3:ListBucket",
            BUCKET_ARN,
        ),
        (
            denied_message("s3express:CreateSession", None),
            "get",
            "s3express:CreateSession",
            None,
        ),
        (
            denied_message("kms:GenerateDataKey", KEY_ARN),
            "kms",
            "kms:GenerateDataKey",
            KEY_ARN,
        ),
        (denied_message("kms:Decrypt", KEY_ARN, ""), "kms", "kms:Decrypt", KEY_ARN),
        (
            "The ciphertext refers to a customer master key that you are not allowed to access.",
            "kms",
            "kms:Decrypt",
            f"the KMS key of {GET.url}",
        ),
    ],
)
def test_a_denial_reports_the_action_that_s3_denied(
    message: str, reason: str, action: str, arn: str | None
) -> None:
    error = failed(GET, answer(403, "AccessDenied", message))

    assert (ObjectError, f"access_denied_{reason}") == (type(error), error.reason)
    assert Permission(action, arn or f"{BUCKET_ARN}/dags/*") == error.permission
    assert ("and the key's policy" in error.advice) == (reason == "kms")


# --- other failures

# What a listing and a GET end with, beside those that `s3/test_outage.py` shows;
# `moved`: the object is left for the next cycle.
ANSWERS: dict[tuple[str, str], list[Answer]] = {
    ("bucket_not_found",) * 2: [answer(404, "NoSuchAccessPoint")],
    # An endpoint that already contains the bucket takes its name for a key.
    ("bucket_not_found", "moved"): [answer(404, "NoSuchKey")],
    ("client_error", "moved"): [
        answer(412),
        answer(416, "InvalidRange"),
    ],
    ("credentials_invalid",) * 2: [answer(403, "SignatureDoesNotMatch")],
    ("credentials_expired",) * 2: [answer(400, "InvalidToken")],
    ("throttled",) * 2: [
        answer(503, "SlowDownRead"),
        answer(503, "ServiceUnavailable"),
        answer(429, "TooManyRequests"),
    ],
    ("server_error",) * 2: [
        answer(400, "RequestTimeout"),
        answer(503, "XMinioServerNotInitialized"),
        *map(answer, (408, 429, 502)),
    ],
    ("redirect_refused",) * 2: [
        answer(301, "PermanentRedirect"),
        answer(304),
    ],
    ("client_error",) * 2: [
        answer(400, "InvalidArgument"),
        answer(405),
        answer(400, "AccessDenied"),
    ],
    # Not S3's: an object that may be there must not count as gone.
    ("answer_foreign",) * 2: [answer(403), answer(404)],
    ("proxy_refused",) * 2: [answer(407)],
}
OF_ALL = {"bucket_not_found", "credentials_expired"}


@pytest.mark.parametrize(
    ("reasons", "found"),
    [(reasons, found) for reasons, answers in ANSWERS.items() for found in answers],
)
def test_every_response_has_a_reason_for_a_list_and_for_a_get(
    reasons: tuple[str, str], found: Answer
) -> None:
    """A failed listing fails the source; a failed object only if the reason says so."""
    listing = failed(LIST, found)
    got = explained(GET, found)

    assert (SourceError, reasons[0]) == (type(listing), listing.reason)
    assert listing.advice
    if reasons[1] == "moved":
        assert isinstance(got, ObjectMoved)
    else:
        assert isinstance(got, SourceError if reasons[1] in OF_ALL else ObjectError)
        assert (reasons[1], True) == (got.reason, bool(got.advice))


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (
            answer(400, "Odd", "because & so"),
            "S3 answered s3://a-bucket/dags/ with 400 Odd because",
        ),
        (
            answer(307, location="http://portal.example/"),
            "redirecting to 'http://portal.example/'",
        ),
        (
            answer(403, server="squid"),
            "squid (no content type) answered s3://a-bucket/dags/",
        ),
        (
            answer(503, **{"content-type": "text/html; x"}),
            "a server without a name (text/html)",
        ),
    ],
)
def test_an_error_quotes_the_response_and_who_sent_it(found: Answer, said: str) -> None:
    assert said in failed(LIST, found).message
