//! How the library speaks: it never prints, it tells an [`Observer`].

/// The stage that progress belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Phase {
    /// Listing what there is to read.
    Scan,
    /// Reading a source and storing it.
    Backup,
    /// Writing a snapshot's content out.
    Restore,
    /// Loading the index.
    Index,
    /// Verifying objects and content.
    Check,
    /// Copying objects from one store to another.
    Copy,
}

/// Receives what the library has to say while it works. All methods may be called from any thread.
pub trait Observer: Send + Sync {
    /// Says that a phase begins, with its expected size in bytes where that is known.
    fn begin(&self, _phase: Phase, _total_bytes: Option<u64>) {}
    /// Says that this many more bytes of the phase are done, of which `new_bytes` had to be stored.
    fn advance(&self, _phase: Phase, _bytes: u64, _new_bytes: u64) {}
    /// Says that a phase has ended.
    fn end(&self, _phase: Phase) {}
    /// Names what is worked on now.
    fn item(&self, _name: &str) {}
    /// Gives advice or information that needs no action.
    fn note(&self, _text: &str) {}
    /// Says that something could not be done as asked, though the work goes on.
    fn warn(&self, _text: &str) {}
    /// Returns true once the user wants the work stopped; asked between pieces of work.
    fn interrupted(&self) -> bool {
        false
    }
}

/// An observer that listens to nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct Quiet;

impl Observer for Quiet {}
