"""A small, valid, synthetic run folder for tests of what reads one; also a command: make_run_folder.py FOLDER."""

import hashlib
import io
import json
import sys
import zipfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vesu.data.volumes import encode_volume
from vesu.ledger import LedgerWriter
from vesu.reliability import measure_calibration
from vesu.run.coverage import COVERAGE_REPORT, CoveragePlan, coverage_report
from vesu.run.outputs import write_unmatched
from vesu.run.postmortem import write_postmortem
from vesu.run.profile import write_profile
from vesu.run.validation import ScoredVolume
from vesu.scoring import unmatched_features

L1 = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2)
L2 = (1e-4, 1e-3, 1e-2)
PHASES = ("discovery", "preflight", "load", "features", "train_data", "fit", "segment", "package")
HELD_OUT = "3281388561"
SECONDS = (0.04, 1.1, 2.4, 31.7, 4.2, 88.3, 24.9, 0.8)


@dataclass(frozen=True)
class Spec:
    """How large a run to make up."""

    n_volumes: int = 2
    shape: tuple[int, int, int] = (48, 56, 64)
    neurons: int = 9
    iterations: int = 30
    epochs: int = 1
    seed: int = 0
    ids: tuple[str, ...] = ()


def make_run_folder(folder: Path, spec: Spec | None = None) -> Path:
    """Write a run folder with plausible sheets, a full leaderboard and a ledger that verifies."""
    spec = spec or Spec()
    rng = np.random.default_rng(spec.seed)
    for name in ("segment", "validation", "masks"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    ids = spec.ids or tuple(str(1407735 + 7919 * number) for number in range(spec.n_volumes))
    masks = {}
    for number, volume_id in enumerate(ids):
        masks[volume_id] = _segment(folder, f"{number:03d}" if spec.ids else volume_id, volume_id, spec, rng)
    _validation(folder / "validation" / f"{HELD_OUT}.npz", spec)
    rows = leaderboard(spec, rng)
    _json(folder / "leaderboard.json", rows)
    _json(folder / "config.json", {"seed": spec.seed, "search": {"meta_neurons": spec.neurons, "l1": L1, "l2": L2}})
    _json(folder / "inventory.json", _inventory(ids, spec))
    _json(folder / "preflight.json", _preflight())
    np.savez(folder / "model.npz", coef=np.zeros((1, 4)), intercept=np.zeros(1))
    ledger = _events(folder / "events.jsonl", rows, spec, rng)
    _json(folder / "summary.json", _summary(spec, rows, _submission(folder / "submission.zip", masks), ledger))
    _json(folder / COVERAGE_REPORT, coverage_report(folder / "events.jsonl"))
    write_profile(folder)
    write_postmortem(folder)
    return folder


def _json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value, indent=2, sort_keys=True), encoding="utf-8")


def sheets(shape: tuple[int, int, int], rng: np.random.Generator) -> dict[str, NDArray[Any]]:
    """A wound scroll: truth, CT, probability, mask and uncertainty, all (z, y, x)."""
    z, y, x = np.meshgrid(*(np.linspace(0, 1, size) for size in shape), indexing="ij")
    radius = np.hypot(y - 1.15, x + 0.2) + 0.03 * np.sin(7 * z + 4 * x) + 0.01 * np.sin(23 * y)
    angle = np.arctan2(y - 1.15, x + 0.2)
    turn = radius * 11 - angle / (2 * np.pi)
    distance = np.abs(turn - np.round(turn))
    sheet = np.clip(1 - distance / 0.28, 0, 1)
    fibres = 0.5 + 0.5 * np.sin(90 * z + 14 * angle)
    noise = _smooth(rng.normal(size=shape))
    ct = 60 + 120 * np.sqrt(sheet) * (0.8 + 0.2 * fibres) + 26 * noise + 25 * (x - 0.5)
    surface = np.clip(1 - distance / 0.12, 0, 1)
    logit = 9 * (surface - 0.45) + 1.3 * _smooth(_smooth(rng.normal(size=shape)))
    probability = 1 / (1 + np.exp(-logit))
    return {
        "truth": distance < 0.09,
        "volume": np.clip(ct, 0, 255).astype(np.uint8),
        "probability": probability.astype(np.float32),
        "mask": (probability > 0.85).astype(np.uint8),
        "uncertainty": (0.3 * probability * (1 - probability) + 0.01 * np.abs(noise)).astype(np.float32),
    }


