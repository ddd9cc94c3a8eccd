"""Chromium for the browser tests. `python -m tests.chromium` puts one on this machine if there is none, or says what to do."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Browser, sync_playwright

_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
_MISSING = (
    "The browser tests need Chromium and there is none: install the package `chromium` of your system, "
    "or run `.venv/bin/python -m playwright install chromium`."
)


def find() -> str | None:
    """Path of a Chromium on this machine: the system's, or one that playwright fetched."""
    for name in _NAMES:
        if path := shutil.which(name):
            return path
    with sync_playwright() as playwright:
        path = playwright.chromium.executable_path
    return path if Path(path).exists() else None


def ensure() -> str:
    """Path of a Chromium, installed first if need be: by apt as root, else into playwright's own folder."""
    if path := find():
        return path
    if os.geteuid() == 0 and shutil.which("apt-get"):
        quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        for command in (
            ["apt-get", "update", "-qq"],
            ["apt-get", "install", "-qq", "--no-install-recommends", "chromium"],
        ):
            subprocess.run(command, env=quiet, check=False, stdout=subprocess.DEVNULL)
    else:
        subprocess.run([sys.executable, "-m", "playwright", "install", "chromium"], check=False)
    if path := find():
        return path
    raise SystemExit(_MISSING)


@contextmanager
def start_browser() -> Iterator[Browser]:
    """A headless Chromium; raises RuntimeError with the mend where there is none."""
    path = find()
    if path is None:
        raise RuntimeError(_MISSING)
    with sync_playwright() as playwright:
        sandbox = [] if os.geteuid() else ["--no-sandbox"]  # Chromium refuses its sandbox to root
        browser = playwright.chromium.launch(executable_path=path, args=[*sandbox, "--disable-dev-shm-usage"])
        yield browser
        browser.close()


if __name__ == "__main__":
    ensure()
