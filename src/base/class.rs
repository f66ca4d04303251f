//! What is common to the errors of all layers: the small set of classes by which callers branch, and how
//! one is told in a line.

/// What a caller can do about an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorClass {
    /// The thing asked for does not exist.
    NotFound,
    /// Stored bytes are not what they must be.
    Corrupt,
    /// Neither password nor key opens the repository.
    WrongKey,
    /// The key opens the repository but its role does not permit this.
    Forbidden,
    /// The repository needs a newer program.
    TooNew,
    /// The request itself makes no sense.
    Usage,
    /// May succeed when tried again.
    Transient,
    /// The user stopped it.
    Interrupted,
    /// Everything else.
    Fatal,
}

/// Implemented by each layer's error.
pub trait Classify {
    /// Returns the class by which callers branch.
    fn class(&self) -> ErrorClass;
}

/// Writes an error and its causes in one line, what the system said without its number.
pub fn explain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let words = match cause.downcast_ref::<std::io::Error>() {
            Some(cause) => system_words(cause),
            None => cause.to_string(),
        };
        text.push_str(": ");
        text.push_str(&words);
        source = cause.source();
    }
    text
}

/// What the system said, without its number.
pub fn system_words(error: &std::io::Error) -> String {
    let text = error.to_string();
    match text.split_once(" (os error") {
        Some((words, _)) => words.to_owned(),
        None => text,
    }
}
