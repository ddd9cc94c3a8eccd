"""Models' files as they come over HTTP, and the commands that use them."""

import io
import threading
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from app.snapshot import folder_sha256
from workers.simulate.browser import Browser
from workers.simulate.models import ModelError, fetch, run_command
from workers.simulate.page import PageError


class Store(BaseHTTPRequestHandler):
    """Serves one small model as a ZIP with a top folder, and nothing else."""

    def do_GET(self) -> None:
        if not self.path.endswith("/files.zip"):
            self.send_error(404, "no such page")
            return
        content = io.BytesIO()
        with zipfile.ZipFile(content, "w") as archive:
            archive.writestr("p-1/config.json", "{}")
            archive.writestr("p-1/model.safetensors", "weights")
        self.send_response(200)
        self.end_headers()
        self.wfile.write(content.getvalue())

    def log_message(self, format: str, *args: object) -> None:
        """Nothing."""


@pytest.fixture
def browser() -> Iterator[Browser]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Store) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with Browser(f"http://127.0.0.1:{server.server_address[1]}") as browser:
            yield browser
        server.shutdown()


class TestFetch:
    def test_unpacks_a_model_and_checks_its_identity(self, browser: Browser, tmp_path: Path) -> None:
        (tmp_path / "same").mkdir()
        (tmp_path / "same" / "config.json").write_text("{}")
        (tmp_path / "same" / "model.safetensors").write_text("weights")
        identity = folder_sha256(tmp_path / "same")
        assert folder_sha256(fetch(browser, "/checkpoints/1", tmp_path / "model", identity)) == identity

    def test_refuses_files_of_another_identity(self, browser: Browser, tmp_path: Path) -> None:
        with pytest.raises(ModelError, match="its page says 0000"):
            fetch(browser, "/checkpoints/1", tmp_path / "model", "0" * 64)


class TestBrowser:
    def test_raises_what_an_error_page_says(self, browser: Browser) -> None:
        with pytest.raises(PageError, match=r"GET .*/gone answered 404: .*no such page"):
            browser.open("/gone")


class TestRunCommand:
    def test_tells_the_last_words_of_a_command_that_fails(self, tmp_path: Path) -> None:
        options = {"--model": tmp_path, "--data": tmp_path / "none.jsonl", "--out": tmp_path / "out.jsonl"}
        with pytest.raises(ModelError, match="`preferable score` ended with code 1: "):
            run_command("score", options)
