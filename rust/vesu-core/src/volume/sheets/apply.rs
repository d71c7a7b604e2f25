//! Fills tried on the labelled volume, one after the other, and kept if topology gains.

use super::super::painting;
use super::super::plug::plug_bits;
use super::super::topology::bits::Bits;
use super::super::topology::{background, betti_numbers, euler_of_bits};
use super::super::{BettiNumbers, Connectivity, Shape, connected_components};
use super::columns::{Frame, Interval};
use super::{Discarded, mask_of};
use crate::{Cancel, Result};

/// Voxels around a fill that its window shows: the plug looks two away from what it adds, and it adds one away.
const MARGIN: usize = 3;

/// Labels of all components, patches included.
pub(super) struct Volume {
    pub labels: Vec<u32>,
    pub shape: Shape,
    pub patches: Vec<Patched>,
}

/// Voxels added for one gap of sheet `label`.
pub(super) struct Patched {
    label: u32,
    pub voxels: Vec<usize>,
}

/// What came of an offered fill.
enum Verdict {
    Kept,
    /// Another layer of the sheet fills the gap already.
    NothingToAdd,
    Touching,
    NoTunnel,
}

impl Volume {
    pub fn new(labels: Vec<u32>, shape: Shape) -> Self {
        Self { labels, shape, patches: Vec::new() }
    }

    /// Fill a gap of sheet `label`, or count why not.
    pub fn apply(
        &mut self,
        label: u32,
        columns: &[Interval],
        frame: Frame,
        discarded: &mut Discarded,
        cancel: &Cancel,
    ) -> Result<()> {
        let voxels = columns.iter().flat_map(|column| {
            (column.low..=column.high).map(|height| frame.voxel(column.u as usize, column.v as usize, height as usize))
        });
        match self.offer(label, voxels.collect(), cancel)? {
            Verdict::Kept | Verdict::NothingToAdd => {}
            Verdict::Touching => discarded.touching += 1,
            Verdict::NoTunnel => discarded.no_tunnel += 1,
        }
        Ok(())
    }

    fn offer(&mut self, label: u32, mut voxels: Vec<usize>, cancel: &Cancel) -> Result<Verdict> {
        cancel.check()?;
        voxels.retain(|&voxel| self.labels[voxel] != label);
        if voxels.is_empty() {
            return Ok(Verdict::NothingToAdd);
        }
        if self.touch_another(&voxels, label) {
            return Ok(Verdict::Touching);
        }
        let window = Window::around(&voxels, self.shape);
        let Some(voxels) = window.tight(self, voxels, cancel)? else {
            return Ok(Verdict::NoTunnel);
        };
        if self.touch_another(&voxels, label) {
            return Ok(Verdict::Touching); // by what the plug added
        }
        for &voxel in &voxels {
            self.labels[voxel] = label;
        }
        self.patches.push(Patched { label, voxels });
        Ok(Verdict::Kept)
    }

    /// Whether a voxel, or one of its 26 neighbours, belongs to another component.
    fn touch_another(&self, voxels: &[usize], label: u32) -> bool {
        let other = |&other: &u32| other != 0 && other != label;
        let touches = |&voxel: &usize| {
            Window::near(voxel, 1, self.shape).rows(self.shape).any(|row| self.labels[row].iter().any(other))
        };
        voxels.iter().any(touches)
    }

    /// Take back the patches around cavities until there are no more cavities than before; the mask and its numbers.
    pub fn without_new_cavities(
        &mut self,
        before: BettiNumbers,
        discarded: &mut Discarded,
        cancel: &Cancel,
    ) -> Result<(Vec<u8>, BettiNumbers)> {
        loop {
            let mask = mask_of(&self.labels, self.shape, cancel)?;
            let after = betti_numbers(&mask, self.shape, Connectivity::Faces, cancel)?;
            if after.cavities <= before.cavities {
                return Ok((mask, after));
            }
            let shape = self.shape;
            let (components, open) = background(&mask, shape, Connectivity::Faces, cancel)?;
            let cavities = painting::mask(&components, &open, |background, open| background & !open, cancel)?;
            let encloses = |patch: &Patched| patch.voxels.iter().any(|&voxel| is_beside(&cavities, voxel, shape));
            let patches = std::mem::take(&mut self.patches);
            let n_patches = patches.len() as u64;
            for &voxel in patches.iter().flat_map(|patch| &patch.voxels) {
                self.labels[voxel] = 0;
            }
            // The others may have leaned on one of those: each has to pass again. A cavity always has a patch beside it
            // that closed it, so every round leaves fewer.
            for patch in patches.into_iter().filter(|patch| !encloses(patch)) {
                self.offer(patch.label, patch.voxels, cancel)?;
            }
            discarded.cavity += n_patches - self.patches.len() as u64;
        }
    }
}

