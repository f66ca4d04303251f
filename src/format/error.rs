//! Why stored bytes are not the object that they should be.

use crate::base::{Classify, ErrorClass};

/// Why an object was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FormatError {
    /// The bytes end before the object does.
    #[error("the object is cut short")]
    Truncated,
    /// The first bytes are not those of the object.
    #[error("the object does not begin with its magic number")]
    BadMagic,
    /// A newer program wrote it.
    #[error("this program does not know this {what}")]
    Unsupported {
        /// What is not known.
        what: &'static str,
    },
    /// Beyond a bound of the format.
    #[error("{what}: {value} is above the limit of {limit}")]
    TooLarge {
        /// What is too large.
        what: &'static str,
        /// The value found.
        value: u64,
        /// The bound.
        limit: u64,
    },
    /// A rule is broken.
    #[error("{what}: {why}")]
    Invalid {
        /// What is wrong.
        what: &'static str,
        /// Why.
        why: &'static str,
    },
}

impl Classify for FormatError {
    fn class(&self) -> ErrorClass {
        match self {
            Self::Unsupported { .. } => ErrorClass::TooNew,
            _ => ErrorClass::Corrupt,
        }
    }
}
