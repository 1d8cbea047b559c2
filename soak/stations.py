"""
The four sidecars, each with its own source, changes and faults.
"""

import os
import shutil
import signal
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from itertools import cycle
from pathlib import Path

import psycopg2

from soak.station import Reader, Station, between
from tests.support.airflow import permissions
from tests.support.airflow.databases import Database, Postgres, skip_without_postgres
from tests.support.airflow.installed import AccessControl, Airflow, copy_of
from tests.support.airflow.sync_perm import SyncPerm, descendants_of, signal_all
from tests.support.aws.fake_s3 import FakeS3
from tests.support.daemon import Daemon
from tests.support.git.git_server import GitServer
from tests.support.git.git_sync import GitSite, corrupt, skip_without_git_sync
from tests.support.kerberos.kdc import Kdc, expiry_of, run_client, skip_without_kdc
from tests.support.kerberos.site import site
from tests.support.revisions import Flaw, make_revision, read_revision
from tests.support.s3_sync.releases import make_release
from tests.support.s3_sync.shelf import Shelf
from tests.support.s3_sync.snapshots import SwappingS3, consumed

RETAIN_SECONDS = 15


def tree(link: Path) -> Reader:
    """
    Return a reader that expects one complete revision behind a link.

    A read that takes longer than snapshots are retained is not judged.
    """

    def read() -> None:
        began = time.monotonic()
        try:
            read_revision(str(link.parent / os.readlink(link)))
        except (Flaw, OSError, ValueError):
            if time.monotonic() - began < RETAIN_SECONDS:
                raise

    return Reader(read, 0.02)


def files_below(folder: Path) -> Reader:
    """
    Return a reader of files that every revision has: each must be whole, of any
    revision.
    """
    paths = cycle(sorted(path for path in make_revision(0) if path.startswith("pkg")))

    def read() -> None:
        path = next(paths)
        content = (folder / path).read_bytes()
        number = int(content.split()[1])
        if content != make_revision(number)[path]:
            raise Flaw(f"{path} is no file of revision {number}")

    return Reader(read, 0.01)


SETTINGS = {"S3_SYNC_LOG_LEVEL": "info", "S3_SYNC_TIMEOUT": "5s"}
RETAINED = {"S3_SYNC_RETAIN_FOR": f"{RETAIN_SECONDS}s"}


class S3Sync(Station):
    """
    A bucket that is listed and one with releases, always with the same revision.
    """

    name = "s3-sync"
    outage = "no server", "next revision"

    def set_up(self) -> None:
        place = self.folder()
        self.listed = self.stack.enter_context(SwappingS3())
        self.released = self.stack.enter_context(FakeS3())
        self.shelf = Shelf(self.released)
        self.number = 0
        self.next_revision()
        self.targets: list[Path] = []
        for source, layout in (
            ("listing", "in-place"),
            ("listing", "snapshot"),
            ("release", "snapshot"),
        ):
            target = place / f"{source}-{layout}"
            server = self.listed if source == "listing" else self.released
            settings = {"S3_SYNC_SOURCE": source, "S3_SYNC_LAYOUT": layout, **SETTINGS}
            if layout == "snapshot":
                settings |= RETAINED
            given = server.environment() | settings
            self.targets.append(target)
            self.daemons.append(Daemon(None, server.bucket, target, "dags", "1", given))
            in_place = layout == "in-place"
            self.readers.append(
                files_below(target) if in_place else tree(target / "current")
            )
        self.changes = {
            "next revision": self.next_revision,
            "a revision comes back": lambda: self.show(
                self.chance.randint(1, self.number)
            ),
            "damaged files": self.damage_files,
        }
        self.break_servers(self.listed, self.released)
        self.faults |= {
            "an empty bucket": lambda: between(
                partial(self.listed.swap, {}), partial(self.show, self.number)
            ),
            "a bad release": partial(between, self.bad_release, self.next_revision),
        }

    def behind(self) -> str:
        wanted = make_revision(self.shown)
        self.listed.forget()
        self.released.forget()
        for target in self.targets:
            try:
                found = consumed(target)
            except (OSError, AssertionError) as error:
                return f"{target.name}: {error!r}"
            if found != wanted:
                wrong = sorted({path for path, _ in found.items() ^ wanted.items()})
                return f"{target.name} is not revision {self.shown}: {wrong[:3]}"
        return ""

    def show(self, number: int) -> None:
        self.shown = number
        self.listed.swap(make_revision(number))
        self.shelf.publish(make_revision(number))

    def next_revision(self) -> None:
        self.number += 1
        self.show(self.number)

    def damage_files(self) -> None:
        with self.damage(self.readers[:1]):
            for path in self.chance.sample(sorted(make_revision(self.shown)), 3):
                with suppress(OSError):
                    (self.targets[0] / path).write_bytes(
                        self.chance.choice((b"", b"edited\n"))
                    )
            self.daemons[0].sighup()

    def bad_release(self) -> None:
        """
        Publish a release of which one object is garbage.
        """
        objects = make_release(make_revision(self.number + 1)).objects()
        bad = self.chance.choice(sorted(objects))
        for name, body in objects.items():
            self.shelf.put(name, os.urandom(len(body)) if name == bad else body)


