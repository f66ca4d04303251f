//! ^C, and the other signals that ask the program to end.

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// Sets the flag on the first signal, ends the program at once on the second.
///
/// # Errors
///
/// When the system refuses the handlers.
pub fn watch(interrupted: &Arc<AtomicBool>) -> io::Result<()> {
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        // In this order: the second signal finds the flag set by the first.
        let code = i32::from(super::fault::exit::INTERRUPTED);
        signal_hook::flag::register_conditional_shutdown(signal, code, interrupted.clone())?;
        signal_hook::flag::register(signal, interrupted.clone())?;
    }
    Ok(())
}
