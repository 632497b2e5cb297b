"""``flask bitmapist ...``: every report as a table, JSON or CSV.

Only `reindex`, `pack` and `unpack` write.

Exit codes: 0; 1 if the server does not answer or the output cannot be written; 2 for a question
that cannot be answered as asked.
"""

from __future__ import annotations

from . import maintenance, reports
from .group import commands

__all__ = ["commands", "maintenance", "reports"]