def _smooth(values: NDArray[Any]) -> NDArray[Any]:
    for axis in range(3):
        values = (values + np.roll(values, 1, axis) + np.roll(values, -1, axis)) / 3
    return values / values.std()


def _segment(folder: Path, stem: str, volume_id: str, spec: Spec, rng: np.random.Generator) -> NDArray[np.uint8]:
    made = sheets(spec.shape, rng)
    mask: NDArray[np.uint8] = made["mask"]
    views: dict[str, Any] = {}
    for axis, name in enumerate("zyx"):
        index = int(mask.sum(axis=tuple({0, 1, 2} - {axis})).argmax())
        views[f"{name}_index"] = index
        for layer in ("volume", "probability", "mask", "uncertainty"):
            views[f"{name}_{layer}"] = made[layer].take(index, axis)
    np.savez_compressed(folder / "segment" / f"{stem}_views.npz", **views)
    steps, masks = _ladder(made["probability"], mask)
    middle = spec.shape[0] // 2
    slices = {"index": np.int64(middle), "volume": made["volume"][middle], "masks": masks[:, middle]}
    np.savez_compressed(folder / "segment" / f"{stem}_steps.npz", **slices)
    _json(
        folder / "segment" / f"{stem}.json",
        {
            "volume_id": volume_id,
            "shape": list(spec.shape),
            "thresholds": {"low": 0.56, "high": 0.85},
            "ink_ratio_global": float(mask.mean()),
            "ink_ratio_by_slice": mask.mean(axis=(1, 2)).tolist(),
            "probability_percentiles": {
                str(p): float(np.percentile(made["probability"], p)) for p in (1, 5, 25, 50, 75, 95, 99)
            },
            "density_warning": None,
            "steps": steps,
            "truth": None,
        },
    )
    (folder / "masks" / f"{stem}.tif").write_bytes(encode_volume(mask, "deflate"))
    return mask


def _validation(path: Path, spec: Spec) -> None:
    made = sheets(spec.shape, np.random.default_rng(spec.seed + 2))
    mask, label = made["mask"], made["truth"].astype(np.uint8)
    label[:, :2] = 2
    unmatched = unmatched_features(mask, label)
    write_unmatched(path, ScoredVolume(path.stem, made["volume"], mask, label, unmatched))


def volume_score(terms: tuple[float, float, float], *counts: tuple[int, int, int]) -> dict[str, Any]:
    """A mask's scores on the one validation volume: the terms' means, and the entry by volume."""
    topology, surface, voi = terms
    found = {
        "score": 0.3 * topology + 0.35 * surface + 0.35 * voi,
        "topology": topology,
        "surface": surface,
        "voi": voi,
    }
    keys = ("matched", "predicted", "label")
    features = {
        name: dict(zip(keys, each, strict=True))
        for name, each in zip(("components", "tunnels", "cavities"), counts, strict=True)
    }
    return {**found, "by_volume": [{"volume_id": HELD_OUT, **found, **features}]}


