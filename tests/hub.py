"""A hub on this machine, with what kickserve asks of the real one: files, their list, and commits."""

from __future__ import annotations

import base64
import hashlib
import json
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from kinds import REVISION
from serving import in_thread


class _Hub(BaseHTTPRequestHandler):
    def _answer(self):
        self.server.asked.append((self.path, self.headers.get("Authorization")))
        if self.server.fault is not None:
            status, code = self.server.fault
            self._send(status, b"{}", {"X-Error-Code": code} if code else {})
        elif self.path.startswith("/api/spaces/"):
            listed = [{"type": "file", "path": each, "size": 1, "oid": "0"} for each in self.server.files]
            self._send(200, json.dumps(listed).encode())
        elif self.path.startswith("/api/models/"):
            siblings = [{"rfilename": name} for name in self.server.files]
            self._send(
                200, json.dumps({"id": "a/b", "sha": self.server.commit, "siblings": siblings}).encode()
            )
        elif self.path.rpartition("/")[2] not in self.server.files:
            self._send(404, b"", {"X-Error-Code": "EntryNotFound"})
        else:
            data = self.server.files[self.path.rpartition("/")[2]]
            etag = hashlib.sha256(data).hexdigest()
            self._send(200, data, {"X-Repo-Commit": self.server.commit, "ETag": f'"{etag}"'})

    do_GET = do_HEAD = _answer  # noqa: N815  the names that the base class calls

    def do_POST(self):
        self.server.asked.append((self.path, self.headers.get("Authorization")))
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.server.fault is not None:
            self._send(self.server.fault[0], b"{}")
        elif self.path == "/api/repos/create":
            self.server.created = json.loads(body)
            self._send(200, json.dumps({"url": f"{self.server.url}/me/kicks"}).encode())
        elif "/preupload/" in self.path:
            names = [each["path"] for each in json.loads(body)["files"]]
            found = [{"path": name, "uploadMode": "regular", "shouldIgnore": False} for name in names]
            self._send(200, json.dumps({"files": found}).encode())
        elif self.path == "/api/validate-yaml":
            self._send(200, b'{"errors": [], "warnings": []}')
        else:
            self._commit([json.loads(line) for line in body.splitlines()])

    def _commit(self, lines):
        for each in lines:
            if each["key"] == "file":
                self.server.files[each["value"]["path"]] = base64.b64decode(each["value"]["content"])
            elif each["key"] == "deletedFile":
                del self.server.files[each["value"]["path"]]
        url = f"{self.server.url}/me/kicks/commit/{REVISION}"
        self._send(200, json.dumps({"commitOid": REVISION, "commitUrl": url, "success": True}).encode())

    def _send(self, status, data, headers=None):
        self.send_response(status)
        for name, value in {"Content-Length": str(len(data)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def log_message(self, *_):
        """Write no log."""


@contextmanager
def hub(files, fault=None, commit=REVISION):
    """Run a hub with one repository, or one that answers everything with a status and an error code.

    Yields its server: `url`, `files`, and `asked`, the paths and keys of the requests so far.
    """
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Hub)
    server.files, server.fault, server.asked, server.commit = files, fault, [], commit
    with in_thread(server):
        yield server
