"""A small S3 over real HTTP, for the tests of the one door to object stores.

What it answers follows https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html and MinIO's cmd/api-errors.go.
"""

from __future__ import annotations

import hashlib
import json
import re
import socket
import xml.etree.ElementTree as ET
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, quote, unquote, urlsplit
from xml.sax.saxutils import escape

SECRET = "top-secret-value"
WEB_TOKEN = "web-identity-token-value"
REFUSALS = {
    "ExpiredToken": 400,
    "InvalidToken": 400,
    "InvalidTokenId": 403,
    "InvalidAccessKeyId": 403,
    "SignatureDoesNotMatch": 403,
    "AccessDenied": 403,
    "RequestTimeTooSkewed": 403,
    "SomethingNew": 418,
    "RequestTimeout": 400,
    "TooManyRequests": 429,
    "ConditionalRequestConflict": 409,
}
"""Codes of errors with their HTTP status."""


def etag_of(content: bytes) -> str:
    """The ETag of an object of one part is its MD5: https://docs.aws.amazon.com/AmazonS3/latest/API/API_Object.html."""
    return hashlib.md5(content).hexdigest()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: FakeS3

    def log_message(self, *_: Any) -> None:
        """Nothing: tests read `requests`."""

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        bucket, _, key = unquote(url.path).lstrip("/").partition("/")
        self.server.requests.append(f"{self.command} {self.path}")
        signed_by = re.search(r"Credential=([^/]*)/", self.headers.get("Authorization", ""))
        if signed_by:
            self.server.askers.append((signed_by[1], self.headers.get("x-amz-security-token", "")))
        fault = self.server.faults.pop(0) if self.server.faults else self.server.always
        if fault == "cut":
            self._cut()
        elif fault.startswith("503"):
            self._refuse(503, fault.removeprefix("503 ") if " " in fault else "SlowDown")
        elif fault in REFUSALS:
            self._refuse(REFUSALS[fault], fault)
        elif "AssumeRoleWithWebIdentity" in url.query + body.decode("latin-1") and not bucket:
            self._change_token({**parse_qs(url.query), **parse_qs(body.decode("latin-1"))})
        elif url.path.startswith(("/latest/", "/v1/credentials")):
            self._give_keys(url.path)
        elif bucket != "kfp":
            self._refuse(404, "NoSuchBucket")
        else:
            self._serve(
                key,
                {name: found[0] for name, found in parse_qs(url.query).items()},
                body,
                half=fault in ("half", "lost"),
            )

    do_HEAD = do_PUT = do_POST = do_GET  # noqa: N815 - the names are http.server's

    def _serve(self, key: str, query: dict[str, str], body: bytes, *, half: bool) -> None:
        objects = self.server.objects
        if self.command == "POST":
            for item in ET.fromstring(body).iter():
                if item.tag.endswith("Key"):
                    objects.pop(item.text or "", None)
            self._send(200, b"<DeleteResult/>")
        elif self.command == "PUT" and self.server.compares and not self._is_unchanged(objects.get(key)):
            # https://docs.aws.amazon.com/AmazonS3/latest/userguide/conditional-writes.html
            self._refuse(404, "NoSuchKey") if key not in objects else self._refuse(412, "PreconditionFailed")
        elif self.command == "PUT":
            objects[key] = body
            self._send(200, b"", half=half)
        elif not key:
            self._send(200, self._page(query) if self.command == "GET" else b"")
        elif key not in objects:
            self._refuse(404, "NoSuchKey")
        elif "Range" in self.headers:
            self._send_range(objects[key], half=half)
        else:
            self._send(200, objects[key], half=half, etag=etag_of(objects[key]))

    def _is_unchanged(self, content: bytes | None) -> bool:
        if self.headers.get("If-None-Match") == "*":
            return content is None
        wanted = self.headers.get("If-Match")
        return wanted is None or (content is not None and wanted == f'"{etag_of(content)}"')

    def _change_token(self, query: dict[str, list[str]]) -> None:
        """https://docs.aws.amazon.com/STS/latest/APIReference/API_AssumeRoleWithWebIdentity.html."""
        if query["WebIdentityToken"] != [WEB_TOKEN]:
            self._refuse(400, "InvalidIdentityToken")
            return
        access, secret, token = self.server.keys
        keys = f"<AccessKeyId>{access}</AccessKeyId><SecretAccessKey>{secret}</SecretAccessKey><SessionToken>{token}</SessionToken>"
        inner = f"<Credentials>{keys}<Expiration>{self.server.expiration()}</Expiration></Credentials>"
        name = "AssumeRoleWithWebIdentityRes"
        space = 'xmlns="https://sts.amazonaws.com/doc/2011-06-15/"'
        self._send(200, f"<{name}ponse {space}><{name}ult>{inner}</{name}ult></{name}ponse>".encode())

    def _give_keys(self, path: str) -> None:
        """What a pod's or an instance's service of credentials answers.

        https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/instance-metadata-security-credentials.html.
        """
        if path == "/latest/api/token":
            self._send(200, b"token of the instance")
        elif path == "/latest/meta-data/iam/security-credentials/":
            self._send(200, b"role")
        elif path == "/v1/credentials" and self.headers.get("Authorization") != WEB_TOKEN:
            self._refuse(401, "Unauthorized")
        else:
            access, secret, token = self.server.keys
            keys = {"AccessKeyId": access, "SecretAccessKey": secret, "Token": token, "Code": "Success"}
            self._send(200, json.dumps({**keys, "Expiration": self.server.expiration()}).encode())

    def _send_range(self, content: bytes, *, half: bool) -> None:
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers["Range"])
        assert wanted is not None
        first, last = int(wanted[1]), min(int(wanted[2] or len(content)), len(content) - 1)
        if first >= len(content):
            self._refuse(416, "InvalidRange")
        else:
            self._send(206, content[first : last + 1], half=half)

    def _page(self, query: dict[str, str]) -> bytes:
        """A page of three names of a listing."""
        after = query.get("continuation-token", "")
        names = sorted(
            name for name in self.server.objects if name.startswith(query.get("prefix", "")) and name > after
        )
        parts = [
            f"<Name>kfp</Name><EncodingType>url</EncodingType><IsTruncated>{str(len(names) > 3).lower()}</IsTruncated>"
        ]
        if len(names) > 3:
            parts.append(f"<NextContinuationToken>{escape(names[2])}</NextContinuationToken>")
        for name in names[:3]:
            content = self.server.objects[name]
            written_at = self.server.written_at.get(name, datetime.now(UTC)).strftime("%Y-%m-%dT%H:%M:%S.000Z")
            about = (
                f"<Size>{len(content)}</Size><ETag>{etag_of(content)}</ETag><LastModified>{written_at}</LastModified>"
            )
            parts.append(f"<Contents><Key>{quote(name)}</Key>{about}</Contents>")
        return f"<ListBucketResult>{''.join(parts)}</ListBucketResult>".encode()

    def _refuse(self, status: int, code: str) -> None:
        self._send(status, f"<Error><Code>{code}</Code><Message>told {code}</Message></Error>".encode())

    def _send(self, status: int, body: bytes, *, half: bool = False, etag: str = "0") -> None:
        if half and self.command == "PUT":  # it was done, and nobody hears of it
            self._cut()
            return
        self.send_response(status)
        self.send_header("Content-Type", "application/xml")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("ETag", f'"{etag}"')
        self.end_headers()
        if self.command != "HEAD":
            self.server.sent += len(body)
            self.wfile.write(body[: len(body) // 2] if half else body)
        if half:
            self._cut()

    def _cut(self) -> None:
        self.wfile.flush()
        self.close_connection = True
        with suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)


class FakeS3(ThreadingHTTPServer):
    """One bucket, `kfp`.

    Attributes:
        objects: by name.
        faults: what the next requests meet: cut, half (of the answer), lost (it is done, and the answer is cut), 503, or one of
            `REFUSALS`.
        compares: whether it heeds the condition of a write.
        always: the fault of all later requests.
        requests: all that have come in.
        sent: bytes of all answers.
        askers: by request to the store the access key and the session token.
        keys: access key, secret key and session token that the services of credentials give.
        lasts_seconds: how long these are valid.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.objects: dict[str, bytes] = {}
        self.written_at: dict[str, datetime] = {}
        self.faults: list[str] = []
        self.compares = True
        self.always = ""
        self.requests: list[str] = []
        self.sent = 0
        self.askers: list[tuple[str, str]] = []
        self.keys = ("temporary", f"{SECRET}-2", "session-token")
        self.lasts_seconds = 3600.0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def expiration(self) -> str:
        return (datetime.now(UTC) + timedelta(seconds=self.lasts_seconds)).strftime("%Y-%m-%dT%H:%M:%SZ")

    @property
    def environment(self) -> dict[str, str]:
        return {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ACCESS_KEY_ID": "user",
            "AWS_SECRET_ACCESS_KEY": SECRET,
        }

    def put(self, *names: str) -> None:
        self.objects |= {name: f"content of {name}".encode() for name in names}

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is no news."""
