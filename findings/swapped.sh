#!/bin/sh
# SQLAlchemy 2.1.9 and 2.0.58, sqlite3 of Python 3.11 and newer:
# update(Pair).values(left=Pair.right, right=Pair.left) swaps the row, but the object in the
# session then has one value twice. Which one depends on PYTHONHASHSEED, and so differs from
# process to process.
#
# Expected: the object has the row's values, or loads them again: the ORM's guide to UPDATE
# promises one or the other of all strategies but False. In SQL, the right sides of SET are those
# of the row as it was before (sqlite.org/lang_update.html).
# Seen, with both versions, by the strategies "auto", "evaluate" and "fetch":
#   the row is (2, 1); the object is (1, 1) or (2, 2), never (2, 1)
# A later select() in the same session does not put the object right.
# Source: sqlalchemy/orm/bulk_persistence.py, _apply_update_set_values_to_objects() computes the
# values in Python, in the order of a set of names, and assigns each before it computes the next,
# which so reads a new value where SQL reads the old one. "fetch" asks the database for the keys
# alone.
#
# Exits 1 if that changes, 2 if the packages could not be installed.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
cat >"$folder/program.py" <<'PROGRAM'
from sqlalchemy import create_engine, select, update
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column


class Base(DeclarativeBase):
    pass


class Pair(Base):
    __tablename__ = "pair"
    id: Mapped[int] = mapped_column(primary_key=True)
    left: Mapped[int]
    right: Mapped[int]


engine = create_engine("sqlite://")
Base.metadata.create_all(engine)
swap = update(Pair).values(left=Pair.right, right=Pair.left)
for strategy in ("auto", "evaluate", "fetch"):
    with Session(engine) as session:
        session.add(Pair(id=1, left=1, right=2))
        session.flush()
        pair = session.get(Pair, 1)
        session.execute(swap, execution_options={"synchronize_session": strategy})
        (row,) = session.execute(select(Pair.left, Pair.right)).all()
        assert session.scalars(select(Pair)).one() is pair
        print(f"{strategy}: the row is {tuple(row)}, the object is {(pair.left, pair.right)}")
PROGRAM
for strategy in auto evaluate fetch; do
    echo "$strategy: the row is (2, 1), the object is (1, 1)"
    echo "$strategy: the row is (2, 1), the object is (2, 2)"
done >"$folder/expected"
for version in 2.1.9 2.0.58; do
    "$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
        "sqlalchemy==$version" || exit 2
    for seed in 0 1 2 3 4 5 6 7; do
        PYTHONHASHSEED=$seed "$folder/venv/bin/python" "$folder/program.py"
    done | sort -u >"$folder/seen"
    echo "SQLAlchemy $version"
    cat "$folder/seen"
    cmp -s "$folder/expected" "$folder/seen" || exit 1
done
