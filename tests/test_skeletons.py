"""The medial surface of a label: known sheets, a slow reference, and topology (R19)."""

import itertools

import numpy as np
import pytest

from vesu.data.phantom import ScrollParams, generate_scroll
from vesu.distill.skeletons import medial_surface, tubed_skeleton
from vesu.errors import ArgumentError
from vesu.volume import betti_numbers

SIZE = 25


def slab(normal, thickness, size=SIZE):
    """A plane sheet through the middle of a volume, and each voxel's signed distance from its middle."""
    unit = np.array(normal) / np.linalg.norm(normal)
    centred = np.moveaxis(np.indices((size,) * 3), 0, -1) - (size - 1) / 2
    distance = centred @ unit
    return (np.abs(distance) <= thickness / 2).astype(np.uint8), distance


def shell(radius, thickness, size=SIZE):
    """A hollow ball, and each voxel's signed distance from the middle of its wall."""
    centred = np.moveaxis(np.indices((size,) * 3), 0, -1) - (size - 1) / 2
    distance = np.linalg.norm(centred, axis=-1) - radius
    return (np.abs(distance) <= thickness / 2).astype(np.uint8), distance


def reference(label):
    """Voxel by voxel: walk along each axis to the run's ends, average its length nearby, take the shortest axis."""

    def walk(voxel, axis, step):
        place, n = list(voxel), 0
        while label[tuple(place)] == 1:
            n += 1
            place[axis] += step
            if not 0 <= place[axis] < label.shape[axis]:
                return n, 2
        return n, 2 if label[tuple(place)] == 2 else 1

    surface = [tuple(int(i) for i in v) for v in np.argwhere(label == 1)]
    ends = {(v, a): (walk(v, a, -1), walk(v, a, 1)) for v in surface for a in range(3)}
    result = np.zeros(label.shape, np.uint8)
    for v in surface:
        near = [u for u in surface if all(abs(i - j) <= 2 for i, j in zip(u, v, strict=True))]

        def thickness(axis, near=near):
            return sum((b + a - 1) * cut_b * cut_a for (b, cut_b), (a, cut_a) in (ends[u, axis] for u in near))

        axis = min(range(3), key=thickness)
        (before, _), (after, _) = ends[v, axis]
        result[v] = abs(before - after) <= 1
    return result


@pytest.mark.parametrize("seed", range(4))
def test_the_medial_surface_is_its_definition(seed):  # R19
    rng = np.random.default_rng(seed)
    label = rng.choice(3, (6, 5, 7), p=[0.3, 0.6, 0.1]).astype(np.uint8)
    assert medial_surface(label).any()
    assert (medial_surface(label) == reference(label)).all()


