"""
Bytes of a krb5.conf, and names: each reader answers, or raises the one error that it
documents; `test_formats.py` has keytabs and ccaches.
"""

from __future__ import annotations

import tempfile
from contextlib import suppress
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from kerberos_sidecar import krb5_conf
from kerberos_sidecar.formats import Principal, parse_principal
from kerberos_sidecar.reasons import LINES
from kerberos_sidecar.settings import load_settings
from tests.support.strangers import damaged

KRB5_CONF = b"""\
[libdefaults]
  default_realm = EXAMPLE.COM
  ticket_lifetime = 10h
[realms]
  EXAMPLE.COM = {
    kdc = 127.0.0.1:88
  }
"""


@given(content=damaged(KRB5_CONF), reason=st.sampled_from([*LINES]))
def test_a_krb5_conf_is_searched_whatever_it_contains(
    content: bytes, reason: str
) -> None:
    with tempfile.NamedTemporaryFile() as file:
        Path(file.name).write_bytes(content)
        settings, _ = load_settings({"KRB5_CONFIG": file.name})
        krb5_conf.lines_about(settings, "EXAMPLE.COM", reason)


@given(text=st.text(max_size=40))
def test_a_name_is_a_principal_or_refused(text: str) -> None:
    with suppress(ValueError):
        found = parse_principal(text)
        assert isinstance(found, Principal)
        assert found == parse_principal(str(found))
