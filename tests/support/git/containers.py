"""
A `docker` for git-sync's own end-to-end suite, implemented with namespaces; runs as
root.

`python containers.py run|ps|inspect|kill|pause|unpause …` acts as that `docker`. A
container has its own processes, and its own root on top of this machine's. Its address
is a loopback address, so the suite needs a network namespace. CONTAINERS is the folder
with the state of the containers; its `images.json` maps images to programs: `{image:
{"command": […], "env": {…}, "mounts": {path: path inside}}}`.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import secrets
import shlex
import shutil
import signal
import socket
import socketserver
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).parents[3]
APART = ("unshare", "--mount", "--pid", "--fork", "--kill-child")
HTTPD = "e2e/test/httpd"
NCSVR = "e2e/test/ncsvr"
SSHD = "e2e/test/sshd"
WORDS = "/ncsvr.sh"
VARIABLE = "--__env__"
"""
A hidden flag with which the suite gives git-sync a variable, because its containers get
none; nobody else can know it.
"""
USERS = "git-sync:x:65533:65533::/tmp:/sbin/nologin\ntest:x:65533:65533::/home/test:{shell}\n"
SSHD_CONFIG = """\
ListenAddress {address}
HostKey /run/host_key
AuthorizedKeysFile /dot_ssh/authorized_keys
StrictModes no
PasswordAuthentication no
PidFile none
"""


def main() -> int:
    """
    Run the command in the arguments; return the exit code.
    """
    state = Path(os.environ["CONTAINERS"])
    command, *rest = sys.argv[1:]
    if command == "run":
        return _run(state, rest)
    if command == "inside":
        _enter(json.loads(rest[0]))
    if command == "words":
        _serve_words(*rest)
    if command == "ps":
        alive = [path for path in state.glob("*/pid") if _first(path)]
        sys.stdout.write("".join(f"{path.parent.name}\n" for path in alive))
    if command == "inspect":
        sys.stdout.write(f"{_address(rest[-1])}\n")
    if command in ("kill", "pause", "unpause"):
        _signal(state, command, rest)
    return 0


def _run(state: Path, arguments: list[str]) -> int:
    parser = argparse.ArgumentParser()
    for flag in ("-d", "-i", "--rm"):
        parser.add_argument(flag, action="store_true")
    for option in ("--label", "--network", "-u", "--entrypoint"):
        parser.add_argument(option)
    for option in ("-v", "--env"):
        parser.add_argument(option, action="append", default=[])
    parser.add_argument("image")
    parser.add_argument("command", nargs=argparse.REMAINDER)
    told = parser.parse_args(arguments)
    hidden = [word for word in told.command if word.startswith(VARIABLE)]
    told.command = [word for word in told.command if word not in hidden]
    told.env += [word.removeprefix(VARIABLE) for word in hidden]
    name = f"{len(list(state.iterdir())) % 200 + 2}-{secrets.token_hex(4)}"
    image = json.loads((state / "images.json").read_text()).get(told.image, {})
    mounts = [[str(HERE), str(HERE)], *(volume.split(":")[:2] for volume in told.v)]
    command = [*image.get("command", ()), *told.command]
    if told.image == NCSVR:
        command = [told.entrypoint or WORDS, *told.command]
    plan = {
        "mounts": [*mounts, *map(list, image.get("mounts", {}).items())],
        "image": told.image,
        "command": command,
        "env": {
            **image.get("env", {}),
            **dict(pair.split("=", 1) for pair in told.env),
        },
        "gid": (told.u or "").partition(":")[2],
        "address": _address(name),
        "shell": shutil.which("git-shell"),
    }
    folder = state / name
    (folder / "root").mkdir(parents=True)
    plan["root"] = str(folder / "root")
    quiet = subprocess.DEVNULL if told.d else None
    process = subprocess.Popen(
        [*APART, sys.executable, __file__, "inside", json.dumps(plan)],
        stdin=subprocess.DEVNULL,
        start_new_session=True,
        stdout=quiet,
        stderr=quiet,
    )
    (folder / "pid").write_text(str(process.pid))
    if told.d:
        if not told.entrypoint:
            sys.path.insert(0, str(HERE))
            from tests.support.waiting import wait_until

            port = {HTTPD: 80, SSHD: 22}.get(told.image) or int(told.command[0])
            wait_until(
                lambda: _listens(plan["address"], port), "the server listens", 60
            )
        sys.stdout.write(f"{name}\n")
        return 0
    code: int = process.wait()
    return 128 - code if code < 0 else code


def _address(name: str) -> str:
    return f"127.77.0.{name.partition('-')[0]}"


def _listens(address: str, port: int) -> bool:
    """
    Whether a server listens; does not connect to it, because the server counts
    connections.
    """
    here = (
        f"{socket.inet_aton(address)[::-1].hex().upper()}:{port:04X} 00000000:0000 0A"
    )
    return here in Path("/proc/net/tcp").read_text()


def _first(path: Path) -> int:
    """
    Return the id of a container's first process; 0 if it has ended or not started yet.

    The id in the file may since be that of a process of the machine.
    """
    with contextlib.suppress(OSError, ValueError, IndexError):
        outer = path.read_text()
        first = int(Path(f"/proc/{outer}/task/{outer}/children").read_text().split()[0])
        return (
            0
            if os.path.samefile(f"/proc/{first}/ns/pid", "/proc/self/ns/pid")
            else first
        )
    return 0


def _signal(state: Path, command: str, rest: list[str]) -> None:
    if not (first := _first(state / rest[-1] / "pid")):
        return
    if command == "kill":
        asked = [word.partition("=")[2] for word in rest if "--signal=" in word]
        os.kill(first, signal.Signals[asked[0]] if asked else signal.SIGKILL)
        return
    space = os.stat(f"/proc/{first}/ns/pid").st_ino
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            if os.stat(f"/proc/{pid}/ns/pid").st_ino == space:
                os.kill(
                    int(pid), signal.SIGSTOP if (command == "pause") else signal.SIGCONT
                )


def _enter(plan: dict[str, Any]) -> None:
    """
    Become the first process of a container.
    """
    own = Path(plan["root"])
    upper, work, root = (own / name for name in ("upper", "work", "root"))
    _mount("--make-rprivate", "/")
    _mount("-t", "tmpfs", "tmpfs", str(own))
    for folder in (upper, work, root):
        folder.mkdir()
    _mount(
        "-t",
        "overlay",
        "-o",
        f"lowerdir=/,upperdir={upper},workdir={work}",
        "overlay",
        str(root),
    )
    _mount("--rbind", "/dev", f"{root}/dev")
    _mount("-t", "proc", "proc", f"{root}/proc")
    (root / "root").chmod(0o755)  # other users cannot enter the machine's
    for name in ("tmp", "run", "git", "var/log", "home/test"):
        (root / name).mkdir(parents=True, exist_ok=True)
        _mount("-t", "tmpfs", "tmpfs", f"{root}/{name}")
    with (root / "etc/passwd").open("a") as users:
        users.write(USERS.format(shell=plan["shell"]))
    (root / "etc/gitconfig").write_text("[safe]\n\tdirectory = *\n")
    for source, target in plan["mounts"]:
        place = root / target.lstrip("/")
        folder = place if os.path.isdir(source) else place.parent
        folder.mkdir(parents=True, exist_ok=True)
        if folder != place:
            place.touch()
        _mount("--bind", source, str(place))
    os.chroot(root)
    os.chdir("/tmp")
    os.environ.update(HOME="/tmp", PATH="/usr/local/bin:/usr/bin:/bin:/usr/sbin")
    if plan["image"] == HTTPD:
        _serve_git(plan["address"])
    if plan["image"] == SSHD:
        _serve_ssh(plan["address"])
    if plan["image"] == NCSVR:
        server = shlex.join([sys.executable, __file__, "words", plan["address"]])
        Path(WORDS).write_text(f'#!/bin/sh\nexec {server} "$@"\n')
        Path(WORDS).chmod(0o755)
        os.execvp(plan["command"][0], plan["command"])
    os.setgroups([])
    os.setgid(int(plan["gid"]))
    os.setuid(65533)
    os.umask(0o022)
    os.execvpe(
        plan["command"][0],
        plan["command"],
        {"HOME": "/tmp", "PATH": os.environ["PATH"], **plan["env"]},
    )


def _mount(*arguments: str) -> None:
    subprocess.run(["mount", *arguments], check=True)


def _serve_git(address: str) -> None:
    """
    Serve git over HTTP for the user in `/etc/htpasswd`, by default `testuser:testpass`.
    """
    file = Path("/etc/htpasswd")
    given = file.read_text().strip() if file.exists() else ""
    user, hashed = (given or f"testuser:{_hashed('testpass', 'x')}").split(":", 1)

    def is_right(name: str, word: str, _path: str) -> bool:
        return name == user and _hashed(word, hashed.split("$")[2]) == hashed

    sys.path.insert(0, str(HERE))
    from tests.support.git.git_server import GitServer

    server = GitServer(Path("/git"), host=address)
    server.port = 80
    server.judge = is_right
    server.start()
    threading.Event().wait()


def _hashed(word: str, salt: str) -> str:
    return subprocess.check_output(
        ["openssl", "passwd", "-apr1", "-salt", salt, word], text=True
    ).strip()


def _serve_words(address: str, port: str, command: str) -> None:
    """
    Answer each request with a shell command's output; log the time in `/var/log/hits`.
    """

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            request = b"".join(iter(lambda: self.rfile.readline().rstrip(b"\r\n"), b""))
            said = subprocess.run(
                ["sh", "-c", command], input=request + b"\n", capture_output=True
            )
            self.wfile.write(said.stdout)
            with open("/var/log/hits", "a", encoding="utf-8") as hits:
                hits.write(f"{time.time()}\n")

    socketserver.TCPServer((address, int(port)), Handler).serve_forever()


def _serve_ssh(address: str) -> None:
    """
    Serve git over SSH for the keys in `/dot_ssh`.
    """
    os.umask(0o022)
    os.mkdir("/run/sshd")
    subprocess.run(["ssh-keygen", "-q", "-N", "", "-f", "/run/host_key"], check=True)
    Path("/run/sshd_config").write_text(SSHD_CONFIG.format(address=address))
    os.execv("/usr/sbin/sshd", ["/usr/sbin/sshd", "-D", "-e", "-f", "/run/sshd_config"])


if __name__ == "__main__":
    sys.exit(main())
