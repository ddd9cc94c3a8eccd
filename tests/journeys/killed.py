"""Requests in web processes of their own, each killed before a statement of our choice. Forked off one that has all imported."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass

_OURS = ("DATABASE_URL", "REDIS_URL", "PREFERABLE_HOME")


@dataclass(frozen=True)
class Sent:
    """A form, and the person who sends it."""

    path: str
    fields: Mapping[str, str]
    cookie: str


@dataclass(frozen=True)
class Mortals:
    """Makes the processes."""

    parent: subprocess.Popen[str]

    def send(self, sent: Sent, *, die_before: int = 0) -> int | None:
        """Send the form to a new process that kills itself before its `die_before`th statement; the status, None if it died.

        A commit counts twice: before it is sent, and after it is durable. 0 kills nothing.
        """
        assert self.parent.stdin is not None
        assert self.parent.stdout is not None
        environment = {name: os.environ[name] for name in _OURS}
        order = {"environment": environment, "sent": asdict(sent), "die_before": die_before}
        self.parent.stdin.write(json.dumps(order) + "\n")
        self.parent.stdin.flush()
        status = json.loads(self.parent.stdout.readline())
        return None if status == -signal.SIGKILL else int(status)


@contextmanager
def mortals() -> Iterator[Mortals]:
    """The process that is forked, until the block ends."""
    command = [sys.executable, "-m", "tests.journeys.killed"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as parent:
        yield Mortals(parent)
        assert parent.stdin is not None
        parent.stdin.close()


def _serve(order: Mapping[str, object], answers: int) -> None:
    """In the child: answer one request, or die."""
    from fastapi.testclient import TestClient
    from sqlalchemy import Engine, event
    from sqlalchemy.orm import Session

    from app.main import create_app

    count = 0

    def step(*_: object) -> None:
        nonlocal count
        count += 1
        if count == order["die_before"]:
            os.kill(os.getpid(), signal.SIGKILL)

    event.listen(Engine, "before_cursor_execute", step)
    event.listen(Engine, "commit", step)
    event.listen(Session, "after_commit", step)
    os.environ.update(order["environment"])  # type: ignore[call-overload]
    sent = Sent(**order["sent"])  # type: ignore[arg-type]
    client = TestClient(create_app(), follow_redirects=False)
    answer = client.post(sent.path, data=dict(sent.fields), headers={"Cookie": sent.cookie})
    os.write(answers, str(answer.status_code).encode())


def _main() -> None:
    import fastapi.testclient

    import app.main  # noqa: F401

    assert fastapi.testclient
    for line in sys.stdin:
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            _serve(json.loads(line), writing)
            os._exit(0)
        os.close(writing)
        _, status = os.waitpid(child, 0)
        with os.fdopen(reading, "rb") as answers:
            said = answers.read()
        sys.stdout.write(f"{-signal.SIGKILL if os.WIFSIGNALED(status) else int(said or 500)}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    _main()
