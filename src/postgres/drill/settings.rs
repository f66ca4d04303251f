//! What a throw-away server is told, so that it can harm nobody. Its `postgresql.conf` holds nothing, and
//! `postgresql.auto.conf` this and what the recovery needs; what the original had is in neither.

use crate::postgres::error::PostgresError;
use std::path::{Path, PathBuf};

/// The port in the name of its socket.
pub(super) const PORT: u16 = 5432;
/// What may be set otherwise: small buffers, and nothing preloaded.
const DEFAULTS: [(&str, &str); 3] =
    [("shared_buffers", "64MB"), ("shared_preload_libraries", ""), ("lc_messages", "C")];
/// What may not. Workers of extensions, of replication and of parallel queries all come out of
/// `max_worker_processes`; recovery does not need what the old server had where nobody reads meanwhile (B15).
const FIXED: [(&str, &str); 18] = [
    ("listen_addresses", ""),
    ("port", "5432"),
    ("unix_socket_permissions", "0700"),
    ("ssl", "off"),
    ("session_preload_libraries", ""),
    ("local_preload_libraries", ""),
    ("max_worker_processes", "0"),
    ("max_logical_replication_workers", "0"),
    ("max_wal_senders", "0"),
    ("autovacuum", "off"),
    ("logging_collector", "off"),
    ("log_destination", "stderr"),
    ("log_timezone", "UTC"),
    ("external_pid_file", ""),
    ("restart_after_crash", "off"),
    ("cluster_name", "chronolith drill"),
    // Jobs of pg_cron, which runs only where somebody has it preloaded.
    ("cron.launch_active_jobs", "off"),
    ("archive_command", ""),
];
/// What is decided by the recovery, or says where things are.
const RESERVED: [&str; 12] = [
    "unix_socket_directories",
    "max_replication_slots",
    "max_active_replication_origins",
    "event_triggers",
    "archive_mode",
    "archive_library",
    "data_directory",
    "config_file",
    "hba_file",
    "ident_file",
    "hot_standby",
    "include",
];
/// Beginnings of such names.
const RESERVED_BEGINNINGS: [&str; 6] =
    ["recovery_", "restore_", "archive_cleanup", "primary_", "promote_", "include_"];
/// Subscriptions and their origins that the log may speak of: replay keeps track of them.
const ORIGINS: &str = "500";

/// The folder of the server's socket.
pub(super) fn sockets(folder: &Path) -> PathBuf {
    folder.join("socket")
}

/// Refuses settings that would let the server out.
pub(super) fn check(settings: &[(String, String)]) -> Result<(), PostgresError> {
    for (name, _) in settings {
        let name = name.to_ascii_lowercase();
        let fixed = FIXED.iter().any(|(fixed, _)| *fixed == name) || RESERVED.contains(&name.as_str());
        if fixed || RESERVED_BEGINNINGS.iter().any(|beginning| name.starts_with(beginning)) {
            return Err(PostgresError::refused(
                format!("{name} keeps a throw-away server harmless, or belongs to its recovery"),
                "leave it away; shared_buffers, work_mem or shared_preload_libraries may be set",
            ));
        }
    }
    Ok(())
}

/// Returns the settings of a throw-away server, the ones that count last.
pub(super) fn throw_away(folder: &Path, major: u32, more: &[(String, String)]) -> Vec<(String, String)> {
    let text = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    let mut settings: Vec<(String, String)> = DEFAULTS.iter().map(text).collect();
    settings.retain(|(name, _)| more.iter().all(|(other, _)| !other.eq_ignore_ascii_case(name)));
    settings.extend_from_slice(more);
    settings.extend(FIXED.iter().map(text));
    settings.push(("unix_socket_directories".to_owned(), sockets(folder).display().to_string()));
    settings.push(("max_replication_slots".to_owned(), ORIGINS.to_owned()));
    if major >= 17 {
        // Those that fire at a log-in too.
        settings.push(("event_triggers".to_owned(), "off".to_owned()));
    }
    if major >= 18 {
        settings.push(("max_active_replication_origins".to_owned(), ORIGINS.to_owned()));
    }
    settings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_lets_the_server_out() {
        let set = |name: &str| vec![(name.to_owned(), "x".to_owned())];
        for name in ["listen_addresses", "Listen_Addresses", "archive_mode", "primary_conninfo", "hba_file"]
            .into_iter()
            .chain(["max_worker_processes", "restore_command", "recovery_end_command", "include_dir"])
        {
            assert!(check(&set(name)).is_err(), "{name}");
        }
        for name in ["work_mem", "shared_preload_libraries", "timescaledb.max_background_workers"] {
            assert!(check(&set(name)).is_ok(), "{name}");
        }
        let value = |settings: &[(String, String)], name: &str| {
            let found: Vec<&String> =
                settings.iter().filter(|(set, _)| set == name).map(|(_, value)| value).collect();
            assert!(found.len() <= 1, "{name} is set twice");
            found.first().map(|value| (*value).clone())
        };
        let settings = throw_away(Path::new("/f"), 15, &set("shared_buffers"));
        assert_eq!(value(&settings, "shared_buffers").as_deref(), Some("x"));
        assert_eq!(value(&settings, "listen_addresses").as_deref(), Some(""));
        assert_eq!(value(&settings, "unix_socket_directories").as_deref(), Some("/f/socket"));
        assert_eq!(value(&settings, "event_triggers"), None);
        assert_eq!(value(&throw_away(Path::new("/f"), 17, &[]), "event_triggers").as_deref(), Some("off"));
    }
}
