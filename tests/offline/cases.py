"""What one proof takes (a `Case`), and how it is carried out: environment outside, session inside the namespace."""

import json
import os
import shutil
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from offline import images, sandbox
from offline.interpreters import Interpreter
from offline.session import STEPS
from offline.zstd_tiff import rewrite_dataset

SESSION = Path(__file__).with_name("session.py")

SETTINGS = ("sampling.voxels_per_volume=800", "segment.dust.min_voxels=20")
"""A mini run draws fewer voxels; the grid and its iterations stay whole (R50)."""
GRID = "135 candidates x 120 iterations"

WHEELS_ON_KAGGLE = Path("/kaggle/input/datasets/someone/vesu-wheels")
DATA_ON_KAGGLE = Path("/kaggle/input/competitions/vesuvius-challenge-surface-detection")
WORK_ON_KAGGLE = Path("/kaggle/working")


@dataclass(frozen=True)
class Case:
    """One fresh environment, and where its wheels and data lie."""

    interpreter: Interpreter
    image: str
    """Which packages stand there before: ``kaggle`` (its pins) or ``newest``."""
    layout: str
    """``kaggle``: below `/kaggle`, nothing is told, all is found; ``folder``: plain folders, named by the user."""

    @property
    def name(self) -> str:
        return f"{self.interpreter.minor}-{self.image}"


@dataclass(frozen=True)
class Data:
    """The generated volumes: as the competition packs them, and packed with a compression vesu cannot read alone."""

    plain: Path
    packed: Path


@dataclass
class Outcome:
    """What a case showed."""

    case: str
    python: str
    image: str
    layout: str
    deviations: list[str] = field(default_factory=list)
    steps: dict[str, Any] = field(default_factory=dict)
    failed: dict[str, str] | None = None
    environment_s: float = 0.0
    session_s: float = 0.0

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def generate(folder: Path) -> Data:
    """Three labelled and two test volumes of 32^3, once for all cases."""
    from vesu.data.phantom import write_dataset

    plain = write_dataset(folder / "plain", n_train=3, n_test=2, shape=(32, 32, 32), seed=3)
    return Data(plain, rewrite_dataset(plain, folder / "packed"))


def prove(case: Case, wheelhouse: Path, data: Data, folder: Path, steps: Sequence[str] = tuple(STEPS)) -> Outcome:
    """Make the environment with the network, then do the whole session without."""
    packages, deviations = images.requirements(case.image, case.interpreter.minor)
    outcome = Outcome(case.name, case.interpreter.version, case.image, case.layout, deviations)
    start = time.monotonic()
    try:
        python = images.make_environment(case.interpreter, packages, folder / "environment")
    except RuntimeError as error:
        outcome.failed = {"step": "environment", "error": str(error)}
        return outcome
    outcome.environment_s = time.monotonic() - start
    return run_session(outcome, python, wheelhouse, data, folder, steps)


def run_session(
    outcome: Outcome, python: Path, wheelhouse: Path, data: Data, folder: Path, steps: Sequence[str]
) -> Outcome:
    """The session of a finished environment, in the layout of the case."""
    plan, environment, mounts = _plan(outcome.layout, wheelhouse, data, folder)
    plan |= {"steps": list(steps), "outer_namespace": Path("/proc/self/ns/net").readlink().name}
    (folder / "plan.json").write_text(json.dumps(plan), encoding="utf-8")
    start = time.monotonic()
    answer = sandbox.run(
        [python, "-I", SESSION, folder / "plan.json"],
        environment=environment,
        cwd=Path(str(plan["out"])).parent,
        mounts=mounts,
    )
    outcome.session_s = time.monotonic() - start
    if not Path(plan["result"]).exists():
        outcome.failed = {"step": "session", "error": f"exit code {answer.returncode}: {answer.stderr}"}
        return outcome
    result = json.loads(Path(plan["result"]).read_bytes())
    outcome.steps, outcome.failed = result["steps"], result["failed"]
    return outcome


def _plan(
    layout: str, wheelhouse: Path, data: Data, folder: Path
) -> tuple[dict[str, Any], dict[str, str], list[sandbox.Mount]]:
    """Paths as the session sees them, all of its environment variables, and what is mounted."""
    working, home = folder / "working", folder / "home"
    for each in (working, home):
        shutil.rmtree(each, ignore_errors=True)
        each.mkdir(parents=True)
    environment = {"PATH": os.defpath, "HOME": str(home), "TMPDIR": str(home), "LANG": "C.UTF-8"}
    environment |= {"PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_ROOT_USER_ACTION": "ignore"}
    plan: dict[str, Any] = {"settings": SETTINGS, "grid": GRID, "result": str(folder / "result.json")}
    if layout == "kaggle":
        mounts = [
            sandbox.Mount(wheelhouse, WHEELS_ON_KAGGLE),
            sandbox.Mount(data.plain, DATA_ON_KAGGLE),
            sandbox.Mount(working, WORK_ON_KAGGLE, read_only=False),
        ]
        seen = {"wheelhouse": WHEELS_ON_KAGGLE, "data": None, "test_images": DATA_ON_KAGGLE / "test_images"}
        seen |= {"out": WORK_ON_KAGGLE / "run"}
    else:
        mounts = []
        environment["VESU_WHEELHOUSE"] = str(wheelhouse)
        seen = {"wheelhouse": wheelhouse, "data": data.plain, "test_images": data.plain / "test_images"}
        seen |= {"out": working / "run"}
    paths = {name: None if path is None else str(path) for name, path in (seen | {"packed": data.packed}).items()}
    return plan | paths, environment, mounts
