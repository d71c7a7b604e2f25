//! The event ledger: canonical JSON (RFC 8785), a SHA-256 hash chain, an RFC 9162 Merkle tree, an append-only log.
//!
//! A log is JSON Lines. Each line is the canonical JSON of one record:
//!
//! ```text
//! {"event":"RUN_START", <fields>, "hash":"…","prev":"…","seq":0,"ts_ns":"1790000000000000000"}
//! ```
//!
//! (members in canonical order). With *body* the canonical JSON of the record without its `hash` member:
//! `hash` = SHA-256(body) and the next record's `prev` repeats it; the first `prev` is 64 zeros. The record's
//! Merkle leaf is SHA-256(0x00 || body).

pub mod canonical;
pub mod chain;
pub mod fields;
pub mod iterations;
pub mod log;
pub mod merkle;
pub mod proof;
pub mod prove;
pub mod scan;
pub mod table;

pub use chain::Chain;
pub use fields::Fields;
pub use iterations::IterationBlock;
pub use log::Log;
pub use merkle::{Hash, Tree, hex, unhex};
pub use proof::{verify_consistency, verify_inclusion};
pub use prove::{prove_consistency, prove_inclusion, tree_head};
pub use scan::{Durable, Report, verify};
pub use table::Column;

/// Longest line that is written or read, in bytes: verification needs memory for one, and for a block of short ones.
pub const MAX_RECORD_BYTES: usize = 4 << 20;
