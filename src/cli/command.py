"""From the command line to a run: composition, run directory, log, exit code.

Hydra and OmegaConf alone are imported here; MindSpore comes with the task, so that `--help` and
`--cfg job` answer at once.
"""

import functools
import logging
import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from textwrap import indent
from types import FrameType

import hydra
import yaml
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from rich.syntax import Syntax
from rich.text import Text
from rich.tree import Tree

from src.cli import saved_config, schema
from src.cli.environment import load_env, provide_home
from src.cli.paths import expand_home, quote_paths
from src.cli.resume_sweep import with_resumed_sweep
from src.cli.saved_config import ResumedRun
from src.device import process_group
from src.runs import signals
from src.runs.directory import RESOLVED_CONFIG, FollowedDirectory, RunDirectory
from src.utils.console import console, setup_logging
from src.utils.errors import UserError, error_summary
from src.utils.files import write_text

log = logging.getLogger(__name__)

CONF_DIR = Path(__file__).resolve().parents[2] / "conf"

Task = Callable[[DictConfig, RunDirectory], None]


class Terminated(KeyboardInterrupt):
    """SIGTERM, treated as Ctrl-C with an exit code of its own."""


class Command:
    """An entry point: a task with the primary config `conf/<name>.yaml`.

    Attributes:
        task: Receives the config and the run directory.
    """

    def __init__(self, task: Task, name: str, from_checkpoint: bool, resumable: bool) -> None:
        functools.update_wrapper(self, task)
        self.task = task
        self._name = name
        self._from_checkpoint = from_checkpoint
        self._resumable = resumable

    def __call__(self) -> None:
        """Runs the task by the command line; see `command`."""
        if process_group.is_scheduler():
            process_group.schedule()
            return
        with process_group.leaving():
            try:
                self.start()
            except UserError as error:
                _fail(str(error))

    def start(self) -> None:
        """The same, but the `UserError` of what never came to be a run reaches the caller."""
        os.environ["HYDRA_FULL_ERROR"] = "1"  # errors reach us instead of Hydra's printer
        signal.signal(signal.SIGTERM, _terminate)
        if process_group.is_launched():
            _refuse_sweep(sys.argv[1:])
        try:
            load_env()
            sys.argv[1:] = with_resumed_sweep(quote_paths(sys.argv[1:]))
            if self._from_checkpoint:
                sys.argv[1:] = saved_config.with_choices_of_run(sys.argv[1:], self._name)
            resumed = ResumedRun.of(sys.argv[1:]) if self._resumable else None
            if resumed is not None:
                sys.argv[1:] = resumed.arguments(sys.argv[1:])
            conf = str(CONF_DIR)
            entry = hydra.main(version_base="1.3", config_path=conf, config_name=self._name)
            refused: list[UserError] = []  # what leaves a job, Hydra announces in its own words

            def job(cfg: DictConfig) -> None:
                try:
                    _run(self._name, self.task, cfg, self._from_checkpoint, resumed)
                except UserError as error:
                    refused.append(error)

            entry(job)()
            if refused:
                raise refused[0]
        except UserError:
            raise
        except (HydraException, OmegaConfBaseException, yaml.YAMLError, ValueError) as error:
            if cause := _user_error(error):
                raise cause from error
            for choice in _group_choices():
                if choice.endswith(("=null", "=")):
                    raise UserError(schema.no_choice(choice, CONF_DIR)) from error
            explain = schema.explain_composition_error
            line = explain(error, functools.partial(_compose_as_chosen, self._name))
            raise UserError(line) from error
        except OSError as error:  # such as the directory, which Hydra makes before the job
            raise UserError(_inaccessible(error)) from error
        except KeyboardInterrupt as error:
            sys.exit(_exit_code(error))


