"""Small programs that Hypothesis writes and shrinks: four connections of both sides take turns, transactions stay open
while others write, some are rolled back or killed. The law holds after each; a failing program is told in its steps."""

from __future__ import annotations

from collections import defaultdict
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import psycopg
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from relevo.db.pool import Database
from tests.mirror_model import LOST_RACES, PROMPT, TABLES, UNIQUE
from tests.test_mirror_property import BOTH

SIDES = ("v1", "v1", "v2", "v2")
STEPS = st.lists(
    st.tuples(
        st.integers(0, len(SIDES) - 1),
        st.sampled_from(("write", "write", "write", "edit", "commit", "commit", "roll back", "kill", "repair")),
        st.integers(0, 2),
        st.sampled_from(UNIQUE),
    ),
    min_size=4,
    max_size=14,
)


@settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    phases=(Phase.explicit, Phase.generate, Phase.shrink),
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(STEPS)
def test_whatever_the_order_nothing_is_lost(mirrored: Database, steps: list[tuple[int, str, int, str]]) -> None:
    with psycopg.connect(mirrored.url, autocommit=True) as owner:
        found = owner.execute(
            """SELECT a.id FROM public.voice_agent_config a JOIN public.voice_assistant_configs b USING (id)
               ORDER BY a.id LIMIT 3"""
        ).fetchall()
        program = Program(mirrored.url, owner, [row[0] for row in found])
        try:
            for number, step in enumerate(steps):
                program.take(number, *step)
            program.rest()
        finally:
            program.close()


@dataclass
class Program:
    """The connections, what each has open, and what was committed last on each side."""

    url: str
    owner: psycopg.Connection[Any]
    configs: list[UUID]
    open: dict[int, dict[tuple[UUID, str], str]] = field(default_factory=lambda: defaultdict(dict))
    committed: dict[tuple[UUID, str], dict[str, str]] = field(default_factory=lambda: defaultdict(dict))
    connections: dict[int, psycopg.Connection[Any]] = field(default_factory=dict)

    def take(self, number: int, who: int, what: str, config: int, name: str) -> None:
        """One step of one connection; a transaction that loses a race is rolled back."""
        connection = self.connection(who)
        try:
            match what:
                case "write":
                    self.write(who, self.configs[config], name, f"{who}-{number}-{id(self)}")
                case "edit" if SIDES[who] == "v1":
                    query = "UPDATE public.voice_agent_config SET system_prompt = %s WHERE id = %s"
                    connection.execute(query, (PROMPT.format(number), self.configs[config]))
                case "edit":
                    query = "UPDATE public.voice_assistant_configs SET special_instructions = %s WHERE id = %s"
                    connection.execute(query, (f"edit {number}", self.configs[config]))
                case "commit":
                    self.commit(who)
                case "roll back":
                    connection.rollback()
                    self.open[who].clear()
                case "kill":
                    self.owner.execute("SELECT pg_terminate_backend(%s)", (connection.info.backend_pid,))
                    self.open[who].clear()
                    connection.close()
                    del self.connections[who]
                case "repair":
                    self.repair()
        except LOST_RACES:
            self.open[who].clear()
            with suppress(psycopg.OperationalError):
                connection.rollback()

    def connection(self, who: int) -> psycopg.Connection[Any]:
        if who not in self.connections:
            self.connections[who] = psycopg.connect(self.url, options="-c lock_timeout=80ms")
        return self.connections[who]

    def write(self, who: int, config: UUID, name: str, value: str) -> None:
        query = f"UPDATE {TABLES[SIDES[who]]} SET {name} = %s WHERE id = %s"
        self.connection(who).execute(query.encode(), (value, config))
        self.open[who][config, name] = value

    def commit(self, who: int) -> None:
        self.connection(who).commit()
        for key, value in self.open.pop(who, {}).items():
            self.committed[key][SIDES[who]] = value

    def repair(self) -> list[str]:
        """What could not be repaired, and why."""
        self.owner.execute("SET lock_timeout = '80ms'")
        reasons = []
        for (config,) in self.owner.execute("SELECT DISTINCT config_id FROM relevo.mirror_queue").fetchall():
            try:
                (reason,) = self.owner.execute("SELECT relevo.repair(%s)", (config,)).fetchone() or (None,)
            except LOST_RACES as error:
                reason = str(error)
            reasons += [reason] if reason else []
        return reasons

    def rest(self) -> None:
        """Everybody commits; then the law is looked at, before repair and after."""
        for who in list(self.connections):
            with suppress(*LOST_RACES):
                self.commit(who)
        assert [row for row in self.both() if row["differ"] and not self.is_queued(row)] == []
        assert self.repair() == []
        there = {row["id"]: row for row in self.both()}
        assert [row for row in there.values() if row["differ"] and not row["set_aside"]] == []
        for (config, name), last in self.committed.items():
            kept = {there[config][name], *self.kept_aside(config, name)}
            assert set(last.values()) & kept, (config, name, last, kept)

    def both(self) -> list[dict[str, Any]]:
        with self.owner.cursor(row_factory=psycopg.rows.dict_row) as cursor:
            return cursor.execute(BOTH).fetchall()

    def is_queued(self, row: dict[str, Any]) -> bool:
        return bool(row["set_aside"] or row["queued_whole"] or set(row["differ"]) <= set(row["queued"]))

    def kept_aside(self, config: UUID, name: str) -> set[Any]:
        query = "SELECT v1_value, v2_value FROM relevo.mirror_conflicts WHERE config_id = %s AND field = %s"
        return {value for row in self.owner.execute(query, (config, name)).fetchall() for value in row}

    def close(self) -> None:
        for connection in self.connections.values():
            connection.close()
