"""For tests: the marks an application made, without a server; and the contract of an adapter.

``pytest_plugins = ["flask_bitmapist.testing"]`` in the top ``conftest.py`` provides the fixture
`bitmapist_marks`, and has pytest explain the failures of `AdapterContract`.
"""

from .contract import AdapterContract, Capability, ContractOrm, Marked, abandoned
from .recorded import RecordedMark, RecordedMarks, bitmapist_marks, record_marks

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
