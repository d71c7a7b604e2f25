"""The notebooks of examples/ run as they stand, and the README's example too."""

import ast
import importlib.util
import os
import re
import subprocess
import sys
import venv
import zipfile
from pathlib import Path
from typing import Any

import nbformat
import pip
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = ROOT / "examples"
NEEDS = {
    "teachers_to_student": ("vesu[distill]", ("torch", "monai", "safetensors")),
    "reading_the_evidence": ("polars", ("polars",)),
}
"""What to install, and the modules that show whether it is."""
FIGURES = {
    "quickstart": 2,
    "kaggle_train_and_submit": 2,
    "resume_after_a_kill": 0,
    "teachers_to_student": 3,
    "reading_the_evidence": 3,
    "postprocessing_and_score_explorer": 6,
}
"""The notebooks, and how many figures each shows."""
PACKAGES = {"vesu", "numpy", "matplotlib", "polars", "torch", "IPython"}
"""What a notebook may import besides the standard library: what a reader can install, and no helper of ours."""


def read(name: str) -> Any:
    return nbformat.read(EXAMPLES / f"{name}.ipynb", as_version=4)


def code_of(notebook: Any) -> list[str]:
    return [cell.source for cell in notebook.cells if cell.cell_type == "code"]


def test_every_notebook_is_known() -> None:
    assert {path.stem for path in EXAMPLES.glob("*.ipynb")} == FIGURES.keys()


@pytest.mark.parametrize("name", FIGURES)
def test_a_notebook_is_clean_and_hides_nothing(name: str) -> None:
    notebook = read(name)
    nbformat.validate(notebook)
    for cell in notebook.cells:
        assert not cell.get("outputs") and cell.get("execution_count") is None, "outputs are stripped in the history"
        assert not cell.metadata, "no state of an editor"
    assert notebook.cells[0].source.startswith("# ")
    imported = set()
    for node in ast.walk(ast.parse("\n".join(code_of(notebook)))):
        if isinstance(node, ast.Import):
            imported |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            imported.add((node.module or "").split(".")[0])
    assert imported <= PACKAGES | sys.stdlib_module_names


@pytest.mark.parametrize("name", FIGURES)
def test_a_notebook_runs(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    extra, modules = NEEDS.get(name, ("", ()))
    if missing := [each for each in modules if importlib.util.find_spec(each) is None]:
        pytest.skip(f"{name}.ipynb needs {', '.join(missing)}: pip install '{extra}'")
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent), prepend=":")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # of torch: the tests share the machine
    notebook = read(name)
    client = NotebookClient(notebook, timeout=900, kernel_name="python3", resources={"metadata": {"path": tmp_path}})
    client.execute()
    shown = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    assert sum("image/png" in output.get("data", {}) for output in shown) == FIGURES[name]
    told = [output.text for output in shown if output.output_type == "stream" and output.name == "stderr"]
    # MONAI imports tqdm by itself, which regrets the want of ipywidgets.
    complaints = [text for text in told if "Warning" in text and not ("torch" in modules and "IProgress" in text)]
    assert not complaints, complaints
    assert {path.name for path in tmp_path.iterdir()} <= {"work"}, "all that it writes lies in one folder"


# ---- the install cell of the Kaggle notebook


def wheel(folder: Path) -> None:
    """A wheel of that name, of one file: what is installed is not the point here."""
    folder.mkdir(parents=True)
    info = "vesu-0.0.1.dist-info"
    files = {
        "vesu/__init__.py": "__version__ = '0.0.1'\n",
        f"{info}/METADATA": "Metadata-Version: 2.1\nName: vesu\nVersion: 0.0.1\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    with zipfile.ZipFile(folder / "vesu-0.0.1-py3-none-any.whl", "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
        archive.writestr(f"{info}/RECORD", "".join(f"{name},,\n" for name in files) + f"{info}/RECORD,,\n")


def bare_python(folder: Path) -> Path:
    """An interpreter of its own that has pip and nothing else."""
    venv.create(folder, with_pip=False)
    (site_packages,) = folder.glob("lib/python*/site-packages")
    (site_packages / "pip").symlink_to(Path(pip.__file__).parent)
    return folder / "bin" / "python"


@pytest.mark.skipif(os.name == "nt", reason="symbolic links, and Kaggle is Linux")
@pytest.mark.parametrize("mount", ["vesu-wheels", "datasets/somebody/vesu-wheels/wheels-offline", None])
def test_the_kaggle_notebook_installs_from_the_attached_wheels(mount: str | None, tmp_path: Path) -> None:  # R06
    paths, install = code_of(read("kaggle_train_and_submit"))[:2]
    if mount is not None:
        wheel(tmp_path / "work" / "kaggle" / "input" / mount)
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    words = [str(bare_python(tmp_path / "python")), "-c", f"{paths}\n{install}\nprint('now', vesu.__version__)"]
    answer = subprocess.run(words, capture_output=True, text=True, cwd=tmp_path, env=environment)
    if mount is None:
        assert answer.returncode == 1 and "FileNotFoundError: no vesu-*.whl below" in answer.stderr
    else:
        assert answer.returncode == 0, answer.stderr
        assert f"installed from {tmp_path / 'work' / 'kaggle' / 'input' / mount}" in answer.stdout
        assert answer.stdout.splitlines()[-1] == "now 0.0.1"


def test_the_kaggle_notebook_installs_nothing_twice(tmp_path: Path) -> None:  # R06
    paths, install = code_of(read("kaggle_train_and_submit"))[:2]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    words = [sys.executable, "-c", f"{paths}\n{install}"]
    answer = subprocess.run(words, capture_output=True, text=True, cwd=tmp_path, env=environment, check=True)
    assert "importable already: nothing to install" in answer.stdout


# ---- the documents


def test_readme_example_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    assert blocks
    for block in blocks:
        exec(compile(block, "README.md", "exec"), {})


def test_documents_hold_no_placeholder_and_no_dead_link() -> None:
    for path in [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]:
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"\b[A-Z]+_(TABLE|TEXT|FIGURE)\b|\bTODO\b", text), path
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", text):
            assert (path.parent / target).exists(), f"{path.name}: {target}"
