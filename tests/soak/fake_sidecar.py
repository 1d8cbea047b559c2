#!/usr/bin/env python3
"""
A stand-in for a sidecar that can be as bad as no sidecar should be: ``FAULT=...``.
"""

import json
import os
import signal
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

FAULT = os.environ["FAULT"]


class Handler(BaseHTTPRequestHandler):
    """
    Answers as a sidecar does.
    """

    def do_GET(self) -> None:
        status = 503 if FAULT == f"{self.path} answers 503" else 200
        body = b'sidecar_cycles_total{result="changed"} 7\n'
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


def say(**event: str) -> None:
    print(json.dumps(event), flush=True)


server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
code = 1 if FAULT == "exit code 1" else 0
signal.signal(signal.SIGTERM, lambda *_: os._exit(code))
threading.Thread(target=server.serve_forever, daemon=True).start()
say(event="http_listening", address=f"127.0.0.1:{server.server_port}")
if FAULT == "traceback":
    print("Traceback (most recent call last):", flush=True)
if FAULT == "bug":
    say(event="cycle_failed", reason="bug", error="it cannot be")
if FAULT == "chatter":
    for _ in range(1_000):
        say(event="hello")
while FAULT != "ends":
    time.sleep(1)
sys.exit(0)
