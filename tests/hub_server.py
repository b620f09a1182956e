"""A loopback server that answers like the Hugging Face hub and misbehaves on demand."""

import hashlib
import re
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

COMMIT = "5" * 40


@dataclass
class Hub:
    """Content and behaviour of the server.

    Attributes:
        repository: name of the only repository.
        files: contents of its files by name.
        etag: SHA-256 reported for every file; "" reports the true one.
        error: status and error code of every answer to HEAD.
        token: token required to read the repository; "" requires none.
        sent: bytes sent by each of the next answers to GET before the connection is cut.
        reset: True cuts connections with a TCP reset.
        xet: Xet hash reported for every file; "" reports none.
        seen: received requests.
    """

    repository: str
    files: dict[str, bytes] = field(default_factory=dict)
    etag: str = ""
    error: tuple[int, str] | None = None
    token: str = ""
    sent: list[int] = field(default_factory=list)
    reset: bool = False
    xet: str = ""
    seen: list[str] = field(default_factory=list)
    port: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


class Handler(BaseHTTPRequestHandler):
    """Serves metadata at 127.0.0.1 and contents at localhost, where no token may be sent."""

    hub: Hub

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        repository, _, name = self.path.removeprefix("/").partition("/resolve/main/")
        self.hub.seen.append(f"HEAD {name}")
        token = self.headers["Authorization"]
        if self.hub.error:
            self._refuse(*self.hub.error)
        elif repository != self.hub.repository:
            self._refuse(401, "RepoNotFound")  # as the hub answers unknown users
        elif self.hub.token and token != f"Bearer {self.hub.token}":
            self._refuse(403 if token else 401, "GatedRepo")
        elif name not in self.hub.files:
            self._refuse(404, "EntryNotFound")
        else:
            content = self.hub.files[name]
            headers = {
                "X-Repo-Commit": COMMIT,
                "X-Linked-Etag": f'"{self.hub.etag or hashlib.sha256(content).hexdigest()}"',
                "X-Linked-Size": str(len(content)),
                "Location": f"http://localhost:{self.hub.port}/{name}",
            }
            if self.hub.xet:
                headers |= {"X-Xet-Hash": self.hub.xet, "X-Xet-Refresh-Route": f"{self.hub.url}/xet"}
            self._say(302, headers)

    def do_GET(self) -> None:
        asked, name = self.headers["Range"], self.path.removeprefix("/")
        if self.headers["Authorization"] or not self.headers["Host"].startswith("localhost"):
            return self._refuse(404, "")  # also for huggingface_hub's request about the user
        self.hub.seen.append(f"GET {name} {asked or ''}".strip())
        content = self.hub.files[name]
        first = int(re.fullmatch(r"bytes=(\d+)-", asked)[1]) if asked else 0
        headers = {"Content-Length": str(len(content) - first), "Accept-Ranges": "bytes"}
        if asked:
            headers["Content-Range"] = f"bytes {first}-{len(content) - 1}/{len(content)}"
        self._say(206 if asked else 200, headers)
        self.wfile.write(content[first:][: self.hub.sent.pop(0) if self.hub.sent else None])
        if self.hub.reset:
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        return None

    def _refuse(self, status: int, code: str) -> None:
        self._say(status, {"X-Error-Code": code, "X-Repo-Commit": COMMIT} if code else {})

    def _say(self, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()


@contextmanager
def serving(hub: Hub) -> Iterator[None]:
    """Run the server inside the context."""
    with ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (Handler,), {"hub": hub})) as http:
        hub.port = http.server_port
        threading.Thread(target=http.serve_forever, args=(0.01,), daemon=True).start()
        try:
            yield
        finally:
            http.shutdown()
