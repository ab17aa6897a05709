"""The flag over HTTP, as OpenFeature's remote evaluation protocol (OFREP 0.3) has it.

Plain routes on raw bodies: this is asked more than anything else here. Errors inside the protocol are values of its
shape; who may not come in, or sends too much, is answered as everywhere.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from pydantic_core import from_json, to_json
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from relevo.access.door import Door
from relevo.access.keyring import Caller
from relevo.access.roles import Role
from relevo.errors import nearest
from relevo.flags.evaluate import LONGEST_ID
from relevo.flags.store import Flags

FLAGS = "/ofrep/v1/evaluate/flags"


class Failure(Exception):
    """An evaluation that came to nothing, for a reason that the protocol has a code for."""

    def __init__(self, code: str, details: str, status: int = 400) -> None:
        super().__init__(details)
        self.code, self.details, self.status = code, details, status


def routes(flags: Flags, door: Door) -> list[Route]:
    """Single and bulk evaluation, for viewers."""

    async def single(request: Request) -> Response:
        await _admitted(request, door)
        key: str = request.path_params["key"]
        try:
            context = _context(await request.body())
            if key != flags.flag.name:
                raise _unknown(flags, key)
            return _json(_evaluated(flags, _tenant(context)))
        except Failure as failure:
            return _json({"key": key, **_told(failure)}, failure.status)

    async def bulk(request: Request) -> Response:
        caller = await _admitted(request, door)
        try:
            context = _context(await request.body())
            body = to_json({"flags": [_evaluated(flags, _tenant(context))]})
        except Failure as failure:
            return _json(_told(failure), failure.status)
        etag = _etag(body, context, caller)
        headers = {"etag": etag}
        if _is_known(request.headers.get("if-none-match"), etag):
            return Response(status_code=304, headers=headers)
        return Response(body, headers=headers, media_type="application/json")

    # The first that fits is taken, so the one asked most comes first.
    return [Route(f"{FLAGS}/{{key:path}}", single, methods=["POST"]), Route(FLAGS, bulk, methods=["POST"])]


async def _admitted(request: Request, door: Door) -> Caller:
    scope = request.scope
    return await door.admit(scope["headers"], scope["client"][0] if scope.get("client") else "", Role.VIEWER)


def _context(body: bytes) -> dict[str, Any]:
    """The evaluation context of a request; empty where it has none. Raises Failure."""
    try:
        # Depth is limited by the parser; NaN and infinities are no JSON.
        asked = from_json(body, allow_inf_nan=False, cache_strings=False)
    except ValueError:
        raise Failure("PARSE_ERROR", "the body is not valid JSON") from None
    if not isinstance(asked, dict):
        raise Failure("PARSE_ERROR", "the body is no JSON object")
    context = asked.get("context")
    if context is not None and not isinstance(context, dict):
        raise Failure("INVALID_CONTEXT", "context is no object")
    return context or {}


def _tenant(context: Mapping[str, Any]) -> str:
    """Whom the question is about. Raises Failure."""
    tenant = context.get("targetingKey")
    if tenant is None or tenant == "":
        raise Failure("TARGETING_KEY_MISSING", "context.targetingKey names no tenant")
    if not isinstance(tenant, str):
        raise Failure("INVALID_CONTEXT", "context.targetingKey is no text")
    if len(tenant) > LONGEST_ID:
        raise Failure("INVALID_CONTEXT", f"context.targetingKey is longer than {LONGEST_ID:,} characters")
    return tenant


def _evaluated(flags: Flags, tenant: str) -> dict[str, Any]:
    answer = flags.evaluate(tenant)
    return {
        "key": flags.flag.name,
        "value": answer.value,
        "variant": answer.variant,
        "reason": answer.reason,
        "metadata": {"flagVersion": answer.flag_version},
    }


def _unknown(flags: Flags, key: str) -> Failure:
    told = key if len(key) <= 100 else f"{key[:100]}…"
    return Failure("FLAG_NOT_FOUND", f"there is no flag {told!r}.{nearest(told, [flags.flag.name])}", 404)


def _told(failure: Failure) -> dict[str, str]:
    return {"errorCode": failure.code, "errorDetails": failure.details}


def _etag(body: bytes, context: Mapping[str, Any], caller: Caller) -> str:
    """Stands for the answer (the flag's version is in it), the whole context, and who asked.

    Made from the answer alone, it would tell a client whose context changed that it knows everything already.
    """
    canonical = json.dumps(context, sort_keys=True, separators=(",", ":"))
    digest = hashlib.sha256(b"\0".join((body, canonical.encode(), caller.id.encode())))
    return f'"{digest.hexdigest()[:32]}"'


def _is_known(if_none_match: str | None, etag: str) -> bool:
    if if_none_match is None:
        return False
    known = {each.strip().removeprefix("W/") for each in if_none_match.split(",")}
    return etag in known or "*" in known


def _json(content: Mapping[str, Any], status: int = 200) -> Response:
    return Response(to_json(content), status, media_type="application/json")
