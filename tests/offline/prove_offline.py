"""Install vesu from its wheelhouse where there is no network, and run it, on every Python at hand (R06).

    python tests/offline/prove_offline.py --wheelhouse wheels-offline --out build/offline.json

Each Python of 3.11, 3.12 and 3.13 gets two fresh environments, with the pinned packages of Kaggle's image and with the
newest; those need the network. The rest happens in a network namespace with loopback only: `docs/offline_proof.md`.
The exit status is 1 where a step failed, where results differ by a bit, or where nothing could be proved; a Python that
this machine lacks is said, and is no failure.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from offline import sandbox
from offline.cases import Case, Outcome, generate, prove
from offline.images import IMAGES
from offline.interpreters import WANTED, find
from offline.pack import stale_members
from offline.results import summarise, table
from offline.session import STEPS

LAYOUT = {"kaggle": "kaggle", "newest": "folder"}
"""The image as on Kaggle goes with the tree as on Kaggle."""


def main() -> int:
    arguments = _parser().parse_args()
    wheelhouse: Path = arguments.wheelhouse.resolve()
    ours = sorted(wheelhouse.glob("vesu-*.whl"))
    if not ours:
        print(f"{wheelhouse} holds no vesu wheel: `make wheels` builds it", file=sys.stderr)
        return 1
    try:
        print(f"namespaces: {' '.join(sandbox.form())}")
    except sandbox.Refused as error:
        print(f"NOT PROVED: {error}", file=sys.stderr)
        return 1
    interpreters, missing = find(arguments.python)
    for minor, why in missing.items():
        print(f"NOT TRIED: Python {minor}: {why}", file=sys.stderr)
    stale = {wheel.name: stale_members(wheel) for wheel in ours}
    for wheel, members in stale.items():
        if members:
            print(f"NOTE: {wheel} is of another state of the code: {', '.join(members[:5])} ...", file=sys.stderr)
    steps = [step for step in STEPS if step not in arguments.skip]
    outcomes: list[Outcome] = []
    found = summarise(outcomes, missing, wheelhouse)
    with tempfile.TemporaryDirectory(prefix="vesu-offline-") as name:
        data = generate(Path(name, "data"))
        for case in (Case(each, image, LAYOUT[image]) for each in interpreters for image in arguments.image):
            print(f"{case.name} ({case.interpreter.version}, {case.layout}) ...", flush=True)
            with tempfile.TemporaryDirectory(prefix=f"{case.name}-", dir=name) as folder:
                outcomes.append(prove(case, wheelhouse, data, Path(folder), steps))
            found = summarise(outcomes, missing, wheelhouse) | {"stale_members": stale}
            _write(arguments.out, found)  # after each case: an interrupted proof has proved what it has
    print(table(outcomes))
    for problem in found["problems"]:
        print(f"FAILED: {problem}", file=sys.stderr)
    print(f"{arguments.out}: {len(outcomes)} cases, {len(found['problems'])} problems, {len(missing)} Pythons missing")
    return 1 if found["problems"] else 0


def _write(out: Path, found: dict[str, Any]) -> None:
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--wheelhouse", type=Path, default=Path("wheels-offline"), help="folder of the wheels")
    parser.add_argument("--out", type=Path, default=Path("build/offline.json"), help="file of the results")
    parser.add_argument("--python", nargs="+", default=WANTED, metavar="3.X", help="versions to prove")
    parser.add_argument("--image", nargs="+", default=IMAGES, choices=IMAGES, help="packages that stand there before")
    parser.add_argument("--skip", nargs="+", default=[], choices=STEPS, help="steps to leave out, for a quick look")
    return parser


if __name__ == "__main__":
    sys.exit(main())