/// Whether one of the voxel's 26 neighbours, or itself, is marked.
fn is_beside(marked: &[u8], voxel: usize, shape: Shape) -> bool {
    Window::near(voxel, 1, shape).rows(shape).any(|row| marked[row].contains(&1))
}

/// A box of voxels, clipped to the volume.
struct Window {
    first: [usize; 3],
    size: [usize; 3],
}

impl Window {
    fn near(voxel: usize, reach: usize, shape: Shape) -> Self {
        Self::spanning([voxel].into_iter(), reach, shape)
    }

    fn around(voxels: &[usize], shape: Shape) -> Self {
        Self::spanning(voxels.iter().copied(), MARGIN, shape)
    }

    fn spanning(voxels: impl Iterator<Item = usize>, reach: usize, shape: Shape) -> Self {
        let (mut first, mut last) = ([usize::MAX; 3], [0; 3]);
        for voxel in voxels {
            let place = [voxel / shape[2] / shape[1], voxel / shape[2] % shape[1], voxel % shape[2]];
            for k in 0..3 {
                first[k] = first[k].min(place[k]);
                last[k] = last[k].max(place[k]);
            }
        }
        let first = first.map(|first| first.saturating_sub(reach));
        let size = [0, 1, 2].map(|k| (last[k] + reach + 1).min(shape[k]) - first[k]);
        Self { first, size }
    }

    /// Ranges of the volume's voxels, row by row.
    fn rows(&self, shape: Shape) -> impl Iterator<Item = std::ops::Range<usize>> + use<'_> {
        (0..self.size[0] * self.size[1]).map(move |row| {
            let (z, y) = (self.first[0] + row / self.size[1], self.first[1] + row % self.size[1]);
            let start = (z * shape[1] + y) * shape[2] + self.first[2];
            start..start + self.size[2]
        })
    }

    /// The fill, made watertight against the sheet, if it closes a tunnel and hangs on the sheet by faces.
    ///
    /// The change of the Euler number is local. Components cannot grow, because every piece of the fill hangs on what was
    /// there; with the cavities looked at in the end, tunnels fall by at least that change.
    fn tight(&self, volume: &Volume, mut voxels: Vec<usize>, cancel: &Cancel) -> Result<Option<Vec<usize>>> {
        let before: Vec<u8> = self
            .rows(volume.shape)
            .flat_map(|row| volume.labels[row].iter().map(|&label| u8::from(label != 0)))
            .collect();
        let mut after = before.clone();
        for &voxel in &voxels {
            after[self.place_of(voxel, volume.shape)] = 1;
        }
        let mut plugged = Bits::of_mask(&after, self.size, cancel)?;
        plug_bits(&mut plugged, cancel)?;
        let plugged = plugged.to_mask(cancel)?;
        // The window's own edges look like leaks to the plug: only what it adds beside the fill is taken.
        for voxel in voxels.clone() {
            let inner = Self::near(self.place_of(voxel, volume.shape), 1, self.size);
            for place in inner.rows(self.size).flatten() {
                if plugged[place] > after[place] {
                    after[place] = 1;
                    voxels.push(self.voxel_at(place, volume.shape));
                }
            }
        }
        let euler = |mask: &[u8]| euler_of_bits(&Bits::of_mask(mask, self.size, cancel)?, Connectivity::Faces, cancel);
        if euler(&after)? <= euler(&before)? || !hangs_on(&before, &after, self.size, cancel)? {
            return Ok(None);
        }
        voxels.sort_unstable();
        Ok(Some(voxels))
    }

    fn place_of(&self, voxel: usize, shape: Shape) -> usize {
        let (z, y, x) = (voxel / shape[2] / shape[1], voxel / shape[2] % shape[1], voxel % shape[2]);
        ((z - self.first[0]) * self.size[1] + y - self.first[1]) * self.size[2] + x - self.first[2]
    }

    fn voxel_at(&self, place: usize, shape: Shape) -> usize {
        let (z, y, x) =
            (place / self.size[2] / self.size[1], place / self.size[2] % self.size[1], place % self.size[2]);
        ((z + self.first[0]) * shape[1] + y + self.first[1]) * shape[2] + x + self.first[2]
    }
}

/// Whether every 6-connected piece of `after` holds something of `before`.
fn hangs_on(before: &[u8], after: &[u8], shape: Shape, cancel: &Cancel) -> Result<bool> {
    let (labels, count) = connected_components(after, shape, Connectivity::Faces, cancel)?;
    let mut held = vec![false; count as usize + 1];
    for (&label, &voxel) in labels.iter().zip(before) {
        held[label as usize] |= voxel != 0;
    }
    Ok(held[1..].iter().all(|&held| held))
}
