"""Relevo moves a multi-tenant voice platform from v1 to v2, tenant by tenant, with a way back at every step."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from relevo.flags.store import Flags

__all__ = ["Flags", "__version__"]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """Load what is asked for, when it is: ``import relevo`` alone costs nothing."""
    if name == "Flags":
        from relevo.flags.store import Flags

        return Flags
    raise AttributeError(f"module 'relevo' has no attribute {name!r}")
