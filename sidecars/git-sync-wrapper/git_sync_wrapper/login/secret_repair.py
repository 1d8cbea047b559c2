"""
Repair common damage to Secrets, if the repair is unambiguous.

Pure: bytes in, text and findings out. A finding never contains a part of the secret. A secret that
is only suspicious is reported and used unchanged, because a password may look like anything.
"""

from __future__ import annotations

import base64
import binascii
import re
import textwrap
from dataclasses import dataclass, field

# The documented prefixes of tokens of GitHub, GitLab and Bitbucket.
_TOKEN = re.compile(r"(gh[pousr]_|github_pat_|gl(pat|dt|oas|cbt)-|ATBB|ATCTT)[\w.=-]{10,}")
_BASE64 = re.compile(r"[A-Za-z0-9+/]{6,}={0,2}")
_PEM = re.compile(
    r"-----BEGIN (?P<kind>[A-Z0-9 ]*PRIVATE KEY)-----(?P<body>.*?)-----END (?P=kind)-----",
    re.DOTALL,
)
_PEM_HEADERS = re.compile(r"\s*((?:[A-Za-z-]+: *[^\n]+\n)+)")
_PUBLIC_KEY = re.compile(r"(ssh-\w+|ecdsa-sha2-\S+|sk-\S+) AAAA")
_LINE_CHARACTERS = 64
_LONGEST_LINE = 76


@dataclass(frozen=True, slots=True)
class Repaired:
    """
    A secret, ready for use.

    Args:
        repairs: Descriptions of the repairs; empty for an intact secret.
        doubts: Suspicious properties that were not repaired: possible causes of a refusal.
        inner: The decoded text if the secret looks like base64: to be tried after a refusal.
    """

    text: str = field(repr=False)
    repairs: tuple[str, ...] = ()
    doubts: tuple[str, ...] = ()
    inner: str | None = field(default=None, repr=False)


def repair_password(raw: bytes) -> Repaired:
    """
    Repair a password, a token or a username; a single trailing newline is stripped silently.
    """
    text, repairs = _decode(raw)
    value = text.strip("\n")
    if value != text.removesuffix("\n"):
        repairs.append("blank lines around it were removed")
    inner = _unwrap(value)
    if inner and _TOKEN.fullmatch(inner.strip()):
        repairs.append("it was a base64-encoded token and was decoded: it had been encoded twice")
        value, inner = inner.strip(), None
    inner = inner and inner.strip("\r\n")
    return Repaired(value, tuple(repairs), tuple(_doubts_of(value, inner)), inner)


def _doubts_of(value: str, inner: str | None) -> list[str]:
    doubts = []
    if not value:
        doubts.append("it is empty")
    if "\n" in value:
        doubts.append("it has several lines")
    if value != value.strip(" \t"):
        doubts.append("it begins or ends with a blank")
    if inner:
        doubts.append("it looks like base64 of readable text: it may be encoded twice")
    if value.startswith("{"):
        doubts.append("it looks like JSON: maybe only one of its values is the secret")
    if len(value) > 1 and value[0] == value[-1] and value[0] in "\"'":
        doubts.append("it is in quotation marks, which are used as part of it")
    return doubts


def repair_key(raw: bytes) -> Repaired:
    """
    Repair a private SSH key: without its final newline ssh refuses it ("error in libcrypto").
    """
    text, repairs = _decode(raw)
    if inner := _unwrap_key(text):
        repairs.append("it was a base64-encoded key and was decoded: it had been encoded twice")
        text = inner
    if "\\n" in text:
        repairs.append(r"line breaks that were written as \n were restored")
        text = text.replace("\\n", "\n")
    found = _PEM.search(text)
    if found is None:
        return Repaired(text, tuple(repairs), (_why_no_key(text),))
    key = text.strip("\n") + "\n"
    if not _is_in_order(key):
        repairs.append("its lines were reformatted")
        key = _rebuild(found["kind"], found["body"])
    elif not text.endswith("\n"):
        repairs.append("the newline at its end was missing")
    elif key != text:
        repairs.append("blank lines around it were removed")
    return Repaired(key, tuple(repairs), tuple(_doubts_of_key(found["kind"], found["body"])))


