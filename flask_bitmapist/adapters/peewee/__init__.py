"""peewee: INSERT, UPDATE and DELETE of models -> marks, published after the COMMIT.

Not seen: raw SQL, the database's own cascades and triggers, upserts. Use `record` there. Statements
such as ``User.update(...)`` are seen if a model opts in.
"""

try:
    import peewee as _peewee  # noqa: F401
except ImportError as error:
    raise ImportError(
        'peewee is missing: pip install "flask-bitmapist[peewee]"', name=error.name
    ) from error

from ._model import PeeweeBitmapistable
from ._transactions import record

__all__ = ["PeeweeBitmapistable", "record"]
