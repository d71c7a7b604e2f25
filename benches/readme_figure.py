"""docs/figures/demo.png from a finished `make demo`: one generated test volume, its probability, its mask."""

import argparse
import json
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path, nargs="?", default=Path("demo"))
    parser.add_argument("--out", type=Path, default=Path("docs/figures/demo.png"))
    arguments = parser.parse_args()
    path = sorted((arguments.run / "segment").glob("*_views.npz"))[0]
    views = np.load(path, allow_pickle=False)
    entry = json.loads(path.with_name(path.name.replace("_views.npz", ".json")).read_text())
    figure = Figure(figsize=(10, 3.6), layout="constrained")
    axes = figure.subplots(1, 3)
    axes[0].imshow(views["z_volume"], cmap="gray")
    axes[1].imshow(views["z_probability"].astype(np.float32), cmap="magma", vmin=0, vmax=1)
    axes[2].imshow(views["z_volume"], cmap="gray")
    axes[2].contour(views["z_mask"], levels=[0.5], colors="#ff9f1c", linewidths=0.9)
    titles = ("CT (generated)", "mean probability", f"mask, {entry['ink_ratio_global']:.1%} of the volume")
    for axis, title in zip(axes, titles, strict=True):
        axis.set_title(title, fontsize=9)
        axis.set_axis_off()
    figure.savefig(arguments.out, dpi=90)


if __name__ == "__main__":
    main()
