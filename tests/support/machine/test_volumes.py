"""
The volumes that tests mount.
"""

from pathlib import Path

from tests.support.machine.volumes import small_volume


def test_other_processes_see_no_volume(tmp_path: Path) -> None:
    with small_volume(tmp_path / "volume", "1m") as volume:
        assert volume.is_mount()
        assert str(volume) not in Path("/proc/1/mounts").read_text()
