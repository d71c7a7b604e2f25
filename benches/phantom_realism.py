"""How like real CT the phantom is: the numbers of docs/phantom.md, its figures, and side-by-side pictures.

    VESU_DATA=... python benches/phantom_realism.py [--figures docs/figures] [--compare FOLDER]

``--figures`` writes pictures of generated volumes only. ``--compare`` writes pictures with real pixels in them: the
research data must not be redistributed, so keep that folder out of the project.
"""

import argparse
import os
import time
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage.feature import hessian_matrix, hessian_matrix_eigvals
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from vesu.data.phantom import DressParams, ScrollParams, dress, generate_scroll
from vesu.data.volumes import read_volume

Volume = NDArray[np.uint8]
COARSER = 2.5
"""The competition's voxels against those of the real chunk, roughly."""
FINE = DressParams(scale=COARSER, psf_sigma=0.45, noise_sigma=2.0)
"""Forward model at the real chunk's own voxel size: its optics blur less than 2.5 coarse voxels would."""
CUBE = 96


def shrink(volume: Volume) -> Volume:
    """The chunk at the competition's voxel size."""
    smooth = ndimage.gaussian_filter(volume.astype(np.float32), 0.4 * COARSER)
    return np.clip(np.rint(ndimage.zoom(smooth, 1 / COARSER, order=1)), 0, 255).astype(np.uint8)


