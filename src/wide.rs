//! Loops over bytes in the widest registers that the processor has: one of the three modules with `unsafe` code.
//!
//! A program is compiled for the least processor of its kind. What is run here is compiled once more for one with AVX2, whose
//! registers hold twice as much, and that is taken where the processor has it: the same instructions of Rust, the same
//! outcome.

/// Runs `run`, compiled for the best processor that this is. Only what the compiler puts in its place (`#[inline(always)]`,
/// or little) becomes faster by it.
#[inline]
pub fn wide<Outcome>(run: impl FnOnce() -> Outcome) -> Outcome {
    #[cfg(target_arch = "x86_64")]
    if std::arch::is_x86_feature_detected!("avx2") {
        // SAFETY: this processor has the feature that the function is compiled for.
        return unsafe { with_avx2(run) };
    }
    run()
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn with_avx2<Outcome>(run: impl FnOnce() -> Outcome) -> Outcome {
    run()
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_outcome_is_handed_on() {
        let mut sums = [0_u16; 1000];
        let total = super::wide(|| {
            for (number, sum) in sums.iter_mut().enumerate() {
                *sum = u16::try_from(number).unwrap().wrapping_mul(40_503);
            }
            sums.len()
        });
        assert_eq!((total, sums[2], sums[999]), (1000, 15_470, (999_u32 * 40_503 % 65_536) as u16));
    }
}
