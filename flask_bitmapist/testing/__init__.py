"""For tests: an application's marks, recorded without a server, and the contract of an adapter.

``pytest_plugins = ["flask_bitmapist.testing"]`` in the top ``conftest.py`` provides the fixture
`bitmapist_marks`, and makes pytest explain the failures of `AdapterContract`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .recorded import RecordedMark, RecordedMarks, record_marks

if TYPE_CHECKING:
    from .contract import AdapterContract as AdapterContract
    from .contract import Capability as Capability
    from .contract import ContractOrm as ContractOrm
    from .contract import Marked as Marked
    from .contract import abandoned as abandoned
    from .fixtures import bitmapist_marks as bitmapist_marks

__all__ = [
    "AdapterContract",
    "Capability",
    "ContractOrm",
    "Marked",
    "RecordedMark",
    "RecordedMarks",
    "abandoned",
    "bitmapist_marks",
    "record_marks",
]

# These need pytest, and `record_marks` does not: so they are loaded when first asked for.
_LAZY = {
    "AdapterContract": ".contract",
    "Capability": ".contract",
    "ContractOrm": ".contract",
    "Marked": ".contract",
    "abandoned": ".contract",
    "bitmapist_marks": ".fixtures",
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_LAZY[name], __name__), name)


def __dir__() -> list[str]:
    # pytest looks for fixtures here.
    return sorted({*globals(), *_LAZY})
