"""Auto-tuning: each policy on the search it is for, and whether tuning pays on volumes that no run has seen (R39).

Leaves `autotune.json` and `autotune.md`. The four shown searches are of the whole default grid on made samples. Then
the search alone is compared, plain and tuned, on voxels of held-out volumes; then whole runs: `vesu.run` on generated
volumes twice a seed, plain and tuned, with the same settings, whose masks of further generated volumes are scored. A
run that is done is kept: the next call goes on.
"""

import argparse
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

import vesu
from vesu.autotune import Bounds, ParameterState, TunerState
from vesu.comparison import PairedGain, paired_gain
from vesu.config import AutoTuneConfig
from vesu.data.phantom import dress, generate_scroll, write_dataset
from vesu.data.sampling import sample_voxels
from vesu.data.storage import make_folder, write_bytes_atomic, write_json_atomic
from vesu.features import extract_features, gather
from vesu.grid_search import ElasticNetLogisticGrid, EpochSettings, Samples
from vesu.grid_search.solver import OnEvent
from vesu.run.autotuning import TRACE, TunedEpochs
from vesu.segmentation.confusion import confusion

MIN_SEEDS = 3
HELD_OUT_SEED = 9000
FIGURES = ("score", "f_beta")

Draw = Callable[[int], Samples]


# ---- the four shown searches


@dataclass(frozen=True)
class Shown:
    """A search that one policy is for, and what the policy should do there."""

    name: str
    expected: tuple[str, str]
    """Parameter and action."""
    settings: EpochSettings
    draw: Draw
    options: dict[str, Any] = field(default_factory=dict)


def plane(epoch: int, n: int = 1500, flip: float = 0.0) -> Samples:
    """Samples that a plane divides, some labels wrong; another draw each epoch."""
    rng = np.random.default_rng([7, epoch])
    x = rng.standard_normal((n, 3)).astype(np.float32)
    y = (x[:, 0] + 0.5 * x[:, 1] > 0.1) ^ (rng.random(n) < flip)
    return Samples(x, y.astype(np.uint8), np.abs(x))


def crossed(epoch: int) -> Samples:
    """Samples that no candidate can tell apart: the sign of a product of two features."""
    samples = plane(epoch, 4000)
    return Samples(samples.x, (samples.x[:, 0] * samples.x[:, 1] > 0).astype(np.uint8), samples.gradient)


