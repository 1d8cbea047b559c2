"""
JSON lines on stderr, and the error file.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NoReturn


class Log:
    """
    JSON lines on stderr, and the error file.
    """

    def __init__(self, error_file: Path | None) -> None:
        self.error_file = error_file

    def info(self, message: str, **values: Any) -> None:
        """
        One line.
        """
        self._write({"level": 0, "msg": message, **values})

    def failure(self, message: str, error: object, **values: Any) -> None:
        """
        One line, and the error file.
        """
        self._write({"msg": message, "error": str(error), **values})
        self.export(json.dumps({"Msg": message, "Err": str(error), "Args": values}))

    def export(self, content: str) -> None:
        """
        Write the error file.
        """
        if self.error_file is not None:
            self.error_file.parent.mkdir(exist_ok=True)
            handle, name = tempfile.mkstemp(prefix="tmp-err-", dir=self.error_file.parent)
            os.write(handle, content.encode())
            os.close(handle)
            os.chmod(name, 0o644)
            os.rename(name, self.error_file)

    def clear(self) -> None:
        """
        Remove the error file.
        """
        if self.error_file is not None:
            self.error_file.unlink(missing_ok=True)

    def fatal(self, message: str) -> NoReturn:
        """
        End for a bad setting.
        """
        self.export(message)
        sys.exit(message)

    def _write(self, values: dict[str, Any]) -> None:
        stamp = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime())
        print(json.dumps({"logger": "", "ts": stamp, **values}), file=sys.stderr, flush=True)
