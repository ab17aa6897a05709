"""Relevo moves a multi-tenant voice platform from v1 to v2, tenant by tenant, with a way back at every step."""

__version__ = "0.1.0"
