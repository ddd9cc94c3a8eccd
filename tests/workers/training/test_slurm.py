"""`preferable train --slurm`: by submitit's executor for one machine, and by scripts in the place of Slurm's commands."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import submitit
from submitit.slurm.slurm import SlurmJobEnvironment
from typer.testing import CliRunner

from tests.workers.training.factories import events, make_base, write_demonstrations
from workers import cli
from workers.training import slurm
from workers.training.events import CANCELLED

SBATCH = """#!/bin/bash
export SLURM_JOB_NODELIST=localhost SLURM_JOB_NUM_NODES=$(sed -n 's/^#SBATCH --nodes=//p' "$1")
export SLURM_NTASKS=$SLURM_JOB_NUM_NODES
setsid bash -c 'SLURM_JOB_ID=$$ exec bash "$0"' "$1" > /dev/null 2>&1 &
echo "$!" >> "${0%/*}/jobs"
echo "Submitted batch job $!"
"""
SRUN = """#!/bin/bash
while [[ $1 == -* ]]; do
  case $1 in --output | --error) export "${1#--}=$2"; shift;; esac
  shift
done
for ((node = 0; node < SLURM_NTASKS; node++)); do
  name() { local path=${1//%j/$SLURM_JOB_ID}; echo "${path//%t/$node}"; }
  SLURM_PROCID=$node SLURM_NODEID=$node "$@" > "$(name "$output")" 2> "$(name "$error")" &
done
wait
"""
SCANCEL = """#!/bin/bash
pkill -TERM --session "$1"
for _ in {1..300}; do pgrep --session "$1" --full workers.cli > /dev/null || break; sleep 0.1; done
pkill -KILL --session "$1"
"""
SACCT = """#!/bin/bash
pgrep --session "${@: -1}" > /dev/null && state=RUNNING || state=FAILED
printf 'JobID|State|NodeList\\n%s|%s|here\\n' "${@: -1}" $state
"""


@pytest.fixture
def inputs(tmp_path):
    """A stage and what follows it; the state is saved at every step."""
    make_base(tmp_path / "base")
    write_demonstrations(tmp_path / "demonstrations")

    def words(epochs):
        folders = ["--model", tmp_path / "base", "--data", tmp_path / "demonstrations", "--out", tmp_path / "run"]
        return [str(word) for word in ("sft", *folders, "--set", f"epochs={epochs}", "--state-steps", 1)]

    return words


@pytest.fixture
def local(tmp_path):
    """submitit's executor for this machine; afterwards the handler of SIGTERM is put back, and nothing of a job goes on."""
    before = signal.getsignal(signal.SIGTERM)
    executor = submitit.LocalExecutor(tmp_path / "run" / "slurm")
    executor.update_parameters(timeout_min=60)
    yield executor
    signal.signal(signal.SIGTERM, before)
    for process in psutil.Process().children(recursive=True):
        process.kill()


@pytest.fixture
def cluster(tmp_path, monkeypatch):
    """Slurm's commands for a cluster of this machine, where a job is a session of processes."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name, text in (("sbatch", SBATCH), ("srun", SRUN), ("scancel", SCANCEL), ("sacct", SACCT)):
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    yield
    for job in (folder / "jobs").read_text().split() if (folder / "jobs").exists() else ():
        if psutil.pid_exists(int(job)):  # a test that failed on its way
            for process in (psutil.Process(int(job)), *psutil.Process(int(job)).children(recursive=True)):
                process.kill()


def wait_for_state(run, process):
    """Until the run has saved a state."""
    while not (run / "state" / "state.pt").exists():
        assert process.is_running(), list((run / "slurm").iterdir())
        time.sleep(0.05)


@pytest.mark.slow  # minutes: up to four starts of two processes each
class TestJob:
    @pytest.mark.timeout(600)  # two starts of two processes each
    def test_a_job_that_is_warned_saves_and_goes_on_in_its_next_turn(self, tmp_path, inputs, local, capfd):
        job = local.submit(slurm.Command(inputs(100), processes=2, hosts=1, threads=1))
        controller = psutil.Process(int(job.job_id))
        wait_for_state(tmp_path / "run", controller)
        first = controller.children(recursive=True)
        assert len(first) == 4  # submitit's, the launcher's, two that train
        for process in first:
            process.send_signal(signal.SIGUSR2)
        assert slurm.follow(job) == 0
        assert not any(process.is_running() for process in first)
        log = job.stderr() + job.stdout()
        assert "Requeued job" in log
        assert [at for at, event in enumerate(events(tmp_path / "run", "log")) if "continuing" in event["text"]]
        assert events(tmp_path / "run", "result")
        assert not events(tmp_path / "run", "error")

    def test_a_run_that_fails_is_told_of(self, tmp_path, inputs, local, capfd):
        job = local.submit(slurm.Command(["sft", *inputs(1)[1:], "--set", "lr=much"], processes=1, hosts=1, threads=1))
        assert slurm.follow(job) == 1
        said = capfd.readouterr().err
        assert "error: setting lr is 'much'; expected float\n" in said
        assert said.endswith(f"error: job {job.job_id} has failed; its logs are {local.folder}/{job.job_id}_*\n")

    @pytest.mark.timeout(600)
    def test_the_command_that_is_told_to_stop_cancels_the_job(self, tmp_path, inputs, cluster):
        """Two hosts, which are this machine twice."""
        words = ["--slurm", "debug", "--slurm=time=30", "--hosts", "2", *inputs(2000)]
        command = subprocess.Popen([sys.executable, "-m", "workers.cli", "train", *words], stderr=subprocess.PIPE)
        job, _, _ = command.stderr.readline().decode().removeprefix("job ").partition(";")
        wait_for_state(tmp_path / "run", psutil.Process(command.pid))
        started = psutil.Process(int(job)).children(recursive=True)
        trainers = [process for process in started if "RANK" in process.environ()]
        assert sorted(process.environ()["GROUP_RANK"] for process in trainers) == ["0", "1"]
        command.terminate()
        assert command.wait() == CANCELLED
        command.communicate()
        assert not any(process.is_running() for process in started)
        assert events(tmp_path / "run")[-1]["type"] == "state"

    @pytest.mark.timeout(600)
    def test_a_job_is_left_alone(self, tmp_path, inputs, cluster):
        words = ["--slurm", "debug", "--no-wait", *inputs(1)]
        done = subprocess.run(
            [sys.executable, "-m", "workers.cli", "train", *words], capture_output=True, text=True, check=True
        )
        assert done.stderr.startswith("job ")
        while not (tmp_path / "run" / "metrics.json").exists():
            time.sleep(0.1)


class TestWords:
    def test_hosts_meet_at_the_first_of_the_job(self, monkeypatch):
        monkeypatch.setenv("SLURM_JOB_ID", "1234567")
        monkeypatch.setenv("SLURM_JOB_NODELIST", "gpu[03-04],big7")
        words = slurm.Command(["ppo", "--out", "run"], processes=8, hosts=3, threads=4).words(SlurmJobEnvironment())
        meet = ["--meet-at", "gpu03:24567"]
        assert words == ["train", "--processes", "8", "--hosts", "3", *meet, "ppo", "--out", "run"]

    def test_one_host_meets_itself(self, monkeypatch):
        monkeypatch.setenv("SLURM_JOB_ID", "7")
        words = slurm.Command(["base"], processes=1, hosts=1, threads=1).words(SlurmJobEnvironment())
        assert words == ["train", "--processes", "1", "--hosts", "1", "base"]


class TestSettings:
    def test_what_sbatch_is_told(self, tmp_path, cluster):
        executor = submitit.SlurmExecutor(tmp_path / "slurm")
        chosen = slurm.parse(["gpu", "time=60", "gpus_per_node=8", "account=us", "exclusive=true", "nodes=9"])
        executor.update_parameters(**slurm.settings(chosen, processes=8, hosts=2, name="preferable-ppo"))
        lines = executor._make_submission_file_text("COMMAND", "uid").splitlines()
        told = {line.removeprefix("#SBATCH --") for line in lines if line.startswith("#SBATCH")}
        assert told == {
            "job-name=preferable-ppo",
            "partition=gpu",
            "time=60",
            "gpus-per-node=8",
            "account=us",
            "exclusive",
            "nodes=2",
            "ntasks-per-node=1",
            "cpus-per-task=8",
            "signal=USR2@120",
            "open-mode=append",
            "wckey=submitit",
            f"output={tmp_path}/slurm/%j_0_log.out",
            f"error={tmp_path}/slurm/%j_0_log.err",
        }
        logs = f"--output {tmp_path}/slurm/%j_%t_log.out --error {tmp_path}/slurm/%j_%t_log.err"
        assert f"srun --unbuffered {logs} --cpus-per-task=8 COMMAND" in lines

    def test_time_is_in_minutes(self):
        with pytest.raises(ValueError, match=r"--slurm time=01:00:00: expected minutes"):
            slurm.parse(["time=01:00:00"])


class TestRefusals:
    def refusal(self, *words):
        done = CliRunner().invoke(cli.app, ["train", *words])
        assert done.exit_code == 1
        return done.stderr

    def test_a_meeting_place_of_its_own(self):
        said = self.refusal("--slurm", "gpu", "--hosts", "2", "--meet-at", "a:1", "sft")
        assert said == "error: train sft finds its hosts by --slurm; leave out --meet-at\n"

    def queued(self, monkeypatch, *words):
        words = ["train", "--slurm", *words, "base", "--text", "x", "--out", "y"]
        monkeypatch.setattr(sys, "argv", ["preferable", *words])
        done = CliRunner().invoke(cli.app, words)
        assert done.exit_code == 1
        return done.stderr

    def test_no_slurm(self, monkeypatch):
        said = self.queued(monkeypatch, "gpu")
        assert said == "error: there is no srun here: --slurm is for a host of a Slurm cluster\n"

    def test_no_submitit(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "submitit", None)
        assert self.queued(monkeypatch, "gpu") == "error: --slurm needs submitit: pip install 'preferable[slurm]'\n"

    def test_settings_that_are_none(self, monkeypatch, cluster):
        assert "Unavailable parameter(s): ['colour']" in self.queued(monkeypatch, "colour=red")
        assert not Path("y").exists()
