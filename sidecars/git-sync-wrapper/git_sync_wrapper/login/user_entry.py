"""
An entry in /etc/passwd for whoever we are: ssh does nothing for a UID that has none.

git-sync's ``--add-user`` writes one into the file itself, which a read-only root does not allow.
"""

from __future__ import annotations

import glob
import os
import pwd

from sidecar_runtime.volume.files import write_file

LIBRARY = "libnss_wrapper.so"
LIBRARIES = f"/usr/lib/*/{LIBRARY}"
USERS = "/etc/passwd"


def user_entry(folder: str, libraries: str = LIBRARIES, passwd: str = USERS) -> dict[str, str]:
    """
    Return the variables that give git's children an entry; none where they have one.

    Args:
        folder: A private one, for a copy of the file with our entry.
        libraries: Where libnss-wrapper may be; without it there is nothing to be done.

    Raises:
        OSError: The copy cannot be written.
    """
    try:
        pwd.getpwuid(os.getuid())
    except KeyError:
        pass
    else:
        return {}
    if not glob.glob(libraries):
        return {}
    path = os.path.join(folder, "passwd")
    if not os.path.exists(path):
        with open(passwd, "rb") as file:
            entries = file.read()
        home = os.environ.get("HOME", "/tmp")  # noqa: S108 - as the image says
        own = f"git-sync:x:{os.getuid()}:{os.getgid()}::{home}:/usr/sbin/nologin\n"
        write_file(path, entries + own.encode(), 0o600, fsync=False)
    return {"LD_PRELOAD": LIBRARY, "NSS_WRAPPER_PASSWD": path, "NSS_WRAPPER_GROUP": "/etc/group"}
