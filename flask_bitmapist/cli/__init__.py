"""``flask bitmapist ...``: every report as a table, JSON or CSV.

Only the commands of `annotating`, `maintenance`, `history` and `erasing` write.

Exit codes: 0; 1 if the server does not answer, the output cannot be written or `doctor` finds an
error; 2 for a question that cannot be answered as asked; 3 if lines were rejected, differences
found, or the condition of `check` holds; 130 if a key stopped it.
"""

from __future__ import annotations

from . import annotating, digests, doctor, erasing, history, maintenance, reports
from .group import commands

__all__ = [
    "annotating",
    "commands",
    "digests",
    "doctor",
    "erasing",
    "history",
    "maintenance",
    "reports",
]