SHOWN = (
    Shown(
        "stagnating: the same noisy draw each epoch, at its optimum",
        ("mutation_noise", "raise"),
        EpochSettings(epochs=0, min_delta=1e-3, patience=4, max_epochs=5, stagnation_epochs=1),
        lambda epoch: plane(epoch // 99, flip=0.2),
        {"solver": "fista"},
    ),
    Shown(
        "diverging: a step of 0.08 against an l2 of 100",
        ("mutation_noise", "lower"),
        EpochSettings(epochs=3, mutation_noise=0.1),
        plane,
        {"learning_rate": 0.08, "l2": (1e-4, 1e-3, 1e-2, 100.0)},
    ),
    Shown(
        "slow but positive: a step of 2e-5",
        ("convergence_patience", "raise"),
        EpochSettings(epochs=0, min_delta=0.02, patience=2, max_epochs=10, mutation_noise=0.0),
        plane,
        {"learning_rate": 2e-5},
    ),
    Shown(
        "under-capacity: the sign of a product",
        ("meta_neurons", "raise"),
        EpochSettings(epochs=4, mutation_noise=0.0, min_delta=0.05),
        crossed,
    ),
)


def tuned_epochs(settings: EpochSettings, emit: OnEvent = lambda name, fields: None) -> TunedEpochs:
    """What tunes a search of the default grid within the default bounds."""
    bounds = AutoTuneConfig()
    starts = {"mutation_noise": settings.mutation_noise, "convergence_patience": settings.patience, "meta_neurons": 9}
    parameters = {name: ParameterState(value, Bounds(*getattr(bounds, name))) for name, value in starts.items()}
    return TunedEpochs(settings, 9, TunerState(parameters), emit=emit)


def show(case: Shown) -> dict[str, Any]:
    """Run a shown search; what changed, and whether the policy did what it should."""
    events: list[tuple[str, Any]] = []
    tuned = tuned_epochs(case.settings, lambda name, fields: events.append((name, dict(fields))))
    grid = ElasticNetLogisticGrid(**case.options)
    grid.fit_samples(case.draw, tuned.settings, validation=case.draw(99), on_epoch=tuned.on_epoch)
    updates = [fields for name, fields in events if name == "AUTO_TUNE_PARAM_UPDATE"]
    keys = ("epoch", "parameter", "action", "before", "after", "reason")
    return {
        "search": case.name,
        "epochs": grid.n_epochs_,
        "objectives": list(tuned.state.objectives),
        "changes": [{key: each[key] for key in keys} for each in updates],
        "as_expected": case.expected in [(each["parameter"], each["action"]) for each in updates],
    }


# ---- does it pay: the search alone


def compare_searches(arguments: argparse.Namespace) -> dict[str, Any]:
    """Plain and tuned searches of the whole grid over generated volumes, judged on voxels of further volumes."""
    n = arguments.train
    features, labels = [], []
    for i in range(n + arguments.held_out):
        label = generate_scroll((arguments.size,) * 3, seed=500 + i)
        labels.append(label)
        features.append(extract_features(dress(label, 500 + i)))

    def rows(chosen: range, seed: int, epoch: int) -> Samples:
        parts = []
        for i in chosen:
            index = sample_voxels(
                labels[i], arguments.voxels, seed=seed, volume_id=str(i), draw=epoch, allow_single_class=True
            )
            parts.append((*gather(features[i], index), labels[i].reshape(-1)[index].astype(np.uint8)))
        x, g, y = (np.concatenate([part[k] for part in parts]) for k in range(3))
        return Samples(x, y, g)

    fitting, judging = range(n // 2), range(n // 2, n)
    settings = EpochSettings(
        epochs=0, patience=3, min_delta=arguments.min_delta, max_epochs=arguments.epochs, stagnation_epochs=1
    )
    found: dict[str, dict[int, dict[str, float]]] = {"plain": {}, "tuned": {}}
    changes: dict[int, list[str]] = {}
    for seed in range(arguments.search_seeds):
        for kind, row in found.items():
            tuned = tuned_epochs(settings) if kind == "tuned" else None
            grid = ElasticNetLogisticGrid(seed=seed)
            grid.fit_samples(
                lambda epoch, seed=seed: rows(fitting, seed, epoch),
                settings,
                validation=rows(judging, seed, 0),
                on_epoch=None if tuned is None else tuned.on_epoch,
            )
            model = grid.model(top_k=9)
            row[seed] = {}
            for i in range(n, n + arguments.held_out):
                unseen = rows(range(i, i + 1), 1000, 0)
                mask = model.predict_proba(unseen.x, unseen.gradient)[0] >= model.threshold
                row[seed][f"held-out-{i}"] = confusion(mask, unseen.y).f_beta
            if tuned is not None:
                changes[seed] = acted(each.to_json() for each in tuned.state.decisions)
            print("search", kind, seed, grid.n_epochs_, grid.meta_neurons_, row[seed], flush=True)
    gain = paired_gain(found["plain"], found["tuned"])
    return {"f_beta": found, "gain": gain.to_json() | {"verdict": verdict(gain)}, "changes": changes}


# ---- does it pay: whole runs


def held_out(size: int, n: int) -> dict[str, tuple[Any, Any]]:
    """Generated volumes that no run sees, with their truth."""
    labels = {f"held-out-{i}": generate_scroll((size,) * 3, seed=HELD_OUT_SEED + i) for i in range(n)}
    return {name: (dress(label, HELD_OUT_SEED + i), label) for i, (name, label) in enumerate(labels.items())}


def settings_of(arguments: argparse.Namespace, seed: int, *, tuned: bool) -> vesu.RunConfig:
    """The same of both runs of a seed, but for the tuning."""
    overrides = [
        f"seed={seed}",
        f"sampling.voxels_per_volume={arguments.voxels}",
        "sampling.validation_fraction=0.5",
        "segment.dust.min_voxels=100",
        "search.supervised_epochs=0",
        "search.patience=3",
        "search.stagnation_epochs=1",
        f"search.min_delta={arguments.min_delta}",
        f"search.max_epochs={arguments.epochs}",
        f"auto_tune.use={str(tuned).lower()}",
    ]
    return vesu.load_config(overrides=overrides, environment={})


def measure(folder: Path, volumes: dict[str, tuple[Any, Any]]) -> dict[str, dict[str, float]]:
    """Each figure by volume, of the masks that a run's model makes."""
    model = vesu.SurfaceModel.load(folder)
    found: dict[str, dict[str, float]] = {figure: {} for figure in FIGURES}
    for name, (image, label) in volumes.items():
        mask = model.segment(image).mask
        found["score"][name] = vesu.score(mask, label).score
        found["f_beta"][name] = confusion(mask, label).f_beta
    return found


def compare(arguments: argparse.Namespace) -> dict[str, Any]:
    """Plain and tuned runs of each seed, scored on the volumes that none of them has seen."""
    out: Path = arguments.out
    data = write_dataset(out / "data", n_train=arguments.train, n_test=1, shape=(arguments.size,) * 3, seed=21)
    volumes = held_out(arguments.size, arguments.held_out)
    rows: dict[str, dict[int, Any]] = {"plain": {}, "tuned": {}}
    for seed in range(arguments.seeds):
        for kind, row in rows.items():
            folder = out / "runs" / f"{kind}-{seed}"
            scores = folder / "held_out.json"
            config = settings_of(arguments, seed, tuned=kind == "tuned")
            told = json.loads(json.dumps([config.to_json(), arguments.size, arguments.train, arguments.held_out]))
            if not scores.exists() or json.loads(scores.read_text())["of"] != told:
                result = vesu.run(data, folder, config=config, display="none", cache=out / "cache", restart=True)
                row[seed] = {"of": told, "figures": measure(folder, volumes), "seconds": result.summary["elapsed_s"]}
                row[seed] |= {key: result.summary["search"][key] for key in ("epochs", "meta_neurons")}
                write_json_atomic(scores, row[seed])
                print(kind, seed, row[seed]["figures"], flush=True)
            row[seed] = json.loads(scores.read_text())
    gains = {figure: gain_of(rows, figure) for figure in FIGURES}
    changes = {seed: changes_of(out / "runs" / f"tuned-{seed}" / TRACE) for seed in range(arguments.seeds)}
    return {
        "rows": rows,
        "gains": {figure: gain.to_json() | {"verdict": verdict(gain)} for figure, gain in gains.items()},
        "changes": changes,
    }


def gain_of(rows: dict[str, dict[int, Any]], figure: str) -> PairedGain:
    plain, tuned = ({seed: row["figures"][figure] for seed, row in rows[kind].items()} for kind in ("plain", "tuned"))
    return paired_gain(plain, tuned)


def verdict(gain: PairedGain) -> str:
    """What the figures say, and no more."""
    if gain.is_stable(min_seeds=MIN_SEEDS):
        return "pays"
    return "harms" if gain.high < 0 else "neutral: the interval holds 0, or a seed lost"


def changes_of(trace: Path) -> list[str]:
    return acted(json.loads(trace.read_text())["decisions"])


def acted(decisions: Iterable[Mapping[str, Any]]) -> list[str]:
    """The changes and how their trials ended, in words."""
    found = [each for each in decisions if each["action"] in ("raise", "lower", "accept", "rollback")]
    return [f"{each['parameter']} {each['action']} {each['before']:g} -> {each['after']:g}" for each in found]


# ---- the page


def page(shown: list[dict[str, Any]], searches: dict[str, Any] | None, compared: dict[str, Any] | None) -> str:
    lines = [
        "# Auto-tuning",
        "",
        "| search | as it should | epochs | objective, first to last | changes |",
        "|---|---|---|---|---|",
    ]
    for each in shown:
        changes = "; ".join(
            f"{c['parameter']} {c['action']} {c['before']:g} -> {c['after']:g}" for c in each["changes"]
        )
        span = f"{each['objectives'][0]:.4f} to {each['objectives'][-1]:.4f}"
        lines.append(
            f"| {each['search']} | {'yes' if each['as_expected'] else 'NO'} | {each['epochs']} | {span} | {changes} |"
        )
    if searches is not None:
        gain = searches["gain"]
        by_seed = ", ".join(f"{each:+.4f}" for each in gain["by_seed"])
        lines += [
            "",
            f"The search alone, F0.5 on voxels of held-out volumes, tuned less plain: {gain['mean']:+.4f} "
            f"({gain['low']:+.4f} to {gain['high']:+.4f}), by seed {by_seed}: {gain['verdict']}.",
            "",
            *(f"- seed {seed}: {'; '.join(changes) or 'nothing'}" for seed, changes in searches["changes"].items()),
        ]
    if compared is None:
        return "\n".join(lines) + "\n"
    lines += ["", "| seed | kind | score | F0.5 | epochs | meta-neurons | s |", "|---|---|---|---|---|---|---|"]
    for kind, row in compared["rows"].items():
        for seed, each in row.items():
            means = [f"{np.mean(list(each['figures'][figure].values())):.4f}" for figure in FIGURES]
            lines.append(
                f"| {seed} | {kind} | {means[0]} | {means[1]} | {each['epochs']} | {each['meta_neurons']} "
                f"| {each['seconds']:.0f} |"
            )
    lines += ["", "| figure | tuned less plain | 95 % interval | by seed | verdict |", "|---|---|---|---|---|"]
    for figure, gain in compared["gains"].items():
        by_seed = ", ".join(f"{each:+.4f}" for each in gain["by_seed"])
        interval = f"{gain['low']:+.4f} to {gain['high']:+.4f}"
        lines.append(f"| {figure} | {gain['mean']:+.4f} | {interval} | {by_seed} | {gain['verdict']} |")
    lines += [
        "",
        *(f"- seed {seed}: {'; '.join(changes) or 'nothing'}" for seed, changes in compared["changes"].items()),
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("build/autotune"))
    parser.add_argument("--seeds", type=int, default=MIN_SEEDS, help="whole runs of each kind; 0 leaves them out")
    parser.add_argument("--search-seeds", type=int, default=5, help="searches of each kind; 0 leaves them out")
    parser.add_argument("--size", type=int, default=48, help="voxels along each axis")
    parser.add_argument("--train", type=int, default=8, help="labelled volumes, half of them for validation")
    parser.add_argument("--held-out", type=int, default=4, help="further volumes, which score")
    parser.add_argument("--voxels", type=int, default=2000, help="voxels a volume and epoch")
    parser.add_argument("--epochs", type=int, default=8, help="at most")
    parser.add_argument(
        "--min-delta", type=float, default=0.02, help="a counted improvement: large, so that much happens"
    )
    parser.add_argument("--shown-only", action="store_true", help="the four searches alone: seconds")
    arguments = parser.parse_args()
    make_folder(arguments.out)
    shown = [show(case) for case in SHOWN]
    searches = None if arguments.shown_only or not arguments.search_seeds else compare_searches(arguments)
    compared = None if arguments.shown_only or not arguments.seeds else compare(arguments)
    found = {"shown": shown, "searches": searches, "compared": compared}
    write_json_atomic(arguments.out / "autotune.json", found)
    text = page(shown, searches, compared)
    write_bytes_atomic(arguments.out / "autotune.md", text.encode())
    print(text)
    if not all(each["as_expected"] for each in shown):
        raise SystemExit("a policy did not do what it should")


if __name__ == "__main__":
    main()
