"""Checks all samples of a split in parallel; problems are reported together."""

from collections import Counter
from collections.abc import Callable, Generator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from src.data.preparation.checks import ValidatedSample, checked_row
from src.data.preparation.label_statistics import LabelStatistics
from src.data.preparation.labels import LabelRules
from src.data.preparation.problem import Problem
from src.data.sources.file_lists import few
from src.utils.console import progress
from src.utils.errors import UserError
from src.utils.files import write_text
from src.utils.map_ahead import map_ahead
from src.utils.processes import available_cores

T = TypeVar("T")


def validated_samples(
    check: Callable[[Any], ValidatedSample],
    items: Sequence[Any],
    statistics: LabelStatistics,
    subject: str,
    listing: Path,
    explain: Callable[[Mapping[int, int]], str],
) -> Generator[ValidatedSample, None, None]:
    """Yields the checked items until one has a problem, then looks for all other problems.

    Args:
        check: Validates an item, or raises a `Problem`.
        items: What to check.
        statistics: Counts the samples.
        subject: Name of the items, on the screen and in messages.
        listing: The file for all problems; absent if there are none.
        explain: Returns a hint on wrong numbers in label files, from the pixels of each number.

    Raises:
        UserError: There were problems, the numbers are ambiguous, or all labels are void.
    """
    problems: list[Problem] = []
    stored: Counter[int] = Counter()

    def checked(item: Any) -> ValidatedSample | Problem:
        try:
            return check(item)
        except Problem as problem:
            problem.__cause__ = problem.__context__ = None
            return problem.with_traceback(None)  # its frames hold the decoded images

    with progress() as bar:
        task = bar.add_task(subject, total=len(items))
        for result in map_ahead(checked, items, available_cores()):
            bar.advance(task)
            stored.update(result.stored)
            if isinstance(result, Problem):
                problems.append(result)
            else:
                statistics.add(result)
                if not problems:
                    yield result
    hint = explain(stored)
    if problems:
        raise _refusal(problems, len(items), subject, listing, hint)
    if hint:
        raise UserError(f"{subject}: {hint}")
    if statistics.conflict:
        raise UserError(f"{subject}: {statistics.conflict}")
    if not statistics.valid_pixels:
        raise UserError(
            f"{subject}: no label has a valid pixel, all are void; check dataset.ignore_index and "
            "dataset.source.void_ids"
        )
    listing.unlink(missing_ok=True)


def _refusal(
    problems: list[Problem], total: int, subject: str, listing: Path, hint: str
) -> UserError:
    write_text(listing, "".join(f"{problem}\n" for problem in problems))
    kinds: dict[str, list[str]] = {}
    for problem in problems:
        name = problem.file.name if isinstance(problem.file, Path) else problem.file
        kinds.setdefault(problem.kind, []).append(name)
    groups = "; ".join(f"{kind}: {few(files, 3)}" for kind, files in kinds.items())
    return UserError(
        f"{subject}: {len(problems)} of {total} samples cannot be trained on ({groups}); the "
        f"first: {problems[0]}; {hint or 'mend them or leave them out'}; all of them: {listing}"
    )


def report_rows(
    rows: Sequence[tuple[str, bytes, bytes]], split: str, rules: LabelRules
) -> dict[str, Any]:
    """The report on rows of files that have been prepared, see `LabelStatistics.report`."""
    statistics = LabelStatistics(split, rules)

    def read(index: int) -> ValidatedSample:
        return checked_row(*rows[index])

    for sample in map_ahead(read, range(len(rows)), available_cores()):
        statistics.add(sample)
    return statistics.report()
