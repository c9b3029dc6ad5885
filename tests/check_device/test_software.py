import mindspore
import pytest
from mindspore.run_check._check_version import AscendEnvChecker

from src.check_device import software
from tests import ROOT


def test_versions_of_driver_and_toolkit_are_read_where_they_are(tmp_path, monkeypatch):
    monkeypatch.setattr(software, "ASCEND", tmp_path)
    home = tmp_path / "toolkit"
    for path, text in {
        tmp_path / "driver/version.info": "Version=25.2.0",
        home / "version.cfg": "runtime_running_version=[8.5.0]",
        home / "aarch64-linux/ascend_toolkit_install.info": "version=8.5.0",
    }.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    monkeypatch.setenv("ASCEND_TOOLKIT_HOME", str(home))
    monkeypatch.setenv("ASCEND_HOME_PATH", str(home))
    found = software.software()
    assert found["files"] == {
        str(tmp_path / "driver/version.info"): "Version=25.2.0",
        str(home / "aarch64-linux/ascend_toolkit_install.info"): "version=8.5.0",
        str(home / "version.cfg"): "runtime_running_version=[8.5.0]",
    }


def test_a_report_has_the_variables_of_the_device_and_no_others(monkeypatch):
    monkeypatch.setenv("HCCL_CONNECT_TIMEOUT", "600")
    monkeypatch.setenv("WANDB_API_KEY", "secret")
    found = software.software()["environment"]
    assert found["HCCL_CONNECT_TIMEOUT"] == "600" and "WANDB_API_KEY" not in found


def test_mindspores_own_check_passes_here():
    assert "installed on platform [CPU] successfully" in software.run_check()


def test_what_mindspores_own_check_says_is_an_error_where_it_failed(monkeypatch):
    said = "MindSpore version: 2.10.0\nrun check failed: no CANN"  # it raises nothing
    monkeypatch.setattr(mindspore, "run_check", lambda: print(said))
    with pytest.raises(RuntimeError, match="no CANN"):
        software.run_check()


def test_the_page_for_ascend_names_the_versions_that_mindspores_own_checker_does():
    versions = ", ".join(f"`{version}`" for version in AscendEnvChecker(None).version)
    page = (ROOT / "docs" / "ascend.md").read_text(encoding="utf-8")
    assert f"| `{mindspore.__version__}` | {versions} |" in page