def _ladder(probability: NDArray[Any], mask: NDArray[np.uint8]) -> tuple[list[dict[str, Any]], NDArray[np.uint8]]:
    """Made-up steps that end in the mask: reports, and the masks before the first and after each."""
    strict, specks = probability > 0.93, mask.copy()
    specks[::5, ::5, ::5] = 1
    masks = np.stack([probability > 0.9, strict, specks, mask]).astype(np.uint8)
    reports = [
        {
            "name": name,
            "voxels_before": int(before.sum()),
            "voxels_after": int(after.sum()),
            "voxels_added": int((after > before).sum()),
            "voxels_removed": int((before > after).sum()),
            "components": 40 - 9 * number,
            "tunnels": 7,
            "cavities": number,
            "detail": {},
        }
        for number, (name, before, after) in enumerate(
            zip(("smooth_z", "threshold", "dust"), masks[:-1], masks[1:], strict=True)
        )
    ]
    return reports, masks


def leaderboard(spec: Spec, rng: np.random.Generator) -> list[dict[str, Any]]:
    """One row a candidate, best first, as the search leaves it; the harshest l1 of the last neuron diverged."""
    rows = []
    for neuron in range(spec.neurons):
        skill = rng.normal(0, 0.004)
        for i, l1 in enumerate(L1):
            for j, l2 in enumerate(L2):
                entropy = 0.388 + 0.009 * (i - 1.3) ** 2 + 0.003 * j + skill + rng.normal(0, 0.0015)
                f1, sparsity = 0.79 - 0.9 * (entropy - 0.388), min(0.95, 0.08 + 0.19 * i)
                f_beta, iou = f1 + 0.014, f1 / (2 - f1)
                row = {
                    "candidate": len(rows),
                    "neuron": neuron,
                    "l1": l1,
                    "l2": l2,
                    "objective": entropy + 0.02 * (1 - sparsity) - 0.2 * f1 - 0.15 * f_beta - 0.1 * iou,
                    "cross_entropy": entropy,
                    "sparsity": sparsity,
                    "f1": f1,
                    "f_beta": f_beta,
                    "iou": iou,
                    "threshold": 0.5,
                    "n_nonzero": round(78 * (1 - sparsity)),
                    "diverged": False,
                }
                rows.append(row)
    rows[-1] |= {"objective": None, "cross_entropy": None, "diverged": True}
    rows.sort(key=lambda row: (row["objective"] is None, row["objective"]))
    return [{"rank": rank, **row} for rank, row in enumerate(rows, start=1)]


def _events(path: Path, rows: list[dict[str, Any]], spec: Spec, rng: np.random.Generator) -> dict[str, Any]:
    rows = sorted(rows, key=lambda row: row["candidate"])
    floor = np.array([row["cross_entropy"] or 0.6 for row in rows])
    final = np.array([row["n_nonzero"] for row in rows])
    path.unlink(missing_ok=True)  # a ledger goes on where it ended
    with LedgerWriter(path) as log:
        log.append("RUN_START", {"run_id": "demo"}, ts_ns=1_790_000_000_000_000_000)
        for epoch in range(spec.epochs):
            for iteration in range(1, spec.iterations + 1):
                decay = np.exp(-5 * (iteration + epoch * spec.iterations) / (spec.iterations * spec.epochs))
                loss = floor + (0.693 - floor) * decay * rng.uniform(0.97, 1.03, len(rows))
                nonzero = np.round(78 - (78 - final) * (1 - decay)).astype(np.int64)
                if iteration > spec.iterations // 2:
                    loss[-1] = np.nan
                log.append_iterations(
                    "TRAIN_ITERATION",
                    iteration=iteration,
                    max_iter=spec.iterations,
                    candidate_first=0,
                    loss=loss,
                    gradient_norm=0.3 * decay * (1 + 0.2 * rng.random(len(rows))) + 2e-3,
                    nonzero=nonzero,
                    common={"run_id": "demo", "epoch": epoch},
                    ts_ns=1_790_000_000_000_000_000 + iteration,
                )
        _along_the_way(log, spec)
        log.append("RUN_END", {"run_id": "demo", "elapsed_s": sum(SECONDS)}, ts_ns=1_790_000_200_000_000_000)
        return {"entries": log.size, "root": log.root}


