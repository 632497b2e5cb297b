"""Both forms of a bitmap, raw and packed, read at one moment.

Packing swaps one key for another. Both are read by one command, which no swap can come between.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..packed_periods import packed_key
from .bitmap import Bitmap


class UnreadableError(ValueError):
    """A packed bitmap cannot be read."""


def both_forms(key: str) -> tuple[str, str, str]:
    """The command that reads both forms of the bitmap under `key`."""
    return "MGET", key, packed_key(key)


def joined(key: str, forms: Sequence[bytes | None]) -> Bitmap:
    """The set of which these are the forms: a late mark may have made a raw one beside the other.

    :raises UnreadableError: naming `key`.
    """
    raw, value = forms
    bitmap = Bitmap.from_bytes(raw)
    if value is None:
        return bitmap
    try:
        from .packed import Packed

        packed = Packed.from_portable(value)
    except ImportError as error:
        raise UnreadableError(f"{key} is packed. {error}") from error
    except ValueError as error:
        raise UnreadableError(
            f"the packed form of {key} is damaged ({error}): restore {packed_key(key)} from a "
            "backup, or delete it and with it what it holds"
        ) from error
    return packed | bitmap if raw else packed
