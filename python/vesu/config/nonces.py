"""Which voxels of a test volume are golden nonces: those of extreme confidence (R31)."""

from dataclasses import dataclass

from vesu.config.checks import require

__all__ = ["NonceConfig"]


@dataclass(frozen=True)
class NonceConfig:
    """The golden nonces of each test volume (R31); they change no mask.

    Examples
    --------
    >>> NonceConfig(quantile=0.999).limit(64**3)
    262
    >>> NonceConfig(top_k=0).limit(64**3)
    262144
    """

    use: bool = False
    """Find them, write each into the log, and leave their timeline."""
    threshold: float = 0.9
    """The least probability of one."""
    quantile: float = 0.0
    """Only the most confident share `1 - quantile` of a volume's voxels; 0 takes all."""
    top_k: int = 1000
    """At most so many in each volume; 0 is unlimited."""

    def __post_init__(self) -> None:
        require("nonces.threshold", self.threshold, 0 <= self.threshold <= 1, "0 to 1")
        require("nonces.quantile", self.quantile, 0 <= self.quantile < 1, "0 or more, below 1")
        require("nonces.top_k", self.top_k, 0 <= self.top_k < 2**32, "1 to 4294967295, or 0 for no limit")

    def limit(self, voxels: int) -> int:
        """How many a volume of so many voxels has at most; always one or more."""
        share = max(1, round((1 - self.quantile) * voxels))
        return min(share, self.top_k) if self.top_k else share
