"""What the extension tells an application that listens, by blinker's signals.

The sender is the app. Receivers are called where the fault is noticed, in the thread that delivers
or at the end of a call that marks: push ``app.app_context()`` if you need one. What a receiver
raises is logged.
"""

from __future__ import annotations

from blinker import NamedSignal, Namespace

from .faults import contained_faults

_signals = Namespace()

#: Marks have begun to wait, or to be lost. It carries ``part``: ``"server"``, which does not take
#: marks, or ``"spool"``, where they cannot wait; and ``reason``, a sentence.
delivery_degraded = _signals.signal("bitmapist-delivery-degraded")
#: The ``part`` works again.
delivery_recovered = _signals.signal("bitmapist-delivery-recovered")


def send(signal: NamedSignal, sender: object, **told: object) -> None:
    """Call the receivers of `signal`, each of them whatever the others raise."""
    for receiver in signal.receivers_for(sender):
        with contained_faults("tell %r of %s", receiver, signal.name):
            receiver(sender, **told)
