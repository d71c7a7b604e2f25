//! Against the RFC's own recursive definitions, its published answers, and proofs changed in every way.

use super::super::merkle::{leaf_hash, unhex};
use super::*;

const LARGEST: u64 = 130;

fn leaves(n: u64) -> Vec<Hash> {
    (0..n).map(|i| leaf_hash(&i.to_be_bytes())).collect()
}

/// MTH(D), PATH(m, D) and SUBPROOF(m, D, b) as RFC 9162 defines them.
mod naive {
    use super::*;

    pub fn root(d: &[Hash]) -> Hash {
        match d.len() {
            0 => Tree::new().root(),
            1 => d[0],
            n => {
                let (left, right) = d.split_at(split(n));
                node_hash(&root(left), &root(right))
            }
        }
    }

    pub fn path(m: usize, d: &[Hash]) -> Vec<Hash> {
        if d.len() == 1 {
            return Vec::new();
        }
        let k = split(d.len());
        let (mut path, sibling) =
            if m < k { (path(m, &d[..k]), root(&d[k..])) } else { (path(m - k, &d[k..]), root(&d[..k])) };
        path.push(sibling);
        path
    }

    pub fn subproof(m: usize, d: &[Hash], whole: bool) -> Vec<Hash> {
        if m == d.len() {
            return if whole { Vec::new() } else { vec![root(d)] };
        }
        let k = split(d.len());
        let (mut proof, sibling) = if m <= k {
            (subproof(m, &d[..k], whole), root(&d[k..]))
        } else {
            (subproof(m - k, &d[k..], false), root(&d[..k]))
        };
        proof.push(sibling);
        proof
    }

    /// Whether each sibling on a leaf's path lies to the left: the path's shape.
    pub fn sides(m: usize, n: usize) -> Vec<bool> {
        if n <= 1 {
            return Vec::new();
        }
        let k = split(n);
        let mut sides = if m < k { sides(m, k) } else { sides(m - k, n - k) };
        sides.push(m >= k);
        sides
    }

    fn split(n: usize) -> usize {
        n.next_power_of_two() / 2
    }
}

fn prove(mut prover: Prover, leaves: &[Hash]) -> Vec<Hash> {
    leaves.iter().for_each(|leaf| prover.push(*leaf));
    prover.path()
}

#[test]
fn every_inclusion_proof_to_size_130_is_the_definition_s_and_holds() {
    let all = leaves(LARGEST);
    for n in 1..=all.len() {
        let root = naive::root(&all[..n]);
        for m in 0..n {
            let path = prove(Prover::inclusion(m as u64), &all[..n]);
            assert_eq!(path, naive::path(m, &all[..n]), "{m} of {n}");
            verify_inclusion(&all[m], m as u64, n as u64, &path, &root).unwrap();
        }
    }
}

#[test]
fn every_consistency_proof_to_size_130_is_the_definition_s_and_holds() {
    let all = leaves(LARGEST);
    let roots: Vec<Hash> = (0..=all.len()).map(|n| naive::root(&all[..n])).collect();
    for n in 0..=all.len() {
        for m in 0..=n {
            let path = prove(Prover::consistency(m as u64), &all[..n]);
            let defined = if m == 0 { Vec::new() } else { naive::subproof(m, &all[..n], true) };
            assert_eq!(path, defined, "{m} to {n}");
            verify_consistency(m as u64, n as u64, &path, &roots[m], &roots[n]).unwrap();
        }
    }
}

#[test]
fn a_proof_read_for_another_leaf_or_tree_does_not_hold() {
    let all = leaves(40);
    let roots: Vec<Hash> = (0..=all.len()).map(|n| naive::root(&all[..n])).collect();
    for n in 1..=all.len() {
        for m in 0..n {
            let path = naive::path(m, &all[..n]);
            for other in (0..n + 3).filter(|&other| other != m) {
                assert!(verify_inclusion(&all[m], other as u64, n as u64, &path, &roots[n]).is_err());
            }
            for other in (0..roots.len()).filter(|&other| other != n) {
                assert!(verify_inclusion(&all[m], m as u64, n as u64, &path, &roots[other]).is_err());
            }
            let path = naive::subproof(m + 1, &all[..n], true);
            for other in (0..roots.len()).filter(|&other| other != m + 1) {
                let claimed = (m as u64 + 1, n as u64);
                assert!(verify_consistency(claimed.0, claimed.1, &path, &roots[other], &roots[n]).is_err());
            }
        }
    }
}