def _along_the_way(log: LedgerWriter, spec: Spec) -> None:
    """Coverage, phases, progress and memory: what the dashboard shows."""
    start_ns = 1_790_000_000_000_000_000
    train = [str(number) for number in range(7)]
    plan = CoveragePlan((*train, HELD_OUT), tuple(train), (HELD_OUT,))
    log.append("TRAIN_COVERAGE_PLAN", plan.to_json(), ts_ns=start_ns + 10**9)
    for volume_id in (*train, HELD_OUT):
        log.append("VOXELS_SAMPLED", {"volume_id": volume_id, "epoch": 0, "voxels": 40_000}, ts_ns=start_ns + 10**9)
    at_s, done = 1.0, 0.0
    for name, seconds in zip(PHASES, SECONDS, strict=True):
        log.append("PHASE_START", {"phase": name}, ts_ns=start_ns + int(at_s * 1e9))
        for part in range(1, 6):
            at_s, done = at_s + seconds / 5, done + 20 * seconds / sum(SECONDS)
            left_s = sum(SECONDS) * (1 - done / 100)
            shown = {
                "global_progress_reel": min(done, 100.0),
                "train_progress_reel": 100.0 if name == "package" else 0.0,
                "remaining_estimate_s": left_s,
                "remaining_low_s": 0.8 * left_s,
                "remaining_high_s": 1.3 * left_s,
                "cursor": {"phase": name, "done": part, "total": 5},
            }
            log.append("GLOBAL_PROGRESS_REALTIME", shown, ts_ns=start_ns + int(at_s * 1e9))
            held = {"rss_bytes": 2**30 + part * 2**28, "peak_rss_bytes": 2**31, "used_fraction": 0.4 + 0.05 * part}
            log.append("MEMORY_HEALTH", {**held, "gpus": []}, ts_ns=start_ns + int(at_s * 1e9))
        shares = {"logging_s": 0.01 * seconds, "io_s": 0.2 * seconds}
        log.append("PHASE_END", {"phase": name, "seconds": seconds, **shares}, ts_ns=start_ns + int(at_s * 1e9))
    for epoch in range(spec.epochs):
        point = {"epoch": epoch, "best_objective": 0.31 - 0.01 * epoch, "best_candidate": 3, "judged_on": "validation"}
        log.append("EPOCH_END", point, ts_ns=start_ns + int(at_s * 1e9))


def _submission(path: Path, masks: dict[str, NDArray[np.uint8]]) -> dict[str, Any]:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for volume_id, mask in masks.items():
            archive.writestr(zipfile.ZipInfo(f"{volume_id}.tif"), encode_volume(mask, "deflate"))
    path.write_bytes(buffer.getvalue())
    return {
        "path": path.name,
        "sha256": hashlib.sha256(buffer.getvalue()).hexdigest(),
        "n_bytes": len(buffer.getvalue()),
        "members": [
            {"name": f"{volume_id}.tif", "shape": list(mask.shape), "ink_ratio": float(mask.mean())}
            for volume_id, mask in masks.items()
        ],
    }


def _inventory(ids: tuple[str, ...], spec: Spec) -> dict[str, Any]:
    shape = "x".join(map(str, spec.shape))
    return {
        "root": "data",
        "counts": {"pairs": 8, "tests": len(ids), "orphan_images": 1, "orphan_labels": 0, "problems": 0},
        "shapes": {shape: 16 + len(ids)},
        "dtypes": {"uint8": 16 + len(ids)},
        "compressions": {"lzw": 16, "deflate": len(ids)},
        "total_bytes": 31_457_280,
        "pairs": [
            {"volume_id": str(n), "image": f"train_images/{n}.tif", "label": f"train_labels/{n}.tif"} for n in range(8)
        ],
        "tests": [{"volume_id": each, "image": f"test_images/{each}.tif"} for each in ids],
        "orphan_images": ["train_images/99.tif"],
        "orphan_labels": [],
        "problems": [],
        "csv": [],
    }  # fmt: skip


