"""`preferable up` as a person starts it: a real process with real children, stopped and killed in every way."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import httpx
import psutil
import psycopg
import pytest

from app import embedded
from app.processes import Identity
from app.settings import child_environment

START_SECONDS, STOP_SECONDS = 60.0, 40.0


@dataclass
class Running:
    """A started supervisor and the lines it printed."""

    process: subprocess.Popen[str]
    home: Path
    lines: list[str]

    @property
    def link(self) -> str:
        return self.lines[-1]

    @property
    def url(self) -> str:
        return (self.home / "run" / "url").read_text()

    def status(self) -> dict:
        return json.loads((self.home / "run" / "status.json").read_text())

    def identities(self) -> dict[str, Identity]:
        return {name: Identity(entry["pid"], entry["started"]) for name, entry in self.status()["processes"].items()}


Start = Callable[..., Running]


def launch(home: Path, *arguments: str, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "workers.cli", "up", "--port", "0", *(arguments or ("--no-workers",))],
        env=child_environment(PREFERABLE_HOME=str(home), **environment),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@contextlib.contextmanager
def starter(home: Path) -> Iterator[Start]:
    """Starts supervisors on `home`, each time waiting for the last line, and stops those that still run at the end."""
    started = []

    def run(*arguments: str, **environment: str) -> Running:
        process = launch(home, *arguments, **environment)
        started.append(process)
        lines = []
        for line in process.stdout:
            lines.append(line.strip())
            if "/enter/" in line:
                return Running(process, home, lines)
        raise AssertionError(process.stderr.read())

    yield run
    for process in started:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
        process.stdout.close()
        process.stderr.close()


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts a supervisor of the test's own."""
    with starter(tmp_path / "home") as run:
        yield run


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """One supervisor for the tests that leave it as they found it."""
    with starter(tmp_path_factory.mktemp("shared") / "home") as run:
        yield run()


@pytest.fixture
def running(shared: Running) -> Iterator[Running]:
    """The shared supervisor, healthy before and after."""
    assert wait_for(lambda: is_healthy(shared.url))
    yield shared
    assert wait_for(lambda: is_healthy(shared.url))
    assert shared.process.poll() is None


def wait_for(condition: Callable[[], bool], seconds: float = 20.0) -> bool:
    give_up = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > give_up:
            return False
        time.sleep(0.05)
    return True


def refused(process: subprocess.Popen[str]) -> str:
    """The one sentence with which a start was refused."""
    output, error = process.communicate(timeout=START_SECONDS)
    assert (process.returncode, output, error.count("\n")) == (1, "", 1), (process.returncode, output, error)
    return error.strip()


def count_owners(home: Path) -> int:
    with embedded.running_postgres(home) as url, psycopg.connect(url) as connection:
        return connection.execute("SELECT count(*) FROM users WHERE is_owner").fetchone()[0]


class TestStart:
    def test_ends_with_a_link_that_works_and_serves_pages(self, running: Running) -> None:
        assert running.link.startswith(f"{running.url}/enter/")
        assert httpx.get(f"{running.url}/healthz").status_code == 200
        assert httpx.get(running.link).status_code == 200
        assert running.status()["state"] == "running"

    def test_every_child_has_a_session_of_its_own(self, running: Running) -> None:
        identities = running.identities()
        assert set(identities) == {"postgres", "valkey", "web"}
        assert all(os.getsid(identity.pid) == identity.pid for identity in identities.values())

    def test_prints_another_link_while_it_runs(self, running: Running) -> None:
        printed = subprocess.run(
            [sys.executable, "-m", "workers.cli", "login"],
            env=child_environment(PREFERABLE_HOME=str(running.home)),
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
        assert printed.startswith(f"{running.url}/enter/")
        assert printed != running.link

    def test_uses_the_servers_it_is_given(self, start: Start, database_url: str, redis_url: str) -> None:
        running = start(DATABASE_URL=database_url, REDIS_URL=redis_url)
        assert set(running.identities()) == {"web"}
        assert not (running.home / "postgres").exists()
        assert not (running.home / "valkey").exists()
        with psycopg.connect(database_url) as connection:
            assert connection.execute("SELECT count(*) FROM users WHERE is_owner").fetchone() == (1,)


class TestStop:
    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
    def test_a_signal_stops_everything(self, start: Start, number: signal.Signals) -> None:
        running = start()
        identities, url = running.identities(), running.url
        running.process.send_signal(number)
        assert running.process.wait(STOP_SECONDS) == 0
        assert not [name for name, identity in identities.items() if identity.is_alive()]
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"{url}/healthz")
        assert sorted(path.name for path in (running.home / "run").iterdir()) == ["lock"]
        assert "database system is shut down" in (running.home / "log" / "postgres.log").read_text()

    def test_a_signal_during_the_start_leaves_nothing(self, tmp_path: Path) -> None:
        process = launch(tmp_path / "home")
        assert process.stdout.readline().startswith("Data in")
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=STOP_SECONDS)
        assert process.returncode == 0
        assert not processes_of(tmp_path / "home")


