#!/bin/sh
# Flask-SQLAlchemy 3.1.1 (SQLAlchemy 2.0.58): `models_committed` is sent for rows that are never
# committed, and not sent for rows that are, as soon as a transaction has a savepoint.
#
# Expected: what its documentation says: it "is sent after the session is committed", with the
# instances and what was done to them.
# Seen:
#   a savepoint released, then rolled back: signals [['Ann', 'Bea']], rows []
#   a savepoint rolled back, then committed: signals [], rows ['Ann']
# Source: flask_sqlalchemy/track_modifications.py, _after_commit and _after_rollback listen to the
# session's events of these names. SQLAlchemy sends `after_commit` for RELEASE SAVEPOINT too. At the
# rollback of a savepoint `after_rollback` clears the list of changes, those before it included.
# The first half is reported as pallets-eco/flask-sqlalchemy#645.
#
# Exits 1 if that changes, 2 if the packages could not be installed.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
    flask-sqlalchemy==3.1.1 sqlalchemy==2.0.58 || exit 2
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
import sys

from flask import Flask
from flask_sqlalchemy import SQLAlchemy
from flask_sqlalchemy.track_modifications import models_committed

app = Flask("app")
app.config.update(SQLALCHEMY_DATABASE_URI="sqlite://", SQLALCHEMY_TRACK_MODIFICATIONS=True)
db = SQLAlchemy(app)
signals = []


class User(db.Model):
    id = db.Column(db.Integer, primary_key=True)
    name = db.Column(db.String)


@models_committed.connect_via(app)
def note(sender, changes):
    signals.append([row.name for row, operation in changes])


def there():
    return [name for (name,) in db.session.query(User.name).order_by(User.id)]


with app.app_context():
    db.create_all()
    db.session.add(User(name="Ann"))
    db.session.flush()
    with db.session.begin_nested():
        db.session.add(User(name="Bea"))
    db.session.rollback()
    first = [*signals], there()
    db.session.rollback()

    signals.clear()
    db.session.add(User(name="Ann"))
    db.session.flush()
    savepoint = db.session.begin_nested()
    db.session.add(User(name="Bea"))
    db.session.flush()
    savepoint.rollback()
    db.session.commit()
    second = [*signals], there()
print(f"a savepoint released, then rolled back: signals {first[0]}, rows {first[1]}")
print(f"a savepoint rolled back, then committed: signals {second[0]}, rows {second[1]}")
sys.exit(0 if (first, second) == (([["Ann", "Bea"]], []), ([], ["Ann"])) else 1)
PYTHON
