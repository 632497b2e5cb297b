#!/bin/sh
# peewee 4.5.3, sqlite3 of Python 3.11 and newer: where a transaction is rolled back and tried
# again, save() of a new instance stores nothing the second time, or overwrites somebody else's
# row.
#
# Expected: it inserts a row, as it did the first time, or raises an error. The pages on
# transactions and on writing say nothing about instances after a rollback. In SQLAlchemy such an
# object is a new one again, so that the second attempt is an INSERT, too.
# Seen:
#   nobody else came: save() returned 0, rows: []
#   Bea came meanwhile: save() returned 1, rows: [(1, 'Ann')]
# Source: peewee.py, Model.save() leaves the key of the INSERT that was rolled back in the
# instance, and sends an UPDATE where there is a key. SQLite gives the key to the row that comes
# next, as peewee's AutoField is no AUTOINCREMENT (sqlite.org/autoinc.html).
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


class Member(peewee.Model):
    name = peewee.TextField()

    class Meta:
        database = db


def save_twice(meanwhile):
    """What the second attempt to save Ann returns, and the rows after it."""
    db.drop_tables([Member])
    db.create_tables([Member])
    ann = Member(name="Ann")
    try:
        with db.atomic():
            ann.save()
            raise peewee.OperationalError("database is locked")
    except peewee.OperationalError:
        meanwhile()
    with db.atomic():
        returned = ann.save()
    return returned, list(Member.select().tuples())


alone = save_twice(lambda: None)
other = save_twice(lambda: Member.create(name="Bea"))
for case, (returned, rows) in (("nobody else came", alone), ("Bea came meanwhile", other)):
    print(f"{case}: save() returned {returned}, rows: {rows}")
sys.exit(0 if alone == (0, []) and other == (1, [(1, "Ann")]) else 1)
PYTHON
