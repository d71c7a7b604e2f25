"""The one wording in which a setting is refused."""

from vesu.errors import ArgumentError

__all__ = ["require"]


def require(name: str, got: object, good: bool, accepted: str) -> None:
    """Raise ArgumentError with the setting's name, what came and what is accepted, unless it is good."""
    if not good:
        raise ArgumentError(f"{name}: got {got}; accepted: {accepted}")
