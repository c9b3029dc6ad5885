"""Who may import whom (README: "Repository layout"), read from the import statements."""

import ast
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from tests import ROOT

SRC = ROOT / "src"
SOURCES = sorted([*SRC.rglob("*.py"), *(ROOT / "hydra_plugins").rglob("*.py")])

ENTRY_POINTS = {
    "train", "eval", "predict", "prepare", "preview", "export", "sweep_job",
    "benchmark", "report", "check_device", "distributed", "hydra_plugins",
}  # fmt: skip
FOUNDATIONS = {"data", "models", "losses", "metrics", "optim", "device", "visualization", "runs"}
MAY_IMPORT = {
    **{room: {"utils"} for room in FOUNDATIONS},
    **{
        room: {"runs", "device", "visualization", "utils"}
        for room in ("engine", "exporting", "sweeps")
    },
    "utils": set(),
    "cli": {*FOUNDATIONS, "engine", "exporting", "sweeps", "utils"},
    "__init__": {"device"},  # limits oneDNN's instruction set before MindSpore can be imported
}
BELOW_ENTRY_POINTS = {*FOUNDATIONS, "cli", "engine", "exporting", "sweeps", "utils"}


def imports(path: Path) -> set[str]:
    """Every module that a file imports, also inside functions and for types alone."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def room(path: Path) -> str:
    inside = path.relative_to(ROOT).parts
    return inside[0] if inside[0] != "src" else inside[1].removesuffix(".py")


def rooms_imported(path: Path) -> set[str]:
    known = {p.name.removesuffix(".py") for p in SRC.iterdir()}
    return {name.split(".")[1] for name in imports(path) if name.startswith("src.")} & known


def module_name(path: Path) -> str:
    name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
    return name.removesuffix(".__init__")


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_go_downwards_only(path):
    own = room(path)
    allowed = BELOW_ENTRY_POINTS if own in ENTRY_POINTS else MAY_IMPORT[own]
    if own == "sweep_job":  # one training run of a sweep
        allowed = allowed | {"train"}
    assert rooms_imported(path) <= allowed | {own}


def test_no_module_imports_itself_in_a_circle_not_even_for_types():
    modules = {module_name(path): path for path in SOURCES}
    graph = {name: imports(path) & modules.keys() - {name} for name, path in modules.items()}
    # `from package import module` names the package too
    graph = {
        name: {i for i in used if not name.startswith(i + ".")} for name, used in graph.items()
    }
    TopologicalSorter(graph).prepare()  # raises CycleError, which names the circle


def test_hydra_stays_at_the_door():
    for path in SOURCES:
        if room(path) not in ENTRY_POINTS | {"cli"}:
            assert not {name.split(".")[0] for name in imports(path)} & {"hydra", "omegaconf"}, path


@pytest.mark.parametrize(
    "tracker, file",
    [
        ("wandb", "wandb"),
        ("tensorboardX", "tensorboard"),
        ("mlflow", "mlflow"),
        ("swanlab", "swanlab"),
    ],
)
def test_a_tracker_is_imported_in_its_logger_alone(tracker, file):
    logger = SRC / "engine" / "loggers" / f"{file}.py"
    used = [p for p in SOURCES if tracker in {name.split(".")[0] for name in imports(p)}]
    assert used == [logger]


def test_the_confusion_matrix_is_numpy_only():
    used = {name.split(".")[0] for name in imports(SRC / "metrics" / "confusion_matrix.py")}
    assert used <= {"numpy", "collections", "math", "src"}


def test_what_answers_help_imports_neither_mindspore_nor_numpy():
    """`--help` must not pay for them, and NumPy's threads would take the Ctrl-C that we wait for."""
    names = ("train", "eval", "predict", "prepare", "export", "preview")
    names += ("benchmark.__main__", "check_device.__main__")
    code = "import sys\n" + "".join(f"import src.{name}\n" for name in names)
    code += "print(sorted({'numpy', 'mindspore', 'cv2', 'wandb', 'matplotlib'} & set(sys.modules)))"
    found = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert found.stdout.strip() == "[]", found.stderr