def _unwrap_key(text: str) -> str | None:
    """
    Decode a key that is base64-encoded once or several times; None for any other text.
    """
    for _ in range(3):
        text = _unwrap("".join(text.split())) or ""
        if "-----BEGIN " in text:
            return text.replace("\r\n", "\n")
    return None


def _is_in_order(key: str) -> bool:
    """
    Whether there is no text around the key, and ssh and OpenSSL can read its lines.
    """
    first, *lines, last = key.removesuffix("\n").split("\n") if key.count("\n") > 1 else ("", "")
    if not first.startswith("-----BEGIN") or not last.startswith("-----END"):
        return False
    body = lines[lines.index("") + 1 :] if ":" in "".join(lines[:1]) and "" in lines else lines
    return all(line and line == line.strip() for line in (first, *body, last)) and all(
        len(line) <= _LONGEST_LINE for line in body
    )


def _rebuild(kind: str, body: str) -> str:
    headers = _PEM_HEADERS.match(body)
    data = "".join(body[headers.end() :].split()) if headers else "".join(body.split())
    head = [*map(str.rstrip, headers[1].splitlines()), ""] if headers else []
    lines = textwrap.wrap(data, _LINE_CHARACTERS)
    return "\n".join([f"-----BEGIN {kind}-----", *head, *lines, f"-----END {kind}-----", ""])


def _doubts_of_key(kind: str, body: str) -> list[str]:
    headers = _PEM_HEADERS.match(body)
    try:
        data = base64.b64decode(
            "".join(body[headers.end() if headers else 0 :].split()), None, True
        )
    except (binascii.Error, ValueError):
        return ["its base64 is damaged: a part of it is missing"]
    # https://github.com/openssh/openssh-portable/blob/master/PROTOCOL.key: magic, then the cipher.
    openssh = data.startswith(b"openssh-key-v1\0")
    is_locked = data[15:23] != b"\0\0\0\4none" if openssh else "ENCRYPTED" in f"{kind} {body}"
    return ["it has a passphrase, which cannot be entered here"] if is_locked else []


def _why_no_key(text: str) -> str:
    if not text.strip():
        return "it is empty"
    if _PUBLIC_KEY.match(text.strip()):
        return "it is a public key: the private key is required"
    if text.startswith("PuTTY-User-Key-File"):
        return "it is a PuTTY key: export it in OpenSSH format"
    if "-----BEGIN " in text and "PRIVATE KEY-----" in text:
        return "the end of the key is missing"
    return "it is not a private key in PEM format"


def repair_known_hosts(raw: bytes) -> Repaired:
    """
    Repair a known_hosts file.
    """
    text, repairs = _decode(raw)
    inner = _unwrap("".join(text.split()))
    if inner and any(_PUBLIC_KEY.search(line) for line in inner.splitlines()):
        repairs.append("it was base64-encoded and was decoded: it had been encoded twice")
        text = inner.replace("\r\n", "\n")
    has_hosts = any(_PUBLIC_KEY.search(line) for line in text.splitlines())
    doubts = () if has_hosts else ("it contains no host key",)
    return Repaired(text, tuple(repairs), doubts)


def _decode(raw: bytes) -> tuple[str, list[str]]:
    """
    Return the text with LF line endings, and the necessary repairs.
    """
    repairs = []
    if raw.startswith((b"\xff\xfe", b"\xfe\xff")):  # PowerShell writes such files
        repairs.append("it was decoded from UTF-16")
        text = raw.decode("utf-16", "replace")
    else:
        text = raw.decode("utf-8", "surrogateescape")
    if text.startswith("\ufeff"):
        repairs.append("the byte order mark before it was removed")
        text = text.removeprefix("\ufeff")
    if "\r" in text:
        repairs.append("Windows line endings were replaced")
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    return text, repairs


def _unwrap(text: str) -> str | None:
    """
    Decode base64 of readable text; None for any other text.
    """
    if len(text) % 4 or not _BASE64.fullmatch(text):
        return None
    try:
        inner = base64.b64decode(text, None, True).decode("ascii")
    except (binascii.Error, UnicodeDecodeError):
        return None
    is_readable = all(line.isprintable() for line in inner.splitlines())
    return inner if is_readable and inner.strip() else None
