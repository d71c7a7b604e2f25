"""The search's samples handed out to the processes of a run, volume by volume: no process ever holds them all."""

from collections.abc import Iterator, Sequence
from typing import Protocol

from vesu.data.discover import Pair
from vesu.features import FeatureSpec, select_features_of
from vesu.grid_search import SharedSamples
from vesu.run import stages
from vesu.run.plan import Split, epoch_settings
from vesu.run.ranks import Ranks
from vesu.run.session import Session

__all__ = ["shared_epoch", "shared_training_set"]


class Draws(Protocol):
    """As much of :class:`vesu.run.learning.Draws` as is needed here."""

    @property
    def spec(self) -> FeatureSpec: ...
    def rows(self, pair: Pair, epoch: int, n_epochs: int) -> stages.Rows: ...
    def again(self, pair: Pair, epoch: int, n_epochs: int) -> stages.Rows: ...


def shared_training_set(
    session: Session, ranks: Ranks, draws: Draws, split: Split, pairs: Sequence[Pair]
) -> stages.TrainingSet:
    """The phases features and train_data: each volume's rows are drawn, counted and put into the cache; then they are
    read again for the choice of channels, and once more to be handed out."""
    training = {pair.volume_id for pair in split.train}
    limit = epoch_settings(session.config.search).limit
    sizes = {}
    with session.phase("features", len(pairs)) as phase:
        for pair in pairs:
            n_epochs = limit if pair.volume_id in training else 1  # the validation voxels stay the same
            sizes[pair.volume_id] = len(draws.rows(pair, 0, n_epochs).y)
            phase.advance(1)
    settings = session.config.features
    with session.phase("train_data", 3) as phase:
        selection = select_features_of(
            lambda: ((rows.x, rows.y) for rows in (draws.again(pair, 0, limit) for pair in split.train)),
            draws.spec.names,
            min_variance=settings.min_variance,
            max_correlation=settings.max_correlation,
            top_k=settings.top_k,
            n_threads=session.config.n_threads,
        )
        channels = selection.indices
        session.log.emit(
            "FEATURES_SELECTED", kept=list(selection.names), dropped=[list(item) for item in selection.dropped]
        )
        phase.advance(1)
        shared = {}
        for name, chosen in (("train", split.train), ("validation", split.validation)):
            shared[name] = SharedSamples(
                ranks, name, sum(sizes[pair.volume_id] for pair in chosen), len(channels), has_gradient=True
            )
            for pair in chosen:
                _put(shared[name], draws.again(pair, 0, limit if name == "train" else 1), channels)
            phase.advance(1)
    return stages.TrainingSet(shared["train"], shared["validation"], channels, selection.names, selection.dropped)


def shared_epoch(
    ranks: Ranks, draws: Draws, split: Split, epoch: int, n_epochs: int, channels: tuple[int, ...]
) -> SharedSamples:
    """The training samples of a later epoch (R14), in place of those before."""
    n_samples = sum(len(draws.rows(pair, epoch, n_epochs).y) for pair in split.train)
    found = SharedSamples(ranks, "train", n_samples, len(channels), has_gradient=True)
    for rows in _drawn(draws, split, epoch, n_epochs):
        _put(found, rows, channels)
    return found


def _drawn(draws: Draws, split: Split, epoch: int, n_epochs: int) -> Iterator[stages.Rows]:
    return (draws.again(pair, epoch, n_epochs) for pair in split.train)


def _put(samples: SharedSamples, rows: stages.Rows, channels: tuple[int, ...]) -> None:
    kept = stages.keep(rows, channels)
    samples.put(kept.x, kept.y, kept.gradient)
