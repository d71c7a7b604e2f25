"""The trained student of a run, and its answers in the cache."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from vesu.data.cache import ArrayCache
from vesu.distill.values import StudentPrediction

if TYPE_CHECKING:
    from vesu.distill.training import TrainedStudent

__all__ = ["Distilled", "cached_prediction"]


@dataclass(frozen=True, eq=False)
class Distilled:
    """The student of a run, and where it computes."""

    student: "TrainedStudent"
    device: str
    digest: str
    """BLAKE3 of its weights: what is cached of its answers lies under it."""
    report: Mapping[str, Any]
    """The summary's entry."""

    def predict(
        self,
        image: NDArray[Any],
        image_id: str,
        cache: ArrayCache,
        on_part: Callable[[float], None] | None = None,
        poll: Callable[[], None] | None = None,
    ) -> StudentPrediction:
        """Its answer for a volume whose file has this BLAKE3, kept in the cache."""
        return cached_prediction(self.student, self.digest, image, image_id, self.device, cache, on_part, poll)


def cached_prediction(
    student: "TrainedStudent",
    digest: str,
    image: NDArray[Any],
    image_id: str,
    device: str,
    cache: ArrayCache,
    on_part: Callable[[float], None] | None = None,
    poll: Callable[[], None] | None = None,
) -> StudentPrediction:
    """A student's answer for a volume: computed once for its weights, the volume's file, and how it is asked."""
    settings = student.config
    key = cache.key(
        "student-prediction/1",
        student=digest,
        volume=image_id,
        patch=list(settings.patch),
        overlap=settings.overlap,
        flips=settings.flips,
        batch=settings.batch,
        precision=settings.precision,
        device=device.partition(":")[0],
    )

    def compute() -> dict[str, NDArray[Any]]:
        found = student.predict(image, device=device, batch=settings.batch, on_part=on_part, poll=poll)
        return {"probability": found.probability, "uncertainty": found.uncertainty}

    return StudentPrediction(**cache.get_or_compute(key, compute))
