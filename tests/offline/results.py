"""The outcomes of all cases as one JSON value and as a table."""

import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from offline.cases import Outcome


def summarise(outcomes: Sequence[Outcome], missing: Mapping[str, str], wheelhouse: Path) -> dict[str, Any]:
    """All that was seen; ``problems`` is empty where every case held and all have the same bits."""
    return {
        "format": "vesu-offline-proof/1",
        "machine": f"{platform.system()} {platform.machine()}, {' '.join(platform.libc_ver())}",
        "wheelhouse": {file.name: file.stat().st_size for file in sorted(wheelhouse.glob("*.whl"))},
        "cases": [outcome.to_json() for outcome in outcomes],
        "missing": dict(missing),
        "problems": problems(outcomes),
    }


def problems(outcomes: Sequence[Outcome]) -> list[str]:
    """Failed steps, and results that differ between cases."""
    found = [
        f"{outcome.case}: {outcome.failed['step']}: {outcome.failed['error']}" for outcome in outcomes if outcome.failed
    ]
    hashed = {o.case: o.steps["hash_results"]["sha256"] for o in outcomes if "hash_results" in o.steps}
    for case, hashes in hashed.items():
        first_case, first = next(iter(hashed.items()))
        names = sorted(name for name in first.keys() | hashes.keys() if first.get(name) != hashes.get(name))
        if names:
            found.append(f"{case}: other bits than {first_case} in {', '.join(names)}")
    if not outcomes:
        found.append("nothing was proved: no interpreter")
    return found


def table(outcomes: Sequence[Outcome]) -> str:
    """One row a case, in markdown."""
    titles = (
        "Python",
        "image",
        "NumPy",
        "tifffile",
        "pip",
        "layout",
        "install",
        "import",
        "run",
        "from ZSTD",
        "steps",
        "masks",
    )
    rows = [titles, ("---",) * len(titles), *(_row(outcome) for outcome in outcomes)]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _row(outcome: Outcome) -> tuple[str, ...]:
    steps = outcome.steps
    beside = steps.get("install", {}).get("beside", {})
    packed = steps.get("meet_a_compression")
    masks = [h[:8] for name, h in steps.get("hash_results", {}).get("sha256", {}).items() if name.endswith(".tif")]
    return (
        outcome.python,
        outcome.image,
        *(beside.get(name, "-") for name in ("numpy", "tifffile", "pip")),
        outcome.layout,
        _seconds(steps, "install", "seconds"),
        _seconds(steps, "import_vesu", "import_s", 3),
        _seconds(steps, "run_pipeline", "run_s"),
        f"{packed['run_s']:.1f} s" if packed else "-",
        f"{len(steps)} held" + (f", FAILED {outcome.failed['step']}" if outcome.failed else ""),
        " ".join(masks) or "-",
    )


def _seconds(steps: Mapping[str, Any], step: str, fact: str, digits: int = 1) -> str:
    return f"{steps[step][fact]:.{digits}f} s" if step in steps else "-"
