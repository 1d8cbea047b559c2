"""
Runs sidecar containers as processes: the real program with exactly the environment of its pod.

Each process has its own file system and network, so its environment needs no change. The file
system is this machine's, read-only, with the container's mounts; the network is empty. The first
cycle of a correct container therefore fails at something outside the pod; a wrong container fails
earlier, or never starts a cycle.
"""

from __future__ import annotations

import functools
import json
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tests.chart.rules.objects import WANTED_KEYS
from tests.chart.rules.sidecars import SIDECARS, Values, grammars
from tests.support.daemon import VENV_BIN, SidecarProcess
from tests.support.git.git_sync import GIT_SYNC
from tests.support.kerberos.formats import entry, keytab
from tests.support.s3_sync.signing import Key
from tests.sync_perm.site import Site

# The possible reasons when the first cycle of a correct container fails without a network.
OUTSIDE = {
    "s3-sync": {"credentials_missing", "name_unresolved"},
    "git-sync-wrapper": {"credentials_missing", "name_unresolved"},
    "kerberos": {"kdc_unreachable"},
    "sync-perm": {"database_unreachable"},
}
# Content of users' Secrets and ConfigMaps, by key.
CONTENT = {
    "ci-2026-11.pem": Key().public_pem,
    "airflow.keytab": keytab(entry()),
    "connection": b"postgresql://airflow:secret@db.example.com:5432/airflow",
    "krb5.conf": b"[libdefaults]\ndefault_realm = EXAMPLE.COM\ndns_lookup_kdc = false\n"
    b"[realms]\nEXAMPLE.COM = {\n kdc = 10.0.10.5\n}\n",
}
KEYS = {**WANTED_KEYS, "airflow-krb5-conf": {"krb5.conf"}, "s3-sync-keys": {"ci-2026-11.pem"}}
PROGRAMS = {"kerberos": "kerberos-sidecar"}
GATED = ("s3-sync", "git-sync-wrapper")
COMPILED = ("--require-hashes", "--compile-bytecode")
ROOT = Path(__file__).parents[3]


def content(key: str) -> bytes:
    """
    Return a user's content for a key; `secret` if any content will do.
    """
    return CONTENT.get(key, b"secret")


def sidecar_of(container: Values) -> str | None:
    """
    Return the sidecar whose image a container runs; None for other images.
    """
    name = str(container["image"]).rpartition("/")[2].partition(":")[0]
    return name if name in SIDECARS else None


def environment_of(container: Values) -> dict[str, str]:
    """
    Return all variables of a container, including those from its Secrets.
    """
    given = {
        key: content(key).decode()
        for source in container.get("envFrom") or []
        for key in KEYS[source["secretRef"]["name"]]
    }
    for one in container.get("env") or []:
        match one.get("valueFrom"):
            case None:
                given[one["name"]] = one["value"]
            case {"secretKeyRef": secret}:
                given[one["name"]] = content(secret["key"]).decode()
            case {"fieldRef": {"fieldPath": "spec.nodeName"}}:
                given[one["name"]] = "node-1"
            case other:
                raise AssertionError(f"{one['name']} comes from {other}")
    return given


def identity_of(container: Values) -> str:
    """
    Return a key that is equal for containers that start in the same way.
    """
    parts = (sidecar_of(container), environment_of(container), container.get("volumeMounts"))
    return json.dumps(parts, sort_keys=True)


class Started(SidecarProcess):
    """
    One container as a process; a `with` statement starts it.
    """

    def __init__(
        self, pod: Values, container: Values, maps: Mapping[str, Any], folder: Path
    ) -> None:
        """
        Describe a process; nothing is started yet.

        Args:
            pod: The specification of its pod.
            container: A container for which `skip_reason` is empty.
            maps: The data of the existing ConfigMaps, by name.
            folder: The folder given to `skip_reason`; the process uses a new subfolder.
        """
        home = Path(tempfile.mkdtemp(dir=folder))
        self.sidecar = str(sidecar_of(container))
        environment = environment_of(container)
        image = {"HOME": "/tmp", "PATH": f"{VENV_BIN}:/usr/bin:/bin"}
        if self.sidecar == "git-sync-wrapper":
            image["GIT_SYNC_WRAPPER_GIT_SYNC"] = str(GIT_SYNC)
        if self.sidecar == "sync-perm":
            site = Site(home / "airflow", "3.2.2", "3.2.0").environment()
            image |= {"PYTHONPATH": site["PYTHONPATH"], "PATH": f"{VENV_BIN}:{site['PATH']}"}
            image["AIRFLOW_HOME"] = "/opt/airflow"
        program = VENV_BIN / PROGRAMS.get(self.sidecar, self.sidecar)
        super().__init__(program, image | environment, home)
        script = home / "start"
        script.write_text("\n".join(["set -e", *_mounts(pod, container, maps, home), 'exec "$@"']))
        self.wrapper = (*alone(), "sh", str(script))
        if (least := _grammar(container)) > sys.version_info[:2]:
            self.wrapper += (str(newer_python(least, folder)),)

    def complaints(self) -> list[str]:
        """
        Run the process until its first cycle ends; return the signs of a wrong configuration.
        """
        with self:
            try:
                failed = self.wait_for_event("cycle_failed", 60)
            except AssertionError as error:
                return [str(error)]
            unknown = [one["setting"] for one in self.find_events("setting_unknown")]
            self.terminate()
        found = [f"{name} is unknown to the sidecar" for name in unknown]
        if failed["reason"] not in OUTSIDE[self.sidecar]:
            found.append(f"{failed['reason']}: {failed['error']}")
        return found


