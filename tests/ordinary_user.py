"""Whole commands as an ordinary user, in a clone that this user owns: `make test-user`.

Where root calls, the user is uid 1000, and what lies between users is tried too; elsewhere it is
the caller. The clone is the commit and what was changed since, with a `.venv` by `make setup`.
"""

import itertools
import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from tests import ROOT
from tests.integration.dataset import make_dataset

IS_ROOT = os.geteuid() == 0
USER = 1000 if IS_ROOT else os.geteuid()
KNOWN = {entry.pw_uid for entry in pwd.getpwall()}
NAMELESS = next(uid for uid in itertools.count(4242) if uid not in KNOWN) if IS_ROOT else USER
PATIENCE = 900  # seconds

among_users = pytest.mark.skipif(not IS_ROOT, reason="only root can be several users")


@dataclass
class Account:
    """A user with a folder, who runs commands of a clone there."""

    uid: int
    folder: Path
    clone: Path
    variables: dict[str, str] = field(default_factory=dict)

    def run(self, *command: str | Path, code: int = 0, umask: int = 0o022) -> str:
        """Runs a command with this user's variables alone; returns what it printed."""
        become = ["setpriv", f"--reuid={self.uid}", f"--regid={self.uid}", "--clear-groups"]
        done = subprocess.run(
            [*(become if IS_ROOT else []), *map(str, command)],
            cwd=self.folder,
            env={"PATH": os.environ["PATH"], "COLUMNS": "160", **self.variables},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            umask=umask,
            timeout=PATIENCE,
            encoding="utf-8",
        )
        assert done.returncode == code, f"{' '.join(map(str, command))}\n{done.stdout}"
        return done.stdout

    def src(self, name: str, *arguments: str | Path, code: int = 0, umask: int = 0o022) -> str:
        """Runs `python -m src.<name>`, which may not show a traceback."""
        python = self.clone / ".venv" / "bin" / "python"
        printed = self.run(python, "-m", f"src.{name}", *arguments, code=code, umask=umask)
        assert "Traceback" not in printed, printed
        return printed

    def own(self, path: Path) -> Path:
        """Gives a folder and what is in it to this user."""
        if IS_ROOT:
            for found in (path, *path.rglob("*")):
                os.chown(found, self.uid, self.uid, follow_symlinks=False)
        return path


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    """A folder that everyone may look into, on the way to which nobody is stopped."""
    path = Path(tempfile.mkdtemp(prefix="ordinary-user-"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


@pytest.fixture(scope="module")
def user(place) -> Account:
    """The ordinary user, in the clone."""
    clone, home = place / "clone", place / "home"
    home.mkdir()
    subprocess.run(["git", "clone", "--quiet", ROOT, clone], check=True)
    changes = subprocess.run(
        ["git", "diff", "--binary", "HEAD"], cwd=ROOT, check=True, capture_output=True
    ).stdout
    if changes:
        subprocess.run(["git", "apply"], cwd=clone, input=changes, check=True)
    # Where packages come from is the machine's matter, and the user's the same as the caller's
    passed = {n: v for n, v in os.environ.items() if n.startswith(("PIP_", "SSL_", "REQUESTS_"))}
    account = Account(USER, clone, clone, {"HOME": str(home), **passed})
    for folder in (clone, home):
        account.own(folder)
    account.run("make", "setup")
    return account


@pytest.fixture(scope="module")
def nameless(place, user) -> Account:
    """A user without HOME and, where root calls, without an entry in passwd; in its own folder."""
    folder = place / "nameless"
    folder.mkdir()
    account = Account(NAMELESS, folder, user.clone, {"PYTHONPATH": str(user.clone)})
    account.own(folder)
    return account


@pytest.fixture(scope="module")
def data(place) -> Path:
    """A dataset of the caller's, which others may read."""
    return make_dataset(place / "shapes and discs")


@pytest.fixture(scope="module")
def training(data) -> list[str]:
    """Overrides of a training run of a few seconds."""
    return [
        "dataset=folder", f"dataset.root={data}", "dataset.crop_size=[64,64]",
        "dataset.batch_size=2", "model=fcn32s", "model/backbone=compact",
        "model.backbone.channels=[4,4,4,4,4]", "device.mode=pynative", "trainer.max_epochs=1",
        "trainer.limit_train_batches=1", "trainer.limit_val_batches=1", "print_config=false",
    ]  # fmt: skip


@pytest.fixture(scope="module")
def run(user, training) -> Path:
    """A training run of the ordinary user, figures and all."""
    user.src("train", *training, "output_dir=run")
    return user.folder / "run"


def test_data_are_prepared(user, data):
    printed = user.src("prepare", "dataset=folder", f"dataset.root={data}", "output_dir=prepared")
    assert "square" in printed


def test_a_run_is_trained_and_gone_on_with(user, run):
    user.src("train", f"resume={run}", "trainer.max_epochs=2", "callbacks.figures=null")
    files = [path for path in run.rglob("*") if path.is_file()]
    assert {path.name for path in files} >= {"best.ckpt", "last.ckpt", "last_state.npz"}
    private = [path for path in files if path.stat().st_mode & 0o777 != 0o644]
    assert private == []  # all have the permissions of the umask


def test_a_run_is_evaluated(user, run):
    assert "miou" in user.src("eval", f"ckpt_path={run}", "output_dir=evaluated")


def test_pictures_are_predicted(user, run, data):
    image = data / "JPEGImages" / "v00.jpg"
    user.src("predict", f"ckpt_path={run}", f"input={image}", "output=predicted")
    assert (user.folder / "predicted" / "v00.png").exists()


@pytest.mark.parametrize("kind", ["mindir", "onnx", "safetensors"])
def test_a_network_is_exported(user, run, kind):
    user.src("export", f"ckpt_path={run}", f"format={kind}", f"output=network.{kind}")
    assert (user.folder / f"network.{kind}").stat().st_mode & 0o777 == 0o644


def test_a_sweep_runs_its_jobs(user, training):
    options = ["callbacks.figures=null", "seed=0,1", "hydra.launcher.n_jobs=2"]
    printed = user.src("train", "-m", *training, *options, "hydra.sweep.dir=sweep")
    assert "2/2" in printed


def test_two_processes_train_together(user, training):
    options = ["dataset.batch_size=1", "callbacks.figures=null", "output_dir=two"]
    user.src("distributed", "2", "train", *training, *options)
    assert (user.folder / "two" / "checkpoints" / "best.ckpt").exists()


def test_runs_are_compared(user, run):
    assert "completed" in user.src("report", run, f"output={user.folder / 'report.html'}")
    assert (user.folder / "report.html").exists()


def test_nothing_is_left_where_git_would_take_it(user, run):
    made = {"run/", "prepared/", "evaluated/", "predicted/", "sweep/", "two/"}
    found = user.run("git", "status", "--short", "--untracked-files=normal").splitlines()
    names = {line.removeprefix("?? ") for line in found if line.startswith("?? ")}
    assert {name for name in names - made if not name.startswith(("network.", "report."))} == set()


def test_without_a_home_directory_a_run_is_trained_with_figures_and_wandb(nameless, training):
    options = ["logger=wandb", "logger.wandb.mode=offline", "output_dir=homeless"]
    printed = nameless.src("train", *training, *options)
    run = nameless.folder / "homeless"
    assert "W&B is off" not in printed and list(run.glob("wandb/offline-run-*/*.wandb"))
    assert "Matplotlib" not in printed and list(run.glob("figures/*.png"))


@among_users
def test_beside_an_unwritable_home_directory_wandb_goes_on(nameless, training):
    visitor = replace(nameless, variables=nameless.variables | {"HOME": "/"})
    options = ["logger=wandb", "logger.wandb.mode=offline", "output_dir=visited"]
    printed = visitor.src("train", *training, *options, "callbacks.figures=null")
    assert "W&B is off" not in printed


@among_users
def test_another_users_checkpoint_is_used_where_it_may_be_read(nameless, run):
    prepared = f"dataset.prepared_dir={run.parent / 'data' / 'prepared' / 'folder'}"
    printed = nameless.src("eval", f"ckpt_path={run}", prepared, "output_dir=evaluated")
    assert "miou" in printed and "reusing" in printed  # the other's prepared data, too


@among_users
def test_another_users_checkpoint_that_may_not_be_read_says_so(user, nameless, training, data):
    user.src("train", *training, "callbacks.figures=null", "output_dir=private", umask=0o077)
    private = user.folder / "private"
    printed = nameless.src("eval", f"ckpt_path={private}", code=1)
    assert "private" in printed and "not readable" in printed
    for folder in (private, private / "checkpoints", private / ".hydra"):
        folder.chmod(0o755)
    for file in (private / "config.resolved.yaml", *private.glob(".hydra/*")):
        file.chmod(0o644)
    printed = nameless.src("eval", f"ckpt_path={private}", code=1)
    assert "may not be read by this user" in printed and "chmod a+r" in printed
    (private / "checkpoints" / "best.ckpt").chmod(0o644)
    nameless.src("eval", f"ckpt_path={private}", "limit_samples=1")


@among_users
def test_data_that_another_user_prepared_are_read_or_it_is_said_what_to_do(
    place, user, nameless, data
):
    arguments = ["dataset=folder", f"dataset.root={data}"]
    for folder, umask in (("open", 0o022), ("closed", 0o077)):
        prepared = f"dataset.prepared_dir={place / 'home' / folder}"
        user.src("prepare", *arguments, prepared, umask=umask)
    opened, closed = (f"dataset.prepared_dir={place / 'home' / n}" for n in ("open", "closed"))
    assert nameless.src("prepare", *arguments, opened).count("reusing") == 2
    printed = nameless.src("prepare", *arguments, closed, code=1)
    assert "closed" in printed and "dataset.prepared_dir=DIR" in printed
    # By other rules the same files are to be converted again, where this user may not write
    other_rules = "dataset.source.void_ids=[9]"
    printed = nameless.src("prepare", *arguments, opened, other_rules, code=1)
    assert "not writable" in printed and "dataset.prepared_dir=DIR" in printed


@among_users
def test_a_read_only_data_folder_serves_with_a_place_for_what_is_made(user, nameless, data):
    shared = f"paths.data_dir={data}"
    arguments = ["dataset=folder", "dataset.root=${paths.data_dir}", shared]
    printed = nameless.src("prepare", *arguments, code=1)
    assert "not writable" in printed and "dataset.prepared_dir=DIR" in printed
    nameless.src("prepare", *arguments, "dataset.prepared_dir=converted")


@among_users
def test_a_folder_of_another_user_is_no_place_for_runs_and_it_is_said_where_they_can_go(
    user, nameless, run, data
):
    visitor = replace(nameless, folder=user.folder)
    printed = visitor.src("prepare", "dataset=folder", f"dataset.root={data}", code=1)
    assert "not writable" in printed and "output_dir=DIR" in printed
    printed = visitor.src("report", run, code=1)
    assert "give output=FILE.html" in printed
    printed = visitor.src("train", f"resume={run}", "trainer.max_epochs=9", code=1)
    assert "not writable" in printed
