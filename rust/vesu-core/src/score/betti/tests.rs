use std::collections::BTreeSet;

use super::block::{Block, ahead, set_bits};
use super::*;
use crate::digest;

/// A generator good enough to strew voxels (xorshift).
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % n
    }

    fn mask(&mut self, shape: Shape, of_ten: u64) -> Vec<u8> {
        (0..shape.iter().product()).map(|_| u8::from(self.below(10) < of_ten)).collect()
    }
}

fn counts(prediction: &[u8], label: &[u8], shape: Shape) -> Vec<u64> {
    let matchings = betti_matching(prediction, label, shape, Blocks::Whole, &Cancel::new()).unwrap();
    matchings.iter().flat_map(|row| [row.matched, row.prediction, row.label]).collect()
}

#[test]
fn all_pairs_of_2x2x2_masks_count_as_the_reference_implementation_does() {
    let masks: Vec<Vec<u8>> = (0..=255u8).map(|bits| (0..8).map(|voxel| bits >> voxel & 1).collect()).collect();
    let mut bytes = Vec::new();
    for prediction in &masks {
        for label in &masks {
            bytes.extend(counts(prediction, label, [2; 3]).iter().flat_map(|count| count.to_le_bytes()));
        }
    }
    let digest = digest::of_parts(&[&bytes], &Cancel::new()).unwrap().to_hex();
    assert_eq!(digest.as_str(), "021cfd14512519bad0a3a4052c3dcb854bfe22d13ed6be9495a8331bff5d57c8");
}

#[test]
fn every_feature_is_matched_or_located() {
    let mut dice = Dice(7);
    for (shape, blocks) in [([9, 8, 70], Blocks::Whole), ([13, 12, 11], Blocks::Octants), ([1, 20, 20], Blocks::Whole)]
    {
        let (prediction, label) = (dice.mask(shape, 6), dice.mask(shape, 8));
        let cancel = Cancel::new();
        let matchings = betti_matching(&prediction, &label, shape, blocks, &cancel).unwrap();
        let unmatched = betti_unmatched(&prediction, &label, shape, blocks, &cancel).unwrap();
        for (dimension, row) in matchings.iter().enumerate() {
            assert_eq!(row.matched + unmatched.prediction[dimension].len() as u64, row.prediction);
            assert_eq!(row.matched + unmatched.label[dimension].len() as u64, row.label);
        }
    }
}

#[test]
fn a_wrong_length_is_refused() {
    let refused = betti_matching(&[0; 8], &[0; 7], [2; 3], Blocks::Whole, &Cancel::new());
    assert!(matches!(refused, Err(Error::Argument { name: "label", .. })));
    let vast = betti_matching(&[], &[], [1 << 11; 3], Blocks::Whole, &Cancel::new());
    assert!(matches!(vast, Err(Error::Argument { name: "prediction", .. })));
}

#[test]
fn a_cancelled_token_stops_it() {
    let cancel = Cancel::new();
    cancel.cancel();
    let outcome = betti_matching(&[1; 8], &[1; 8], [2; 3], Blocks::Octants, &cancel);
    assert!(matches!(outcome, Err(Error::Cancelled)));
}

#[test]
fn octants_cover_every_voxel_once() {
    for shape in [[1, 1, 1], [1, 2, 3], [5, 4, 7]] {
        let voxels = |(from, to): (Shape, Shape)| (0..3).map(|axis| to[axis] - from[axis]).product::<usize>();
        let octants = octants(shape);
        assert_eq!(octants.iter().copied().map(voxels).sum::<usize>(), shape.iter().product::<usize>());
        assert_eq!(octants[0], ([0; 3], shape.map(|length| length.div_ceil(2))));
    }
}

#[test]
fn bits_are_the_codes() {
    let shape = [2, 3, 131];
    let mut dice = Dice(3);
    let (prediction, label) = (dice.mask(shape, 5), dice.mask(shape, 5));
    let block = Block::cut(&prediction, &label, shape, [0; 3], shape, &Cancel::new()).unwrap();
    for (row, codes) in block.codes.chunks(131).enumerate() {
        for (mask, voxels) in [&prediction, &label].into_iter().enumerate() {
            let bits: Vec<usize> = block
                .row(row)
                .iter()
                .enumerate()
                .flat_map(|(i, words)| set_bits(words[mask]).map(move |bit| 64 * i + bit))
                .collect();
            let expected: Vec<usize> = (0..131).filter(|x| voxels[row * 131 + x] != 0).collect();
            assert_eq!(bits, expected);
            assert!((0..131).all(|x| (codes[x] >> mask & 1 == 1) == bits.contains(&x)));
        }
    }
    assert_eq!(ahead(0b110, 1), 0b11 | 1 << 63);
}

#[test]
fn euler_numbers_of_known_shapes() {
    let euler = |voxels: &[u8], shape: Shape| {
        let nothing = vec![0; voxels.len()];
        let block = Block::cut(voxels, &nothing, shape, [0; 3], shape, &Cancel::new()).unwrap();
        block.euler_numbers(&Cancel::new()).unwrap()
    };
    let mut shell = vec![1; 27];
    shell[13] = 0;
    assert_eq!(euler(&shell, [3; 3]), [2, 0]);
    assert_eq!(euler(&[1, 1, 1, 1, 0, 1, 1, 1, 1], [1, 3, 3]), [0, 0]);
    assert_eq!(euler(&[1; 260], [1, 2, 130]), [1, 0]);
    assert_eq!(euler(&[1, 0, 1, 0, 1], [5, 1, 1]), [3, 0]);
}

#[test]
fn a_bit_tree_is_a_set() {
    let mut dice = Dice(11);
    for len in [1, 64, 65, 5000, 300_000] {
        let mut tree = reduction::BitTree::new(len).unwrap();
        let mut set = BTreeSet::new();
        for _ in 0..300 {
            let number = dice.below(len as u64) as usize;
            tree.toggle(number);
            if !set.remove(&number) {
                set.insert(number);
            }
            assert_eq!(tree.highest(), set.last().copied());
        }
        let mut drained = Vec::new();
        tree.drain_into(&mut drained);
        assert!(drained.iter().map(|&number| number as usize).eq(set.into_iter().rev()));
        assert_eq!(tree.highest(), None);
    }
}
