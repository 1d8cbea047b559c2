"""
Asks the KDC for a ticket, by gssapi.
"""

from __future__ import annotations

import time

import gssapi
from gssapi.raw.misc import GSSError

from kerberos_sidecar.formats.keytab import Keytab
from kerberos_sidecar.formats.principal import Principal
from kerberos_sidecar.krb5.refusals import explain


def acquire_ticket(principal: Principal, keytab: Keytab, ccache: str) -> None:
    """
    Acquire a ticket from the keytab into a new ccache.

    Blocks for as long as libkrb5 waits for KDCs, without the interpreter's lock. Only from a
    thread: in the main one it would hold up signals.

    Args:
        ccache: Where to, with its type (``FILE:/path``); nothing must be there, as libkrb5
            would take up what it finds.

    Raises:
        SidecarError: Why there is no ticket.
    """
    began = time.monotonic()
    try:
        gssapi.Credentials(
            name=gssapi.Name(str(principal), gssapi.NameType.kerberos_principal),
            usage="initiate",
            # Without this, every failure is tried twice: 54 s instead of 27 for a silent KDC.
            mechs=[gssapi.MechType.kerberos],
            store={"client_keytab": f"FILE:{keytab.path}", "ccache": ccache},
        )
    except GSSError as error:
        code = error.min_code - (1 << 32) if error.min_code >= 1 << 31 else error.min_code
        raise explain(
            code,
            _text_of(error),
            principal=principal,
            keytab=keytab.path,
            kvno=keytab.kvno_of(principal),
            after_seconds=time.monotonic() - began,
        ) from None


def _text_of(error: GSSError) -> str:
    """
    Return what libkrb5 says of the minor status, without gssapi's own words.
    """
    return "; ".join(error.get_all_statuses(error.min_code, is_maj=False))
