"""A run with every V3 phase on, on generated volumes: what it leaves, and what the gates say of it.

    python examples/v3/on_phantoms.py --out build/v3

Two teachers are made in seconds; the reference of the guided phase is a mask of the test volume by someone who knows
more than the run, here the generator. Exits with 4 if a gate fails or a V3 file is missing. On volumes this small the
figures say that the phases work, and nothing of the scrolls.
"""

import argparse
import shutil
import sys
from pathlib import Path

import vesu
from vesu.data.phantom import DressParams, write_dataset
from vesu.run.gates import judge, v3_files

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "campaigns"))
from on_phantoms import write_teachers  # noqa: E402  # beside the other example

CLEAR = DressParams(recto_contrast=70)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("build/v3"))
    parser.add_argument("--size", type=int, default=80, help="voxels along each axis (default: 80)")
    parser.add_argument("--train", type=int, default=6, help="labelled volumes (default: 6)")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="another setting of the run")
    words = parser.parse_args()
    data = write_dataset(
        words.out / "data" / "scroll", n_train=words.train, n_test=2, shape=(words.size,) * 3, seed=26, params=CLEAR
    )
    write_teachers(words.out / "data" / "teachers")
    truth = sorted((data / "truth").glob("*.tif"))[0]
    reference = words.out / "data" / f"{truth.stem}_reference.tif"
    shutil.copyfile(truth, reference)
    config = vesu.load_config(HERE / "v3.toml", overrides=[f"guided.reference={str(reference)!r}", *words.set])
    result = vesu.run(data, words.out / "run", config=config, display="none", restart=True)
    print(result)
    verdict, files = judge(result.folder), v3_files(result.folder)
    print(verdict)
    for each in files:
        print(f"{each.name:<34} {'there' if each.there else 'missing'}")
    return 0 if verdict.go and all(each.there for each in files) else 4


if __name__ == "__main__":
    raise SystemExit(main())
