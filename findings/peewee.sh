#!/bin/sh
# SQLite 3.54.1 (apsw 3.54.1.0): INSERT ... RETURNING rowid into an FTS5 table gives -1 for each row.
#
# No error and no other hint: the rows are stored under rowids 1 and 2, and RETURNING calls both -1.
# https://sqlite.org/lang_returning.html, "Limitations And Caveats", says only that RETURNING is not
# available for DELETE and UPDATE of virtual tables, and those do raise an error. Whoever asks for
# the keys of new rows by RETURNING has to find out first whether the table is a virtual one.
#
# Seen:
#   returned: [(-1, 'x'), (-1, 'y')]
#   stored:   [(1, 'x'), (2, 'y')]
#
# Exits with 1 if that changes.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet apsw==3.54.1.0
"$folder/venv/bin/python" - <<'END'
import sys

import apsw

connection = apsw.Connection(":memory:")
connection.execute("CREATE VIRTUAL TABLE note USING fts5(text)")
returned = list(
    connection.execute("INSERT INTO note (text) VALUES ('x'), ('y') RETURNING rowid, text")
)
stored = list(connection.execute("SELECT rowid, text FROM note"))
print("SQLite", apsw.sqlite_lib_version())
print("returned:", returned)
print("stored:  ", stored)
sys.exit(returned != [(-1, "x"), (-1, "y")] or stored != [(1, "x"), (2, "y")])
END