/// RFC 9162 leaves the size out of the root. So a size is accepted in another's place just where the two trees
/// give the leaf a path of the same shape, and nowhere else.
#[test]
fn another_size_is_accepted_only_where_the_path_has_the_same_shape() {
    let all = leaves(40);
    let (mut accepted, mut refused) = (0, 0);
    for n in 1..=all.len() {
        let root = naive::root(&all[..n]);
        for m in 0..n {
            let path = naive::path(m, &all[..n]);
            for other in 0..=2 * all.len() {
                let same = other > m && naive::sides(m, other) == naive::sides(m, n);
                let held = verify_inclusion(&all[m], m as u64, other as u64, &path, &root).is_ok();
                assert_eq!(held, same, "leaf {m} of {n}, read as of {other}");
                if held { accepted += 1 } else { refused += 1 }
            }
        }
    }
    assert!(accepted > 800 && refused > 50_000);
}

#[test]
fn sizes_of_zero_and_beyond() {
    let (empty, one) = (Tree::new().root(), leaves(1)[0]);
    assert!(verify_inclusion(&one, 0, 0, &[], &empty).is_err());
    assert!(verify_inclusion(&one, u64::MAX, u64::MAX, &[one; 64], &one).is_err());
    assert!(verify_consistency(0, 0, &[], &empty, &empty).is_ok());
    assert!(verify_consistency(0, 1, &[], &empty, &one).is_ok());
    assert!(verify_consistency(0, 1, &[one], &empty, &one).is_err());
    assert!(verify_consistency(0, 1, &[], &one, &one).is_err());
    assert!(verify_consistency(0, 0, &[], &empty, &one).is_err());
    assert!(verify_consistency(1, 1, &[], &one, &empty).is_err());
    assert!(verify_consistency(1, 1, &[one], &one, &one).is_err());
    assert!(verify_consistency(1, 0, &[], &one, &empty).is_err());
    assert!(verify_consistency(3, 4, &[], &one, &one).is_err());
    assert!(verify_consistency(1 << 63, u64::MAX, &[one; 63], &one, &one).is_err());
}

