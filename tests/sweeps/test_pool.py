"""Jobs as processes, watched to their end; here each is a shell script."""

import json
import os
import signal
import subprocess
import threading
import time

import pytest
from filelock import FileLock

from src.runs.lock import LOCK
from src.sweeps.pool import Pool, Watcher
from src.sweeps.process import record_end
from src.sweeps.progress import newest_line
from tests.sweeps.sweep_fixtures import finish, job


def says(status: str) -> str:
    """A script that writes the summary of a run."""
    return f'printf \'{{"status": "{status}"}}\' > summary.json'


class Scripts:
    """Starts the shell script of each job, and remembers which were begun."""

    def __init__(self, *scripts: str) -> None:
        self.scripts = scripts
        self.begun: list[int] = []

    def __call__(self, job):
        self.begun.append(job.number)
        job.path.mkdir(parents=True, exist_ok=True)
        return subprocess.Popen(["sh", "-c", self.scripts[job.number]], cwd=job.path)


def run(root, scripts, slots=1, stop_on_error=False, watcher=None):
    jobs = [job(root, number) for number in range(len(scripts.scripts))]
    Pool(scripts, slots, lambda job: None).run(iter(jobs), watcher or Watcher(), stop_on_error)
    return [job.status for job in jobs]


def test_a_failing_job_does_not_end_the_others(tmp_path):
    scripts = Scripts(says("failed") + "; exit 1", says("completed"))
    assert run(tmp_path, scripts) == ["failed", "completed"]


def test_after_a_failure_nothing_is_begun_if_so_wanted(tmp_path):
    scripts = Scripts(says("failed") + "; exit 1", says("completed"))
    assert run(tmp_path, scripts, stop_on_error=True) == ["failed", "waiting"]


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("kill -SEGV $$", "ended by SIGSEGV"),
        ("kill -KILL $$", "ended by SIGKILL, as the system does when memory runs out"),
        ("exit 7", "exit code 7"),
        (says("running") + "; exit 0", "exit code 0"),
    ],
)
def test_a_job_that_dies_without_a_word_is_marked_with_its_last_lines_in_its_log(
    tmp_path, script, reason
):
    script = f"echo all that was printed > console.log; {script}"
    assert run(tmp_path, Scripts(script)) == ["failed"]
    assert json.loads((tmp_path / "0" / "summary.json").read_text())["reason"] == reason
    text = (tmp_path / "0" / "train.log").read_text()
    assert reason in text and "all that was printed" in text


def test_as_many_jobs_are_at_work_as_there_are_slots(tmp_path):
    # Each waits for the other one: they end only side by side
    meet = "touch ../{0}.here; while [ ! -e ../{1}.here ]; do sleep 0.02; done; "
    scripts = Scripts(
        meet.format(0, 1) + says("completed"),
        meet.format(1, 0) + says("completed"),
        says("completed"),
    )
    assert run(tmp_path, scripts, slots=2) == ["completed"] * 3
    assert scripts.begun == [0, 1, 2]


def test_completed_jobs_count_as_ended_and_are_not_run(tmp_path):
    finish(job(tmp_path, 0), 0.5)
    seen = []

    class Seeing(Watcher):
        def ended(self, job):
            seen.append(job.number)

    scripts = Scripts("exit 1", says("completed"))
    assert run(tmp_path, scripts, watcher=Seeing()) == ["completed"] * 2
    assert scripts.begun == [1] and seen == [0, 1]


def test_a_job_that_another_process_has_is_waited_for(tmp_path):
    (tmp_path / "0").mkdir()
    held = FileLock(tmp_path / "0" / LOCK, thread_local=False)
    held.acquire()
    begun = time.monotonic()
    threading.Timer(0.7, held.release).start()
    assert run(tmp_path, Scripts(says("completed"))) == ["completed"]
    assert time.monotonic() - begun >= 0.7


def interrupt_when_there_is(path):
    signal.signal(signal.SIGINT, signal.default_int_handler)  # MindSpore, once used, has its own

    def wait():
        while not path.exists():
            time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=wait).start()


def test_ctrl_c_is_passed_on_and_waits_for_the_jobs_at_work(tmp_path):
    saving = f"save() {{ sleep 0.3; {says('interrupted')}; exit 130; }}; trap save INT; "
    scripts = Scripts(saving + "touch ready; while :; do sleep 0.02; done", "exit 1")
    interrupt_when_there_is(tmp_path / "0" / "ready")
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, scripts)
    assert scripts.begun == [0]
    assert job(tmp_path, 0).status == "interrupted" and job(tmp_path, 1).status == "waiting"


def test_a_job_that_ctrl_c_kills_is_marked_interrupted(tmp_path):
    interrupt_when_there_is(tmp_path / "0" / "ready")
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, Scripts("touch ready; exec sleep 60"))
    assert job(tmp_path, 0).summary["reason"] == "ended by SIGINT"
    assert job(tmp_path, 0).status == "interrupted"


def test_a_ctrl_c_at_the_moment_of_a_start_reaches_the_job(tmp_path):
    class Struck(Scripts):
        def __call__(self, job):
            started = super().__call__(job)
            while not (job.path / "ready").exists():
                time.sleep(0.01)
            signal.raise_signal(signal.SIGINT)
            return started

    with pytest.raises(KeyboardInterrupt):
        run(tmp_path, Struck("touch ready; exec sleep 60"))
    assert job(tmp_path, 0).summary["reason"] == "ended by SIGINT"


def test_a_second_ctrl_c_while_the_first_is_passed_on_leaves_no_job_out(tmp_path):
    cancelled, struck = set(), [False]

    class Queued:
        """A job on a cluster, where it takes a while to cancel one."""

        def __init__(self, job):
            self.number = job.number

        def poll(self):
            return 1 if self.number in cancelled else None

        def send_signal(self, number):
            if not struck[0]:
                struck[0] = True
                signal.raise_signal(signal.SIGINT)
            cancelled.add(self.number)

    def start(job):
        if job.number == 1:
            signal.raise_signal(signal.SIGINT)
        return Queued(job)

    jobs = [job(tmp_path, number) for number in range(2)]
    with pytest.raises(KeyboardInterrupt):
        Pool(start, 2, lambda job: None).run(iter(jobs), Watcher(), False)
    assert cancelled == {0, 1}


def test_a_job_that_a_cluster_still_has_is_watched_and_not_begun_again(tmp_path):
    scripts = Scripts("exit 1", says("completed"))
    left = {0: Scripts(says("completed"))}
    jobs = [job(tmp_path, number) for number in range(2)]
    Pool(scripts, 1, lambda job: left[job.number](job) if job.number in left else None).run(
        iter(jobs), Watcher(), False
    )
    assert scripts.begun == [1]
    assert [one.status for one in jobs] == ["completed"] * 2


def test_a_job_that_was_cancelled_in_the_queue_is_still_waiting(tmp_path):
    record_end(job(tmp_path), 1, interrupted=True)
    assert job(tmp_path).status == "waiting"


def test_the_newest_line_of_a_log_is_its_last_whole_one(tmp_path):
    log = tmp_path / "train.log"
    assert newest_line(log) == ""
    log.write_text("12:00 INFO src.a: epoch 1: loss 2\n12:01 INFO src.a: epoch 2: lo")
    assert newest_line(log) == "epoch 1: loss 2"
