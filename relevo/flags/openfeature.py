"""The flag for applications that ask through OpenFeature.

::

    async with Flags(url) as flags:
        api.set_provider(RelevoProvider(flags))
        client = api.get_client()
        client.get_boolean_value("voice_agent_v2", False, EvaluationContext(tenant_id))
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NoReturn

from openfeature.evaluation_context import EvaluationContext
from openfeature.event import ProviderEventDetails
from openfeature.exception import (
    FlagNotFoundError,
    InvalidContextError,
    ProviderNotReadyError,
    TargetingKeyMissingError,
    TypeMismatchError,
)
from openfeature.flag_evaluation import FlagResolutionDetails, FlagValueType
from openfeature.provider import AbstractProvider, Metadata

from relevo.flags.evaluate import LONGEST_ID, VOICE_AGENT_V2
from relevo.flags.store import Flags, State


class RelevoProvider(AbstractProvider):
    """Answers from the flag in this process; the targeting key is the tenant id. No I/O.

    Events: ready (also when fresh again), stale (the last known row is served), configuration changed.
    """

    def __init__(self, flags: Flags) -> None:
        super().__init__()
        self._flags = flags
        self._told = flags.state
        self._end: Callable[[], None] | None = None

    def get_metadata(self) -> Metadata:
        """Our name, as OpenFeature shows it."""
        return Metadata(name="relevo")

    def initialize(self, evaluation_context: EvaluationContext) -> None:  # noqa: ARG002
        """Raises ProviderNotReadyError while no row was seen; a ready event follows when one is."""
        self._told = self._flags.state
        if self._end is None:
            self._end = self._flags.subscribe(self._tell)
        if not self._told.ready:
            raise ProviderNotReadyError(self._told.why or "the flag was not seen yet")

    def shutdown(self) -> None:
        """No more events. The flag itself is closed by whoever opened it."""
        if self._end is not None:
            self._end()
            self._end = None

    def resolve_boolean_details(
        self,
        flag_key: str,
        default_value: bool,  # noqa: ARG002 (raising gives the default)
        evaluation_context: EvaluationContext | None = None,
    ) -> FlagResolutionDetails[bool]:
        """True for v2. Raises FlagNotFoundError, TargetingKeyMissingError, InvalidContextError for a key that is no
        tenant id, or ProviderNotReadyError; OpenFeature's client then gives the default."""
        _must_be_ours(flag_key)
        tenant_id = evaluation_context.targeting_key if evaluation_context else None
        if not tenant_id:
            raise TargetingKeyMissingError("the targeting key is the tenant id")
        answer = self._flags.evaluate(tenant_id)
        if answer.reason == "ERROR":
            raise InvalidContextError(f"a tenant id has 1 to {LONGEST_ID:,} characters")
        if answer.flag_version == 0:
            raise ProviderNotReadyError(self._flags.state.why or "the flag was not seen yet")
        return FlagResolutionDetails(
            value=answer.value,
            variant=answer.variant,
            reason=answer.reason,
            flag_metadata={"flagVersion": answer.flag_version},
        )

    def resolve_string_details(
        self,
        flag_key: str,
        default_value: str,  # noqa: ARG002
        evaluation_context: EvaluationContext | None = None,  # noqa: ARG002
    ) -> FlagResolutionDetails[str]:
        """Raises TypeMismatchError: the flag is a boolean."""
        _is_boolean(flag_key)

    def resolve_integer_details(
        self,
        flag_key: str,
        default_value: int,  # noqa: ARG002
        evaluation_context: EvaluationContext | None = None,  # noqa: ARG002
    ) -> FlagResolutionDetails[int]:
        """Raises TypeMismatchError: the flag is a boolean."""
        _is_boolean(flag_key)

    def resolve_float_details(
        self,
        flag_key: str,
        default_value: float,  # noqa: ARG002
        evaluation_context: EvaluationContext | None = None,  # noqa: ARG002
    ) -> FlagResolutionDetails[float]:
        """Raises TypeMismatchError: the flag is a boolean."""
        _is_boolean(flag_key)

    def resolve_object_details(
        self,
        flag_key: str,
        default_value: Sequence[FlagValueType] | Mapping[str, FlagValueType],  # noqa: ARG002
        evaluation_context: EvaluationContext | None = None,  # noqa: ARG002
    ) -> FlagResolutionDetails[Sequence[FlagValueType] | Mapping[str, FlagValueType]]:
        """Raises TypeMismatchError: the flag is a boolean."""
        _is_boolean(flag_key)

    def _tell(self, state: State) -> None:
        """A change of our state, as the event that OpenFeature has for it."""
        before, self._told = self._told, state
        if state.stale_since is not None and before.stale_since is None:
            self.emit_provider_stale(ProviderEventDetails(message=state.why))
        elif state.ready and (not before.ready or (before.stale_since is not None and state.stale_since is None)):
            self.emit_provider_ready(ProviderEventDetails())
        if state.version != before.version:
            self.emit_provider_configuration_changed(ProviderEventDetails(flags_changed=[VOICE_AGENT_V2]))


def _must_be_ours(flag_key: str) -> None:
    if flag_key != VOICE_AGENT_V2:
        raise FlagNotFoundError(f"there is no flag {flag_key!r}; Relevo has {VOICE_AGENT_V2!r}")


def _is_boolean(flag_key: str) -> NoReturn:
    _must_be_ours(flag_key)
    raise TypeMismatchError(f"{VOICE_AGENT_V2} is a boolean")