class TestKill:
    def test_children_die_with_a_killed_parent_and_a_new_start_recovers(self, start: Start) -> None:
        running = start()
        identities = running.identities()
        running.process.kill()
        running.process.wait()
        assert wait_for(lambda: not any(identity.is_alive() for identity in identities.values()))
        again = start()
        assert httpx.get(f"{again.url}/healthz").status_code == 200
        assert count_owners(again.home) == 1

    def test_a_start_ends_children_that_outlived_their_parent(self, start: Start) -> None:
        """A frozen child does not hear the signal that it gets when its parent dies."""
        running = start()
        web = running.identities()["web"]
        os.kill(web.pid, signal.SIGSTOP)
        running.process.kill()
        running.process.wait()
        assert web.is_alive()
        again = start()
        assert not web.is_alive()
        assert again.identities()["web"] != web

    def test_ends_when_the_process_that_started_it_is_killed(self, tmp_path: Path) -> None:
        script = "import subprocess, sys; subprocess.run([sys.executable, '-m', 'workers.cli', 'up', *sys.argv[1:]])"
        options = ("--no-workers", "--port", "0", "--follow-parent")
        with subprocess.Popen(
            [sys.executable, "-c", script, *options],
            env=child_environment(PREFERABLE_HOME=str(tmp_path / "home")),
            stdout=subprocess.PIPE,
            text=True,
        ) as make:
            assert any("/enter/" in line for line in make.stdout)
            make.kill()
        assert wait_for(lambda: not processes_of(tmp_path / "home"))

    @pytest.mark.parametrize("name", ["web", "postgres", "valkey"])
    def test_a_killed_child_starts_again(self, running: Running, name: str) -> None:
        killed = running.identities()[name]
        os.kill(killed.pid, signal.SIGKILL)
        assert wait_for(lambda: running.status()["processes"][name]["pid"] not in (None, killed.pid))

    def test_people_wait_while_a_killed_web_process_starts_again(self, running: Running) -> None:
        os.kill(running.identities()["web"].pid, signal.SIGKILL)
        assert httpx.get(f"{running.url}/healthz", timeout=20.0).status_code == 200

    def test_a_stranger_with_a_noted_number_is_left_alone(self, start: Start, tmp_path: Path) -> None:
        with subprocess.Popen(["sleep", "60"], start_new_session=True) as stranger:
            entry = {"pid": stranger.pid, "started": psutil.Process(stranger.pid).create_time() - 3600}
            (tmp_path / "home" / "run").mkdir(parents=True)
            (tmp_path / "home" / "run" / "status.json").write_text(json.dumps({"processes": {"web": entry}}))
            start()
            assert stranger.poll() is None
            stranger.kill()


class TestWorkers:
    NAMES: ClassVar = {"worker-cpu", "worker-sample", "worker-train", "beat"}

    @pytest.mark.timeout(400)
    def test_run_quietly_start_again_and_stop_with_the_rest(self, start: Start) -> None:
        running = start("--workers")
        assert set(running.identities()) == {"postgres", "valkey", "web"} | self.NAMES
        trainer = psutil.Process(running.identities()["worker-train"].pid)
        assert wait_for(lambda: trainer.nice() == 10)
        assert wait_for(lambda: trainer.environ().get("OMP_WAIT_POLICY") == "passive")  # it is nice before it is itself
        assert wait_for(lambda: "ready" in self.log(running, "worker-cpu"), 120)
        assert wait_for(lambda: "ready" in self.log(running, "worker-sample"), 120)

        killed = running.identities()["worker-sample"]
        os.kill(killed.pid, signal.SIGKILL)
        assert wait_for(lambda: running.status()["processes"]["worker-sample"]["pid"] not in (None, killed.pid))

        running.process.send_signal(signal.SIGTERM)
        assert running.process.wait(90) == 0
        assert wait_for(lambda: not processes_of(running.home), 10), processes_of(running.home)

    @pytest.mark.timeout(400)
    def test_die_with_a_killed_parent(self, start: Start) -> None:
        running = start("--workers")
        assert wait_for(lambda: "ready" in self.log(running, "worker-cpu"), 120)
        running.process.kill()
        assert wait_for(lambda: not processes_of(running.home), 40), processes_of(running.home)

    @staticmethod
    def log(running: Running, name: str) -> str:
        return (running.home / "log" / f"{name}.log").read_text()


class TestRefusal:
    def test_of_a_taken_port(self, tmp_path: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            message = refused(launch(tmp_path / "home", "--no-workers", "--port", str(port)))
        assert message.startswith(f"Port {port} on 127.0.0.1 is taken: choose another")
        assert not (tmp_path / "home" / "postgres").exists()

    def test_of_a_second_start_on_the_same_folder(self, running: Running) -> None:
        message = refused(launch(running.home))
        assert message == (
            f"Preferable already runs on {running.home} (process {running.process.pid}): "
            "stop it first, or choose another PREFERABLE_HOME."
        )
        assert httpx.get(f"{running.url}/healthz").status_code == 200

    def test_of_a_folder_that_cannot_be_written(self) -> None:
        message = refused(launch(Path("/proc/preferable")))
        assert message.startswith("Cannot write to the data folder /proc/preferable (")

    def test_of_data_of_a_newer_version(self, tmp_path: Path) -> None:
        (tmp_path / "home").mkdir()
        (tmp_path / "home" / "version").write_text("99.0\n")
        assert "was written by Preferable 99.0" in refused(launch(tmp_path / "home"))
        assert not (tmp_path / "home" / "postgres").exists()

    def test_of_a_database_that_does_not_answer(self, tmp_path: Path) -> None:
        message = refused(launch(tmp_path / "home", DATABASE_URL="postgresql://nobody:secret@127.0.0.1:1/none"))
        assert message.startswith("The database of DATABASE_URL does not let us in: connection")
        assert "secret" not in message
        assert not processes_of(tmp_path / "home")


def is_healthy(url: str) -> bool:
    with contextlib.suppress(httpx.HTTPError):
        return httpx.get(f"{url}/healthz", timeout=5.0).status_code == 200
    return False


def processes_of(home: Path) -> list[psutil.Process]:
    """Processes whose environment names `home`."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.environ().get("PREFERABLE_HOME") == str(home):
                found.append(process)
    return found
