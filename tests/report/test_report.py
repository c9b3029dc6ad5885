"""Comparing runs: what is read, how seeds are grouped, what the files say."""

import csv
import json
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import pytest

from src.report.__main__ import main
from src.runs import reading
from src.runs.grouping import differences, grouped, show
from src.runs.reading import read_run, read_runs
from src.runs.tables import duration
from src.utils.errors import UserError
from tests.report.run_fixtures import CLASSES, make_run


@pytest.fixture
def warnings(monkeypatch):
    """The warnings of the reading part."""
    kept = []
    monkeypatch.setattr(reading.log, "warning", lambda text, *args: kept.append(text % args))
    return kept


@pytest.fixture
def experiments(tmp_path):
    """Two seeds with stride 8, one run with stride 32, one that failed, one evaluation."""
    root = tmp_path / "experiments"
    make_run(root / "train/multiruns/2025-01-01/0", 0.5, seed=0)
    make_run(root / "train/multiruns/2025-01-01/1", 0.6, seed=1)
    make_run(root / "train/runs/coarse", 0.4, stride=32, tags=["a"])
    make_run(root / "train/runs/bad", 0.1, stride=16, status="failed", reason="</script><b>lost|it")
    make_run(
        root / "eval/runs/later", 0.55, command="eval", ckpt_path="x/run/checkpoints/best.ckpt"
    )
    make_run(root / "predict/runs/other", command="predict")
    return root


def test_training_and_evaluation_runs_are_found_wherever_they_lie(experiments):
    names = [run.name for run in read_runs(experiments)]
    assert names == [
        "eval/runs/later", "train/multiruns/2025-01-01/0", "train/multiruns/2025-01-01/1",
        "train/runs/bad", "train/runs/coarse",
    ]  # fmt: skip
    assert [run.name for run in read_runs(experiments / "train/runs/coarse")] == ["coarse"]


def test_seeds_are_one_group_with_mean_and_sample_deviation(experiments):
    trained = [run for run in read_runs(experiments) if run.command == "train"]
    groups = grouped(trained)
    assert [len(group.runs) for group in groups] == [2, 1, 1]  # best mean first
    mean, deviation, count = groups[0].spread("miou")
    assert mean == pytest.approx(0.55)
    assert deviation == pytest.approx(0.0707107)  # sqrt((0.05² + 0.05²) / 1)
    assert count == 2
    assert groups[1].spread("miou")[0] == 0.4 and str(groups[1].spread("miou")[1]) == "nan"
    assert groups[2].spread("miou")[2] == 0  # the failed one


def test_folds_are_repetitions_also_where_class_weights_follow_from_them(tmp_path):
    for fold, weights in enumerate(([1.0, 2.0], [1.5, 1.8])):
        parts = {"root": "x", "folds": 2, "fold": fold, "fold_by": None}
        loss = {"class_weights": weights, "label_smoothing": 0.0}
        run = make_run(tmp_path / str(fold), 0.4 + 0.2 * fold, dataset=parts, loss=loss)
        (run / ".hydra").mkdir()
        (run / ".hydra" / "config.yaml").write_text("loss: {class_weights: median_frequency}")
    runs = read_runs(tmp_path)
    (group,) = grouped(runs)
    assert differences(runs) == []
    assert group.class_spread("background") == (0.5, pytest.approx(0.1414214), 2)
    main([str(tmp_path)])
    text = (tmp_path / "report.md").read_text()
    assert "| background | 50.00 ± 14.14 |" in text
    rows = csv.DictReader((tmp_path / "report.csv").open())
    assert [(row["fold"], row["group"]) for row in rows] == [("0", "1"), ("1", "1")]


def test_runs_that_did_not_end_are_in_their_group_but_not_in_its_mean(tmp_path):
    make_run(tmp_path / "a", 0.5, seed=0)
    make_run(tmp_path / "b", 0.9, seed=1, status="interrupted", reason="KeyboardInterrupt")
    (group,) = grouped(read_runs(tmp_path))
    assert len(group.runs) == 2 and group.spread("miou") == (
        0.5,
        pytest.approx(float("nan"), nan_ok=True),
        1,
    )
    stopped = group.runs[1]
    assert stopped.scores["miou"] == 0.9 and stopped.best_epoch == stopped.last_epoch == 4


def test_folders_of_the_run_and_of_the_data_make_no_difference(tmp_path):
    make_run(tmp_path / "here" / "a")
    make_run(tmp_path / "there" / "b", seed=3, tags=["again"], task_name="other")
    found = read_runs(tmp_path)
    assert found[0].config["dataset.root"] != found[1].config["dataset.root"]
    assert len(grouped(found)) == 1 and differences(found) == []


