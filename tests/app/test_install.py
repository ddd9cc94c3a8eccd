"""The installation of the worker half: what pip is asked, how its words become progress, a real run of it."""

import json
import subprocess
import sys
import textwrap
import venv
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from app import install
from app.install import Progress
from app.settings import Settings, child_environment

TRANSCRIPT = """\
Looking in indexes: https://index.example/simple
Collecting torch==2.13.*
  Downloading torch-2.13.0-cp311-cp311-manylinux_2_28_x86_64.whl.metadata (29 kB)
Collecting markdown-it-py<5
  Downloading torch-2.13.0-cp311-cp311-manylinux_2_28_x86_64.whl (192.0 MB)
Installing collected packages: mpmath, markdown-it-py, torch
Successfully installed markdown-it-py-4.3.0 mpmath-1.3.0 torch-2.13.0
"""


def settings(home: Path, torch: str = "") -> Settings:
    return Settings(home=home).model_copy(update={"torch": torch})


class TestReadLine:
    def test_follows_pip_from_looking_up_to_installing(self) -> None:
        progress, seen = Progress(), []
        for line in TRANSCRIPT.splitlines():
            progress = install.read_line(progress, line)
            seen.append((progress.state, progress.package, progress.message))
        assert seen == [
            ("pending", "", ""),
            ("downloading", "torch", "Looking up torch"),
            ("downloading", "torch", "Looking up torch"),
            ("downloading", "markdown-it-py", "Looking up markdown-it-py"),
            ("downloading", "torch", "Downloading torch (192.0 MB)"),
            ("installing", "", "Installing 3 packages"),
            ("installing", "", "Installing 3 packages"),
        ]

    def test_keeps_the_reason_of_a_failure(self) -> None:
        line = "ERROR: Could not find a version that satisfies the requirement torch==2.13.*"
        assert install.read_line(Progress("downloading"), line).message == line.removeprefix("ERROR: ")


class TestMeasure:
    def test_counts_the_bytes_of_a_download_on_the_disk(self, tmp_path: Path) -> None:
        (tmp_path / "pip-unpack-x").mkdir()
        (tmp_path / "pip-unpack-x" / "torch-2.13.0.whl").write_bytes(bytes(250))
        progress = Progress("downloading", file="torch-2.13.0.whl", size_bytes=1000)
        assert install.measure(progress, tmp_path, tmp_path).percent == 25
        assert install.measure(replace(progress, file="other.whl"), tmp_path, tmp_path).percent == 0

    def test_counts_the_packages_that_are_in_place(self, tmp_path: Path) -> None:
        for name in ("markdown_it_py-4.3.0", "mpmath-1.3.0", "other-1"):
            (tmp_path / f"{name}.dist-info").mkdir()
        progress = Progress("installing", packages=("mpmath", "markdown-it-py", "torch", "PyYAML"))
        assert install.measure(progress, tmp_path, tmp_path).percent == 50


class TestCommands:
    def test_ask_for_the_worker_extra_under_the_constraints(self, tmp_path: Path) -> None:
        (command,) = install.commands(settings(tmp_path))
        names = {requirement.split("=")[0].split("<")[0].split(">")[0] for requirement in install.requirements()}
        assert names == {"numpy", "peft", "pyarrow", "safetensors", "torch", "transformers"}
        assert command[-len(names) :] == install.requirements()
        assert Path(command[command.index("--constraint") + 1]).read_text().count("torch==") == 1

    @pytest.mark.parametrize("build", ["cpu", "cuda"])
    def test_a_chosen_build_comes_alone_from_its_index(self, tmp_path: Path, build: str) -> None:
        first, second = install.commands(settings(tmp_path, build))
        assert first[first.index("--extra-index-url") + 1] == install._TORCH_INDEX[build]
        assert [part for part in first if part in install.requirements()] == ["torch==2.13.*"]
        assert "--extra-index-url" not in second


class TestInstall:
    """A real pip in a real environment, with small packages of this test's own in the place of torch."""

    def test_installs_and_tells_how_far_it_is(self, tmp_path: Path) -> None:
        python, home = environment(tmp_path), tmp_path / "home"
        for name in ("first_part", "second_part"):
            make_wheel(tmp_path / "index", name)
        run(python, home, ["first-part", "second-part"], tmp_path / "index")
        assert install.read_progress(home).state == "done"
        assert subprocess.run([python, "-c", "import first_part, second_part"], check=False).returncode == 0
        assert not (home / "run" / "pip").exists()

    def test_tells_why_it_failed(self, tmp_path: Path) -> None:
        python, home = environment(tmp_path), tmp_path / "home"
        (tmp_path / "index").mkdir()
        result = run(python, home, ["no-such-part"], tmp_path / "index")
        progress = install.read_progress(home)
        assert (result.returncode, progress.state) == (1, "failed")
        assert "No matching distribution found for no-such-part" in progress.message

    def test_begins_as_pending(self, tmp_path: Path) -> None:
        assert install.read_progress(tmp_path) == Progress()


def environment(folder: Path) -> str:
    """An environment with pip that also sees our packages; returns its interpreter."""
    venv.create(folder / "env", with_pip=True)
    (folder / "home" / "run").mkdir(parents=True)
    (folder / "home" / "log").mkdir()
    (site,) = (folder / "env" / "lib").glob("python*/site-packages")
    (site / "ours.pth").write_text("\n".join(path for path in sys.path if path))
    return str(folder / "env" / "bin" / "python")


def make_wheel(index: Path, name: str) -> None:
    index.mkdir(exist_ok=True)
    with zipfile.ZipFile(index / f"{name}-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr(f"{name}.py", "")
        wheel.writestr(f"{name}-1.0.dist-info/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        wheel.writestr(f"{name}-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{name}-1.0.dist-info/RECORD", "")


def run(python: str, home: Path, wanted: list[str], index: Path) -> subprocess.CompletedProcess[str]:
    script = textwrap.dedent(f"""
        from app import install
        install.requirements = lambda: {json.dumps(wanted)}
        install.main()
    """)
    offline = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(index), "PIP_CONFIG_FILE": "/dev/null"}
    return subprocess.run(
        [python, "-c", script],
        env=child_environment(PREFERABLE_HOME=str(home), **offline),
        capture_output=True,
        text=True,
        check=False,
    )
