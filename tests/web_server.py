"""A web server on this machine that cuts, stalls, lies about lengths and sends web pages in place of files."""

import http.server
import threading
from contextlib import contextmanager


class _Handler(http.server.BaseHTTPRequestHandler):
    """``files``: path -> bytes; ``faults``: what the next answers do; ``ranges``: where each request began."""

    files: dict
    faults: list
    ranges: list
    headers_seen: list
    stop: threading.Event

    def log_message(self, *_):
        pass

    def do_GET(self):
        path = self.path.split("?")[0].strip("/")
        data, fault = self.files.get(path, b""), self.faults.pop(0) if self.faults else None
        asked = self.headers.get("Range")
        first = int(asked.removeprefix("bytes=").rstrip("-")) if asked else 0
        self.ranges.append(first)
        self.headers_seen.append(dict(self.headers))
        status, headers = (206 if asked else 200), {"Content-Type": "application/octet-stream"}
        if isinstance(fault, int) or path not in self.files:
            return self._send(fault or 404, {"Content-Type": "text/plain"}, b"no")
        if isinstance(fault, str) and fault.startswith("to "):
            return self._send(302, {"Location": fault[3:]}, b"")
        if fault == "page":
            return self._send(200, {"Content-Type": "text/html; charset=utf-8"}, b"<p>log in</p>")
        if fault == "page without a type":
            return self._send(200, headers, b"\n<!DOCTYPE html><p>log in</p>")
        if first >= len(data) and asked:
            return self._send(416, headers | {"Content-Range": f"bytes */{len(data)}"}, b"")
        if fault == "whole":
            status, first = 200, 0
        if fault == "another part":
            first = 1
        body = data[first:]
        if status == 206:
            headers["Content-Range"] = f"bytes {first}-{len(data) - 1}/{len(data)}"
        if fault == "no length":
            return self._send(status, headers, body, length=None)
        if fault == "too short a length":
            return self._send(status, headers, body[:-10])
        if fault == "too long a length":
            return self._send(status, headers, body, len(body) + 10)
        if fault == "endless":
            return self._send(status, headers, body[:10], 10**15)
        if fault in ("cut", "stall"):
            self._send(status, headers, body[: len(body) // 2], len(body))
            if fault == "stall":
                self.stop.wait(20)
            return None
        return self._send(status, headers, body)

    def _send(self, status, headers, body, length=0):
        self.send_response(status)
        if length is not None:
            headers = headers | {"Content-Length": str(length or len(body))}
        for key, value in headers.items():
            self.send_header(key, value)
        self.end_headers()
        self.wfile.write(body)
        self.wfile.flush()


@contextmanager
def serving():
    """A handler whose ``files`` and ``faults`` a test fills; ``url`` is where it listens."""
    own = {"files": {}, "faults": [], "ranges": [], "headers_seen": [], "stop": threading.Event()}
    handler = type("Handler", (_Handler,), own)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    handler.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield handler
    finally:
        handler.stop.set()
        server.shutdown()
        server.server_close()
