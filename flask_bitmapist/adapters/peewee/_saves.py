"""The statements of ``save()`` and ``delete_instance()``: each notes the row of its instance.

What counts is what the statement wrote, when it wrote it: ``save()`` of a base model, or a handler
that runs before or after it, may change, save or delete rows of its own.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, cast

from peewee import Expression

from ...faults import contained_faults
from ..base import Action, kept_attributes
from ._rows import TrackedModel, as_is_stored, field_named, marked_row, note
from ._statements import Deletion, mix_in
from ._transactions import changes_of


@dataclass(frozen=True)
class Saved:
    """A row that `save()` is about to write."""

    instance: Any
    #: What it writes. peewee removes the key from it, if the key does not change.
    values: Mapping[str, Any]
    #: The names of the fields that were assigned.
    changed: Collection[str]


def note_saved_row(query: Any, action: Action, saved: Saved) -> None:
    """Have `query`, the one that `save()` makes, note its row."""
    kind = _InsertionOfRow if action == "created" else _UpdateOfRow
    mix_in(kind, query)
    query._saved = saved


@dataclass
class Doomed:
    """A row that `delete_instance()` is about to delete."""

    instance: Any
    #: The condition that names the row, once peewee has made it.
    condition: object = None


def note_doomed_row(query: Any, doomed: Doomed, *, others: bool) -> None:
    """Have `query`, a DELETE that `delete_instance()` makes, note the row if it deletes that one.

    :param others: whether it should note other rows as well.
    """
    mix_in(_DeletionOfRow, query)
    query._doomed, query._notes_others = doomed, others


class _OfRow:
    """Mixin of a query that writes the row of one instance."""

    model: TrackedModel
    _saved: Saved

    def _execute(self, database: Any) -> Any:
        return cast(Any, super())._execute(database)

    def _note(self, database: Any, action: Action | None) -> None:
        instance, written = self._saved.instance, self._saved.values
        kept = [
            name
            for name in kept_attributes(self.model)
            # The value of an attribute that was not written may be out of date.
            if action == "created"
            or (field := field_named(self.model, name)) is None
            or field.name in written
        ]
        if action is None and not kept:
            return
        created = action == "created"
        row = as_is_stored(database, instance, created=created, written=written)
        if row is not None:
            with changes_of(database) as changes:
                note(changes, action, marked_row(row, kept))


class _InsertionOfRow(_OfRow):
    _on_conflict: Any

    def _execute(self, database: Any) -> Any:
        key = super()._execute(database)
        if self._on_conflict is None:  # an upsert: whether the row is new cannot be told
            with contained_faults("note an inserted row of %s", self.model.__name__):
                self._set_key(key)
                self._note(database, "created")
        return key

    def _set_key(self, key: Any) -> None:
        """As `save()` itself does next."""
        instance, meta = self._saved.instance, self.model._meta
        if meta.primary_key is False or key is None:
            return
        if meta.auto_increment or instance._pk is None:
            instance._pk = key
            instance._dirty.discard(meta.primary_key.name)


class _UpdateOfRow(_OfRow):
    def _execute(self, database: Any) -> Any:
        rows = super()._execute(database)
        if rows:
            with contained_faults("note an updated row of %s", self.model.__name__):
                changed = not self._saved.values.keys().isdisjoint(self._saved.changed)
                self._note(database, "updated" if changed else None)
        return rows


class _DeletionOfRow(Deletion):
    """A DELETE that `delete_instance()` makes: that of its own row, or one before it."""

    _where: Any
    _doomed: Doomed
    _notes_others: bool

    def _execute(self, database: Any) -> Any:
        if not _holds(self._where, self._doomed.condition):
            return (
                super()._execute(database) if self._notes_others else self.execute_plainly(database)
            )
        row = None
        with contained_faults("read a row of %s to be deleted", self.model.__name__):
            # Before: once the row is gone, what __bitmapist_id__ reads may be gone too.
            instance = as_is_stored(database, self._doomed.instance)
            row = None if instance is None else marked_row(instance)
        rows = self.execute_plainly(database)
        if rows and row is not None:
            with (
                contained_faults("note a deleted row of %s", self.model.__name__),
                changes_of(database) as changes,
            ):
                note(changes, "deleted", row)
        return rows


def _holds(condition: Any, part: object) -> bool:
    """Whether `condition` is `part`, or an AND with it. They cannot be compared with ``==``."""
    if part is None:
        return False
    if isinstance(condition, Expression) and condition is not part:
        return _holds(condition.lhs, part) or _holds(condition.rhs, part)
    return condition is part
