//! The local file system, with everything that real ones hold against a backup program.

mod attack;
mod direct;
mod restore;
mod scan;
mod source;
mod tree;

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Bytes of a path.
pub fn raw(path: &Path) -> &[u8] {
    path.as_os_str().as_bytes()
}

/// A path below a folder, from bytes.
pub fn below(folder: &Path, name: &[u8]) -> PathBuf {
    folder.join(OsStr::from_bytes(name))
}

/// Runs a program of the system that a test cannot do without.
pub fn run(program: &str, arguments: &[&OsStr]) {
    let output = Command::new(program).args(arguments).output().unwrap_or_else(|error| {
        panic!("{program}: {error}; install the Debian packages coreutils and mount")
    });
    assert!(
        output.status.success(),
        "`{program}` failed: {}Run this test as root (in a container: with CAP_SYS_ADMIN and CAP_MKNOD).",
        String::from_utf8_lossy(&output.stderr)
    );
}
