//! ^C, and the other signals that ask the program to end.

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock};

/// True while ^C ends the program at once, as it does by itself.
static ENDS_AT_ONCE: LazyLock<Arc<AtomicBool>> = LazyLock::new(|| Arc::new(AtomicBool::new(true)));

/// Asks something at the terminal. A terminal that hides what is typed turns ^C into a signal only
/// after its own question; that signal must not end the program before the terminal is as it was.
///
/// # Errors
///
/// When the system refuses the handler.
pub fn ask_quietly<T>(question: impl FnOnce() -> T) -> io::Result<T> {
    if Arc::strong_count(&ENDS_AT_ONCE) == 1 {
        signal_hook::flag::register_conditional_default(SIGINT, ENDS_AT_ONCE.clone())?;
    }
    let before = ENDS_AT_ONCE.swap(false, Ordering::SeqCst);
    let answer = question();
    ENDS_AT_ONCE.store(before, Ordering::SeqCst);
    Ok(answer)
}

/// Sets the flag on the first signal, ends the program at once on the second.
///
/// # Errors
///
/// When the system refuses the handlers.
pub fn watch(interrupted: &Arc<AtomicBool>) -> io::Result<()> {
    ENDS_AT_ONCE.store(false, Ordering::SeqCst);
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        // In this order: the second signal finds the flag set by the first.
        let code = i32::from(super::fault::exit::INTERRUPTED);
        signal_hook::flag::register_conditional_shutdown(signal, code, interrupted.clone())?;
        signal_hook::flag::register(signal, interrupted.clone())?;
    }
    Ok(())
}
