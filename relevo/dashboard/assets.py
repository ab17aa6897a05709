"""The files that pages need, served from memory: compressed once, named by their content, kept for a year."""

from __future__ import annotations

import gzip
import hashlib
from dataclasses import dataclass
from functools import cache
from importlib import resources

from starlette.requests import Request
from starlette.responses import Response

TYPES = {".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".svg": "image/svg+xml"}
_YEAR = "public, max-age=31536000, immutable"


@dataclass(frozen=True, slots=True)
class Asset:
    """One file."""

    name: str
    media_type: str
    digest: str  # SHA-256, in hexadecimal
    plain: bytes
    packed: bytes  # the same, gzipped

    @property
    def address(self) -> str:
        """Where pages find it: another content is another address."""
        return f"/static/{self.name}?{self.digest[:12]}"


@cache
def assets() -> dict[str, Asset]:
    """All of them, by name."""
    found = {}
    for file in (resources.files("relevo") / "dashboard" / "static").iterdir():
        media_type = TYPES.get("." + file.name.rpartition(".")[2])
        if media_type is not None:
            content = file.read_bytes()
            digest = hashlib.sha256(content).hexdigest()
            found[file.name] = Asset(file.name, media_type, digest, content, gzip.compress(content, 9, mtime=0))
    return found


def address(name: str) -> str:
    """Where a page finds a file. Raises KeyError for one that is not there."""
    return assets()[name].address


async def answer(request: Request) -> Response:
    """One file."""
    asset = assets().get(request.path_params["name"])
    if asset is None:
        return Response("there is no such file", 404, media_type="text/plain")
    headers = {"cache-control": _YEAR, "vary": "accept-encoding", "etag": f'"{asset.digest[:32]}"'}
    if request.headers.get("if-none-match") == headers["etag"]:
        return Response(status_code=304, headers=headers)
    if "gzip" in request.headers.get("accept-encoding", ""):
        return Response(asset.packed, headers={**headers, "content-encoding": "gzip"}, media_type=asset.media_type)
    return Response(asset.plain, headers=headers, media_type=asset.media_type)
