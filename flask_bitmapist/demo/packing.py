"""What packing the demo's past would save."""

from __future__ import annotations

from flask import Flask

from .. import swapping
from ..current import current_tracker
from ..packed_periods import USUAL_AGE


def saving(app: Flask) -> tuple[int, int]:
    """The bytes of the bitmaps that `flask bitmapist pack` would pack: as they are, and packed."""
    with app.app_context():
        tracker = current_tracker()
        client, names = tracker.server.patient, tracker.reader.known(scanned=False).events
        keys = [*swapping.raw_keys(client, names.keys(), (tracker.now() - USUAL_AGE).date())]
        swaps = [swap for key in keys if (swap := swapping.pack(client, key, dry=True))]
    return sum(swap.raw for swap in swaps), sum(swap.packed for swap in swaps)
