"""Other users on a persistent volume, and a clock that jumps."""

import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.scenarios.s3_sync.machine.weather import (
    LAYOUTS,
    Scene,
    as_user,
)
from tests.support.aws.fake_s3 import is_get
from tests.support.aws.fault_proxy import FaultProxy
from tests.support.aws.servers import MotoServer
from tests.support.s3_sync.scripted import new_content

pytestmark = pytest.mark.parametrize("layout", LAYOUTS)


@pytest.fixture
def proxy(moto: MotoServer) -> Iterator[FaultProxy]:
    """A proxy in front of moto, which ignores the date of a request."""
    with FaultProxy(moto) as proxy:
        yield proxy


def test_each_new_user_of_the_group_continues_without_downloading_again(
    moto: MotoServer, proxy: FaultProxy, tmp_path: Path, layout: str
) -> None:
    """OpenShift assigns each namespace other users; the group is always 0."""
    scene = Scene(moto, proxy, layout, tmp_path)
    target = scene.daemon.target
    target.mkdir()
    target.chmod(0o775)
    for round_number, uid in enumerate([50000, 50001, 0, 50002, 50000]):
        scene.daemon.wrapper = as_user(uid, 0)
        with scene.daemon as daemon:
            proxy.forget()
            began = daemon.wait_until_synced()

            if round_number:
                assert began["result"] == "unchanged", began
                assert proxy.seen(is_get()) == []
            scene.put("a.py", new_content())
            scene.put(f"by/{uid}/{round_number}.py", new_content())
            scene.delete(f"kept/{round_number:02}.py")
            assert scene.is_in_step()
            found = folder_of(scene) / "a.py"
            assert found.stat().st_uid == uid
            (folder_of(scene) / "kept/10.py").unlink()
            assert scene.is_in_step()
            assert daemon.terminate().code == 0


def test_tolerates_the_changes_that_kubernetes_makes_for_an_fs_group(
    moto: MotoServer, proxy: FaultProxy, tmp_path: Path, layout: str
) -> None:
    """
    Each time a pod mounts the volume, Kubernetes sets the group, `g+rw` for files and `g+s` for
    folders: `SetVolumeOwnership` in pkg/volume/volume_linux.go.
    """
    scene = Scene(moto, proxy, layout, tmp_path)
    target = str(scene.daemon.target)
    scene.daemon.target.mkdir()
    scene.daemon.target.chmod(0o777)
    for uid in (50000, 50001):
        scene.daemon.wrapper = as_user(uid, 2000)
        with scene.daemon as daemon:
            daemon.wait_until_synced()
            before = scene.visible
            daemon.terminate()
        subprocess.run(["chgrp", "--recursive", "--no-dereference", "2000", target], check=True)
        subprocess.run(["chmod", "--recursive", "ug+rwX", target], check=True)
        subprocess.run(["find", target, "-type", "d", "-exec", "chmod", "g+s", "{}", "+"])

        with scene.daemon as daemon:
            daemon.wait_until_synced()
            assert scene.wounds(before) == []
            scene.put("a.py", new_content())
            assert scene.is_in_step()
            mode = 0o444 if layout == "snapshot" else 0o644
            modes = {stat.S_IMODE(path.stat().st_mode) for path in files_of(scene)}
            assert modes <= {mode, mode | 0o660}


def folder_of(scene: Scene) -> Path:
    """Return the folder that a consumer reads."""
    target = scene.daemon.target
    return (target / "current").resolve() if scene.layout == "snapshot" else target


def files_of(scene: Scene) -> list[Path]:
    """Return the paths of the files that a consumer reads."""
    return [folder_of(scene) / path for path in scene.visible]
