//! Points in time, and the traits by which clock and randomness are passed in.

/// A point in time: nanoseconds since 1970-01-01T00:00:00Z, negative before it.
///
/// The range is years 1677 to 2262, as in most file systems.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp(i64);

impl Timestamp {
    /// Takes a time from nanoseconds since the epoch.
    pub const fn from_nanoseconds(nanoseconds: i64) -> Self {
        Self(nanoseconds)
    }

    /// Takes a time from seconds and nanoseconds; `None` where it is out of range.
    pub fn from_parts(seconds: i64, nanoseconds: u32) -> Option<Self> {
        seconds.checked_mul(1_000_000_000)?.checked_add(i64::from(nanoseconds)).map(Self)
    }

    /// Returns nanoseconds since the epoch.
    pub const fn nanoseconds(self) -> i64 {
        self.0
    }

    /// Returns whole seconds since the epoch, rounded down.
    pub const fn seconds(self) -> i64 {
        self.0.div_euclid(1_000_000_000)
    }

    /// Returns the nanoseconds within the second.
    pub const fn subsecond_nanoseconds(self) -> u32 {
        self.0.rem_euclid(1_000_000_000) as u32
    }
}

/// Tells the time. Passed in, so that tests own it.
pub trait Clock: Send + Sync {
    /// Returns the present time.
    fn now(&self) -> Timestamp;
}

/// Makes randomness. Passed in, so that tests can repeat a run.
pub trait Entropy: Send + Sync {
    /// Fills the buffer with bytes that nobody can predict.
    fn fill(&self, buffer: &mut [u8]);

    /// Draws 32 bytes.
    fn draw(&self) -> [u8; 32] {
        let mut bytes = [0; 32];
        self.fill(&mut bytes);
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn before_the_epoch() {
        let time = Timestamp::from_parts(-2, 5).unwrap();
        assert_eq!((time.seconds(), time.subsecond_nanoseconds()), (-2, 5));
        assert!(Timestamp::from_parts(i64::MAX, 0).is_none());
    }
}
