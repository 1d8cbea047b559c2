"""
Bindings to libkrb5 through ctypes: libkrb5 encodes and decodes the messages, we transport them.

libkrb5's own transport has no time limit: it waits 27 s for a KDC that is silent over UDP, and
forever for one that accepts a connection but stays silent (MIT 1.22). ``krb5_init_creds_step``
leaves it to the caller: https://web.mit.edu/kerberos/krb5-latest/doc/appdev/init_creds.html
"""

from __future__ import annotations

import ctypes
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from kerberos_sidecar.formats.ccache import assemble
from kerberos_sidecar.settings import Settings

# A buffer for one ``krb5_creds``, which has 144 bytes on 64-bit machines (MIT 1.20).
_CREDS_BYTES = 1024
_CONTINUE = 1
_RESPONSE_TOO_BIG = -1765328332
# Above this size libkrb5 prefers TCP, unless krb5.conf sets udp_preference_limit.
_UDP_BYTES = 1465


class _Data(ctypes.Structure):
    """
    ``krb5_data``.
    """

    _fields_ = (
        ("magic", ctypes.c_int32),
        ("length", ctypes.c_uint),
        ("data", ctypes.c_void_p),
    )


_lib = ctypes.CDLL("libkrb5.so.3")
_lib.krb5_get_error_message.restype = ctypes.c_void_p


class Krb5Error(Exception):
    """
    A call to libkrb5 failed.

    Args:
        code: A code from ``krb5.h``.
        said: libkrb5's own message.
    """

    def __init__(self, code: int, said: str) -> None:
        super().__init__(said)
        self.code = code
        self.said = said


@dataclass(frozen=True, slots=True)
class Message:
    """
    The next message to send to a KDC of the realm.

    Args:
        prefers_tcp: Whether krb5.conf asks to try TCP first.
        is_tcp_only: Whether the answer did not fit into a datagram.
    """

    content: bytes
    realm: str
    prefers_tcp: bool
    is_tcp_only: bool


