//! What the library is told about the machine: time, randomness, names.

use crate::base::{Clock, Entropy, Timestamp};
use crate::localfs::Owners;
use jiff::tz::TimeZone;
use std::path::PathBuf;

/// The clock of this machine.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        let now = jiff::Timestamp::now();
        Timestamp::from_parts(now.as_second(), 0)
            .and_then(|whole| {
                let nanoseconds = whole.nanoseconds().checked_add(i64::from(now.subsec_nanosecond()))?;
                Some(Timestamp::from_nanoseconds(nanoseconds))
            })
            .unwrap_or_default()
    }
}

/// Randomness of the system.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemEntropy;

impl Entropy for SystemEntropy {
    #[expect(clippy::expect_used, reason = "a program that makes keys must not go on without randomness")]
    fn fill(&self, buffer: &mut [u8]) {
        // The system's own: that of aws-lc first collects jitter for 30 ms, in every process.
        getrandom::fill(buffer).expect("the system gives no randomness");
    }
}

/// Returns the zone in which times are shown and understood.
pub fn zone() -> TimeZone {
    TimeZone::system()
}

/// Returns the name of this host.
pub fn host_name() -> String {
    let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
    if name.is_empty() { "localhost".to_owned() } else { name }
}

/// Returns the name of the user, or the number where there is no name.
pub fn user_name() -> String {
    ["USER", "LOGNAME"]
        .into_iter()
        .find_map(|name| std::env::var(name).ok().filter(|user| !user.is_empty()))
        .unwrap_or_else(|| {
            let number = rustix::process::geteuid().as_raw();
            Owners::load().user(number).map_or_else(|| number.to_string(), |name| name.to_string())
        })
}

/// Returns the path that a variable holds; the specification of the folders below says that relative ones are to be
/// ignored.
fn absolute(name: &str) -> Option<PathBuf> {
    std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute())
}

/// Returns the home folder of the user.
pub fn home() -> Option<PathBuf> {
    absolute("HOME")
}

fn folder_of(variable: &str, below_home: &str) -> Option<PathBuf> {
    let base = absolute(variable).or_else(|| home().map(|home| home.join(below_home)))?;
    Some(base.join("chronolith"))
}

/// Returns the folder of this user's caches; `None` where there is no home.
pub fn cache_folder() -> Option<PathBuf> {
    folder_of("XDG_CACHE_HOME", ".cache")
}

/// Returns the file of this user's settings; `None` where there is no home.
pub fn configuration_file() -> Option<PathBuf> {
    folder_of("XDG_CONFIG_HOME", ".config").map(|folder| folder.join("config.toml"))
}
