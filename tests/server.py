"""A loopback HTTP server that misbehaves on demand."""

import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np

CONTENT = np.random.default_rng(0).bytes(1_000_000)


@dataclass
class File:
    """Content and behaviour of one path; each answer consumes one item of each list."""

    content: bytes = CONTENT
    etag: str | None = '"1"'
    modified: str | None = None
    cut: list[float] = field(default_factory=list)  # fraction of each answer sent before a cut
    status: list[int] = field(default_factory=list)
    ranges: bool = True
    if_range: bool = True
    length: int | None = -1  # Content-Length; -1: the true length, None: no header
    redirect: str = ""
    seconds: float = 0.0  # duration of the whole answer
    stall: float = 0.0  # delay before the answer


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, File] = {}
        self.seen: list[tuple[str, str | None, str | None]] = []  # path, Range, If-Range
        self.url = f"http://127.0.0.1:{self.server_port}"

    def add(self, path: str = "/a.tar", **behaviour: object) -> str:
        self.files[path] = File(**behaviour)  # type: ignore[arg-type]
        return self.url + path

    def ranges(self, path: str = "/a.tar") -> list[str | None]:
        return [asked for seen, asked, _ in self.seen if seen == path]

    def handle_error(self, request: object, client_address: object) -> None:
        pass  # clients are killed on purpose


class Handler(BaseHTTPRequestHandler):
    server: Server

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        asked, condition = self.headers["Range"], self.headers["If-Range"]
        self.server.seen.append((self.path, asked, condition))
        file = self.server.files.get(self.path)
        if file is None:
            return self.send_error(404)
        time.sleep(file.stall)
        if file.status:
            return self.send_error(file.status.pop(0))
        if file.redirect:
            self.send_response(302)
            self.send_header("Location", file.redirect)
            return self.end_headers()
        first = 0
        changed = file.if_range and condition is not None and condition not in (file.etag, file.modified)
        if asked and file.ranges and not changed:
            first = int(re.fullmatch(r"bytes=(\d+)-", asked)[1])
            if first >= len(file.content):
                return self.send_error(416)
        self.send_response(206 if first else 200)
        if first:
            last = len(file.content) - 1
            self.send_header("Content-Range", f"bytes {first}-{last}/{len(file.content)}")
        for name, value in (("ETag", file.etag), ("Last-Modified", file.modified)):
            if value is not None:
                self.send_header(name, value)
        body = file.content[first:]
        if file.length is not None:
            self.send_header("Content-Length", str(len(body) if file.length == -1 else file.length))
        self.end_headers()
        self._send(body[: int(len(body) * file.cut.pop(0))] if file.cut else body, file.seconds)
        return None

    def _send(self, body: bytes, seconds: float) -> None:
        pieces = 50 if seconds else 1
        step = len(body) // pieces + 1
        for start in range(0, len(body), step):
            self.wfile.write(body[start : start + step])
            time.sleep(seconds / pieces)


@contextmanager
def serving() -> Iterator[Server]:
    """Run the server inside the context."""
    running = Server()
    threading.Thread(target=running.serve_forever, args=(0.01,), daemon=True).start()
    try:
        yield running
    finally:
        running.shutdown()
        running.server_close()