class GitSyncWrapper(Station):
    """
    A git server with a password, and two wrappers with a gate.
    """

    name = "git-sync-wrapper"
    outage = "no server", "commit"

    def set_up(self) -> None:
        skip_without_git_sync()
        home = self.folder()
        self.server = self.stack.enter_context(GitServer(home / "remote"))
        self.repository = self.server.repository()
        self.number = 0
        self.password = home / "password"
        self.rotate_password()
        self.commit()
        self.sites = [
            GitSite(self.server, home / name) for name in ("spared", "killed")
        ]
        for one in self.sites:
            one.folder.mkdir()
            self.stack.callback(one.close)
            daemon = one.describe(
                GIT_SYNC_WRAPPER_RETAIN_FOR=f"{RETAIN_SECONDS}s",
                GIT_SYNC_WRAPPER_GATE="command",
                GIT_SYNC_WRAPPER_GATE_COMMAND="/usr/bin/test ! -e BROKEN",
                GITSYNC_PERIOD="1s",
                GITSYNC_SYNC_TIMEOUT="10s",
                GITSYNC_USERNAME="airflow",
                GITSYNC_PASSWORD_FILE=str(self.password),
            )
            self.daemons.append(daemon)
            self.readers.append(tree(one.link))
        self.changes = {
            "commit": self.commit,
            "password rotated": self.rotate_password,
            "private repository gone": partial(self.spoil, shutil.rmtree),
            "private repository damaged": partial(self.spoil, corrupt),
            "link removed": self.remove_links,
        }
        self.break_servers(self.server)
        self.faults |= {
            "a bad commit": lambda: between(
                partial(self.commit, BROKEN=b""), self.commit
            ),
            "a refused password": lambda: between(
                self.server.accept, self.rotate_password
            ),
            "no branch": lambda: between(
                partial(self.repository.delete_branch, "main"), self.commit
            ),
        }

    def behind(self) -> str:
        self.server.forget()
        head = self.repository.head()
        return "; ".join(
            f"shows {s.shown()} not {head}" for s in self.sites if s.shown() != head
        )

    def commit(self, **more: bytes) -> None:
        self.number += 1
        self.repository.commit({**make_revision(self.number), **more}, whole=True)

    def rotate_password(self) -> None:
        new = f"password-{self.chance.random()}"
        self.server.refusal = self.chance.choice((401, 403))
        self.password.write_text(new)
        self.server.accept(("airflow", new))

    def spoil(self, deed: Callable[[Path], object]) -> None:
        """
        Do something to git-sync's own folders, and commit.
        """
        for one in self.sites:
            with suppress(OSError):
                deed(one.root / ".git-sync")
        self.commit()

    def remove_links(self) -> None:
        with self.damage(self.readers):
            for one in self.sites:
                one.link.unlink(missing_ok=True)


class Kerberos(Station):
    """
    A realm with a service, a relay in front of its KDC, and two ccaches.
    """

    name = "kerberos"
    outage = "no KDC", "tickets asked for"
    life_seconds = 180

    def set_up(self) -> None:
        skip_without_kdc()
        self.kdc = self.stack.enter_context(Kdc(self.folder()))
        self.site = self.stack.enter_context(
            site(self.kdc, "airflow", f"{self.life_seconds}s")
        )
        self.service = self.kdc.add_principal("HTTP/consumer.example.test")
        self.ccaches = [
            self.site.folder / name / "krb5cc" for name in ("spared", "killed")
        ]
        self.since = 0.0
        for ccache in self.ccaches:
            ccache.parent.mkdir()
            settings = {"KERBEROS_LOG_LEVEL": "info", "KERBEROS_TIMEOUT": "10s"}
            self.daemons.append(
                self.site.sidecar(**settings, KERBEROS_CCACHE=str(ccache))
            )
            self.readers.append(Reader(partial(self.klist, ccache), 0.1))
        self.changes = {
            "tickets asked for": self.ask,
            "key rotated": self.rotate_key,
            "ccache damaged": self.damage_ccaches,
        }
        keytab = self.site.keytab
        good = keytab.read_bytes
        self.faults |= {
            "no KDC": partial(between, self.kdc.stop, self.kdc.start),
            "a hung KDC": partial(between, self.kdc.hang, self.kdc.resume),
            "no keytab": lambda: between(
                keytab.unlink, partial(self.write_keytab, good())
            ),
        }

    def klist(self, ccache: Path) -> None:
        done = run_client(["klist", "-s"], self.site.config, ccache)
        if done.returncode:
            raise Flaw(f"klist -s ended with {done.returncode}: {done.stderr}")

    def behind(self) -> str:
        for ccache in self.ccaches:
            try:
                began = expiry_of(ccache, self.site.config) - self.life_seconds
            except AssertionError as unreadable:
                return str(unreadable)[:300]
            if began < int(self.since) - 1:
                return f"{ccache.parent.name}: its ticket is {self.since - began:.0f} s too old"
            used = run_client(["kvno", "-q", self.service], self.site.config, ccache)
            if used.returncode != 0:
                return used.stderr.strip()
        return ""

    def ask(self) -> None:
        self.since = time.time()
        for daemon in self.daemons:
            daemon.sighup()

    def rotate_key(self) -> None:
        new = self.kdc.write_keytab(
            self.site.folder / "new.keytab", self.site.principal
        )
        self.since = time.time()
        os.replace(new, self.site.keytab)

    def write_keytab(self, content: bytes) -> None:
        self.site.keytab.write_bytes(content)
        self.ask()

    def damage_ccaches(self) -> None:
        with self.damage(self.readers):
            for ccache in self.ccaches:
                ccache.write_bytes(b"\5\4damaged")


