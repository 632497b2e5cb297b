#!/bin/sh
# redis-py 8.1.0: a RedisCluster none of whose nodes can be reached raises an exception that is no
# redis.RedisError, so that `except redis.RedisError`, which catches every fault of redis.Redis, lets
# it through.
#
# Expected: the same family of errors as from redis.Redis at the same address.
# Seen:
#   Redis:        ConnectionError, a RedisError: True
#   RedisCluster: RedisClusterException, a RedisError: False
# Source: redis/exceptions.py, `class RedisClusterException(Exception)`; redis/cluster.py raises it in
# NodesManager.initialize ("Redis Cluster cannot be connected"). 5.3.1 does the same.
#
# Exits 1 if that changes, 2 if the package could not be installed.
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check redis==8.1.0 || exit 2
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
import socket
import sys

import redis
from redis.cluster import RedisCluster

with socket.socket() as free:
    free.bind(("127.0.0.1", 0))
    port = free.getsockname()[1]


def fault(act):
    try:
        act()
    except Exception as error:
        return error


plain = fault(lambda: redis.Redis(port=port, retry=None).ping())
cluster = fault(lambda: RedisCluster(host="127.0.0.1", port=port))
for name, error in (("Redis", plain), ("RedisCluster", cluster)):
    print(f"{name}: {type(error).__name__}, a RedisError: {isinstance(error, redis.RedisError)}")
as_seen = isinstance(plain, redis.RedisError) and not isinstance(cluster, redis.RedisError)
sys.exit(0 if as_seen and type(cluster).__name__ == "RedisClusterException" else 1)
PYTHON
