//! One cooperative cancel token, polled by every long loop.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::error::{Error, Result};

/// A flag that one thread sets and long loops poll. Cloning shares the flag.
///
/// Poll at least every few milliseconds of work: the promise to the user is an answer within half a second.
#[derive(Clone, Debug, Default)]
pub struct Cancel(Arc<AtomicBool>);

impl Cancel {
    pub fn new() -> Self {
        Self::default()
    }

    /// Ask every loop that holds this token to stop.
    pub fn cancel(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    pub fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// `Err(Error::Cancelled)` once [`cancel`](Self::cancel) was called; use as `cancel.check()?`.
    #[inline]
    pub fn check(&self) -> Result<()> {
        if self.is_cancelled() { Err(Error::Cancelled) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clone_sees_the_cancel() {
        let token = Cancel::new();
        let seen_by_loop = token.clone();
        assert!(seen_by_loop.check().is_ok());
        token.cancel();
        assert!(matches!(seen_by_loop.check(), Err(Error::Cancelled)));
    }
}
