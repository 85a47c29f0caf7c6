"""A Hugging Face hub on this machine: as much of its interface as the client needs to fetch and to upload."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

COMMIT = "0" * 39 + "1"


class Hub:
    """files: by ``owner/name/file``. asked: method and path of every request."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.asked: list[str] = []
        self.address = ""


def _handler(hub: Hub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

        def answer(self, content: bytes, kind: str = "application/json", code: int = 200, **headers: str) -> None:
            self.send_response(code)
            for name, value in ({"Content-Type": kind, "Content-Length": str(len(content))} | headers).items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content)

        def do_HEAD(self) -> None:
            self.do_GET()

        def do_GET(self) -> None:
            hub.asked.append(f"{self.command} {self.path}")
            path = urlsplit(self.path).path.lstrip("/")
            if "/resolve/" in path:
                repository, _, rest = path.partition("/resolve/")
                content = hub.files.get(f"{repository}/{rest.partition('/')[2]}")
                known = any(name.startswith(f"{repository}/") for name in hub.files)
                if content is None:
                    error = "EntryNotFound" if known else "RepoNotFound"
                    return self.answer(b"{}", code=404, **{"X-Error-Code": error})
                tag = hashlib.sha256(content).hexdigest()
                return self.answer(content, "application/octet-stream", **{"ETag": f'"{tag}"', "X-Repo-Commit": COMMIT})
            if path in hub.files:  # a plain file server
                return self.answer(hub.files[path], "application/octet-stream")
            if path.startswith("api/models/"):
                return self.answer(json.dumps({"id": path.split("/", 2)[2], "sha": COMMIT, "siblings": []}).encode())
            return self.answer(b"{}", code=404)

        def do_POST(self) -> None:
            hub.asked.append(f"POST {self.path}")
            content = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            path = urlsplit(self.path).path
            if path == "/api/repos/create":
                wanted = json.loads(content)
                name = f"{wanted.get('organization') or 'me'}/{wanted['name']}"
                return self.answer(json.dumps({"url": f"{hub.address}/{name}", "name": name}).encode())
            if path.endswith("/preupload/main"):
                files = [
                    {"path": file["path"], "uploadMode": "regular", "shouldIgnore": False}
                    for file in json.loads(content)["files"]
                ]
                return self.answer(json.dumps({"files": files}).encode())
            if path.endswith("/commit/main"):
                repository = path.removeprefix("/api/models/").removesuffix("/commit/main")
                for line in content.decode().splitlines():
                    entry = json.loads(line)
                    if entry["key"] == "file":
                        value = entry["value"]
                        hub.files[f"{repository}/{value['path']}"] = base64.b64decode(value["content"])
                return self.answer(
                    json.dumps(
                        {"commitUrl": f"{hub.address}/{repository}/commit/{COMMIT}", "commitOid": COMMIT}
                    ).encode()
                )
            return self.answer(json.dumps({"errors": [], "warnings": []}).encode())  # the check of the front matter

    return Handler


@contextmanager
def serving() -> Iterator[Hub]:
    """The hub, on a port of its own, until the block ends."""
    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(hub))
    hub.address = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def add_folder(hub: Hub, repository: str, folder: Path) -> None:
    """Put every file of a folder into a repository."""
    for path in folder.iterdir():
        hub.files[f"{repository}/{path.name}"] = path.read_bytes()
