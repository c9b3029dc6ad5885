"""Which jobs a sweep consists of: the grid of all given values, or an Optuna search.

Hydra loads plugins from a package of this name alone; what they do is in `src.sweeps`.
"""

import logging
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping
from itertools import product
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep, Override, RangeSweep
from hydra.core.plugins import Plugins
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

from src.sweeps.jobs import Job, SweepDirectory
from src.sweeps.pool import Watcher
from src.utils.console import console, setup_logging
from src.utils.errors import UserError

log = logging.getLogger("src.sweeps")  # the project's handlers are at "src"


class JobSweeper(Sweeper):
    """What the sweepers share: the sweep's directory, its end and its table.

    Args:
        params: Values by key, in the syntax of the command line, which wins over them.
    """

    def __init__(self, params: Mapping[str, Any]) -> None:
        self._params = params

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        if config.hydra.job.config_name != "train":
            raise UserError("-m: sweeps are of training runs, as python -m src.train -m seed=0,1")
        self.config = config
        self._loader = hydra_context.config_loader
        self.launcher: Any = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )
        if not hasattr(self.launcher, "run"):
            raise UserError(
                f"hydra/launcher={config.hydra.runtime.choices['hydra/launcher']}: jobs need a "
                "process each; take processes, submitit_local or submitit_slurm"
            )

    @abstractmethod
    def space(self, varied: list[Override]) -> dict[str, Any]:
        """What each key may be, as `search` takes it; asked for before there is a directory.

        Raises:
            UserError: Something cannot be varied as it is given.
        """

    @abstractmethod
    def search(self, sweep: SweepDirectory, space: dict[str, Any]) -> tuple[Iterator[Job], Watcher]:
        """The jobs, each made when it is asked for, and the watcher of their progress."""

    def sweep(self, arguments: list[str]) -> None:
        """Runs the sweep; its tables are written however it ends.

        Raises:
            UserError: A job failed.
        """
        overrides = self._overrides(arguments)
        common = [o.input_line for o in overrides.values() if not o.is_sweep_override()]
        space = self.space([o for o in overrides.values() if o.is_sweep_override()])
        directory = Path(self.config.hydra.sweep.dir)
        sweep = SweepDirectory(
            directory,
            common,
            OmegaConf.to_yaml(self.config),
            resumed=self.config.resume_sweep is not None,
            resource_overrides=self.launcher.resource_overrides(overrides),
        )
        setup_logging(directory / "sweep.log")
        log.info("a sweep, in %s: %s", directory, " ".join(sweep.common))
        try:
            self.launcher.run(*self.search(sweep, space))
        except KeyboardInterrupt:
            log.warning("interrupted; resume_sweep=%s goes on", directory)
            raise
        finally:
            failed = _conclude(sweep)
        if failed:
            raise UserError(
                f"{len(failed)} of {len(sweep.jobs)} jobs did not end well (jobs "
                f"{', '.join(failed)}): {directory}/sweep.md says why"
            )

    def _overrides(self, arguments: list[str]) -> dict[str, Override]:
        """The overrides of the recipe and, before those, of the command line, by key."""
        parser = OverridesParser.create(config_loader=self._loader)
        params = [f"{key}={value}" for key, value in self._params.items()]
        parsed = parser.parse_overrides([*params, *arguments])
        overrides = {override.key_or_group: override for override in parsed}
        if "output_dir" in overrides:
            raise UserError("output_dir: each job has its own; give hydra.sweep.dir=DIR")
        overrides.pop("resume_sweep", None)
        return overrides


class GridSweeper(JobSweeper):
    """All combinations of the given values: `a=1,2`, `a=range(1,4)`, `experiment=glob(*)`."""

    def space(self, varied: list[Override]) -> dict[str, list[str]]:
        return {override.get_key_element(): _values(override) for override in varied}

    def search(
        self, sweep: SweepDirectory, space: dict[str, list[str]]
    ) -> tuple[Iterator[Job], Watcher]:
        if not sweep.jobs:
            sweep.add(*product(*space.values()))
        log.info("%d jobs", len(sweep.jobs))
        return iter(sweep.jobs), Watcher()


class OptunaSweeper(JobSweeper):
    """Lets Optuna choose the values, and prunes hopeless trials as validation results come in.

    Args:
        n_trials: Trials in all, also of a search that is resumed.
        sampler: Of `optuna.samplers`, made with `seed`.
        pruner: Of `optuna.pruners`.
        seed: Of the sampler.
        params: As of a grid, with `interval(low, high)` and `tag(log, interval(low, high))` too.
    """

    def __init__(
        self,
        n_trials: int,
        sampler: Callable[..., Any],
        pruner: Any,
        seed: int,
        params: Mapping[str, Any],
    ) -> None:
        super().__init__(params)
        if type(n_trials) is not int or n_trials < 1:
            raise UserError(
                f"hydra.sweeper.n_trials={n_trials}: expected a whole number of at least 1"
            )
        self._choice = {"n_trials": n_trials, "sampler": sampler, "pruner": pruner, "seed": seed}

    def space(self, varied: list[Override]) -> dict[str, Any]:
        if not varied:
            raise UserError(
                "nothing to search: give intervals or values, as "
                "'optimizer.learning_rate=tag(log,interval(0.001,0.1))' or model=fcn16s,fcn8s"
            )
        space = {}
        for override in varied:
            try:
                space[override.get_key_element()] = _distribution(override)
            except ValueError as error:
                raise UserError(f"{override.input_line}: {error}") from error
        return space

    def search(self, sweep: SweepDirectory, space: dict[str, Any]) -> tuple[Iterator[Job], Watcher]:
        from src.sweeps.search import Search  # imports Optuna

        direction = {"max": "maximize", "min": "minimize"}[self.config.trainer.monitor_mode]
        search = Search(sweep, space, direction, **self._choice)
        return search.jobs(), search


def _distribution(override: Override) -> Any:
    """What Optuna draws the values of a key from."""
    from optuna.distributions import (
        CategoricalDistribution,
        FloatDistribution,
        IntDistribution,
    )

    sweep = override.value()
    if isinstance(sweep, IntervalSweep):
        whole = isinstance(sweep.start, int) and isinstance(sweep.end, int)
        kind = IntDistribution if whole or "int" in sweep.tags else FloatDistribution
        number = int if kind is IntDistribution else float
        return kind(number(sweep.start), number(sweep.end), log="log" in sweep.tags)
    if isinstance(sweep, RangeSweep) and isinstance(sweep.start, int):
        last = sweep.start + (sweep.stop - sweep.start - 1) // sweep.step * sweep.step
        return IntDistribution(sweep.start, last, step=sweep.step)
    return CategoricalDistribution(list(override.sweep_string_iterator()))


def _values(override: Override) -> list[str]:
    """The values of a key, each as an override."""
    key = override.get_key_element()
    if not override.is_discrete_sweep():
        raise UserError(
            f"{override.input_line}: a grid takes values, as {key}=1,2 or {key}=range(1,4); "
            "for an interval take sweep=optuna"
        )
    return [f"{key}={value}" for value in override.sweep_string_iterator()]


def _conclude(sweep: SweepDirectory) -> list[str]:
    """Shows and writes what came out; gives the numbers of the jobs that did not end well."""
    from src.sweeps.results import Results

    results = Results(sweep.jobs)
    results.write(sweep.path)
    for table in results.screen_tables():
        console.print(table)
    console.print(results.conclusion(), highlight=False, soft_wrap=True)
    console.print(f"{sweep.path}/sweep.csv and .md", style="dim", soft_wrap=True)
    return [str(result.job.number) for result in results.failed]
