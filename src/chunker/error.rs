use crate::base::{Classify, ErrorClass};

/// What can be wrong with the parameters of cutting.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChunkerError {
    /// A set of cut parameters that no cutter may run with.
    #[error("chunk sizes {minimum}/{average}/{maximum} are refused: {why}")]
    Parameters {
        /// Shortest chunk in bytes.
        minimum: u32,
        /// Aim for the mean length in bytes.
        average: u32,
        /// Longest chunk in bytes.
        maximum: u32,
        /// The rule that is broken.
        why: &'static str,
    },
    /// A length for the chunks of database files that doesn't hold whole pages.
    #[error("a chunk of {bytes} bytes is refused for database files: {why}")]
    Pages {
        /// Length of one chunk in bytes.
        bytes: u32,
        /// The rule that is broken.
        why: &'static str,
    },
}

impl Classify for ChunkerError {
    fn class(&self) -> ErrorClass {
        ErrorClass::Usage
    }
}
