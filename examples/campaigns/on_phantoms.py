"""Both example campaigns on generated volumes, with two teachers that are made in seconds.

    python examples/campaigns/on_phantoms.py --out build/campaign

Leaves `nx46_v75/comparison.html` and `transfer_p123/comparison.html` below the folder, and exits with 5 if a run has
no score. Started again it goes on where it was. On volumes this small the figures say that campaigns work, and nothing
of the scrolls.
"""

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from vesu.campaign import load_matrix, preflight_campaign, run_campaign
from vesu.data.phantom import DressParams, dress, generate_scroll, write_dataset
from vesu.distill.architectures import build_network
from vesu.distill.normalisation import Normalisation, normalise_volume
from vesu.distill.teacher import InputSpec, OutputSpec, write_teacher

HERE = Path(__file__).resolve().parent
CLEAR = DressParams(recto_contrast=70)
SIDE = 24
TEACHERS = {
    "unet": ("UNet", {"channels": [8, 16], "strides": [2]}),
    "segresnet": ("SegResNet", {"init_filters": 8, "norm": "INSTANCE", "blocks_down": [1, 1], "blocks_up": [1]}),
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("build/campaign"))
    parser.add_argument("--size", type=int, default=48, help="voxels along each axis (default: 48)")
    parser.add_argument("--train", type=int, default=8, help="labelled volumes (default: 8)")
    parser.add_argument("--threads", type=int, help="of a run (default: all cores)")
    parser.add_argument("--seeds", type=int, nargs="+", help="other seeds than the matrices have")
    words = parser.parse_args()
    data = write_dataset(
        words.out / "data" / "scroll", n_train=words.train, n_test=1, shape=(words.size,) * 3, seed=26, params=CLEAR
    )
    write_teachers(words.out / "data" / "teachers")
    settings = [] if words.threads is None else [f"n_threads={words.threads}"]
    failed = 0
    for name in ("nx46_v75", "transfer_p123"):
        matrix = load_matrix(HERE / f"{name}.toml")
        matrix = matrix if words.seeds is None else replace(matrix, seeds=tuple(words.seeds))
        out = words.out / name
        print(preflight_campaign(matrix, data, out))
        found = run_campaign(matrix, data, out, settings=settings, announce=lambda line: print(line, flush=True))
        print(f"{found}\nreport      {out / 'comparison.html'}\n")
        failed += len(found.failed)
    return 5 if failed else 0


def write_teachers(folder: Path) -> None:
    """Two networks taught on volumes that are not in the data set; what is there is left."""
    folder.mkdir(parents=True, exist_ok=True)
    for seed, (name, (architecture, kwargs)) in enumerate(TEACHERS.items(), start=104):
        if not (folder / name / "teacher.json").exists():
            write_teacher(
                folder / name,
                taught(architecture, kwargs, seed).state_dict(),
                name=name,
                input=InputSpec((SIDE, SIDE, SIDE)),
                normalisation=Normalisation("zscore"),
                output=OutputSpec(2, 1, "logits"),
                architecture={"name": architecture, "kwargs": kwargs},
                licence="CC0-1.0",
                source="trained on generated volumes",
            )


def taught(architecture: str, kwargs: dict, seed: int, steps: int = 40) -> torch.nn.Module:
    """A network after some steps on patches of a generated volume."""
    label = generate_scroll((48, 48, 48), seed=seed)
    image, rng = (
        normalise_volume(dress(label, seed, params=CLEAR), Normalisation("zscore")),
        np.random.default_rng(seed),
    )
    torch.manual_seed(seed)
    network = build_network(architecture, 2, kwargs).train()
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-2)
    weight = torch.tensor([1.0, 4.0])  # surface is rare
    for _ in range(steps):
        place = tuple(slice(start, start + SIDE) for start in rng.integers(0, 48 - SIDE, 3))
        batch, truth = image[place][None, None].copy(), label[place][None].astype(np.int64)
        output = network(torch.from_numpy(batch))
        loss = torch.nn.functional.cross_entropy(output, torch.from_numpy(truth), weight, ignore_index=2)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return network.eval()


if __name__ == "__main__":
    raise SystemExit(main())
