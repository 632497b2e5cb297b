#!/bin/sh
# peewee 4.5.3, sqlite3 of Python 3.11 and newer: if a function given to `Database.after_commit()`
# fails, the caller gets a peewee.OperationalError that tells of a rollback, though the rows are
# committed.
#
# Expected: the function's own error, since the page on transactions says that "an exception from a
# callback propagates". Whoever retries a transaction on OperationalError, as is usual where
# "database is locked" is one, inserts the rows twice.
# Seen:
#   OperationalError: cannot rollback - no transaction is active; rows: 1
#   with a retry: rows: 2
# Source: peewee.py, _transaction.commit() runs the functions after `self.db.commit()`, and __exit__
# answers any exception of it by `self.rollback(False)`, which SQLite refuses by now. The error of
# the function is left in the chain of contexts alone.
#
# Exits 1 if that changes, 2 if the package could not be installed.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check peewee==4.5.3 || exit 2
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
import sys

import peewee

db = peewee.SqliteDatabase(":memory:")


class Order(peewee.Model):
    what = peewee.TextField()

    class Meta:
        database = db


def notify():
    raise ConnectionError("the mail server is away")


def place():
    with db.atomic():
        Order.create(what="tea")
        db.after_commit(notify)


db.create_tables([Order])
told = None
try:
    place()
except Exception as error:
    told = f"{type(error).__name__}: {error}"
once = Order.select().count()
print(f"{told}; rows: {once}")
for _ in range(2):
    try:
        place()
        break
    except peewee.OperationalError:
        continue
retried = Order.select().count() - once
print(f"with a retry: rows: {retried}")
seen = ("OperationalError: cannot rollback - no transaction is active", 1, 2)
sys.exit(0 if (told, once, retried) == seen else 1)
PYTHON