@functools.cache
def alone() -> tuple[str, ...]:
    """
    Return the command that runs a program with an empty network and mounts of its own.
    """
    user = () if os.getuid() == 0 else ("--user", "--map-root-user")
    return ("unshare", *user, "--mount", "--net", "--propagation", "private")


def skip_reason(container: Values, folder: Path) -> str:
    """
    Return the reason why a container cannot be started here; empty if it can.

    Args:
        folder: Where a newer Python is installed if needed; the same for all calls.
    """
    if sidecar_of(container) == "git-sync-wrapper" and not GIT_SYNC.is_file():
        return "needs git-sync 4: set GIT_SYNC_BIN"
    if not _has_namespaces():
        return "running a container as a process needs root, or user namespaces"
    least = _grammar(container)
    if least > sys.version_info[:2] and newer_python(least, folder) is None:
        return f"the grammar of a gate needs Python 3.{least[1]} or newer, and an index of packages"
    return ""


@functools.cache
def _has_namespaces() -> bool:
    unshare = shutil.which("unshare")
    tried = [*alone(), "mount", "-t", "tmpfs", "none", "/mnt"]
    return unshare is not None and subprocess.run(tried, capture_output=True).returncode == 0


def _grammar(container: Values) -> tuple[int, int]:
    return max(grammars(environment_of(container)).values(), default=(3, 0))


@functools.cache
def newer_python(least: tuple[int, int], folder: Path) -> Path | None:
    """
    Install an environment as in the images, with a Python that knows a newer grammar.

    Args:
        least: The grammar.
        folder: Where to install it.

    Returns:
        Its interpreter; None if there is no such Python or the installation fails.
    """
    home = folder / f"python3.{least[1]}"
    uv, python = str(ROOT / "scripts/uv"), home / "bin/python"
    minors = range(least[1], least[1] + 5)
    versions = sorted((Path.home() / ".pyenv/versions").glob("3.*/bin/python3"))
    for program in (*(f"python3.{minor}" for minor in minors), *map(str, versions)):
        # pyenv has shims on PATH even for versions that are not selected: run the program.
        fits = f"import sys; sys.exit(sys.version_info < {least})"
        tried = [program, "-c", fits]
        if shutil.which(program) and not subprocess.run(tried, capture_output=True).returncode:
            break
    else:
        return None
    locks = [f"--requirements={ROOT / f'requirements/{name}.txt'}" for name in GATED]
    projects = [ROOT / "runtime", *(ROOT / "sidecars" / name for name in GATED)]
    steps = [
        [uv, "venv", "--quiet", "--python", program, str(home)],
        [uv, "pip", "install", "--quiet", "--python", str(python), "--no-deps", *COMPILED, *locks],
        [str(python), "-m", "compileall", "-q", *map(str, projects)],
    ]
    if any(subprocess.run(step, cwd=ROOT).returncode for step in steps):
        return None
    (packages,) = home.glob("lib/*/site-packages")
    (packages / "ours.pth").write_text("".join(f"{project}\n" for project in projects))
    return python


def _mounts(pod: Values, container: Values, maps: Mapping[str, Any], home: Path) -> Iterator[str]:
    """
    Yield the commands that create the file system of a container.

    Each mount lies in an overlay on the deepest existing folder of its path.
    """
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    mounts = container.get("volumeMounts") or []
    layers = sorted({_existing(Path(mount["mountPath"])) for mount in mounts})
    memory = home / "memory"
    memory.mkdir()
    yield f"mount -t tmpfs none {memory}"
    for number, folder in enumerate(layers):
        upper, work = memory / f"upper{number}", memory / f"work{number}"
        options = f"lowerdir={folder},upperdir={upper},workdir={work}"
        yield f"mkdir {upper} {work} && mount -t overlay -o {options} none {folder}"
    for mount in mounts:
        given, path = home / "volumes" / mount["name"], mount["mountPath"]
        _fill(given, volumes[mount["name"]], maps)
        source = given / mount["subPath"] if "subPath" in mount else f"{given}/."
        yield f"mkdir -p {os.path.dirname(path) if 'subPath' in mount else path}"
        yield f"cp -r {shlex.quote(str(source))} {path}"
        if not mount.get("readOnly"):
            yield f"mount --bind {path} {path}"
    writable = {mount["mountPath"] for mount in mounts if not mount.get("readOnly")}
    for folder in (*layers, Path("/")):
        if str(folder) not in writable:
            yield f"mount -o remount,bind,ro {folder}"


def _existing(path: Path) -> Path:
    return next(one for one in (path, *path.parents) if one.is_dir())


def _fill(folder: Path, volume: Values, maps: Mapping[str, Any]) -> None:
    """
    Write the initial content of a volume.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if "configMap" in volume and volume["configMap"]["name"] in maps:
        for key, text in maps[volume["configMap"]["name"]].items():
            (folder / key).write_text(text)
    else:
        name = volume.get("secret", {}).get("secretName") or volume.get("configMap", {}).get("name")
        for key in KEYS.get(name, ()):
            (folder / key).write_bytes(content(key))
