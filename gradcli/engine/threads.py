"""How many threads the compiled interpreter may take: what `gradcli.prepare.threads` says while something runs."""

from __future__ import annotations

from contextvars import ContextVar

ALLOWED: ContextVar[int] = ContextVar("threads of the compiled interpreter", default=1)
