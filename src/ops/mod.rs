//! Operations, each a plan that can be shown, then run.

pub mod backup;
mod error;

pub use error::OpsError;
