"""What every adapter shares: a model's options, the id it marks, and a transaction's changes.

An adapter translates its ORM's insert, update and delete of a row into `Changes.note`. When the
outermost transaction has committed, `Changes.marks` gives what to publish.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, get_args

from ..dimensions import Dimension, checked_choice, choice_of, fitting_choice
from ..faults import contained_faults
from ..ids import normal_form
from ..marks import Mark, checked_name, is_name

Action = Literal["created", "updated", "deleted"]
ACTIONS: tuple[Action, ...] = get_args(Action)


class BitmapistableModel:
    """The class options that a model may set, whatever its ORM."""

    #: The model's name in events; default: the lower-cased class name.
    __bitmapist_name__: ClassVar[str | None] = None
    #: Whose bit is marked: the name of an attribute, or a method (``def __bitmapist_id__(self)``).
    #: Default: the primary key. A value of None marks nobody.
    __bitmapist_id__: ClassVar[Any] = None
    #: Which of ``<model>:created``, ``:updated`` and ``:deleted`` are marked.
    __bitmapist_events__: ClassVar[Collection[str]] = ACTIONS
    #: Boolean attributes kept in step as ``UniqueEvents("<model>:<attribute>")``.
    __bitmapist_flags__: ClassVar[Collection[str]] = ()
    #: Attributes of which each person has one value at a time, such as ``{"plan", "country"}``:
    #: those who have it are ``UniqueEvents("<model>:plan=pro")``. ``Dimension("plan", dated=True)``
    #: keeps who had which value in each month, too.
    __bitmapist_dimensions__: ClassVar[Collection[str | Dimension]] = ()
    #: A name keeps this model's mapped ids apart from the users'.
    __bitmapist_ids__: ClassVar[str] = ""
    #: Whether bulk statements are marked too.
    __bitmapist_bulk__: ClassVar[bool] = False
    #: Whether the people whose rows are deleted are erased, once the deletion is marked: for the
    #: model whose rows are the people.
    __bitmapist_erase_deleted__: ClassVar[bool] = False
    #: Events and flags that are left as they are then, because their ids are not those of people.
    #: Those of models that mark their own keys are left without being named.
    __bitmapist_keep__: ClassVar[Collection[str]] = ()

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        _check_options(cls)

    def __bitmapist_identity__(self) -> object:
        """The id to mark for this row; each adapter knows where its ORM keeps the key."""
        raise NotImplementedError

    def _bitmapist_chosen_id(self) -> object:
        """The id that ``__bitmapist_id__`` chooses."""
        chosen = type(self).__bitmapist_id__
        return self.__bitmapist_id__() if callable(chosen) else getattr(self, chosen)


def _check_options(model: type[BitmapistableModel]) -> None:
    def refuse(option: str, allowed: str) -> None:
        value = getattr(model, option)
        raise TypeError(f"{model.__name__}.{option} must be {allowed}, not {value!r}")

    name = model.__bitmapist_name__
    if name is not None:
        try:
            checked_name(name)
            checked_name(f"{name}:{max(ACTIONS, key=len)}")
        except ValueError:
            refuse("__bitmapist_name__", "a printable name")
    events = model.__bitmapist_events__
    if isinstance(events, str) or not set(events) <= set(ACTIONS):
        refuse("__bitmapist_events__", f"some of {ACTIONS}")
    flags = model.__bitmapist_flags__
    if isinstance(flags, str) or not all(isinstance(flag, str) and flag for flag in flags):
        refuse("__bitmapist_flags__", 'names of boolean attributes, such as ("premium",)')
    dimensions = model.__bitmapist_dimensions__
    if isinstance(dimensions, str | Dimension) or not all(map(_is_dimension, dimensions)):
        allowed = 'names of attributes, such as ("plan",), or of Dimension("plan", dated=True)'
        refuse("__bitmapist_dimensions__", allowed)
    if len(dimensions_of(model)) < len(dimensions):
        refuse("__bitmapist_dimensions__", "attributes each of which is named once")
    if both := {*flags} & dimensions_of(model).keys():
        refuse("__bitmapist_dimensions__", f"others than the flags {sorted(both)}")
    chosen = model.__bitmapist_id__
    if chosen is not None and not callable(chosen) and not (isinstance(chosen, str) and chosen):
        refuse("__bitmapist_id__", "the name of an attribute or a method")
    if not isinstance(model.__bitmapist_ids__, str):
        refuse("__bitmapist_ids__", "a name")
    if not isinstance(model.__bitmapist_bulk__, bool):
        refuse("__bitmapist_bulk__", "True or False")
    _check_erasure(model, refuse)


def _check_erasure(model: type[BitmapistableModel], refuse: Callable[[str, str], None]) -> None:
    erases, kept = model.__bitmapist_erase_deleted__, model.__bitmapist_keep__
    if not isinstance(erases, bool):
        refuse("__bitmapist_erase_deleted__", "True or False")
    if isinstance(kept, str) or not all(map(is_name, kept)):
        refuse("__bitmapist_keep__", 'names of events and flags, such as ("post:read",)')
    if not erases:
        return
    for option in ("__bitmapist_id__", "__bitmapist_ids__"):
        if getattr(model, option) not in (None, ""):
            raise TypeError(
                f"{model.__name__} has {option}, so its rows are not the people whom it marks: set "
                "__bitmapist_erase_deleted__ on the model of the people alone, whose own key is "
                "their id"
            )


def _is_dimension(one: object) -> bool:
    if isinstance(one, Dimension):
        return isinstance(one.dated, bool) and _is_dimension(one.attribute)
    return isinstance(one, str) and bool(one) and "=" not in one


def dimensions_of(model: Any) -> dict[str, bool]:
    """The attributes of `model` that are dimensions, each with whether its months are kept."""
    listed = getattr(model, "__bitmapist_dimensions__", ())
    return {
        one.attribute if isinstance(one, Dimension) else one: isinstance(one, Dimension)
        and one.dated
        for one in listed
    }


def kept_attributes(model: type[BitmapistableModel]) -> list[str]:
    """The attributes of `model` whose values are kept: its flags and dimensions."""
    return [*model.__bitmapist_flags__, *dimensions_of(model)]


def _states(model: type[BitmapistableModel], values: Mapping[str, object]) -> dict[str, bool | str]:
    """What `values` of attributes say: a bool of a flag, and of a dimension its value as text."""
    states: dict[str, bool | str] = {}
    dimensions = dimensions_of(model) if model.__bitmapist_dimensions__ else ()
    for name, value in values.items():
        if name not in dimensions:
            states[name] = bool(value)
            continue
        with contained_faults("note the value of %s.%s", model.__name__, name):
            states[name] = fitting_choice(f"{name_in_events(model)}:{name}", value)
    return states


class _Kept(dict[type[BitmapistableModel], tuple[str, ...]]):
    """What stays when somebody is erased whose row was deleted, by the model of the row.

    That they were deleted, and what has the ids of something else: 42 may be a post, too.
    """

    def __missing__(self, model: type[BitmapistableModel]) -> tuple[str, ...]:
        of_others = {
            name
            for other in models_below(BitmapistableModel)
            if other.__bitmapist_id__ is None
            and not other.__bitmapist_erase_deleted__
            and not issubclass(model, other)
            for name in _marked_names(other)
        }
        # Models of one name mark the same ids, or else the doctor warns of them.
        kept = of_others.difference(_marked_names(model)).union(model.__bitmapist_keep__)
        self[model] = tuple(sorted({*kept, f"{name_in_events(model)}:deleted"}))
        return self[model]


def models_below(model: type[BitmapistableModel]) -> Iterator[type[BitmapistableModel]]:
    """The classes that derive from `model`, without those whose declaration was refused.

    Python lists these, too, until the collector has found them.
    """
    for each in model.__subclasses__():
        if not _is_refused(each):
            yield each
            yield from models_below(each)


def _is_refused(model: type[BitmapistableModel]) -> bool:
    try:
        _check_options(model)
    except TypeError:
        return True
    return False


def _marked_names(model: type[BitmapistableModel]) -> list[str]:
    """The events, flags and dimensions of `model`."""
    names = (*model.__bitmapist_events__, *kept_attributes(model))
    return [f"{name_in_events(model)}:{name}" for name in names]


def name_in_events(model: type[BitmapistableModel]) -> str:
    """What the events, flags and dimensions of `model` begin with."""
    return model.__bitmapist_name__ or model.__name__.lower()


def checked_marks(marks: Iterable[Mark | tuple[Any, ...]]) -> list[Mark]:
    """The marks that the caller of an adapter's ``record`` passed, once they are checked.

    :raises TypeError, ValueError: for something that is not a mark, an event name or an id.
    """
    checked = [Mark(*mark) for mark in marks]
    for mark in checked:
        if mark.choice is None:
            checked_name(mark.event)
        else:
            checked_choice(mark.event, choice_of(mark.choice))
        normal_form(mark.id)
    return checked


@dataclass(slots=True)
class _RowChange:
    """What a transaction did to one row: its first and last actions give the net effect."""

    model: type[BitmapistableModel]
    #: None while it was only written without a change that the ORM saw: then only its states count.
    first: Action | None
    last: Action | None
    id: object
    #: Those of its flags and dimensions.
    states: dict[str, bool | str]
    #: The row's identity before the first change.
    origin: Hashable
    #: Its id before the first change, if its key was changed; else None.
    former_id: object

    def absorb(self, later: _RowChange) -> None:
        self.model, self.id = later.model, later.id
        self.first = self.first or later.first
        self.last = later.last or self.last
        self.states |= later.states
        if self.former_id is None:
            self.former_id = later.former_id

    def is_replaced_by(self, later: _RowChange) -> bool:
        """Whether this row is gone, and `later` is a new one that the database gave its key."""
        return self.last == "deleted" and later.first == "created" and self.id != later.id

    @property
    def net(self) -> Action | None:
        """The change as others see it after the commit; None for a row that came and went."""
        born, gone = self.first == "created", self.last == "deleted"
        if born:
            return None if gone else "created"
        return "deleted" if gone else "updated"

    def marks(self) -> Iterable[Mark]:
        if self.first is None:
            yield from self._marks_of(self.id, None, self.states)
            return
        action = self.net
        if action == "deleted":
            id_ = self.id if self.former_id is None else self.former_id
            yield from self._marks_of(id_, action, self._nothing)
        elif action is not None:
            if action == "updated":
                yield from self._marks_of(self.former_id, None, self._nothing)
            yield from self._marks_of(self.id, action, self.states)

    def came(self) -> Mark | None:
        """That somebody has come, or has got another id, if whoever goes is erased."""
        if self.net == "created" or (self.net == "updated" and self.former_id is not None):
            return self._life(self.id, is_new=True)
        return None

    def went(self, kept: _Kept) -> Mark | None:
        """That somebody has gone, who is to be erased."""
        if self.net == "deleted" and self.model.__bitmapist_erase_deleted__:
            id_ = self.id if self.former_id is None else self.former_id
            return self._life(id_, is_new=False, kept=kept[self.model])
        return None

    def _life(self, id_: object, *, is_new: bool, kept: tuple[str, ...] = ()) -> Mark | None:
        model = self.model
        if not model.__bitmapist_erase_deleted__ or id_ is None:
            return None
        return Mark(name_in_events(model), id_, is_new, kept=kept)

    def _marks_of(
        self, id_: object, action: Action | None, states: Mapping[str, bool | str]
    ) -> Iterable[Mark]:
        if id_ is None:
            return
        model = self.model
        name = name_in_events(model)
        space = model.__bitmapist_ids__
        if action in model.__bitmapist_events__:
            yield Mark(f"{name}:{action}", id_, space=space)
        for attribute, state in states.items():
            kept = f"{name}:{attribute}"
            if isinstance(state, bool):
                yield Mark(kept, id_, state, dated=False, space=space)
            else:
                is_dated = dimensions_of(model).get(attribute, False)
                yield Mark(kept, id_, bool(state), dated=is_dated, space=space, choice=state)

    @property
    def _nothing(self) -> dict[str, bool | str]:
        """No flag, and no value of a dimension."""
        model = self.model
        return {
            **dict.fromkeys(model.__bitmapist_flags__, False),
            **dict.fromkeys(dimensions_of(model), ""),
        }


class Changes:
    """What one transaction, or savepoint, has done so far."""

    def __init__(self) -> None:
        self._rows: dict[Hashable, _RowChange] = {}
        self._marks: dict[Mark, None] = {}

    def note(
        self,
        row: Hashable,
        model: type[BitmapistableModel],
        action: Action | None,
        id_: object,
        values: Mapping[str, object],
        *,
        before: tuple[Hashable, object] | None = None,
    ) -> None:
        """`action` happened to `row` (its identity in the database) of `model`.

        :param action: None if the row was written unchanged, as far as the ORM can tell.
        :param id_: the id to mark, read now: after the commit it may be gone.
        :param values: of the `kept_attributes` that the action may have changed.
        :param before: the row's identity and id before an update that changed its key.
        """
        origin, former_id = before or (row, None)
        states = _states(model, values)
        change = _RowChange(model, action, action, id_, states, origin, former_id)
        self._absorb_rows({row: change})

    def enlist(self, marks: Iterable[Mark]) -> None:
        """Add marks of the caller's own, to be published with this transaction."""
        self._marks |= dict.fromkeys(marks)

    def absorb(self, released: Changes) -> None:
        """Take over what a released savepoint inside this transaction did."""
        self._absorb_rows(released._rows)
        self._marks |= released._marks

    def _absorb_rows(self, later: Mapping[Hashable, _RowChange]) -> None:
        # Take all out before putting any in: two rows may have swapped their keys.
        earlier = [self._rows.pop(change.origin, None) for change in later.values()]
        for (row, change), known in zip(later.items(), earlier, strict=True):
            if known is not None and known.is_replaced_by(change):
                self._rows[object()] = known
            elif known is not None:
                known.absorb(change)
                change = known
            self._rows[row] = change

    def marks(self) -> list[Mark]:
        """One batch of marks, to publish once the transaction has committed. Never raises."""
        marks: list[Mark] = []
        went: list[Mark] = []
        # Options are checked when a class is declared, but may have been changed since.
        with contained_faults("work out what a transaction has changed"):
            # Whoever comes is known before they do anything, and whoever goes is marked before.
            marks.extend(filter(None, [change.came() for change in self._rows.values()]))
            for change in self._rows.values():
                marks.extend(change.marks())
            kept = _Kept()
            went.extend(filter(None, [change.went(kept) for change in self._rows.values()]))
        return [*marks, *self._marks, *went]
