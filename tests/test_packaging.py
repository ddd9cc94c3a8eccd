"""What is handed to people beside the code: a wheel that runs anywhere, compose, Dockerfile, Makefile."""

import os
import re
import signal
import subprocess
import sys
import tomllib
import venv
import zipfile
from itertools import chain
from pathlib import Path

import httpx
import pytest
import yaml

from app.settings import Settings, child_environment

ROOT = Path(__file__).parent.parent
SERVICES = {"caddy", "postgres", "redis", "migrate", "web", "beat", "worker-cpu", "worker-sample", "worker-train"}
GPU_SERVICES = {"worker-gpu", "worker-gpu-sample"}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(folder), str(ROOT))
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def compose() -> dict:
    return yaml.safe_load((ROOT / "docker-compose.yml").read_text())


def run(*command: str, **options) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, check=True, text=True, **options)


class TestWheel:
    def test_holds_code_and_resources_and_nothing_else(self, wheel: Path) -> None:
        names = set(zipfile.ZipFile(wheel).namelist())
        assert {name.split("/")[0] for name in names} == {"app", "workers", "preferable-0.1.0.dist-info"}
        assert "app/_resources/constraints.txt" in names
        tracked = run(
            "git", "ls-files", "templates", "static", "migrations", cwd=ROOT, capture_output=True
        ).stdout.split()
        assert {f"app/_resources/{name}" for name in tracked} <= names
        assert not [name for name in names if name.endswith((".pyc", ".log"))]

    @pytest.mark.timeout(600)
    def test_runs_in_an_empty_environment_outside_the_clone(self, wheel: Path, tmp_path: Path) -> None:
        venv.create(tmp_path / "env", with_pip=True)
        programs = tmp_path / "env" / "bin"
        constraints = ["--constraint", str(ROOT / "constraints.txt")]
        run(str(programs / "pip"), "install", "--quiet", "--no-compile", *constraints, str(wheel))
        environment = child_environment(PREFERABLE_HOME=str(tmp_path / "home"))
        process = subprocess.Popen(
            [str(programs / "preferable"), "up", "--no-workers", "--port", "0"],
            env=environment,
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            link = next(line.strip() for line in process.stdout if "/enter/" in line)
            page = httpx.get(link)
            assert page.status_code == 200
            styles = re.findall(r'href="(/static/css/[^"]+)"', page.text)
            assert styles
            assert all(httpx.get(httpx.URL(link).join(style)).status_code == 200 for style in styles)
        finally:
            process.send_signal(signal.SIGTERM)
            process.stdout.read()
            assert process.wait(60) == 0


class TestCompose:
    def test_names_its_parts(self, compose: dict) -> None:
        profiles = {name: service.get("profiles", []) for name, service in compose["services"].items()}
        assert set(profiles) == SERVICES | GPU_SERVICES
        assert {name for name, chosen in profiles.items() if "gpu" in chosen} == GPU_SERVICES

    def test_looks_after_the_health_of_everything_that_stays(self, compose: dict) -> None:
        staying = {name: service for name, service in compose["services"].items() if name != "migrate"}
        assert [name for name, service in staying.items() if "healthcheck" not in service] == []

    def test_starts_the_project_only_on_a_migrated_database(self, compose: dict) -> None:
        ours = [service for service in compose["services"].values() if service["image"].startswith("preferable/")]
        waiting = [
            service["depends_on"]["migrate"]["condition"] for service in ours if "migrate" in service["depends_on"]
        ]
        assert waiting == ["service_completed_successfully"] * (len(ours) - 1)

    def test_holds_no_secret_and_refuses_to_start_without_one(self, compose: dict) -> None:
        text = (ROOT / "docker-compose.yml").read_text()
        for name in ("POSTGRES_PASSWORD", "REDIS_PASSWORD", "PREFERABLE_SECRET_KEY", "SITE_ADDRESS"):
            uses = re.findall(rf"\$\{{{name}[^}}]*\}}", text)
            assert uses
            assert all(use.startswith(f"${{{name}:?") for use in uses)

    def test_uses_settings_that_exist(self, compose: dict) -> None:
        known = {f"PREFERABLE_{name.upper()}" for name in Settings.model_fields} | {"DATABASE_URL", "REDIS_URL"}
        assert set(compose["services"]["web"]["environment"]) <= known

    def test_declares_every_volume_and_every_file_it_mounts(self, compose: dict) -> None:
        mounts = [
            mount.split(":")[0] for service in compose["services"].values() for mount in service.get("volumes", [])
        ]
        assert {mount for mount in mounts if not mount.startswith(".")} == set(compose["volumes"])
        assert all((ROOT / mount).exists() for mount in mounts if mount.startswith("."))


class TestDockerfile:
    def test_copies_what_exists_and_what_the_context_lets_through(self) -> None:
        lines = re.findall(r"^COPY (.+) \S+$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
        copied = {name for line in lines for name in line.split()}
        let_through = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
        assert copied == let_through
        assert all((ROOT / name).exists() for name in copied)

    def test_does_not_run_as_root(self) -> None:
        users = re.findall(r"^USER (\S+)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
        assert users[-1] == "preferable"


class TestConstraints:
    def test_name_every_requirement_with_one_exact_version(self) -> None:
        lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
        assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.]+", line) for line in lines)
        project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
        wanted = [*project["dependencies"], *chain.from_iterable(project["optional-dependencies"].values())]
        pinned = {line.split("==")[0] for line in lines}
        assert {re.split(r"[\[<>=!~; ]", requirement)[0].lower() for requirement in wanted} <= pinned


class TestMakefile:
    def test_help_names_every_target(self) -> None:
        shown = run("make", "--no-print-directory", "help", cwd=ROOT, capture_output=True).stdout
        assert {line.split()[1] for line in shown.splitlines()} == {"help", "run", "test", "test-slow"}

    def test_says_so_where_python_is_too_old(self, tmp_path: Path) -> None:
        """A program that runs our check under a version of the past stands in for an old Python."""
        old = tmp_path / "python3"
        check = "import sys; sys.version_info = (3, 9, 2); sys.version = '3.9.2 (old)'; exec(sys.argv[1])"
        old.write_text(f'#!/bin/sh\nexec {sys.executable} -c "{check}" "$2"\n')
        old.chmod(0o755)
        for name in ("Makefile", "pyproject.toml", "constraints.txt"):
            (tmp_path / name).write_bytes((ROOT / name).read_bytes())
        made = subprocess.run(
            ["make", "run", f"PYTHON={old}"], cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert made.returncode != 0
        assert made.stderr.startswith("Python 3.11 or newer is needed and this is 3.9.2:")
        assert not (tmp_path / ".venv").exists()


def test_ci_runs_the_suite() -> None:
    assert os.access(ROOT / ".ci" / "run", os.X_OK)
    assert "make --no-print-directory test" in (ROOT / ".ci" / "run").read_text()