class Request:
    """
    A request for a ticket-granting ticket; for use in the thread that creates it.

    Args:
        stack: Frees libkrb5's memory when it closes.
        principal: The principal, with its realm.
        keytab: The path of the keytab.
        settings: The lives and flags to request.

    Raises:
        Krb5Error: On creation and from every method.
    """

    def __init__(self, stack: ExitStack, principal: str, keytab: str, settings: Settings) -> None:
        free = stack.callback
        self._context = ctypes.c_void_p()
        self._request = ctypes.c_void_p()
        self._profile = ctypes.c_void_p()
        self._is_tcp_only = False
        self._call("krb5_init_context", ctypes.byref(self._context))
        free(_lib.krb5_free_context, self._context)
        self._call("krb5_get_profile", self._context, ctypes.byref(self._profile))
        free(_lib.profile_release, self._profile)
        name = ctypes.c_void_p()
        self._call("krb5_parse_name", self._context, principal.encode(), ctypes.byref(name))
        free(_lib.krb5_free_principal, self._context, name)
        options = self._options(settings)
        free(_lib.krb5_get_init_creds_opt_free, self._context, options)  # after the request
        self._call(
            "krb5_init_creds_init",
            *(self._context, name, None, None, 0, options, ctypes.byref(self._request)),
        )
        free(_lib.krb5_init_creds_free, self._context, self._request)
        keys = ctypes.c_void_p()
        path = f"FILE:{keytab}".encode()
        self._call("krb5_kt_resolve", self._context, path, ctypes.byref(keys))
        free(_lib.krb5_kt_close, self._context, keys)
        self._call("krb5_init_creds_set_keytab", self._context, self._request, keys)

    def step(self, answer: bytes) -> Message | None:
        """
        Process a KDC's answer; return the next message, or ``None`` once the ticket has arrived.

        Args:
            answer: Empty in the first call.
        """
        taken = ctypes.create_string_buffer(answer, len(answer))
        given = _Data(0, len(answer), ctypes.cast(taken, ctypes.c_void_p))
        message, realm, flags = _Data(), _Data(), ctypes.c_uint()
        code = _lib.krb5_init_creds_step(
            self._context,
            self._request,
            ctypes.byref(given),
            ctypes.byref(message),
            ctypes.byref(realm),
            ctypes.byref(flags),
        )
        try:
            if code == _RESPONSE_TOO_BIG and not self._is_tcp_only:
                self._is_tcp_only = True
            elif code:
                raise self._error(code)
            elif not flags.value & _CONTINUE:
                return None
            content = ctypes.string_at(message.data, message.length)
            name = ctypes.string_at(realm.data, realm.length).decode(errors="replace")
        finally:
            _lib.krb5_free_data_contents(self._context, ctypes.byref(message))
            _lib.krb5_free_data_contents(self._context, ctypes.byref(realm))
        prefers_tcp = self._is_tcp_only or len(content) > self._udp_bytes()
        return Message(content, name, prefers_tcp, self._is_tcp_only)

    def fetch(self) -> None:
        """
        Let libkrb5 transport the messages itself, to KDCs that only it can find.
        """
        self._call("krb5_init_creds_get", self._context, self._request)

    def kdcs(self, realm: str) -> list[str]:
        """
        Return the values of ``kdc`` in krb5.conf for a realm.
        """
        path = (b"realms", realm.encode(), b"kdc", None)
        names = (ctypes.c_char_p * len(path))(*path)
        values = ctypes.POINTER(ctypes.c_char_p)()
        if _lib.profile_get_values(self._profile, names, ctypes.byref(values)):
            return []
        found: list[str] = []
        while (value := values[len(found)]) is not None:
            found.append(value.decode(errors="replace"))
        _lib.profile_free_list(values)
        return found

    def uses_dns(self) -> bool:
        """
        Return whether krb5.conf allows DNS look-ups for a realm without ``kdc`` values.
        """
        return self._is_wanted(b"dns_fallback", b"dns_lookup_kdc")

    def uses_uri_records(self) -> bool:
        """
        Return whether krb5.conf allows URI records among them.
        """
        return self._is_wanted(b"dns_uri_lookup")

    def _is_wanted(self, *names: bytes) -> bool:
        """
        Return the last of these booleans that krb5.conf contains; true if there is none.
        """
        is_wanted = ctypes.c_int(1)
        for name in names:
            _lib.profile_get_boolean(
                self._profile,
                *(b"libdefaults", name, None),
                *(is_wanted.value, ctypes.byref(is_wanted)),
            )
        return bool(is_wanted.value)

    def ccache(self) -> bytes:
        """
        Return a ccache that contains only the ticket.
        """
        creds = ctypes.create_string_buffer(_CREDS_BYTES)
        self._call("krb5_init_creds_get_creds", self._context, self._request, creds)
        entry = ctypes.POINTER(_Data)()
        try:
            self._call("krb5_marshal_credentials", self._context, creds, ctypes.byref(entry))
            content = ctypes.string_at(entry.contents.data, entry.contents.length)
            _lib.krb5_free_data(self._context, entry)
        finally:
            _lib.krb5_free_cred_contents(self._context, creds)
        seconds, microseconds = ctypes.c_int32(), ctypes.c_int32()
        self._call(
            "krb5_get_time_offsets",
            self._context,
            ctypes.byref(seconds),
            ctypes.byref(microseconds),
        )
        return assemble(content, seconds.value, microseconds.value)

    def _options(self, settings: Settings) -> ctypes.c_void_p:
        """
        Return what to request. Unlike the overlay, it overrides the realm's part of [libdefaults].
        """
        options = ctypes.c_void_p()
        self._call("krb5_get_init_creds_opt_alloc", self._context, ctypes.byref(options))
        _lib.krb5_get_init_creds_opt_set_forwardable(options, int(settings.forwardable))
        if settings.ticket_lifetime_seconds is not None:
            _lib.krb5_get_init_creds_opt_set_tkt_life(
                options, int(settings.ticket_lifetime_seconds)
            )
        if settings.renew_lifetime_seconds is not None:
            _lib.krb5_get_init_creds_opt_set_renew_life(
                options, int(settings.renew_lifetime_seconds)
            )
        return options

    def _udp_bytes(self) -> int:
        limit = ctypes.c_int()
        code = _lib.profile_get_integer(
            self._profile,
            *(b"libdefaults", b"udp_preference_limit", None),
            *(_UDP_BYTES, ctypes.byref(limit)),
        )
        return _UDP_BYTES if code else limit.value

    def _call(self, name: str, *arguments: Any) -> None:
        if code := getattr(_lib, name)(*arguments):
            raise self._error(code)

    def _error(self, code: int) -> Krb5Error:
        said = _lib.krb5_get_error_message(self._context, code)
        text = ctypes.string_at(said).decode(errors="replace")
        _lib.krb5_free_error_message(self._context, ctypes.c_void_p(said))
        return Krb5Error(code, text)
