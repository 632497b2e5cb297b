"""Processes that start in no time: forks of one interpreter, which has imported the package."""

from __future__ import annotations

import atexit
import functools
import multiprocessing
import os
import runpy
import socket
import sys
import tempfile
from pathlib import Path
from typing import Any, NoReturn

from servers import eventually

_METHODS = multiprocessing.get_all_start_methods()
_PRELOADED = [
    "flask.cli",
    "flask_bitmapist.analytics",
    "flask_bitmapist.cli.reports",
    "flask_bitmapist.delivery",
    "flask_bitmapist.maintenance.backfill",
    "flask_sqlalchemy",
    "pytest",
]

#: As the module `multiprocessing`. Unlike a fork of pytest, its processes inherit no threads.
WARM: Any = multiprocessing.get_context("forkserver" if "forkserver" in _METHODS else "spawn")
WARM.set_forkserver_preload(_PRELOADED)

_PROGRAM = """#!{python} -IS
import os, socket, sys
with socket.socket(socket.AF_UNIX) as server:
    server.connect({address!r})
    socket.send_fds(server, [b"."], [0, 1, 2])
    environment = [name + "=" + value for name, value in os.environ.items()]
    told = [str(len(sys.argv)), os.getcwd(), *sys.argv, *environment]
    server.sendall(os.fsencode("\\0".join(told)))
    server.shutdown(socket.SHUT_WR)
    sys.exit(int(server.recv(8) or 1))
"""


@functools.cache
def python() -> str:
    """The path of a program that does what ``python -c`` and ``python -m`` do, only sooner.

    For tests of what a command does, and not of what it imports.
    """
    folder = tempfile.TemporaryDirectory(prefix="python-")
    address = f"{folder.name}/socket"
    server = WARM.Process(target=_serve, args=(address,), daemon=True)
    server.start()
    for end in (folder.cleanup, server.join, server.kill):  # the last one comes first
        atexit.register(end)
    eventually(Path(address).exists)
    program = Path(folder.name, "python")
    program.write_text(_PROGRAM.format(python=sys.executable, address=address))
    program.chmod(0o700)
    return str(program)


def _serve(address: str) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(f"{address}.new")
        server.listen(64)
        Path(f"{address}.new").rename(address)
        while True:
            caller, _ = server.accept()
            if os.fork():
                caller.close()
                _reap()
            else:
                server.close()
                _answer(caller)


def _reap() -> None:
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass


def _answer(caller: socket.socket) -> NoReturn:
    """Run what `caller` asks for in a process of its own, and tell it how that ended."""
    files = socket.recv_fds(caller, 1, 3)[1]
    told = b"".join(iter(lambda: caller.recv(65_536), b"")).decode(errors="surrogateescape")
    program = os.fork()
    if not program:
        caller.close()
        _run(files, told.split("\0"))
    caller.sendall(str(os.waitstatus_to_exitcode(os.waitpid(program, 0)[1]) & 0xFF).encode())
    os._exit(0)


def _run(files: list[int], told: list[str]) -> NoReturn:
    words = 2 + int(told[0])
    os.chdir(told[1])
    sys.argv = told[3:words]
    os.environ.clear()
    for each in told[words:]:
        name, _, value = each.partition("=")
        os.environ[name] = value
    for number, (file, mode) in enumerate(zip(files, "rww", strict=True)):
        os.dup2(file, number)
        os.close(file)
        stream = open(number, mode, buffering=1 if os.isatty(number) else -1, closefd=False)  # noqa: SIM115
        setattr(sys, ("stdin", "stdout", "stderr")[number], stream)
    sys.path[:0] = [told[1], *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    status = 0
    try:
        kind, what = sys.argv[:2]
        sys.argv[:2] = [kind]
        if kind == "-m":
            runpy.run_module(what, run_name="__main__", alter_sys=True)
        else:
            exec(what, {"__name__": "__main__"})
    except SystemExit as ended:
        status = ended.code if isinstance(ended.code, int) else bool(ended.code)
    except BaseException:
        sys.excepthook(*sys.exc_info())
        status = 1
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)
