//! A database server of a test: in a temporary folder, on a Unix socket only, stopped with the test.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// A folder that the server's user may enter, short enough for a socket.
pub fn folder(user: &str) -> TempDir {
    let folder = TempDir::new_in("/tmp").unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let inner = folder.path().join("server");
    fs::create_dir(&inner).unwrap();
    if rustix::process::geteuid().is_root() {
        check("chown", Command::new("chown").arg(user).arg(&inner).output());
    }
    folder
}

/// A command that runs as the server's user where this is root, which servers refuse. `runuser` puts that user's
/// own home in the place of any other: what is configured there is none of a test's business.
pub fn as_user(user: &str, program: &Path) -> Command {
    let mut command = if rustix::process::geteuid().is_root() {
        let mut command = Command::new("runuser");
        command.args(["-u", user, "--"]).arg(program);
        command
    } else {
        Command::new(program)
    };
    command.env("XDG_CONFIG_HOME", "/nonexistent").current_dir("/").stdin(Stdio::null());
    command
}

/// Finds a program in some folders, or says which package brings it.
pub fn program(name: &str, folders: &[&str], package: &str) -> PathBuf {
    let found = folders.iter().map(|folder| Path::new(folder).join(name)).find(|path| path.is_file());
    found.unwrap_or_else(|| panic!("{name} is not in {folders:?}: install the Debian package {package}"))
}

/// Fails the test unless a command succeeded.
pub fn check(what: &str, output: std::io::Result<Output>) -> Vec<u8> {
    let output = output.unwrap_or_else(|error| panic!("{what}: {error}"));
    assert!(
        output.status.success(),
        "{what} failed ({}): {}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    output.stdout
}

/// Feeds bytes to a command.
pub fn feed(what: &str, mut command: Command, bytes: &[u8]) -> Vec<u8> {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut pipe = child.stdin.take().unwrap();
    let bytes = bytes.to_vec();
    let writer = std::thread::spawn(move || std::io::Write::write_all(&mut pipe, &bytes));
    let output = child.wait_with_output();
    let written = writer.join().unwrap();
    let output = check(what, output);
    written.unwrap();
    output
}

/// Asks again until the server answers.
pub fn wait_until(what: &str, server: &mut Child, mut ready: impl FnMut() -> bool) {
    let started = Instant::now();
    while !ready() {
        assert!(server.try_wait().unwrap().is_none(), "{what} ended by itself");
        assert!(started.elapsed() < Duration::from_secs(120), "{what} does not answer");
        std::thread::sleep(Duration::from_millis(50));
    }
}