def spectrum(volume: Volume, n: int = 24) -> NDArray[np.float64]:
    """Radially averaged power of a Hann-windowed central cube, shares of the total, in ``n`` shells to Nyquist."""
    start = [(size - CUBE) // 2 for size in volume.shape]
    cube = volume[tuple(slice(a, a + CUBE) for a in start)].astype(np.float64)
    window = np.hanning(CUBE)
    cube = (cube - cube.mean()) * window[:, None, None] * window[:, None] * window
    power = np.abs(np.fft.fftn(cube)) ** 2
    f = np.fft.fftfreq(CUBE)
    radius = np.sqrt(f[:, None, None] ** 2 + f[:, None] ** 2 + f**2)
    shell = np.clip((radius * 2 * n).astype(int), 0, n).ravel()
    mean = (np.bincount(shell, power.ravel()) / np.bincount(shell))[1:n]
    return np.asarray(mean / mean.sum())


def slope(power: NDArray[np.float64]) -> float:
    """Exponent of the power law through shells 1 to 19 of 24."""
    k = np.arange(1, 20)
    return float(np.polyfit(np.log(k + 0.5), np.log(power[:19]), 1)[0])


def ks_distance(a: Volume, b: Volume) -> float:
    """Kolmogorov-Smirnov distance of two grey-value histograms."""
    cdf = [np.bincount(v.ravel(), minlength=256).cumsum() / v.size for v in (a, b)]
    return float(np.abs(cdf[0] - cdf[1]).max())


def features(volume: Volume) -> NDArray[np.float32]:
    """Grey value, then blur, gradient, Hessian eigenvalues at three scales, then blurred sheetness: (n, 17)."""
    grey = volume.astype(np.float32)
    channels = [grey]
    for sigma in (1.0, 2.0, 4.0):
        channels += [ndimage.gaussian_filter(grey, sigma), ndimage.gaussian_gradient_magnitude(grey, sigma)]
        hessian = hessian_matrix(grey, sigma=sigma, order="rc", use_gaussian_derivatives=False)
        channels += list(hessian_matrix_eigvals(hessian))
        if sigma == 2.0:
            channels.append(ndimage.gaussian_filter(-channels[-1], 2.0))
    inner = (slice(6, -6),) * 3
    return np.stack([c[inner].ravel() for c in channels], axis=1)


def learnability(pairs: list[tuple[Volume, Volume]]) -> dict[str, float]:
    """AUC of grey value and of one ridge feature (all pairs), and of two learners on the last pair, held out."""
    tables = [features(volume) for volume, _ in pairs]
    truths = [(label[6:-6, 6:-6, 6:-6] == 1).ravel() for _, label in pairs]
    single = {
        name: float(np.mean([roc_auc_score(t, sign * x[:, i]) for x, t in zip(tables, truths, strict=True)]))
        for name, i, sign in [("grey", 0, 1), ("blur 4", 12, 1), ("ridge", 10, -1)]
    }
    x, y = np.concatenate(tables[:-1]), np.concatenate(truths[:-1])
    rng = np.random.default_rng(0)
    drawn = np.concatenate([rng.choice(np.flatnonzero(y == c), 20_000) for c in (False, True)])
    mean, deviation = x[drawn].mean(0), x[drawn].std(0)

    def standard(rows: NDArray[np.float32]) -> NDArray[np.float32]:
        z = (rows - mean) / deviation
        return np.hstack([z, z**2])

    for name, model in [("logistic", LogisticRegression(max_iter=300)), ("boosting", HistGradientBoostingClassifier())]:
        score = model.fit(standard(x[drawn]), y[drawn]).predict_proba(standard(tables[-1]))[:, 1]
        single[name] = float(roc_auc_score(truths[-1], score))
        cuts = [score > np.quantile(score, q) for q in np.linspace(0.8, 0.99, 20)]
        f1 = [2 * (cut & truths[-1]).sum() / (cut.sum() + truths[-1].sum()) for cut in cuts]
        single[f"{name} F1"] = float(max(f1))
    return single


def show(path: Path, rows: list[tuple[str, Volume, Volume | None]], *, dpi: int = 55) -> None:
    """Middle slices along z, y, x of each volume; the label's outline where one is given."""
    _, axes = plt.subplots(len(rows), 3, figsize=(12, 4 * len(rows)), squeeze=False)
    for line, (title, volume, label) in zip(axes, rows, strict=True):
        for axis, panel in enumerate(line):
            at = volume.shape[axis] // 2
            panel.imshow(volume.take(at, axis), cmap="gray", vmin=0, vmax=220)
            if label is not None:
                panel.contour(label.take(at, axis) == 1, [0.5], colors="tab:red", linewidths=0.5)
            panel.set_title(f"{title}, {'zyx'[axis]} = {at}", fontsize=8)
            panel.axis("off")
    plt.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    plt.savefig(path, dpi=dpi)
    plt.close()


def write_figures(folder: Path, pairs: list[tuple[Volume, Volume]]) -> None:
    """Pictures of generated volumes only."""
    show(folder / "phantom_slices.png", [("generated", *pairs[0]), ("generated", pairs[0][0], None)])
    whole = generate_scroll((48, 192, 192), seed=2, params=ScrollParams(axis_distance=0.0, pitch=28.0, wobble=3.0))
    show(folder / "phantom_whole.png", [("whole scroll", dress(whole, 2), None)])
    label = generate_scroll((128, 128, 128), seed=1, params=ScrollParams(pitch=120.0, axis_distance=500.0))
    show(folder / "phantom_fine.png", [("finer voxels (scale 2.5)", dress(label, 1, params=FINE), None)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--figures", type=Path)
    parser.add_argument("--compare", type=Path)
    options = parser.parse_args()
    data = Path(os.environ.get("VESU_DATA", "../shared/data"))
    real = read_volume(data / "ct" / "scroll1_256.tif")
    coarse = shrink(real)

    labels = [generate_scroll((128, 128, 128), seed=seed) for seed in range(1, 5)]
    start = time.perf_counter()
    generated = [(dress(label, seed), label) for seed, label in enumerate(labels, 1)]
    seconds = (time.perf_counter() - start) / len(labels)
    dressed = []
    for seed, name in enumerate(["2656396745", "3281388561"]):
        label = read_volume(data / "labels" / f"{name}.tif")
        for corner in (60, 140):
            part = np.ascontiguousarray(label[(slice(corner, corner + 128),) * 3])
            dressed.append((dress(part, 10 * seed + corner), part))
    # A label at the fine voxels: the same geometry, drawn larger.
    wide = generate_scroll(
        (256, 256, 256), seed=1, params=ScrollParams(pitch=130.0, sheet_thickness=6.0, axis_distance=700.0)
    )
    fine = dress(wide, 1, params=FINE)

    print(f"{'':32}  p1  p25  p50  p75  p99  slope  KS(real) KS(real/2.5)")
    for name, volumes in [
        ("real chunk", [real]),
        ("real chunk / 2.5", [coarse]),
        ("generated, competition voxels", [v for v, _ in generated]),
        ("dressed real labels", [v for v, _ in dressed]),
        ("generated, scale 2.5", [fine]),
    ]:
        together = np.concatenate([v.ravel() for v in volumes])
        p = np.percentile(together, [1, 25, 50, 75, 99])
        fall = np.mean([slope(spectrum(v)) for v in volumes])
        distances = ks_distance(together, real), ks_distance(together, coarse)
        print(f"{name:32}", *(f"{v:4.0f}" for v in p), f"{fall:6.2f}", *(f"{d:9.3f}" for d in distances))
    print("\nlog10 power by shell, 1 to 23 of 24")
    for name, volume in [("real", real), ("scale 2.5", fine), ("real / 2.5", coarse), ("generated", generated[0][0])]:
        print(f"{name:12}", *(f"{v:5.1f}" for v in np.log10(spectrum(volume))))
    print("\nAUC for the labelled surface")
    for name, pairs in [("generated", generated), ("dressed real labels", dressed)]:
        print(f"{name:20}", *(f"{k} {v:.3f} " for k, v in learnability(pairs).items()))
    print(f"\ndress 128^3: {seconds:.2f} s")

    if options.figures:
        write_figures(options.figures, generated)
    if options.compare:
        show(options.compare / "coarse.png", [("real / 2.5", coarse, None), ("generated", *generated[1])])
        show(options.compare / "dressed.png", [("real / 2.5", coarse, None), ("dressed", *dressed[0])])
        show(options.compare / "fine.png", [("real", real, None), ("generated", fine, None)])


if __name__ == "__main__":
    main()