def _preflight() -> dict[str, Any]:
    findings = [
        {"code": "ORPHAN_IMAGE", "severity": "warning", "path": "train_images/99.tif", "message": "no label"},
        {"code": "DISK_ROOM", "severity": "info", "path": None, "message": "41.2 GiB free, 3.1 GiB needed"},
    ]  # fmt: skip
    return {"findings": findings, "checked_pairs": 1, "checked_tests": 1, "seconds": 1.08}


def _summary(
    spec: Spec, rows: list[dict[str, Any]], submission: dict[str, Any], ledger: dict[str, Any]
) -> dict[str, Any]:
    scores: dict[str, Any] = {"f1": 0.7124, "f_beta": 0.7391, "iou": 0.5533, "precision": 0.7583, "recall": 0.6717}
    scores |= volume_score((0.2147, 0.8031, 0.6118), (22, 36, 27), (1, 48, 3), (0, 0, 0))
    nothing = dict.fromkeys(("f1", "f_beta", "iou", "precision", "recall"), 0.0)
    nothing |= volume_score((0.0, 0.0, 0.5409), (0, 0, 27), (0, 0, 3), (0, 0, 0))
    bright = {"f1": 0.4082, "f_beta": 0.4101, "iou": 0.2564, "precision": 0.4114, "recall": 0.4051}
    bright |= volume_score((0.0032, 0.5127, 0.2204), (7, 9214, 27), (2, 1875, 3), (0, 11, 0))
    return {
        "run_id": "20261121-044512-3f9a",
        "version": "0.1.0",
        "git_sha": "b5e88a7c0f14d2f5a7f7e0a3f3b3a8b9f6f0d1c2",
        "status": "finished",
        "seed": spec.seed,
        "started_ns": "1790000000000000000",
        "elapsed_s": sum(SECONDS),
        "phases": [
            {"name": name, "seconds": seconds, "weight": seconds / sum(SECONDS)}
            for name, seconds in zip(PHASES, SECONDS, strict=True)
        ],
        "machine": {"cpu": "Example CPU @ 3.8 GHz", "cores": 2, "threads": 2, "memory_gib": 15.6, "isa": "avx2",
                    "python": "3.12.4", "numpy": "2.1.0", "platform": "Linux-6.1"},
        "inventory": {"pairs": 8, "tests": len(submission["members"]), "orphans": 1},
        "search": {"candidates": len(rows), "max_iter": spec.iterations, "samples": 280_000, "features": 26,
                   "seconds": 88.3, "diverged": 1, "learning_rate": 0.08, "lipschitz": 3.417, "isa": "avx2"},
        "validation": {"volumes": [HELD_OUT], **scores, "density_label": 0.0583, "density_mask": 0.0519,
                       "calibration": _calibration(spec),
                       "baselines": {"all_background": nothing, "intensity_quantile": bright}},
        "submission": submission,
        "ledger": ledger,
    }  # fmt: skip


def _calibration(spec: Spec) -> dict[str, Any]:
    """Of a made-up model that was trained on as much surface as background."""
    rng = np.random.default_rng(spec.seed + 1)
    logit = rng.normal(-3.6, 1.7, 60_000)
    label = (rng.random(60_000) < 1 / (1 + np.exp(-logit))).astype(np.uint8)
    probability = (1 / (1 + np.exp(-(logit + 2.8) + rng.normal(0, 0.5, 60_000)))).astype(np.float32)
    spread = (0.08 * np.sqrt(probability * (1 - probability)) + 0.02 * rng.random(60_000)).astype(np.float32)
    shares = {"prior": 0.5, "density": float(label.mean()), "threshold": 0.5}
    return measure_calibration(probability, spread, label, **shares).to_json()


if __name__ == "__main__":
    values = asdict(Spec()) | json.loads(sys.argv[2] if len(sys.argv) > 2 else "{}")
    print(make_run_folder(Path(sys.argv[1]), Spec(**{**values, "shape": tuple(values["shape"])})))