def command(
    name: str, from_checkpoint: bool = False, resumable: bool = False
) -> Callable[[Task], Command]:
    """Turns a task into an entry point with the primary config `conf/<name>.yaml`.

    The task receives the config and the run directory. A `UserError` ends it with one line and
    exit code 1, any other error with its traceback too; the run's log has both.

    Args:
        name: Of the command and its primary config.
        from_checkpoint: Dataset, model and device come from the run that `ckpt_path` lies in.
        resumable: `resume=DIR` goes on with the run in DIR, by its config.
    """
    return lambda task: Command(task, name, from_checkpoint, resumable)


def compose_config(name: str, overrides: list[str]) -> DictConfig:
    """Composes a primary config outside of a command."""
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(CONF_DIR), version_base="1.3"):
        return compose(name, overrides)


def _compose_as_chosen(name: str, overrides: list[str]) -> DictConfig:
    """The config with the group choices of the command line, including Hydra's own node."""
    chosen = _group_choices()
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(CONF_DIR), version_base="1.3"):
        try:
            return compose(name, [*chosen, *overrides], return_hydra_config=True)
        except HydraException:  # the mistake is one of them
            return compose(name, overrides, return_hydra_config=True)


def _group_choices() -> list[str]:
    """The group choices of the command line."""
    return [a for a in sys.argv[1:] if (CONF_DIR / a.partition("=")[0].lstrip("+")).is_dir()]


def _run(
    name: str, task: Task, cfg: DictConfig, from_checkpoint: bool, resumed: ResumedRun | None
) -> None:
    """One run: claims its directory, checks its config, does its work, writes how it ended."""
    signals.watch_ctrl_c()
    hydra_cfg = HydraConfig.get()
    expand_home(cfg)
    provide_home()
    cfg.output_dir = hydra_cfg.runtime.output_dir
    if resumed is not None:
        cfg = resumed.with_saved_config(cfg)
        schema.check(cfg, compose(name))  # a mistake here leaves the run as it is
    if process_group.is_launched() or OmegaConf.select(cfg, "device.distributed"):
        _join_process_group(name, cfg)
    run = _claim_directory(name, cfg, resumed is not None)
    try:
        if resumed is not None:
            run.resumed_with = resumed.overrides
        elif run.is_main_process:
            _save_hydra_files(cfg, run.path / ".hydra")
        if from_checkpoint:
            cfg = saved_config.with_config_of_run(cfg, list(hydra_cfg.overrides.task))
        schema.check(cfg, compose(name))
        task(cfg, run)
        run.update(status="completed")
    except KeyboardInterrupt as error:
        run.fail("interrupted", type(error).__name__)
        log.warning("interrupted; the run directory is %s", run.path)
        sys.exit(_exit_code(error))
    except Exception as error:
        cause = _user_error(error)
        reason = error_summary(cause or error)
        reason = reason if cause else f"{type(error).__name__}: {reason}"
        log.debug("the run failed", exc_info=True)  # to the log file alone
        with suppress(UserError):  # a full disk may be the reason
            run.fail("failed", reason)
        if cause is None:
            console.print_exception(max_frames=8)
        _fail(reason, f"details: {run.path / f'{name}.log'}")


def _join_process_group(name: str, cfg: DictConfig) -> None:
    """Makes this process one of several that train or evaluate together."""
    schema.check(cfg, compose(name))  # before the processes wait for each other
    if name not in ("train", "eval", "check_device"):
        raise UserError(f"{name}: works in one process; set device.distributed=false, no launcher")
    if not cfg.device.distributed:
        raise UserError(
            "device.distributed=false: a launcher has started this process as one of several; set "
            "device.distributed=true"
        )
    process_group.join(cfg.device.target, cfg.device.deterministic)


def _refuse_sweep(arguments: list[str]) -> None:
    sweeps = ("-m", "--multirun", "sweep=", "+sweep=", "resume_sweep=")
    if found := [argument for argument in arguments if argument.startswith(sweeps)]:
        raise UserError(
            f"{found[0]}: a sweep does not run in several processes; leave the launcher out"
        )