@pytest.mark.parametrize("axis", range(3))
@pytest.mark.parametrize("thickness", range(1, 8))
def test_a_sheet_along_the_axes_keeps_its_middle(axis, thickness):  # R19
    label = np.zeros((SIZE,) * 3, np.uint8)
    np.moveaxis(label, axis, 0)[5 : 5 + thickness] = 1
    kept = np.moveaxis(medial_surface(label), axis, 0)
    middle = {5 + (thickness - 1) // 2, 5 + thickness // 2}
    assert {z for z in range(SIZE) if kept[z].any()} == middle
    assert all(kept[z].all() for z in middle)


@pytest.mark.parametrize("normal", [(1, 0.2, 0.1), (1, 1, 0), (0.3, 1, 0.5), (1, 1, 1), (0.1, -0.4, 1)])
@pytest.mark.parametrize("thickness", [3.0, 5.0])
def test_an_oblique_sheet_keeps_its_middle_and_no_gap(normal, thickness):  # R19
    label, distance = slab(normal, thickness)
    inner = (slice(5, -5),) * 3  # away from the faces, that cut runs
    kept = medial_surface(label).astype(bool)
    assert np.abs(distance[kept][:]).max() <= thickness / 2
    assert np.abs(distance[inner][kept[inner]]).max() < 1
    assert (kept[inner] <= label[inner].astype(bool)).all()
    tube = tubed_skeleton(label, radius=1)
    assert betti_numbers(tube, 26).components == 1
    # No line across the sheet misses the tube: it parts the volume as the label does.
    assert betti_numbers(1 - tube, 6).components == betti_numbers(1 - label, 6).components == 2


@pytest.mark.parametrize("thickness", [3.0, 4.0])
def test_a_curved_sheet_stays_closed(thickness):  # R19
    label, distance = shell(8.0, thickness)
    kept = medial_surface(label).astype(bool)
    assert (np.abs(distance[kept]) < 1.25).mean() > 0.95  # all but tips, as it curves as tightly as it is thick
    assert kept.sum() < 0.6 * label.sum()
    for mask in (label, tubed_skeleton(label, radius=1)):
        numbers = betti_numbers(mask, 26)
        assert (numbers.components, numbers.tunnels, numbers.cavities) == (1, 0, 1)


def test_every_voxel_of_a_scroll_is_near_the_skeleton():  # R19
    params = ScrollParams(pitch=14, sheet_thickness=4, wobble=2)
    label = generate_scroll((48, 48, 48), seed=3, params=params)
    skeleton, tube = medial_surface(label), tubed_skeleton(label, radius=1)
    surface = label == 1
    assert 0.2 < skeleton.sum() / surface.sum() < 0.6
    near = np.zeros(label.shape, bool)
    padded = np.pad(skeleton.astype(bool), 3)
    for shift in itertools.product(range(7), repeat=3):
        near |= padded[tuple(slice(s, s + n) for s, n in zip(shift, label.shape, strict=True))]
    assert near[surface].mean() > 0.999
    assert betti_numbers(tube, 26).components <= betti_numbers(surface.astype(np.uint8), 26).components + 1


@pytest.mark.parametrize("axis", range(3))
def test_flips_commute(axis):  # R19: the skeleton may be flipped with its patch
    label = generate_scroll((32, 32, 32), seed=1, params=ScrollParams(pitch=12, sheet_thickness=4))
    assert (medial_surface(np.flip(label, axis)) == np.flip(medial_surface(label), axis)).all()


def test_what_is_unlabelled_does_not_end_a_sheet():  # R19
    label = np.zeros((9, 9, 9), np.uint8)
    label[3:6] = 1
    label[:, :, 2:7] = np.where(label[:, :, 2:7] == 1, 1, 0)
    label[:, :, :3], label[:, :, 5:] = 2, 2  # two columns are left, fewer than the sheet is thick
    kept = medial_surface(label)
    assert kept[4, :, 3:5].all()
    assert kept.sum() == kept[4].sum()


def test_nothing_has_no_skeleton():  # R19
    for value in (0, 2):
        assert not tubed_skeleton(np.full((4, 4, 4), value, np.uint8)).any()
    assert tubed_skeleton(np.zeros((0, 4, 4), np.uint8)).shape == (0, 4, 4)


def test_the_tube_grows_by_its_radius_within_the_label():  # R19
    label = np.zeros((15, 15, 15), np.uint8)
    label[2:13] = 1
    for radius in range(7):
        tube = tubed_skeleton(label, radius=radius)
        rows = np.flatnonzero(tube.any((1, 2)))
        assert rows[[0, -1]].tolist() == [max(7 - radius, 2), min(7 + radius, 12)]


@pytest.mark.parametrize("length", [219, 501, 2049])  # 16 bits would overflow and 219 look thin
def test_a_sheet_longer_than_is_counted_keeps_its_middle(length):  # R19
    label = np.zeros((7, 7, length), np.uint8)
    label[2:5] = 1
    kept = medial_surface(label)
    assert kept[3].all() and kept.sum() == kept[3].sum()
    assert (medial_surface(label.transpose(2, 0, 1)) == kept.transpose(2, 0, 1)).all()


def test_bad_input_is_refused():
    with pytest.raises(ArgumentError, match=r"label: got float32 of shape \(2, 2, 2\)"):
        medial_surface(np.zeros((2, 2, 2), np.float32))
    with pytest.raises(ArgumentError, match="label: got uint8 of shape"):
        tubed_skeleton(np.zeros((2, 2), np.uint8))
    with pytest.raises(ArgumentError, match="radius: got 17"):
        tubed_skeleton(np.zeros((2, 2, 2), np.uint8), radius=17)
