"""The competition's score volume by volume, as ``summary.json`` has it."""

from dataclasses import dataclass

from vesu.report.jsonfile import Node

TERMS = ("score", "topology", "surface", "voi")
DIMENSIONS = ("components", "tunnels", "cavities")


@dataclass(frozen=True)
class Matching:
    """Features of one kind: matched, the prediction's, the label's."""

    matched: int | None
    predicted: int | None
    label: int | None


@dataclass(frozen=True)
class VolumeScore:
    """One mask's score: each term by its name, each dimension's features."""

    volume_id: str
    terms: dict[str, float]
    features: tuple[Matching | None, Matching | None, Matching | None]


def read_volume_scores(node: Node) -> tuple[VolumeScore, ...]:
    """The entries of ``by_volume``; none where there are none.

    Raises
    ------
    FormatError
        A field of the wrong type; the message names it.
    """
    return tuple(_volume(each) for each in node.children("by_volume"))


def _volume(node: Node) -> VolumeScore:
    found = ((name, node.number(name)) for name in TERMS)
    components, tunnels, cavities = (_matching(node.child(name)) for name in DIMENSIONS)
    return VolumeScore(
        volume_id=node.text("volume_id") or "(no name)",
        terms={name: value for name, value in found if value is not None},
        features=(components, tunnels, cavities),
    )


def _matching(node: Node | None) -> Matching | None:
    if node is None:
        return None
    return Matching(node.integer("matched"), node.integer("predicted"), node.integer("label"))
