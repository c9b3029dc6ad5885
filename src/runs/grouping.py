"""How runs differ, which of them repeat one experiment, and their mean and spread."""

import json
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from src.runs.reading import SCORES, Run

# What differs between repetitions of one experiment: seeds, and the fold that is held out
REPETITION = ("seed", "dataset.seed", "dataset.fold", "dataset.fold_seed")
NAME = "task_name"  # distinguishes recipes, without influence on a result
# Where a run lies and what it prints: of no influence either
_NO_INFLUENCE = {"output_dir", "tags", "print_config", "resume", "resume_sweep", "on_error"}
_NO_INFLUENCE_GROUPS = ("paths", "logger", "debug")
_DIRECTORIES = ("output_dir", "paths.data_dir", "paths.experiments_dir")


@dataclass(frozen=True)
class Difference:
    """A key that is not the same in all runs, and the others that vary along with it."""

    key: str
    along: tuple[str, ...] = ()

    @property
    def heading(self) -> str:
        """The key as the head of a column: `loss` for the class of the loss."""
        return self.key.removesuffix("._target_")


@dataclass(frozen=True)
class Group:
    """Runs whose config differs in nothing but the seed and the fold."""

    number: int  # from 1
    runs: tuple[Run, ...]

    @property
    def completed(self) -> list[Run]:
        """The runs that count for the mean."""
        return [run for run in self.runs if run.status == "completed"]

    def spread(self, score: str) -> tuple[float, float, int]:
        """Mean, sample standard deviation and number of the completed runs that have the score.

        The deviation of a single value and the mean of none are NaN.
        """
        return _spread([run.scores.get(score, math.nan) for run in self.completed])

    def class_spread(self, class_name: str) -> tuple[float, float, int]:
        """The same of the IoU of a class."""
        return _spread([run.class_iou.get(class_name, math.nan) for run in self.completed])


def _spread(values: Sequence[float]) -> tuple[float, float, int]:
    values = [value for value in values if math.isfinite(value)]
    if not values:
        return math.nan, math.nan, 0
    deviation = statistics.stdev(values) if len(values) > 1 else math.nan
    return statistics.fmean(values), deviation, len(values)


def experiment(run: Run) -> dict[str, Any]:
    """What a run tried, and its name: the config without where it lies and what it prints.

    The run's own folders are replaced by their role.
    """
    places = {d: run.config[d] for d in _DIRECTORIES if isinstance(run.config.get(d), str)}
    return {
        key: _by_role(value, places)
        for key, value in run.config.items()
        if key not in _NO_INFLUENCE and key.partition(".")[0] not in _NO_INFLUENCE_GROUPS
    }


def grouped(runs: Sequence[Run]) -> list[Group]:
    """The runs in groups, best mean mIoU first; a run without a config is a group of its own."""
    members: dict[str, list[Run]] = {}
    for run in runs:
        config = {k: v for k, v in experiment(run).items() if k not in (*REPETITION, NAME)}
        key = json.dumps(config, sort_keys=True, default=str) if config else run.name
        members.setdefault(key, []).append(run)

    def rank(found: list[Run]) -> float:
        mean = Group(0, tuple(found)).spread(SCORES[0])[0]
        return math.inf if math.isnan(mean) else -mean

    ordered = sorted(members.values(), key=rank)
    return [Group(number, tuple(found)) for number, found in enumerate(ordered, 1)]


def differences(runs: Sequence[Run]) -> list[Difference]:
    """The keys in which configs differ beside seeds and folds; keys that vary alike are one entry.

    Of these the shallowest names the entry, so that another dataset is one column, not thirty; the
    name of the task where that differs along with them.
    """
    configs = [config for config in map(experiment, runs) if config]
    keys = {key for config in configs for key in config if key not in REPETITION}
    alike: dict[tuple[int, ...], list[str]] = {}
    for key in sorted(keys):
        texts = [show(config[key]) if key in config else "" for config in configs]
        if len(set(texts)) > 1:
            pattern = tuple(texts.index(text) for text in texts)  # which runs share a value
            alike.setdefault(pattern, []).append(key)

    def telling(key: str) -> tuple:
        longest = max(len(show(config.get(key))) for config in configs)
        return key.count("."), longest > 40, not key.endswith("_target_"), len(key)

    found = []
    for same in alike.values():
        if same == [NAME]:
            continue
        first, *rest = sorted(same, key=telling)
        found.append(Difference(first, tuple(rest)))
    return sorted(found, key=lambda d: (d.key.count("."), d.key))


def show(value: Any) -> str:
    """A config value in one short line; of a class its name alone."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, list):
        return "[" + ", ".join(map(show, value)) + "]"
    if isinstance(value, dict):
        return "{}"
    text = str(value)
    return text.rpartition(".")[2] if text.startswith(("src.", "mindspore.")) else text


def _by_role(value: Any, places: dict[str, str]) -> Any:
    """A path below one of the run's folders, as `<data_dir>/…`: the same wherever that lies."""
    if isinstance(value, str):
        for role, place in places.items():
            if value == place or value.startswith(place.rstrip("/") + "/"):
                return f"<{role.rpartition('.')[2]}>" + value[len(place.rstrip("/")) :]
    return value