def _claim_directory(name: str, cfg: DictConfig, resumed: bool) -> RunDirectory:
    """Claims the run's directory and opens its log; other processes join the main one's."""
    this = process_group.this_process()
    if not this.is_main_process:
        setup_logging(verbose=True)  # to the rank's own log, where the launcher sends the screen
        own, cfg.output_dir = Path(cfg.output_dir), this.gather(None)[0]
        if own != Path(cfg.output_dir):
            with suppress(OSError):
                own.rmdir()  # Hydra has made one for each rank
        return FollowedDirectory(cfg.output_dir, resumed)
    run = RunDirectory(cfg.output_dir, name, cfg.task_name, resumed=resumed)
    setup_logging(run.path / f"{name}.log")
    process_group.tell_launcher(run.path)
    this.gather(cfg.output_dir)
    return run


def _user_error(error: BaseException | None) -> UserError | None:
    """The user's mistake behind an error; Hydra wraps what constructors raise."""
    while error is not None and not isinstance(error, UserError):
        if isinstance(error, PermissionError):
            return UserError(_inaccessible(error))
        if isinstance(error, UnicodeEncodeError):
            name = error.object[max(0, error.start - 60) : error.end + 20]
            return UserError(f"{name!r}: a name that is not UTF-8; rename the file or folder")
        error = error.__cause__
    return error


def _inaccessible(error: OSError) -> str:
    return (
        f"{error.filename}: not readable or not writable ({error.strerror}); its owner can give "
        "you access, or choose folders of your own by output_dir=DIR and paths.data_dir=DIR"
    )


def _fail(reason: str, *more: str) -> None:
    console.print("error:", style="bold red", end=" ")
    console.print(reason, highlight=False, soft_wrap=True)
    for line in more:
        console.print(line, style="dim", highlight=False, soft_wrap=True)
    sys.exit(1)


def _exit_code(interrupt: KeyboardInterrupt) -> int:
    """The exit code of a process that a signal ended, as shells have it: 128 plus its number."""
    return 128 + (signal.SIGTERM if isinstance(interrupt, Terminated) else signal.SIGINT)


def _terminate(signum: int, frame: FrameType | None) -> None:
    raise Terminated


def _save_hydra_files(cfg: DictConfig, directory: Path) -> None:
    """The files Hydra would write; it does so before anything can be refused, so we do it."""
    write_text(directory / "config.yaml", OmegaConf.to_yaml(cfg))
    node = OmegaConf.masked_copy(OmegaConf.create({"hydra": HydraConfig.get()}), "hydra")
    write_text(directory / "hydra.yaml", OmegaConf.to_yaml(node))
    overrides = OmegaConf.to_yaml(HydraConfig.get().overrides.task)
    write_text(directory / "overrides.yaml", overrides)


def save_resolved(cfg: DictConfig, run: RunDirectory) -> None:
    """Writes `config.resolved.yaml`, and the overrides of a resumed run, in the main process.

    A resumed run is as it was until this is called: once its state has been accepted.
    """
    if run.is_main_process:
        if run.resumed:
            saved_config.save_overrides(run.path, run.resumed_with)
        write_text(run.path / RESOLVED_CONFIG, OmegaConf.to_yaml(cfg, resolve=True))
        run.accepted = True


def begin(cfg: DictConfig, run: RunDirectory) -> None:
    """Writes the config, prints it if asked, and notes the device: the work itself comes next."""
    save_resolved(cfg, run)
    show_config(cfg, run)
    run.update(device=cfg.device.target)


def show_config(cfg: DictConfig, run: RunDirectory) -> None:
    """Prints the config as a tree, in the main process, if `print_config` asks for it."""
    if not (cfg.print_config and run.is_main_process):
        return
    tree = Tree(Text.assemble((cfg.task_name, "bold"), f" → {run.path}"))
    for key, value in OmegaConf.to_container(cfg, resolve=True).items():
        if isinstance(value, dict) and value:
            text = yaml.safe_dump(value, default_flow_style=None, sort_keys=False, width=120)
            tree.add(
                Syntax(f"{key}:\n{indent(text, '  ')}".rstrip(), "yaml", background_color="default")
            )
        else:
            tree.add(f"{key}: {value}")
    console.print(tree)
