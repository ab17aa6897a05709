"""The JSON API keeps what its own OpenAPI document says, whatever is sent: schemathesis makes the requests."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from hypothesis import HealthCheck, given, settings

from relevo.access.roles import Role
from tests.servers import Server
from tests.serving import House, housed

schemathesis = pytest.importorskip("schemathesis", reason="schemathesis is not installed: make install")
checks = pytest.importorskip("schemathesis.specs.openapi.checks", reason="the same")
CHECKS = [
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_schema_conformance,
]
STEADY = settings(
    max_examples=10, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck), database=None
)
pytestmark = pytest.mark.parametrize("server", [18], indirect=True, ids=["pg18"])


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def house(server: Server, template: str) -> AsyncIterator[House]:
    """A server whose tenants have been moved."""
    async with housed(server, template, moved=True) as house:
        yield house


@pytest.mark.parametrize("role", [*Role, None], ids=[*(role.label for role in Role), "nobody"])
def test_every_answer_is_as_the_document_says(house: House, role: Role | None) -> None:
    document = house.served.ask("GET", "/api/openapi.json").json
    schema = schemathesis.openapi.from_dict(document)
    headers = {"authorization": f"Bearer {house.secrets[role]}"} if role is not None else {}
    tried: set[str] = set()
    for found in schema.get_all_operations():
        operation = found.ok()

        @settings(
            max_examples=10, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck), database=None
        )
        @given(case=operation.as_strategy())
        def ask(case: Any) -> None:
            answer = case.call(base_url=house.served.address, headers=headers)
            tried.add(f"{case.method} {case.path}")
            assert answer.status_code < 500, (case.method, case.path, answer.text)
            case.validate_response(answer, checks=CHECKS)

        ask()
    assert len(tried) == sum(len(methods) for methods in document["paths"].values())
