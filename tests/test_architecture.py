"""Who may import whom (README, "Layout"), read from the import statements."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SOURCES = sorted((ROOT / "src").rglob("*.py"))

ENTRY_POINTS = {"train", "eval", "predict", "prepare", "export", "preview"}
COMMAND_LINE = ENTRY_POINTS | {
    "benchmark", "cli", "build", "config_check", "config_interpolations", "config_rules", "run_config",
}  # fmt: skip
PARTS = {"data", "models", "losses", "metrics", "schedules", "optimizers"}
MAY_IMPORT = {
    **{part: {part, "utils"} for part in PARTS},
    "engine": {"engine", "utils"},
    "utils": {"utils"},
    "build": {*PARTS, "engine", "utils"},
    "config_check": {"config_rules", "utils"},
    "run_config": {"config_interpolations", "engine", "utils"},
    "sweeps": {"sweeps", "report", "engine", "utils"},
    "sweeps/__main__": {"train", "sweeps", "engine", "utils"},
    "cli": {"config_check", "run_config", "sweeps", "engine", "utils"},
    **{entry: {"cli", "build", "engine", "data", "utils"} for entry in ENTRY_POINTS},
    "export": {"cli", "build", "engine", "exporting", "utils"},
    "distributed": {"engine", "utils"},
    "exporting": {"exporting", "engine", "utils"},
    "report": {"report", "engine", "utils"},
    "benchmark": {"benchmark", "cli", "build", "engine", "data", "metrics", "utils"},
    "__init__": {"utils"},
}
ADDED = {*PARTS, "engine", "utils"}  # a file of your own, as the README's examples


def imports(path: Path) -> set[str]:
    """Every module that a file imports, also inside functions."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def part(path: Path) -> str:
    inside = path.relative_to(ROOT / "src")
    if inside.as_posix() == "sweeps/__main__.py":  # an entry point of its own
        return "sweeps/__main__"
    return inside.parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_go_downwards_only(path):
    known = {p.name.removesuffix(".py") for p in (ROOT / "src").iterdir()}
    used = {name.split(".")[1] for name in imports(path) if name.startswith("src.")} & known
    allowed = MAY_IMPORT.get(part(path), ADDED)
    assert used <= allowed, f"{path.name} imports {used - allowed}"


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_hydra_stays_at_the_door_and_wandb_in_its_logger(path):
    used = {name.split(".")[0] for name in imports(path)}
    if part(path) not in COMMAND_LINE:
        assert not used & {"hydra", "omegaconf"}
    if path.name != "loggers.py":
        assert "wandb" not in used


def test_the_confusion_matrix_is_numpy_only():
    used = {name.split(".")[0] for name in imports(ROOT / "src" / "metrics.py")}
    assert used <= {"numpy", "collections", "math", "src", "warnings"}


LATE = ("mindspore", "cv2", "wandb", "matplotlib")


def test_what_answers_help_imports_no_mindspore():
    """`--help` must not pay for it: nothing below the entry points imports it at the top."""
    at_the_top = [
        "cli", "config_check", "config_interpolations", "config_rules", "run_config", "train", "eval", "predict", "prepare", "export",
        "preview", "distributed", "utils/ranks", "benchmark/__main__", "report/__main__", "report/runs", "sweeps/jobs", "sweeps/recall", "sweeps/process", "sweeps/pool", "sweeps/board", "sweeps/cluster", "utils/figures", "engine/rundir", "utils/console", "utils/errors", "utils/files", "utils/runtime",
    ]  # fmt: skip
    for name in at_the_top:
        tree = ast.parse((ROOT / "src" / f"{name}.py").read_text(encoding="utf-8"))
        for node in tree.body:
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            assert not any(n.split(".")[0] in LATE for n in names)


def test_commands_start_without_a_thread_beside_the_main_one():
    """NumPy's threads would take the Ctrl-C that `watch_ctrl_c` waits for."""
    names = ("train", "eval", "predict", "prepare", "export", "preview", "benchmark.__main__")
    code = "import sys\n" + "".join(f"import src.{name}\n" for name in names)
    code += "print(sorted({'numpy', 'mindspore', 'cv2'} & set(sys.modules)))"
    found = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert found.stdout.strip() == "[]", found.stderr


def test_no_file_is_over_300_lines():
    long = {p.name: n for p in SOURCES if (n := len(p.read_text().splitlines())) > 300}
    assert not long
