"""Conversion of a source's files to one MindRecord file a split: checked, done once, atomic.

    <directory>/<split>-<fingerprint>/    data.mindrecord  data.mindrecord.db  report.json
    <directory>/<split>-problems.txt      why the last attempt was refused

A conversion is written to a hidden folder and renamed when it is complete, under a lock: a folder
with the final name is complete, even if a process is killed or several run at once.
"""

import hashlib
import json
import logging
import os
import re
import shutil
import time
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from PIL import Image

from src.data.mindrecord import (
    DEFAULT_PAGE,
    LARGEST_PAGE,
    MindRecordFile,
    Row,
    write_mindrecord,
)
from src.data.preparation.checks import ValidatedSample, check_files, check_row
from src.data.preparation.inspection import validated_samples
from src.data.preparation.label_statistics import LabelStatistics
from src.data.preparation.labels import LabelRules, explain_ids
from src.data.preparation.problem import Problem
from src.data.sources.base import Source
from src.data.sources.file_lists import Annotation, Sample, few
from src.utils.errors import UserError
from src.utils.files import read_json, write_json
from src.utils.lock import exclusive
from src.utils.map_ahead import map_ahead
from src.utils.processes import available_cores

log = logging.getLogger(__name__)

_FORMAT = 3  # to be increased when bytes, checks or reports of the same files change


@dataclass(frozen=True)
class PreparedSplit:
    """A split ready to be read: its MindRecord file and report (see `LabelStatistics.report`)."""

    path: Path
    report: dict[str, Any]


def prepare_split(
    source: Source,
    split: str,
    directory: str | Path,
    rules: LabelRules,
) -> PreparedSplit:
    """Converts a split to MindRecord, or finds the conversion of the same files.

    Labels are compared by path and content, images by path, size, mtime and ctime: the kernel
    updates ctime at each write and rename, and users cannot reset it. Reading all images at every
    start would take as long as a short training. If another process is converting to `directory`,
    this one waits for it.

    Args:
        source: Lists the samples; its `prepare` has been called.
        split: Name of the split.
        directory: Of all conversions.
        rules: How the label files are read.

    Raises:
        UserError: Samples cannot be trained on, the split is empty, or the disk is full.
    """
    samples = source.samples(split)
    if not samples:
        raise UserError(f"split '{split}': no samples; expected at least one; check its list")
    twice = [name for name, count in Counter(s.name for s in samples).items() if count > 1]
    if twice:
        raise UserError(f"split '{split}': names listed twice: {few(twice)}; remove repetitions")
    state: list[tuple[str, object]] = [(s.name, _state(s.image)) for s in samples]
    state += map_ahead(_content, [s.label for s in samples if s.label], available_cores())
    key = _fingerprint(rules, state)
    target = Path(directory) / f"{_file_name(split)}-{key[:12]}"
    found = _find(target, key)
    if found is None:
        try:
            with exclusive(target.parent):
                target.parent.mkdir(exist_ok=True)
                found = _find(target, key)  # converted while this process waited
                if found is None:
                    return _convert(samples, split, rules, target, key)
        except OSError as error:
            raise UserError(
                f"{target.parent}: not writable ({error.strerror}); choose another with "
                "dataset.prepared_dir=DIR"
            ) from error
    log.info("reusing %s: %d samples of split '%s'", target, found.report["count"], split)
    return found


def scan_record(path: str | Path, directory: str | Path, rules: LabelRules) -> PreparedSplit:
    """Checks an existing MindRecord file, which is not changed.

    The report is kept in `directory` and reused while the file is unchanged.

    Raises:
        UserError: The file, or a sample in it, cannot be trained on.
    """
    path, directory = Path(path), Path(directory)
    record = MindRecordFile(path)
    if not len(record):
        raise UserError(f"{path}: no rows; expected at least one; write it again")
    key = _fingerprint(rules, [_state(shard) for shard in record.shards])
    name = _file_name(path.stem)
    cache = directory / f"{name}-{key[:12]}.json"
    if cache.is_file():
        log.info("reusing the report %s on %s: %d samples", cache, path, len(record))
        return PreparedSplit(path, read_json(cache))

    def check(index: int) -> ValidatedSample:
        try:
            row = record[index]
        except UserError as error:
            raise Problem("damaged row", f"row {index}", "write the file again") from error
        return check_row(*row, rules, f"row {index} ({row[0]})")

    def explain(stored: Mapping[int, int]) -> str:
        hint = explain_ids(stored, rules)
        return f"convert the original files anew: {hint}" if hint else ""

    statistics = LabelStatistics(path.stem, rules)
    listing = directory / f"{name}-problems.txt"
    rows = range(len(record))
    deque(validated_samples(check, rows, statistics, str(path), listing, explain), maxlen=0)
    report = _report(statistics, key)
    try:
        write_json(cache, report)
    except UserError as error:  # it will be made again
        log.warning("the report on %s is not kept: %s", path, error)
    return PreparedSplit(path, report)


