//! Work compiled twice, for the baseline and for AVX2 with its bit instructions, and chosen at run time.
//!
//! All of it is integer work on bits, so both versions give the same results.

/// A loop worth compiling for wider registers.
pub(super) trait Work {
    type Output;
    /// # Safety
    /// `WIDE` promises AVX2, BMI1, BMI2, POPCNT and LZCNT. Must be `inline(always)`, so that its body is compiled with
    /// them.
    unsafe fn run<const WIDE: bool>(self) -> Self::Output;
}

/// Run `work` on the widest path that the machine has.
pub(super) fn dispatch<W: Work>(work: W) -> W::Output {
    #[cfg(target_arch = "x86_64")]
    if supported() {
        // SAFETY: the features were detected just now.
        return unsafe { avx2(work) };
    }
    // SAFETY: nothing is promised.
    unsafe { work.run::<false>() }
}

#[cfg(target_arch = "x86_64")]
fn supported() -> bool {
    #[cfg(test)]
    if FORCE_PORTABLE.with(std::cell::Cell::get) {
        return false;
    }
    is_x86_feature_detected!("avx2")
        && is_x86_feature_detected!("bmi1")
        && is_x86_feature_detected!("bmi2")
        && is_x86_feature_detected!("popcnt")
        && is_x86_feature_detected!("lzcnt")
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,bmi1,bmi2,popcnt,lzcnt")]
unsafe fn avx2<W: Work>(work: W) -> W::Output {
    // SAFETY: compiled with the features that WIDE promises; the caller has detected them.
    unsafe { work.run::<true>() }
}

#[cfg(test)]
thread_local! {
    /// Set by tests that compare the two versions; of one thread, so they run in a pool of their own.
    pub(super) static FORCE_PORTABLE: std::cell::Cell<bool> = const { std::cell::Cell::new(false) };
}
