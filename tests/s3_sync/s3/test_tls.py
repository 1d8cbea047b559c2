"""The trusted certificates while the CA bundle is rotated."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from s3_sync.s3.client import S3Client
from s3_sync.s3.refusals import SourceError
from s3_sync.s3.tls import read_trust
from sidecar_runtime.errors import SidecarError
from sidecar_runtime.fence import Fence
from tests.s3_sync.given import Given, config, config_of, play
from tests.support.aws.fake_s3 import FakeS3
from tests.support.http.certificates import self_signed
from tests.support.raising import raised

Replace = Callable[[Path, bytes], None]


def in_place(bundle: Path, content: bytes) -> None:
    bundle.write_bytes(content)


def by_rename(bundle: Path, content: bytes) -> None:
    aside = bundle.with_suffix(".new")
    aside.write_bytes(content)
    aside.rename(bundle)


def as_a_config_map(bundle: Path, content: bytes) -> None:
    """Replace it as the kubelet does: the file links into ..data, a link to a version's folder."""
    version = bundle.parent / f"..{len(list(bundle.parent.iterdir()))}"
    version.mkdir()
    (version / bundle.name).write_bytes(content)
    (bundle.parent / "..data_tmp").symlink_to(version.name)
    (bundle.parent / "..data_tmp").rename(bundle.parent / "..data")
    if not bundle.is_symlink():
        bundle.unlink(missing_ok=True)
        bundle.symlink_to(f"..data/{bundle.name}")


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """The path of a bundle that does not exist yet, in its own folder."""
    folder = tmp_path / "mounted"
    folder.mkdir()
    return folder / "ca.pem"


class Server:
    """An S3 server that can switch from one self-signed certificate to another."""

    def __init__(self, folder: Path) -> None:
        self.context, self.old = self_signed(folder / "old", "old.example")
        self._renewed = folder / "new"
        self.new = self_signed(self._renewed, "new.example")[1]
        self.s3 = FakeS3(tls=self.context)

    def renew(self) -> None:
        """Present the new certificate from the next handshake on."""
        self.context.load_cert_chain(self.new, self._renewed / "key.pem")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    server = Server(tmp_path)
    with server.s3:
        yield server


def rotated(server: Server, bundle: Path, *steps: Callable[[], object]) -> list[str]:
    """Run a cycle, then one after each step, on new connections; return each failure's reason."""

    async def scene(client: S3Client) -> list[str]:
        ended = []
        for step in (lambda: None, *steps):
            step()
            client.close()
            client.begin_cycle(Fence())
            try:
                await client.list_page(None)
                ended.append("")
            except SidecarError as error:
                ended.append(error.reason)
        return ended

    chain = Given(config_of(server.s3, ca_bundle=str(bundle)))
    found: list[str] = play(server.s3, scene, chain)
    return found


@pytest.mark.parametrize("replace", [in_place, by_rename, as_a_config_map])
def test_no_cycle_fails_if_the_bundle_holds_both_cas_during_the_rotation(
    server: Server, bundle: Path, replace: Replace
) -> None:
    old, new = server.old.read_bytes(), server.new.read_bytes()
    replace(bundle, old)

    ended = rotated(
        server,
        bundle,
        lambda: replace(bundle, old + new),
        server.renew,
        lambda: replace(bundle, new),
    )

    assert [""] * 4 == ended


@pytest.mark.parametrize("replace", [in_place, by_rename, as_a_config_map])
def test_recovers_in_the_next_cycle_if_the_bundle_is_replaced_too_late(
    server: Server, bundle: Path, replace: Replace
) -> None:
    replace(bundle, server.old.read_bytes())

    ended = rotated(server, bundle, server.renew, lambda: replace(bundle, server.new.read_bytes()))

    assert ["", "tls_failed", ""] == ended


def test_an_unreadable_fallback_bundle_is_reported_with_its_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("SSL_CERT_FILE", "SSL_CERT_DIR"):
        monkeypatch.setenv(name, str(tmp_path / "nowhere"))
    fallback = str(tmp_path / "cacert.pem")

    failed = raised(SourceError, read_trust, config(ca_fallback=fallback))

    assert f"the CA bundle {fallback} cannot be read: No such file" in failed.message


def test_uses_the_new_bundle_when_the_profile_names_another(server: Server) -> None:
    chain = Given(config_of(server.s3, ca_bundle=str(server.old)))

    async def scene(client: S3Client) -> None:
        await client.list_page(None)
        server.renew()
        chain.config = config_of(server.s3, ca_bundle=str(server.new))
        client.begin_cycle(Fence())
        await client.list_page(None)

    play(server.s3, scene, chain)

    assert 2 == len(server.s3.requests)


def test_each_cycle_fails_until_a_newly_configured_bundle_is_readable(
    server: Server, bundle: Path
) -> None:
    """A cycle whose bundle is unreadable must not keep the address of the previous cycle."""
    chain = Given(config_of(server.s3, ca_bundle=str(server.old)))

    async def scene(client: S3Client) -> None:
        chain.config = config_of(server.s3, ca_bundle=str(bundle))
        for _ in range(2):
            assert "tls_failed" == raised(SourceError, client.begin_cycle, Fence()).reason
        in_place(bundle, server.old.read_bytes())
        client.begin_cycle(Fence())
        await client.list_page(None)

    play(server.s3, scene, chain)
