//! The one error type of the core. The binding maps each variant to a `VesuError` subclass.

use std::path::PathBuf;

pub type Result<T, E = Error> = std::result::Result<T, E>;

#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An argument the caller can mend: which one, what came, what is accepted.
    #[error("{name}: got {got}; accepted: {accepted}")]
    Argument { name: &'static str, got: String, accepted: String },

    /// File or byte content that is malformed, truncated, hostile or of an unsupported kind.
    #[error("{what}: {problem}")]
    Format { what: String, problem: String },

    /// The operating system refused a file operation.
    #[error("{}: {source}", path.display())]
    Io { path: PathBuf, source: std::io::Error },

    /// Refused before allocating.
    #[error("{what} needs {needed} bytes; the limit is {limit} bytes")]
    Memory { what: String, needed: u64, limit: u64 },

    /// A ledger or checkpoint whose evidence does not hold together; `record` counts from 0.
    #[error("record {record}: {problem}")]
    Evidence { record: u64, problem: String },

    /// An inclusion or consistency proof that does not hold.
    #[error("proof: {0}")]
    Proof(String),

    /// The caller's [`Cancel`](crate::Cancel) token was set.
    #[error("cancelled")]
    Cancelled,
}

impl Error {
    pub fn argument(name: &'static str, got: impl ToString, accepted: impl Into<String>) -> Self {
        Self::Argument { name, got: got.to_string(), accepted: accepted.into() }
    }

    pub fn format(what: impl Into<String>, problem: impl Into<String>) -> Self {
        Self::Format { what: what.into(), problem: problem.into() }
    }

    pub fn io(path: impl Into<PathBuf>, source: std::io::Error) -> Self {
        Self::Io { path: path.into(), source }
    }
}
