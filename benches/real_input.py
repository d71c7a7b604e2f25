"""The run on real geometry and on real CT: the figures of docs/measured.md, section 'Real input'.

Two real labels, no CT of theirs: each label is dressed as CT several times (other seeds, other flips). The model is
trained on one label's volumes and tested on the other's, both ways round. The model of the first direction then
segments the one real CT chunk, through the command line. Nothing that this writes may be redistributed.
"""

import argparse
import json
import os
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import numpy as np

import vesu
from vesu import baselines
from vesu.data.phantom import dress
from vesu.run import validation

FLIPS: tuple[tuple[int, ...], ...] = ((), (0,), (1,), (2,))


def research_data() -> Path:
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    return Path(os.environ.get("VESU_DATA", beside))


def prepare(folder: Path, train: Path, held_out: Path, n_train: int, n_test: int) -> Path:
    """A data set in the competition's layout: one label dressed for training, the other for testing."""
    if (folder / "ready").exists():
        return folder
    for kind, source, count in (("train", train, n_train), ("test", held_out, n_test)):
        label = vesu.read_volume(source)
        for index in range(count):
            volume_id = f"{source.stem}{index}"
            turned = np.ascontiguousarray(np.flip(label, FLIPS[index % len(FLIPS)]))
            start = time.monotonic()
            image = dress(turned, 1000 + index)
            print(f"dressed {volume_id} {image.shape} in {time.monotonic() - start:.1f} s", flush=True)
            for name in (f"{kind}_images", "train_labels" if kind == "train" else "truth"):
                (folder / name).mkdir(parents=True, exist_ok=True)
            vesu.write_volume(folder / f"{kind}_images" / f"{volume_id}.tif", image, compression="lzw")
            truth = folder / ("train_labels" if kind == "train" else "truth") / f"{volume_id}.tif"
            vesu.write_volume(truth, turned, compression="lzw")
    (folder / "ready").touch()
    return folder


def held_out_scores(data: Path, run: Path) -> list[dict[str, object]]:
    """Scores of the run's masks on the held-out label, beside the historical and the trivial baselines (R32)."""
    rows: list[dict[str, object]] = []
    train_density = json.loads((run / "summary.json").read_text())["validation"]["density_label"]
    for path in sorted((data / "truth").glob("*.tif")):
        label, image = vesu.read_volume(path), vesu.read_volume(data / "test_images" / path.name)
        masks = {
            "vesu": vesu.read_volume(run / "masks" / path.name),
            "nx46": baselines.segment(image, "nx46").mask,
            "nx47": baselines.segment(image, "nx47").mask,
            "intensity quantile": validation.brightest(image, train_density),
            "all background": np.zeros_like(label),
        }
        known = label != 2
        for name, mask in masks.items():
            report = vesu.score(mask, label)
            row = {"volume": path.stem, "who": name, "score": report.score, "topology": report.topology.score}
            row |= {"surface": report.surface.score, "voi": report.voi.score, **validation.scores(mask, label)}
            rows.append(
                row | {"density": float(mask[known].mean()), "density_label": float((label[known] == 1).mean())}
            )
    return rows


def show(rows: list[dict[str, object]]) -> None:
    for row in rows:
        print("  ".join(f"{k} {v:.4f}" if isinstance(v, float) else f"{v}" for k, v in row.items()), flush=True)


def segment_real_ct(ct: Path, model: Path, out: Path) -> None:
    """The real chunk through the command line, and a picture of it (for the eye, never for the history)."""
    command = [
        sys.executable,
        "-m",
        "vesu",
        "segment",
        str(ct),
        "--model",
        str(model),
        "--out",
        str(out / "ct_mask.tif"),
        "--probability",
        str(out / "ct_probability.tif"),
    ]
    start = time.monotonic()
    print(subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip())
    print(f"vesu segment {ct.name}: {time.monotonic() - start:.1f} s")
    from matplotlib.figure import Figure

    volume, mask = vesu.read_volume(ct), vesu.read_volume(out / "ct_mask.tif")
    probability = vesu.read_volume(out / "ct_probability.tif")
    figure = Figure(figsize=(15, 15), layout="constrained")
    axes = figure.subplots(3, 3)
    for axis in range(3):
        index = volume.shape[axis] // 2
        plane = volume.take(index, axis)
        axes[axis, 0].imshow(plane, cmap="gray")
        axes[axis, 1].imshow(probability.take(index, axis), cmap="magma", vmin=0, vmax=1)
        axes[axis, 2].imshow(plane, cmap="gray")
        axes[axis, 2].contour(mask.take(index, axis), levels=[0.5], colors="orange", linewidths=0.7)
        axes[axis, 0].set_ylabel(f"{'zyx'[axis]} = {index}")
    figure.savefig(out / "ct.png", dpi=60)


def check_real_prediction(mask: Path, out: Path) -> None:
    target = out / "prediction.zip"
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(mask, "1407735.tif")
    member = vesu.check_submission(target, {"1407735": (320, 320, 320)}).members[0]
    print(f"check-submission accepts {mask.name}: {member.shape}, surface {member.ink_ratio:.4f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("build/real"))
    parser.add_argument("--n-train", type=int, default=3, help="dressings of the training label")
    parser.add_argument("--n-test", type=int, default=1, help="dressings of the held-out label")
    arguments = parser.parse_args()
    data = research_data()
    if not (data / "labels").is_dir():
        sys.exit(f"no research volumes in {data}: set VESU_DATA to their folder")
    first, second = sorted((data / "labels").glob("*.tif"))
    for train, held_out in ((first, second), (second, first)):
        folder = arguments.out / f"train_{train.stem}"
        layout = prepare(folder / "data", train, held_out, arguments.n_train, arguments.n_test)
        result = vesu.run(layout, folder / "run", config=vesu.load_config(environment={}), display="none")
        print(
            f"trained on {train.stem}, held out {held_out.stem}: {result.summary['elapsed_s']:.0f} s, phases "
            + ", ".join(f"{phase['name']} {phase['seconds']:.1f}" for phase in result.summary["phases"])
        )
        show(held_out_scores(layout, folder / "run"))
    segment_real_ct(data / "ct" / "scroll1_256.tif", arguments.out / f"train_{first.stem}" / "run", arguments.out)
    check_real_prediction(data / "predictions" / "1407735_transunet.tif", arguments.out)


if __name__ == "__main__":
    main()
