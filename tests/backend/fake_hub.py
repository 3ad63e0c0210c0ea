"""A hub on this machine: as much of the hub's interface as listing and fetching models needs."""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

COMMIT = "c" * 40
BLOCK = 16384  # bytes sent at once


@dataclass
class FakeHub:
    """What the hub has, how it behaves, and what it was asked. A block of weights is sent every `pace` seconds."""

    repositories: dict[str, Path]
    gated: set[str] = field(default_factory=set)
    token: str = ""  # that is asked for, if any
    pace: float = 0.0
    breaks_after: int = 0  # bytes of a file of weights after which the connection breaks, once
    damages: bool = False  # the weights on their way
    sizes: dict[str, int] = field(default_factory=dict)  # of files that it says to be larger than they are
    asked: list[tuple[str, str]] = field(default_factory=list)  # method and path
    ranges: list[str] = field(default_factory=list)
    sent: int = 0  # bytes of weights
    address: str = ""

    def fetched(self, suffix: str) -> list[str]:
        """Return the paths of files that were asked for, by their end."""
        return [path for method, path in self.asked if method == "GET" and path.endswith(suffix)]


@contextmanager
def serve(repositories: dict[str, Path]) -> Iterator[FakeHub]:
    """Have a hub with these repositories, each a folder of files."""
    hub = FakeHub(repositories)
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub}))
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    hub.address = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()


class _File:
    def __init__(self, folder: Path, path: Path) -> None:
        self.name = path.relative_to(folder).as_posix()
        self.content = path.read_bytes()

    @cached_property
    def is_large(self) -> bool:
        return self.name.endswith((".safetensors", ".bin"))

    @cached_property
    def tag(self) -> str:
        return (hashlib.sha256 if self.is_large else hashlib.sha1)(self.content).hexdigest()

    def entry(self, size: int | None) -> dict[str, Any]:
        size = len(self.content) if size is None else size
        lfs = {"oid": self.tag, "sha256": self.tag, "size": size, "pointerSize": 134}
        about = {"type": "file", "path": self.name, "rfilename": self.name, "size": size}
        return {**about, "oid": self.tag, "blobId": self.tag, **({"lfs": lfs} if self.is_large else {})}


class _Handler(BaseHTTPRequestHandler):
    hub: FakeHub

    def do_HEAD(self) -> None:
        self.answer()

    def do_GET(self) -> None:
        self.answer()

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""

    def answer(self) -> None:
        path = self.path.partition("?")[0]
        self.hub.asked.append((self.command, path))
        name = next((name for name in self.hub.repositories if f"/{name}/" in f"{path}/"), "")
        if not name:
            return self.refuse(404, "RepoNotFound")
        if self.hub.token and self.headers.get("Authorization") != f"Bearer {self.hub.token}":
            return self.refuse(401, "RepoNotFound")
        folder = self.hub.repositories[name]
        files = {file.name: file for file in (_File(folder, path) for path in folder.rglob("*") if path.is_file())}
        if path.startswith("/api/models/"):
            entries = [file.entry(self.hub.sizes.get(file.name)) for file in files.values()]
            info = {"_id": "1", "id": name, "sha": COMMIT, "siblings": entries}
            return self.send(json.dumps(entries if "/tree/" in path else info).encode(), "0" * 40)
        if name in self.hub.gated:
            return self.refuse(403, "GatedRepo")
        found = files.get(path.partition(f"/resolve/{COMMIT}/")[2] or path.partition("/resolve/main/")[2])
        if found is None:
            return self.refuse(404, "EntryNotFound")
        self.send(found.content, found.tag, found.is_large)

    def refuse(self, code: int, reason: str) -> None:
        self.send_response(code)
        self.send_header("X-Error-Code", reason)
        self.send_header("X-Error-Message", reason)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def send(self, content: bytes, tag: str, is_weights: bool = False) -> None:
        asked = self.headers.get("Range", "")
        start = int(asked.removeprefix("bytes=").partition("-")[0]) if asked else 0
        if is_weights and asked:
            self.hub.ranges.append(asked)
        self.send_response(206 if asked else 200)
        self.send_header("Content-Length", str(len(content) - start))
        self.send_header("Content-Type", "application/json")
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("ETag", f'"{tag}"')
        self.end_headers()
        if self.command == "HEAD":
            return
        if not is_weights:
            self.wfile.write(content)
            return
        for place in range(start, len(content), BLOCK):
            if self.hub.breaks_after and place >= self.hub.breaks_after:
                self.hub.breaks_after = 0
                self.close_connection = True
                self.connection.close()
                return
            block = content[place : place + BLOCK]
            try:
                self.wfile.write(bytes(len(block)) if self.hub.damages else block)
            except OSError:  # the other side has ended
                return
            self.hub.sent += len(block)
            time.sleep(self.hub.pace)