#[test]
fn the_eight_leaf_proofs_of_certificate_transparency() {
    let entries = ["", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f"];
    let all = entries.map(|digits| {
        let bytes = (0..digits.len()).step_by(2).map(|i| u8::from_str_radix(&digits[i..i + 2], 16).unwrap());
        leaf_hash(&bytes.collect::<Vec<_>>())
    });
    // Published nodes of that tree, named by the leaves below them.
    let node = |name: &str| match name {
        "0" => "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
        "1" => "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
        "4" => "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
        "0-1" => "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
        "2-3" => "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
        "4-5" => "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a",
        "6-7" => "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
        "0-3" => "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        "4-7" => "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4",
        other => panic!("{other}"),
    };
    let known = |names: &[&str]| names.iter().map(|name| unhex(node(name)).unwrap()).collect::<Vec<_>>();

    for (index, size, names) in [
        (0, 1, &[][..]),
        (0, 8, &["1", "2-3", "4-7"]),
        (5, 8, &["4", "6-7", "0-3"]),
        (2, 3, &["0-1"]),
        (1, 5, &["0", "2-3", "4"]),
    ] {
        let path = prove(Prover::inclusion(index), &all[..size]);
        assert_eq!(path, known(names), "leaf {index} of {size}");
        verify_inclusion(&all[index as usize], index, size as u64, &path, &naive::root(&all[..size])).unwrap();
    }
    for (first, second, names) in [
        (1, 1, &[][..]),
        (1, 8, &["1", "2-3", "4-7"]),
        (2, 8, &["2-3", "4-7"]),
        (6, 8, &["4-5", "6-7", "0-3"]),
        (2, 5, &["2-3", "4"]),
    ] {
        let path = prove(Prover::consistency(first), &all[..second]);
        assert_eq!(path, known(names), "{first} to {second}");
        let roots = [first as usize, second].map(|n| naive::root(&all[..n]));
        verify_consistency(first, second as u64, &path, &roots[0], &roots[1]).unwrap();
    }
}

/// What a proof claims: of a leaf [index, size] and [leaf, root], of a prefix [first, second] and their roots.
#[derive(Clone, PartialEq)]
struct Claim {
    inclusion: bool,
    numbers: [u64; 2],
    hashes: [Hash; 2],
    path: Vec<Hash>,
}

impl Claim {
    fn holds(&self) -> bool {
        let ([a, b], [x, y]) = (self.numbers, &self.hashes);
        if self.inclusion {
            verify_inclusion(x, a, b, &self.path, y).is_ok()
        } else {
            verify_consistency(a, b, &self.path, x, y).is_ok()
        }
    }

    /// What of the numbers a path can show at all (the roots do not contain the sizes): where it starts, on which
    /// sides it climbs.
    fn shape(&self) -> Option<(bool, Vec<bool>)> {
        let [a, b] = self.numbers.map(|number| usize::try_from(number).unwrap());
        if self.inclusion {
            return (a < b).then(|| (true, naive::sides(a, b)));
        }
        let level = a.trailing_zeros() as usize;
        (0 < a && a < b).then(|| (a.is_power_of_two(), naive::sides(a - 1, b)[level..].to_vec()))
    }

    fn mutate(&mut self, random: &mut Random) {
        let n = self.path.len();
        match random.below(9) {
            0 if n > 0 => random.flip(&mut self.path[random.clone().below(n)]),
            1 => random.flip(&mut self.hashes[random.clone().below(2)]),
            2 if n > 0 => drop(self.path.remove(random.below(n))),
            3 => {
                let extra = if n > 0 { self.path[random.below(n)] } else { self.hashes[0] };
                self.path.insert(random.below(n + 1), extra);
            }
            4 if n > 1 => self.path.swap(random.below(n), random.below(n)),
            5 => self.path.truncate(random.below(n + 1)),
            6 => self.hashes.swap(0, 1),
            7 if n > 0 => self.path[random.below(n)] = self.hashes[random.below(2)],
            _ => {
                let number = &mut self.numbers[random.below(2)];
                *number = if random.below(2) == 0 { *number ^ 1 << random.below(9) } else { random.below(300) as u64 };
            }
        }
    }
}

/// xorshift64*: many mutations, the same ones every run.
#[derive(Clone)]
struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) as usize % n
    }

    fn flip(&mut self, hash: &mut Hash) {
        hash[self.below(32)] ^= 1 << self.below(8);
    }
}

#[test]
fn of_100_000_mutated_proofs_none_is_accepted() {
    let mut random = Random(9162);
    let all = leaves(LARGEST);
    let mut refused = 0;
    while refused < 100_000 {
        let n = 1 + random.below(all.len());
        let (m, inclusion) = (random.below(n), random.below(2) == 0);
        let (d, root) = (&all[..n], naive::root(&all[..n]));
        let claim = if inclusion {
            Claim { inclusion, numbers: [m as u64, n as u64], hashes: [all[m], root], path: naive::path(m, d) }
        } else {
            let (numbers, hashes) = ([m as u64 + 1, n as u64], [naive::root(&all[..m + 1]), root]);
            Claim { inclusion, numbers, hashes, path: naive::subproof(m + 1, d, true) }
        };
        assert!(claim.holds());
        for _ in 0..100 {
            let mut mutated = claim.clone();
            for _ in 0..=random.below(3) {
                mutated.mutate(&mut random);
            }
            let same_hashes = mutated.hashes == claim.hashes && mutated.path == claim.path;
            if same_hashes && (mutated.numbers == claim.numbers || mutated.shape() == claim.shape()) {
                continue;
            }
            assert!(!mutated.holds(), "{:?} became {:?}", claim.numbers, mutated.numbers);
            refused += 1;
        }
    }
}
