"""
kerberos: a principal of a real KDC, a spared process and one that is killed.
"""

from __future__ import annotations

import base64
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from importlib.util import find_spec
from pathlib import Path

from soak.post import Post
from soak.readers import Reader, holding
from soak.station import Missing, Station
from soak.volume import volume
from tests.support.kerberos.kdc import MISSING, PATH, Kdc, expiry_of, run_client
from tests.support.kerberos.kdc_proxy import Behavior, KdcProxy
from tests.support.kerberos.site import site

LIFE_SECONDS = 180
SETTINGS = {"KERBEROS_LOG_LEVEL": "info", "KERBEROS_TIMEOUT": "10s"}


class Kerberos(Station):
    """
    A realm with a service, a relay in front of its KDC, and two ccaches.
    """

    name = "kerberos"

    def set_up(self) -> None:
        """
        Start a KDC and two sidecars.
        """
        missing = [*MISSING, *([] if find_spec("gssapi") else ["gssapi"])]
        if missing:
            raise Missing(f"missing {', '.join(missing)} (run make setup-test as root)")
        home = Path(self.stack.enter_context(tempfile.TemporaryDirectory(prefix="soak-kdc-")))
        self.kdc = self.stack.enter_context(Kdc(home))
        self.proxy = self.stack.enter_context(KdcProxy(self.kdc.port))
        self.site = self.stack.enter_context(site(self.kdc, "airflow", f"{LIFE_SECONDS}s"))
        self.site.configure(self.proxy.address)
        self.service = self.kdc.add_principal("HTTP/consumer.example.test")
        self.volume = self.stack.enter_context(volume(self.site.folder / "volume", "1m"))
        self.since = 0.0
        for name in ("spared", "killed"):
            ccache = self.volume.path / name / "krb5cc"
            ccache.parent.mkdir()
            daemon = self.site.sidecar(**SETTINGS, KERBEROS_CCACHE=str(ccache))
            is_spared = name == "spared"
            self.posts.append(Post(name, daemon, is_spared=is_spared, folder=ccache.parent))
            environment = {
                "PATH": PATH,
                "KRB5_CONFIG": str(self.site.config),
                "KRB5CCNAME": str(ccache),
            }
            for kind in ("klist", "acquire"):
                lock = self.volume.path / f"{name}-{kind}.lock"
                self.readers.append(Reader(lock, kind, environment=environment))
        self.changes = {
            "tickets asked for": self.ask,
            "key rotated": self.rotate_key,
            "keytab comes late": self.late_keytab,
        }
        behaviors: tuple[Behavior, ...] = ("silent", "reset", "garbage")
        self.faults = {
            "KDC is down": partial(self.between, self.kdc.stop, self.kdc.start),
            "KDC hangs": partial(self.between, self.kdc.hang, self.kdc.resume),
            **{f"way to the KDC: {kind}": partial(self.behaving, kind) for kind in behaviors},
            "keytab damaged": self.keytab_damaged,
            "keytab gone": self.keytab_gone,
            "principal locked": self.principal_locked,
            "ccache damaged by hand": self.ccache_damaged,
            **({"volume full": self.volume.full} if self.volume.is_small else {}),
        }

    def ccache_of(self, post: Post) -> Path:
        """
        Return the ccache that a post publishes.
        """
        return Path(post.daemon.environment["KERBEROS_CCACHE"])

    def behind(self) -> list[str]:
        """
        Check that each ccache has a ticket from after the last change, usable for a service.
        """
        found = []
        for post in self.posts:
            ccache = self.ccache_of(post)
            try:
                began = expiry_of(ccache, self.site.config) - LIFE_SECONDS
            except AssertionError as unreadable:
                found.append(f"{post.name}: {str(unreadable)[:200]}")
                continue
            if began < int(self.since) - 1:
                found.append(f"{post.name}: the ticket is {self.since - began:.0f} s too old")
            elif error := post.last_error():
                found.append(error)
            else:
                used = run_client(["kvno", "-q", self.service], self.site.config, ccache)
                if used.returncode != 0:
                    found.append(f"{post.name}: {used.stderr.strip()}")
        return found

    def leftovers(self) -> list[str]:
        """
        Return the other files in the folders of the ccaches.
        """
        return [
            str(path)
            for post in self.posts
            for path in self.ccache_of(post).parent.iterdir()
            if path != self.ccache_of(post)
        ]

    def ask(self) -> None:
        """
        Request new tickets from all posts.
        """
        self.since = time.time()
        for post in self.posts:
            post.daemon.sighup()

    def rotate_key(self) -> None:
        """
        Change the key in the KDC, and replace the keytab.
        """
        self.late_keytab(0)

    def late_keytab(self, most_seconds: float = 3) -> None:
        """
        Change the key in the KDC, and replace the keytab some seconds later.
        """
        new = self.kdc.write_keytab(self.site.folder / "new.keytab", self.site.principal)
        if most_seconds:
            self.ask()
        self.hold(0, most_seconds)
        self.since = time.time()
        os.replace(new, self.site.keytab)

    @contextmanager
    def between(self, begin: Callable[[], None], end: Callable[[], None]) -> Iterator[None]:
        """
        Run `begin`, and `end` afterwards.
        """
        begin()
        try:
            self.ask()
            yield
        finally:
            end()

    @contextmanager
    def behaving(self, kind: Behavior) -> Iterator[None]:
        """
        Let the relay between the sidecar and the KDC misbehave.
        """
        self.proxy.behavior = kind
        self.ask()
        yield
        self.proxy.behavior = "relay"

    @contextmanager
    def keytab_damaged(self) -> Iterator[None]:
        """
        Replace the keytab with a base64-encoded one, as from a Secret that was encoded twice.
        """
        good = self.site.keytab.read_bytes()
        self.site.keytab.write_bytes(base64.b64encode(good))
        yield
        self.since = time.time()
        self.site.keytab.write_bytes(good)

    @contextmanager
    def keytab_gone(self) -> Iterator[None]:
        """
        Remove the keytab for a while, as during a remount of the Secret.
        """
        away = self.site.keytab.with_suffix(".away")
        self.site.keytab.rename(away)
        yield
        self.since = time.time()
        away.rename(self.site.keytab)
        self.ask()

    @contextmanager
    def principal_locked(self) -> Iterator[None]:
        """
        Lock the account for a while, as an administrator might.
        """
        self.kdc.kadmin(f"modprinc -allow_tix {self.site.principal}")
        self.ask()
        yield
        self.kdc.kadmin(f"modprinc +allow_tix {self.site.principal}")

    @contextmanager
    def ccache_damaged(self) -> Iterator[None]:
        """
        Remove or damage the ccache that consumers read; the sidecar must restore it.
        """
        post = self.chance.choice(self.posts)
        ccache = self.ccache_of(post)
        first, second = [r for r in self.readers if r.lock.name.startswith(f"{post.name}-")]
        with holding(first), holding(second), post.damaged(), self.until_in_step():
            if self.chance.random() < 0.5:
                ccache.unlink(missing_ok=True)
            else:
                ccache.write_bytes(b"\5\4damaged")
            yield
