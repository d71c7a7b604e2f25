"""The import contract between the stages, and that `import vesu` is quick and needs only numpy."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "python" / "vesu"

# A stage may import what stands before it on the staircase and what is used by the run and knows no stage.
BESIDE = {"errors", "config", "notebook", "_core"}
MAY_IMPORT = {
    "errors": set(),
    "notebook": set(),
    "config": {"errors", "segmentation"},
    "comparison": {"errors"},
    "ablation": BESIDE | {"comparison", "data"},
    "autotune": {"errors"},
    "ledger": BESIDE,
    "offline": {"errors"},
    "volume": BESIDE,
    "data": BESIDE | {"offline"},
    "features": BESIDE | {"data"},
    "grid_search": BESIDE | {"data"},
    "calibration": BESIDE | {"volume", "segmentation"},
    "reliability": BESIDE,
    "segmentation": (BESIDE - {"config"}) | {"volume"},
    "guided": BESIDE | {"calibration", "data", "segmentation"},
    "baselines": BESIDE | {"segmentation"},
    "distill": BESIDE | {"ablation", "comparison", "data"},
    "scoring": BESIDE | {"data", "volume"},
    "submission": BESIDE | {"data"},
    "tuning": BESIDE | {"comparison", "segmentation"},
    "report": BESIDE | {"ledger", "data"},
    "campaign": BESIDE | {"comparison", "data", "ledger", "report", "run", "scoring", "submission"},
}


def imports(path: Path) -> set[str]:
    """First-level vesu modules that a file imports, wherever in the file."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names = [f"vesu.{a.name}" for a in node.names] if node.module == "vesu" else [node.module or ""]
        found |= {name.split(".")[1] for name in names if name.startswith("vesu.")}
    return found


@pytest.mark.parametrize("room", sorted(MAY_IMPORT))
def test_a_stage_imports_no_later_stage_and_no_neighbour(room: str) -> None:
    files = list((PACKAGE / room).rglob("*.py")) if (PACKAGE / room).is_dir() else [PACKAGE / f"{room}.py"]
    assert files
    for path in files:
        assert imports(path) - {room} <= MAY_IMPORT[room], path


def test_every_room_is_in_the_contract() -> None:
    rooms = {path.stem for path in PACKAGE.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
    assert rooms - {"__init__", "__main__", "cli", "run"} == set(MAY_IMPORT)


def test_no_pickle_anywhere() -> None:
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                assert not {"pickle", "joblib", "dill", "cloudpickle"} & {alias.name for alias in node.names}, path
            if isinstance(node, ast.keyword) and node.arg == "allow_pickle":
                assert isinstance(node.value, ast.Constant) and node.value.value is False, path


def test_import_needs_only_numpy() -> None:
    program = (
        "import sys; before = set(sys.modules); import vesu;"
        "new = {name.split('.')[0] for name in set(sys.modules) - before};"
        "third = {n for n in new if 'site-packages' in (getattr(sys.modules.get(n), '__file__', None) or '')};"
        "print(*sorted(third - {'vesu'}))"
    )
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert set(answer.stdout.split()) <= {"numpy"}


def test_every_public_name_is_there_and_documented() -> None:
    import vesu

    for name in vesu.__all__:
        assert getattr(vesu, name) is not None
        if name != "__version__":
            assert getattr(vesu, name).__doc__, name
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = vesu.no_such_name
