#!/bin/sh
# uWSGI 2.0.31 (Python 3.11): the workers that its master forks do not run Python's fork hooks, not
# even with --enable-threads. A library that the master has imported is never told that it is in a
# child now: its locks may stay held, and it shares its parent's connections and files.
#
# Expected: functions given to `os.register_at_fork(after_in_child=...)` run in each worker, as under
# gunicorn --preload.
# Seen, in a worker:
#   uwsgi                        a child: True, told so: False
#   uwsgi --enable-threads       a child: True, told so: False
#   uwsgi --py-call-osafterfork  a child: True, told so: True
# Source: plugins/python/python_plugin.c, uwsgi_python_post_fork calls PyOS_AfterFork_Child() only
# with --py-call-osafterfork, whose help is "enable child processes running cpython to trap OS
# signals".
#
# Exits 1 if that changes, 2 if the package could not be installed (it needs a C compiler).
set -eu
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" --quiet install uWSGI==2.0.31 || exit 2
cat >"$folder/app.py" <<'PYTHON'
import os

told = []
os.register_at_fork(after_in_child=lambda: told.append(os.getpid()))
parent = os.getpid()


def application(environ, start_response):
    start_response("200 OK", [])
    own = os.getpid()
    return [f"a child: {own != parent}, told so: {own in told}".encode()]
PYTHON
cat >"$folder/ask.py" <<'PYTHON'
import http.client
import socket
import subprocess
import sys
import time

uwsgi, app = sys.argv[1:]
EXPECTED = {
    "": "a child: True, told so: False",
    "--enable-threads": "a child: True, told so: False",
    "--py-call-osafterfork": "a child: True, told so: True",
}


def answer(option):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [uwsgi, f"--http-socket=127.0.0.1:{port}", f"--wsgi-file={app}", "--master"]
    command += ["--processes=1", "--need-app", "--die-on-term", *([option] if option else [])]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as server:
        try:
            for _ in range(100):
                try:
                    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
                    connection.request("GET", "/")
                    return connection.getresponse().read().decode()
                except OSError:
                    time.sleep(0.1)
        finally:
            server.terminate()


as_seen = True
for option, expected in EXPECTED.items():
    told = answer(option)
    print(f"uwsgi {option:22} {told}")
    as_seen &= told == expected
sys.exit(0 if as_seen else 1)
PYTHON
"$folder/venv/bin/python" "$folder/ask.py" "$folder/venv/bin/uwsgi" "$folder/app.py"
