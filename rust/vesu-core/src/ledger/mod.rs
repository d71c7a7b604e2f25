//! The event ledger: canonical JSON, hash chain, Merkle tree.