def _convert(
    samples: Sequence[Sample], split: str, rules: LabelRules, target: Path, key: str
) -> PreparedSplit:
    started = time.monotonic()
    for stale in target.parent.glob(".*.tmp"):  # of killed conversions: this process holds the lock
        shutil.rmtree(stale, ignore_errors=True)
    temporary = target.with_name(f".{target.name}.tmp")
    data = temporary / "data.mindrecord"
    check = partial(check_files, rules=rules)
    statistics = LabelStatistics(split, rules)
    listing = target.with_name(f"{_file_name(split)}-problems.txt")
    explain = partial(explain_ids, rules=rules)
    large = any(_may_be_large(sample.image) for sample in samples)
    page = LARGEST_PAGE if large else DEFAULT_PAGE
    try:
        temporary.mkdir()
        with closing(
            validated_samples(check, samples, statistics, f"split '{split}'", listing, explain)
        ) as validated:
            rows = (Row(file_name=p.name, label=p.label, data=p.data) for p in validated)
            write_mindrecord(data, rows, page)
        report = _report(statistics, key)
        report_file = temporary / "report.json"
        write_json(report_file, report)
        for file in (data, data.with_name(data.name + ".db")):
            shutil.copymode(report_file, file)  # MindSpore makes them readable by the owner only
            with file.open("rb+") as opened:
                os.fsync(opened.fileno())
        shutil.rmtree(target, ignore_errors=True)  # damaged, otherwise it would have been reused
        os.replace(temporary, target)
    except OSError as error:
        raise UserError(
            f"{target}: could not be written ({error}); make room, or choose another folder with "
            "dataset.prepared_dir"
        ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    seconds = time.monotonic() - started
    log.info("converted split '%s', %d samples in %.1f s: %s", split, len(samples), seconds, target)
    return PreparedSplit(target / data.name, report)


def _report(statistics: LabelStatistics, key: str) -> dict[str, Any]:
    report = {**statistics.report(), "fingerprint": key}
    for warning in report["warnings"]:
        log.warning("split '%s': %s", report["split"], warning)
    return report


def _find(target: Path, key: str) -> PreparedSplit | None:
    try:
        if not target.is_dir():
            return None
        report = read_json(target / "report.json")
        record = MindRecordFile(target / "data.mindrecord")
        if (report["fingerprint"], report["count"]) == (key, len(record)):
            return PreparedSplit(record.path, report)
        log.warning("%s: report and data disagree; converting again", target)
    except PermissionError as error:
        raise UserError(
            f"{target.parent}: may not be read by this user; its owner can chmod -R a+rX it, or "
            "choose another with dataset.prepared_dir=DIR"
        ) from error
    except (UserError, KeyError, TypeError) as error:
        log.warning("%s; converting again", error)
    return None


def _fingerprint(rules: LabelRules, state: Sequence[Any]) -> str:
    palette = None if rules.palette is None else rules.palette.tolist()
    settings = (rules.num_classes, rules.ignore_index, palette, rules.void_ids, rules.ids)
    content = [_FORMAT, settings, state]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def _may_be_large(image: Path) -> bool:
    """Whether an image may need more than a default page; formats but JPEG and PNG become PNG."""
    if image.suffix.lower() in (".jpg", ".jpeg", ".png"):
        return _state(image)[1] > DEFAULT_PAGE // 2
    try:
        with Image.open(image) as opened:  # reads the header alone
            return 3 * opened.width * opened.height > DEFAULT_PAGE // 2
    except (OSError, Image.DecompressionBombError):  # reported with the other problems
        return False


def _state(path: Path) -> tuple[str, int, int, int]:
    """Path, size, mtime and ctime; zeros for a missing file, which the check will report."""
    name = os.path.abspath(path)
    try:
        stat = path.stat()
    except OSError:
        return name, 0, 0, 0
    return name, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns


def _content(label: Path | Annotation) -> tuple[str, str]:
    """Path and digest; empty for an unreadable file, which the check will report."""
    name = os.path.abspath(label)
    try:
        return name, hashlib.sha256(label.read_bytes()).hexdigest()
    except OSError:
        return name, ""


def _file_name(name: str) -> str:
    return re.sub(r"[^\w.-]", "_", name)