CANARY = "canary"
"""A DAG whose grants are never changed: they are always there."""


class SyncPermissions(Station):
    """
    PostgreSQL with some DAGs; what is wanted is what Airflow's own sync-perm makes of a
    copy.
    """

    name = "sync-perm"
    outage = "no database", "grant revoked"
    stays_ready = False
    roles = ("team_a", "team_b", "Équipe d'été", "100%", "Viewer", "User", "Op")

    def set_up(self) -> None:
        skip_without_postgres()
        self.airflow = Airflow.install_or_skip("2.11")
        self.home = self.folder()
        self.server = self.stack.enter_context(Postgres())
        self.database = self.airflow.new_postgres(self.server, self.home)
        for role in self.roles[:4]:
            permissions.add_role(self.database, role)
        self.write({CANARY: {"Viewer": ["can_edit"]}})
        self.write(self.some_dags())
        settings = {
            "INTERVAL": "1",
            "SYNC_PERM_LOG_LEVEL": "info",
            "SYNC_PERM_TIMEOUT": "60s",
        }
        self.daemons += [
            SyncPerm(self.airflow, self.database.url, self.home / name, settings)
            for name in ("spared", "killed")
        ]
        self.readers.append(Reader(self.read_canary, 0.2))
        self.changes = {
            "grant revoked": self.revoke,
            "DAGs changed": lambda: self.write(self.some_dags()),
        }
        self.faults |= {
            "no database": partial(between, self.server.stop, self.server.start),
            "cut connections": partial(between, self.cut, self.cut),
            "Airflow killed": partial(between, self.kill_airflow, lambda: None),
        }

    def some_dags(self) -> dict[str, AccessControl]:
        actions = ("can_read", "can_edit", "can_delete")
        return {
            f"dag_{self.chance.randrange(25)}": {
                self.chance.choice(self.roles): self.chance.sample(actions, 2)
            }
            for _ in range(5)
        }

    def write(self, dags: Mapping[str, AccessControl]) -> None:
        """
        Write DAGs, and let Airflow compute what is wanted.
        """
        self.airflow.write_dags(self.database, self.home, dags)
        copy = copy_of(self.database, self.home)
        self.airflow.full_sync(copy, self.home)
        self.wanted = permissions.contents(copy)
        self.server.drop(copy)

    def behind(self) -> str:
        shown = permissions.contents(self.database)
        return "; ".join(permissions.difference(shown, self.wanted)[:3])

    def read_canary(self) -> None:
        # the database is down: no answer, not a wrong one
        with suppress(psycopg2.Error):
            found = permissions.grants_on(self.database, f"DAG:{CANARY}")
            if found != {("Viewer", "can_edit")}:
                raise Flaw(f"{CANARY} has the grants {found}")

    def revoke(self) -> None:
        grants = permissions.contents(self.database)["grants"]
        role, action, name = self.chance.choice(
            [g for g in grants if "DAG:dag_" in g[2]]
        )
        permissions.revoke(self.database, role, action, name)

    def cut(self) -> None:
        sql = (
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s"
        )
        Database(self.server, "postgres").query(sql, (self.database.name,))

    def kill_airflow(self) -> None:
        for _ in range(20):
            for daemon in self.daemons:
                signal_all(descendants_of(daemon.pid), signal.SIGKILL)
            self.ended.wait(0.1)


STATIONS: tuple[type[Station], ...] = (
    S3Sync,
    GitSyncWrapper,
    Kerberos,
    SyncPermissions,
)