def test_keys_that_vary_alike_are_one_difference_named_by_the_shallowest(tmp_path):
    for name, stride, rate in (("a", 8, 0.1), ("b", 8, 0.2), ("c", 32, 0.1)):
        optimizer = {"learning_rate": rate, "parameters": {"factor": rate}}
        make_run(tmp_path / name, stride=stride, optimizer=optimizer)
    found = differences(read_runs(tmp_path))
    assert [d.key for d in found] == ["model.stride", "optimizer.learning_rate"]
    assert found[1].along == ("optimizer.parameters.factor",)


def test_recipes_are_told_apart_by_their_names(tmp_path):
    for name, stride, task in (("a", 8, "demo"), ("b", 32, "demo"), ("c", 8, "camvid")):
        optimizer = {"learning_rate": 0.1 if task == "demo" else 0.2}
        make_run(tmp_path / name, stride=stride, optimizer=optimizer, task_name=task)
    found = differences(read_runs(tmp_path))
    assert [d.key for d in found] == ["task_name", "model.stride"]
    assert found[0].along == ("optimizer.learning_rate",)


def test_broken_runs_are_named_and_left_out_and_half_ones_are_read(tmp_path, warnings):
    make_run(tmp_path / "good")
    (make_run(tmp_path / "cut") / "summary.json").write_text('{"status": "comp')
    (make_run(tmp_path / "listed") / "summary.json").write_text("[]")
    (make_run(tmp_path / "bare") / "summary.json").unlink()
    half = make_run(tmp_path / "half", 0.7)
    (half / "config.resolved.yaml").write_text("model: [1, 2")
    (half / "eval.json").write_text("")
    (half / "metrics.csv").write_bytes(b"epoch,step,val/miou\n1,10,0.7\n2,2\xff\x00")
    assert [run.name for run in read_runs(tmp_path)] == ["good", "half"]
    text = "\n".join(warnings)
    for name in (
        "cut/summary.json",
        "listed/summary.json",
        "bare",
        "half/config",
        "half/eval.json",
    ):
        assert f"{tmp_path}/{name}" in text, name
    assert len(warnings) == 5
    run = read_run(half, "half")
    assert (
        run.scores["miou"] == 0.7 and run.config == {} and len(run.curves["val/miou"].values) == 1
    )


def test_a_folder_without_runs_is_refused(tmp_path, warnings):
    with pytest.raises(UserError, match="holds no runs"):
        main([str(tmp_path)])
    with pytest.raises(UserError, match="no such folder"):
        main([str(tmp_path / "nowhere")])
    with pytest.raises(UserError, match="did you mean 'output'"):
        main(["ouput=x.html"])
    with pytest.raises(UserError, match="ends in .html"):
        main(["output=x.txt"])


def test_the_csv_has_fractions_and_every_key_that_differs(experiments):
    main([str(experiments)])
    with open(experiments / "report.csv", newline="") as file:
        rows = {row["run"]: row for row in csv.DictReader(file)}
    first = rows["train/multiruns/2025-01-01/1"]
    assert float(first["miou"]) == 0.6 and float(first["pixel_acc"]) == pytest.approx(0.9)
    assert first["group"] == "1" and first["seed"] == "1" and first["best_epoch"] == "4"
    assert rows["train/runs/coarse"]["model.stride"] == "32"
    assert rows["train/runs/coarse"]["tags"] == "a"
    assert rows["train/runs/bad"]["reason"] == "</script><b>lost|it"
    assert rows["train/runs/bad"]["miou"] == ""
    assert rows["eval/runs/later"]["command"] == "eval"


def test_the_markdown_has_mean_and_deviation_in_percent(experiments):
    main([str(experiments)])
    text = (experiments / "report.md").read_text()
    assert "| 2/2 | 55.00 ± 7.07 | 65.00 ± 7.07 | 85.00 ± 7.07 | 75.00 ± 7.07 | 8 |" in text
    assert "| 1/1 | 40.00 | 50.00 | 70.00 | 60.00 | 32 |" in text
    assert "failed: </script><b>lost\\|it" in text


def test_the_picture_shows_every_seed_their_mean_and_deviation(experiments, drawn):
    main([str(experiments)])
    miou = drawn[0].axes[0]
    assert [label.get_text() for label in miou.get_yticklabels()] == ["1: stride=8", "2: stride=32"]
    dots = [line.get_xdata().tolist() for line in miou.lines if line.get_marker() == "o"]
    assert dots == [pytest.approx([50, 60]), pytest.approx([40])]
    means = [line.get_xdata()[0] for line in miou.lines if line.get_marker() == "|"]
    assert means == pytest.approx([55, 40])
    (spread,) = [bar.get_segments()[0] for bar in miou.collections]  # one run has none
    assert spread[:, 0] == pytest.approx([55 - 7.07107, 55 + 7.07107])


