"""The notebooks of `examples/`, executed from the first cell to the last: `make test-notebook`."""

import json

import nbformat
import pytest
from nbclient import NotebookClient

from tests import ROOT

PATIENCE = 900  # seconds a cell


@pytest.mark.parametrize("name", ["tutorial.ipynb", "tutorial.zh-CN.ipynb"])
def test_a_notebook_trains_a_network_that_tells_the_shapes_apart(name, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))  # the kernel works elsewhere
    notebook = nbformat.read(ROOT / "examples" / name, as_version=4)
    place = {"metadata": {"path": str(tmp_path)}}
    NotebookClient(notebook, timeout=PATIENCE, resources=place).execute()
    [run] = tmp_path.glob("tutorial/runs/*")
    assert json.loads((run / "eval.json").read_text())["miou"] > 0.7  # 0.78 here
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    shown = [kind for output in outputs for kind in output.get("data", ())]
    assert shown.count("image/png") == 4
    assert len(outputs) < 60  # bars are redrawn in their place
