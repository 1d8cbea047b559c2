"""
Bytes of a keytab, a ccache or a krb5.conf: each reader answers, or raises the one error
that it documents.
"""

from __future__ import annotations

import tempfile
from contextlib import suppress
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from kerberos_sidecar import krb5_conf
from kerberos_sidecar.formats import Principal, parse_principal, read_ticket, reduce
from kerberos_sidecar.keytab import read_keytab, select
from kerberos_sidecar.reasons import BAD_DURATION, BAD_FORMAT
from kerberos_sidecar.settings import load_settings
from sidecar_runtime.errors import SidecarError
from tests.support.kerberos.formats import ccache, config, entry, hole, keytab, tgt
from tests.support.strangers import damaged

KEYTAB = keytab(entry("airflow"), hole(40), entry("HTTP/web"))
CCACHE = ccache(config("fast_avail", b"yes"), tgt(1_900_000_000))
KRB5_CONF = b"""\
[libdefaults]
  default_realm = EXAMPLE.COM
  ticket_lifetime = 10h
[realms]
  EXAMPLE.COM = {
    kdc = 127.0.0.1:88
  }
include /nowhere/else
"""


@given(content=damaged(KEYTAB))
def test_a_keytab_has_keys_or_one_error(content: bytes) -> None:
    with tempfile.NamedTemporaryFile() as file:
        Path(file.name).write_bytes(content)
        with suppress(SidecarError):
            keys = read_keytab(file.name)
            assert select(file.name, keys, None).keys


@given(content=damaged(CCACHE))
def test_a_ccache_has_a_ticket_or_is_none(content: bytes) -> None:
    with suppress(ValueError):
        assert isinstance(read_ticket(content).principal, Principal)
    with suppress(ValueError):
        reduced, ticket = reduce(content)
        assert ticket == read_ticket(reduced)


@given(content=damaged(KRB5_CONF), code=st.sampled_from([BAD_FORMAT, BAD_DURATION]))
def test_a_krb5_conf_is_searched_or_one_error(content: bytes, code: int) -> None:
    with tempfile.NamedTemporaryFile() as file:
        Path(file.name).write_bytes(content)
        settings, _ = load_settings({"KRB5_CONFIG": file.name})
        krb5_conf.wrong(settings)
        with suppress(SidecarError):
            krb5_conf.lines_about(settings, "EXAMPLE.COM", code)


@given(text=st.text(max_size=40))
def test_a_name_is_a_principal_or_refused(text: str) -> None:
    with suppress(ValueError):
        found = parse_principal(text)
        assert isinstance(found, Principal)
        assert found == parse_principal(str(found))
