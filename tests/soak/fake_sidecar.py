#!/usr/bin/env python3
"""
A misbehaving sidecar: ``FAULT=...`` selects the fault.
"""

import json
import os
import signal
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

FAULT = os.environ["FAULT"]


class Handler(BaseHTTPRequestHandler):
    """
    A handler that answers like a sidecar.
    """

    def do_GET(self) -> None:
        self.send_response(503 if FAULT == f"{self.path} answers 503" else 200)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
signal.signal(signal.SIGTERM, lambda *_: os._exit(int(FAULT == "exit code 1")))
threading.Thread(target=server.serve_forever, daemon=True).start()
address = f"127.0.0.1:{server.server_port}"
print(json.dumps({"event": "http_listening", "address": address}), flush=True)
if FAULT == "traceback":
    print("Traceback (most recent call last):", flush=True)
if FAULT == "bug":
    print(json.dumps({"event": "cycle_failed", "reason": "bug", "error": "it cannot be"}))
if FAULT == "chatter":
    sys.stdout.write('{"event": "hello"}\n' * 1_000)
sys.stdout.flush()
if FAULT != "ends":
    signal.pause()