class Page(HTMLParser):
    """What a browser would see: cells by table, links, scripts."""

    def __init__(self, html):
        super().__init__()
        self.open, self.rows, self.addresses, self.scripts, self.heads = [], {}, [], [], []
        self.section = ""
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.addresses += [attributes[key] for key in ("src", "href") if key in attributes]
        if tag == "section":
            self.section = attributes["id"]
        elif tag == "tr":
            self.rows.setdefault(self.section, []).append([])
        elif tag in ("td", "th"):
            self.rows[self.section][-1].append("")
        elif tag == "script":
            self.scripts.append("")
        if tag not in ("meta", "input", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "script" in self.open:
            self.scripts[-1] += data
        elif {"td", "th"} & set(self.open):
            self.rows[self.section][-1][-1] += data


def test_the_page_stands_alone_and_says_what_the_tables_say(experiments):
    figure = experiments / "train/runs/coarse/figures/class_iou.png"
    figure.parent.mkdir()
    figure.touch()
    output = experiments.parent / "out" / "page.html"
    main([str(experiments), f"output={output}"])
    html = output.read_text(encoding="utf-8")
    page = Page(html)
    assert page.open == [] and "http" not in html.replace("http-equiv", "")
    links = [Path(unquote(address)) for address in page.addresses]
    assert [(output.parent / link).resolve() for link in links] == [figure]
    header, best, *_ = page.rows["groups"]
    assert header == ["", "runs", "mIoU", "mean acc.", "pixel acc.", "fw IoU", "model.stride"]
    assert best == [
        "1",
        "2 of 2",
        "55.00 ± 7.07",
        "65.00 ± 7.07",
        "85.00 ± 7.07",
        "75.00 ± 7.07",
        "8",
    ]
    cells = {row[0]: row for row in page.rows["runs"]}
    assert cells["train/runs/bad</script><b>lost|it"][1] == "failed"
    assert cells["train/runs/coarseclasses"][5] == "40.00"
    assert page.rows["classes"][0] == ["run", *CLASSES]
    assert ["train/multiruns/2025-01-01/1", "60.0", "60.0", "–"] in page.rows["classes"]
    assert page.rows["evaluations"][1][2] == "run/checkpoints/best.ckpt"
    data = json.loads(page.scripts[0])["runs"]
    assert [run["short"] for run in data] == ["2025-01-01/0", "2025-01-01/1", "coarse", "bad"]
    assert data[0]["about"] == "stride=8  seed=0" and data[0]["color"] == data[1]["color"] == 0
    assert data[1]["curves"]["val/miou"] == [[1, 2, 3, 4], [10, 20, 30, 40], [0.15, 0.3, 0.45, 0.6]]


def test_a_single_run_without_anything_but_a_summary_has_a_page(tmp_path):
    run = make_run(tmp_path / "a", status="failed", reason="no data")
    for name in ("metrics.csv", "config.resolved.yaml"):
        (run / name).unlink()
    main([str(tmp_path)])
    page = Page((tmp_path / "report.html").read_text())
    assert "curves" not in page.rows and page.rows["runs"][1][:2] == ["ano data", "failed"]


def test_values_are_short():
    assert show("src.models.backbones.vgg.VGG") == "VGG" and show("data/x.y") == "data/x.y"
    assert show([0.5, None, True]) == "[0.5, null, true]" and show(1e-4) == "0.0001"
    assert duration(3725.4) == "1:02:05" and duration(float("nan")) == "–"


def test_the_page_is_opened_where_asked_for(experiments, monkeypatch):
    opened = []
    monkeypatch.setattr("webbrowser.open", lambda address: opened.append(address) or True)
    main([str(experiments)])
    assert opened == []
    main([str(experiments), "--open"])
    assert opened == [(experiments / "report.html").as_uri()]


def test_the_page_links_to_the_trackers_that_have_a_run(tmp_path):
    run = make_run(tmp_path / "a")
    summary = json.loads((run / "summary.json").read_text())
    summary |= {
        "wandb_id": "abc", "wandb_url": "https://wandb.ai/me/p/runs/abc?a=1&b",
        "mlflow_id": "0<1", "mlflow_url": "javascript:alert(1)",
        "tensorboard_id": "tensorboard",
    }  # fmt: skip
    (run / "summary.json").write_text(json.dumps(summary))
    (run / "tensorboard").mkdir()
    main([str(tmp_path)])
    html = (tmp_path / "report.html").read_text()
    assert '<a href="https://wandb.ai/me/p/runs/abc?a=1&amp;b">wandb</a>' in html
    assert '<a href="a/tensorboard">tensorboard</a>' in html
    assert "mlflow 0&lt;1" in html and "javascript" not in html
