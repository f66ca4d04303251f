//! How many files this process may hold open.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Raises the soft limit on open files to what the system permits: a walk holds every folder on its
/// way down open, and the usual limit of 1024 is less than trees may be deep.
pub fn permit_many_handles() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    // Where it is refused, deep trees fail with a clear error and others do not need it.
    let _ = setrlimit(Resource::Nofile, raised);
}
