"""The table over a sweep's jobs: numbers by hand."""

import csv
import io
import json
from pathlib import Path

from src.sweeps.results import Results
from tests.sweeps.sweep_fixtures import finish, job


def three_models(root: Path) -> Results:
    """fcn8s 0.5, 0.6 (mean 55, deviation 7.07); fcn16s 0.8 and one failed; fcn32s never begun."""
    return Results([
        finish(job(root, 0, "model=fcn8s", "seed=0"), 0.5),
        finish(job(root, 1, "model=fcn8s", "seed=1"), 0.6),
        finish(job(root, 2, "model=fcn16s", "seed=0"), 0.8),
        finish(job(root, 3, "model=fcn16s", "seed=1"), None, "failed", "no | disk"),
        job(root, 4, "model=fcn32s", "seed=0", common=("trainer.max_epochs=4",)),
    ])  # fmt: skip


def test_jobs_are_listed_with_what_sets_them_apart(tmp_path):
    header, rows = three_models(tmp_path).job_rows()
    assert header == ["job", "model", "seed", "val/miou", "epoch", "time", "status"]
    assert rows[0] == ["0", "fcn8s", "0", "50.00", "2", "0:01:23", "completed"]
    assert rows[3] == ["3", "fcn16s", "1", "–", "–", "0:01:23", "failed"]
    assert rows[4] == ["4", "fcn32s", "0", "–", "–", "–", "waiting"]


def test_seeds_are_one_row_with_mean_and_deviation_best_first(tmp_path):
    header, rows = three_models(tmp_path).group_rows()
    assert header == ["group", "model", "val/miou", "jobs"]
    assert rows == [
        ["1", "fcn16s", "80.00", "1/2"],
        ["2", "fcn8s", "55.00 ± 7.07", "2/2"],
        ["3", "fcn32s", "–", "0/1"],
    ]


def test_folds_and_seeds_are_one_row_with_the_spread_of_each_class(tmp_path):
    """IoU of car 0.2, 0.4, 0.6: mean 40, deviation 20; of bus in two of them, 0.1 and 0.3."""
    jobs = []
    for number, (fold, seed, car, bus) in enumerate(
        [(0, 0, 0.2, 0.1), (1, 0, 0.4, None), (0, 1, 0.6, 0.3)]
    ):
        done = finish(job(tmp_path, number, f"dataset.fold={fold}", f"seed={seed}"), car)
        per_class = {"car": {"iou": car}, "bus": {"iou": bus}}
        (done.path / "eval.json").write_text(json.dumps({"per_class": per_class}))
        jobs.append(done)
    results = Results(jobs)
    assert results.group_rows()[1] == [["1", "40.00 ± 20.00", "3/3"]]
    results.write(tmp_path)
    text = (tmp_path / "sweep.md").read_text()
    assert "| car | 40.00 ± 20.00 |" in text and "| bus | 20.00 ± 14.14 |" in text


def test_the_best_job_is_named_with_the_command_that_repeats_it(tmp_path):
    results = three_models(tmp_path)
    assert results.best.job.number == 2
    text = results.conclusion()
    assert "best: job 2, val/miou 80.00 percent (epoch 2" in text
    assert text.endswith("again: python -m src.train model=fcn16s seed=0")
    assert [result.job.number for result in results.failed] == [3, 4]


def test_a_job_of_a_recipe_is_repeated_without_the_sweep(tmp_path):
    of_recipe = job(tmp_path, 0, "seed=1", common=("sweep=skips", "dataset.crop_size=[64,64]"))
    assert of_recipe.repeat_command() == (
        "python -m src.train sweep=skips 'dataset.crop_size=[64,64]' seed=1 hydra.mode=RUN"
    )


def test_a_pruned_trial_is_neither_failed_nor_best(tmp_path):
    pruned = finish(job(tmp_path, 0, "x=1"), 0.9, reason="pruned by the search: …")
    results = Results([pruned, finish(job(tmp_path, 1, "x=2"), 0.7)])
    assert results.all[0].run.status == "pruned"
    assert results.best.job.number == 1 and results.failed == []


def test_the_files_hold_every_job_and_why_it_ended(tmp_path):
    results = three_models(tmp_path)
    results.write(tmp_path)
    rows = list(csv.DictReader(io.StringIO((tmp_path / "sweep.csv").read_text())))
    assert [row["val/miou"] for row in rows] == ["0.5", "0.6", "0.8", "", ""]
    assert [row["group"] for row in rows] == ["2", "2", "1", "1", "3"]
    assert rows[3]["status"] == "failed" and rows[3]["reason"] == "no | disk"
    assert rows[4]["command"] == "python -m src.train trainer.max_epochs=4 model=fcn32s seed=0"
    text = (tmp_path / "sweep.md").read_text()
    assert "| 2 | fcn16s | 0 | 80.00 | 2 | 0:01:23 | completed |" in text
    assert "* job 3: failed: no \\| disk" in text


def test_without_repeated_seeds_there_is_one_table_and_without_values_no_best(tmp_path):
    results = Results([finish(job(tmp_path, 0, "x=1"), None, "interrupted")])
    assert len(results.screen_tables()) == 1
    assert results.conclusion() == "no job has a value"


def test_numbers_of_a_search_have_four_digits_for_people_and_all_in_the_command(tmp_path):
    drawn = finish(job(tmp_path, 0, "a=0.037861878865426045", "b=resnet18"), 0.5)
    results = Results([drawn])
    assert results.job_rows()[1][0][1:3] == ["0.03786", "resnet18"]
    assert "a=0.037861878865426045" in results.conclusion()
