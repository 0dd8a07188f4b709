"""The hub on the loopback address: the real repositories' layouts with small random weights.

    with Hub({"owner/name": folder}) as hub: ...     serves what is in the folder, as the hub does

It speaks what huggingface_hub asks for: a repository's facts, its tree, and its files, where
weights are on another address with a checksum for a tag, whole or from a byte on. What goes wrong
is set by `Hub.gated`, `disabled`, `cut`, `gone`, `silent`, `status` and `token`.
"""

import hashlib
import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

COMMIT = "0123456789abcdef" * 2 + "01234567"
LARGE = (".safetensors", ".bin", ".ckpt", ".model")  # kept by the hub as LFS files
API = "/api/models/"


class Hub(ThreadingHTTPServer):
    """repositories: folder by id. asked: the requests so far, as (method, path, range)."""

    daemon_threads = True

    def __init__(self, repositories):
        super().__init__(("127.0.0.1", 0), Handler)
        self.repositories = {name: Path(folder) for name, folder in repositories.items()}
        self.asked = []
        self.gated, self.disabled, self.gone = set(), set(), set()
        self.cut = {}  # end of a path: [bytes after which the line is cut, how many times]
        self.silent = 0.0  # seconds before an answer
        self.status = 0  # of every answer, in place of the right one
        self.token = None  # what the hub says to a token that it does not know
        self.blobs = {}

    @property
    def address(self):
        return f"http://127.0.0.1:{self.server_port}"

    def __enter__(self):
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *error):
        self.shutdown()
        self.server_close()

    def handle_error(self, request, client):
        """A reader that has gone away is part of the tests."""

    def fetched(self, repository):
        """Paths of a repository's files that were asked for."""
        start = f"/{repository}/resolve/"
        return {p.split("/", 5)[-1] for _, p, _ in self.asked if p.startswith(start)}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def do_HEAD(self):
        self.answer()

    def do_GET(self):
        self.answer()

    def answer(self):
        hub, path = self.server, unquote(urlsplit(self.path).path)
        hub.asked.append((self.command, path, self.headers.get("Range")))
        time.sleep(hub.silent)
        if hub.status:
            return self.refuse(hub.status)
        if hub.token and self.headers.get("Authorization"):
            return self.refuse(401, message=hub.token)
        if path.startswith("/blob/"):
            return self.file(hub.blobs[path])
        name = next((n for n in hub.repositories if f"/{n}/" in f"{path}/"), None)
        if name is None or not path.startswith((API, f"/{name}/resolve/")):
            return self.refuse(401, "RepoNotFound", "Repository not found")
        folder = hub.repositories[name]
        if name in hub.disabled:
            return self.refuse(403, message="Access to this resource is disabled.")
        if path.startswith(f"{API}{name}/tree/"):
            return self.tell(tree(folder))
        if path.startswith(API):
            siblings = [{"rfilename": entry["path"]} for entry in tree(folder)]
            return self.tell(
                {
                    "id": name,
                    "sha": COMMIT,
                    "siblings": siblings,
                    "private": False,
                    "gated": name in hub.gated and "auto",
                    "disabled": False,
                    "tags": [],
                    "downloads": 0,
                    "likes": 0,
                }
            )
        if name in hub.gated:
            known = bool(self.headers.get("Authorization"))
            restricted = f"Access to model {name} is restricted"
            return self.refuse(403 if known else 401, "GatedRepo", restricted)
        file = folder / path.split("/", 5)[-1]
        if not file.is_file() or file.name in hub.gone:
            return self.refuse(404, "EntryNotFound", "Entry not found")
        return self.resolve(file)

    def resolve(self, file):
        """A file of a repository: itself, or for a large one where it is."""
        content = file.read_bytes()
        head = {"X-Repo-Commit": COMMIT, "ETag": f'"{hashlib.sha1(content).hexdigest()}"'}
        if not file.name.endswith(LARGE):
            return self.file(file, head)
        digest = hashlib.sha256(content).hexdigest()
        where = f"/blob/{digest}/{file.name}"
        self.server.blobs[where] = file
        head |= {"X-Linked-Etag": f'"{digest}"', "X-Linked-Size": str(len(content))}
        # another host, as the hub's own: localhost, where it was asked at 127.0.0.1
        address = self.server.address.replace("127.0.0.1", "localhost")
        self.send(302, b"", {**head, "Location": address + where})

    def file(self, file, head=()):
        content, asked = file.read_bytes(), self.headers.get("Range")
        start = int(asked.removeprefix("bytes=").split("-")[0]) if asked else 0
        head = dict(head)
        if asked:
            head["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        self.send(206 if asked else 200, content[start:], head, file.name)

    def send(self, status, body, head, name=""):
        self.send_response(status)
        for key, value in {**head, "Content-Length": str(len(body))}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        cut = self.server.cut.get(name)
        if cut and cut[1] and cut[0] < len(body):
            cut[1] -= 1
            self.wfile.write(body[: cut[0]])
            self.close_connection = True
        else:
            self.wfile.write(body)

    def tell(self, facts):
        self.send(200, json.dumps(facts).encode(), {"Content-Type": "application/json"})

    def refuse(self, status, code=None, message=None):
        head = {"X-Error-Code": code, "X-Error-Message": message}
        body = json.dumps({"error": message}).encode()
        self.send(status, body, {k: v for k, v in head.items() if v})


def tree(folder):
    """A repository's files as the hub lists them."""
    entries = []
    for file in sorted(p for p in folder.rglob("*") if p.is_file()):
        content = file.read_bytes()
        entry = {
            "type": "file",
            "path": file.relative_to(folder).as_posix(),
            "oid": hashlib.sha1(content).hexdigest(),
            "size": len(content),
        }
        if file.name.endswith(LARGE):
            digest = hashlib.sha256(content).hexdigest()
            entry["lfs"] = {"oid": digest, "size": len(content), "pointerSize": 134}
        entries.append(entry)
    return entries
