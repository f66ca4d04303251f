//! Whether a cluster that stands there archives its log under the name of its cluster, as far as its data directory
//! says.
//!
//! A copy must not write into the archive of its original (B16): a restore switches its archiving off. What such a copy
//! wrote, on a timeline of its own, would lead every later recovery of the original astray.

use super::settings::name_of;
use crate::postgres::control::ControlFile;
use crate::postgres::stream::ClusterLog;
use std::fs;
use std::path::{Path, PathBuf};

/// The setting that says so.
const ARCHIVE_MODE: &str = "archive_mode";

/// Says whether what a stopped cluster has of its log belongs into the archive. What it was told last counts: on its
/// command line, then by `ALTER SYSTEM`, which is where a restore says that a copy does not archive. Where it was told
/// nothing, or its own configuration says no, its log may have been received all the same.
pub(super) fn archives(data_directory: &Path, control: &ControlFile, log: &ClusterLog) -> bool {
    let read = |path: &Path| fs::read_to_string(path).unwrap_or_default();
    let line = command_line(&read(&data_directory.join("postmaster.opts")));
    let told = |name: &str| line.iter().rev().find(|(set, _)| set == name).map(|(_, value)| value.as_str());
    let automatic = read(&data_directory.join("postgresql.auto.conf"));
    if let Some(archives) = told(ARCHIVE_MODE).or_else(|| value_in(&automatic, ARCHIVE_MODE)).map(is_on) {
        return archives;
    }
    let configuration = told("config_file").map_or_else(|| PathBuf::from("postgresql.conf"), PathBuf::from);
    let configuration = read(&data_directory.join(configuration));
    value_in(&configuration, ARCHIVE_MODE).is_some_and(is_on)
        || waits(data_directory, control.timeline)
        || knows(log, u64::from(control.timeline))
}

/// Says whether the archive has anything of a timeline. Of the first, nobody else can have made another one.
fn knows(log: &ClusterLog, timeline: u64) -> bool {
    timeline == 1 || log.stream.has_history(timeline) || log.stream.segments_of(timeline).next().is_some()
}

/// Says whether a file of a timeline waits to be archived: only a server that archives marks one so.
fn waits(data_directory: &Path, timeline: u32) -> bool {
    let of_timeline = format!("{timeline:08X}");
    let status = fs::read_dir(data_directory.join("pg_wal/archive_status"));
    status.into_iter().flatten().flatten().any(|entry| {
        let name = entry.file_name();
        name.to_str().is_some_and(|name| name.starts_with(&of_timeline) && name.ends_with(".ready"))
    })
}

/// Says whether a value switches archiving on, in all the ways in which servers read one.
fn is_on(value: &str) -> bool {
    let value = value.to_ascii_lowercase();
    !["off", "false", "no", "0"].iter().any(|off| !value.is_empty() && off.starts_with(value.as_str()))
}

/// Returns the value that a configuration file sets; of several the last counts.
fn value_in<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let lines = text.lines().rev();
    let mut set = lines.filter(|line| name_of(line).eq_ignore_ascii_case(name));
    let value = set.next()?.trim_start().get(name.len()..)?.trim_start();
    let value = value.strip_prefix('=').unwrap_or(value).trim_start();
    match value.strip_prefix('\'') {
        Some(quoted) => quoted.split('\'').next(),
        None => value.split(|c: char| c.is_whitespace() || c == '#').next(),
    }
}

/// Returns the settings on a server's command line, as it writes that down when it starts: each argument in quotes.
fn command_line(options: &str) -> Vec<(String, String)> {
    let arguments: Vec<&str> = options.split('"').skip(1).step_by(2).collect();
    let mut settings = Vec::new();
    for (place, argument) in arguments.iter().enumerate() {
        let follows_switch = place.checked_sub(1).and_then(|before| arguments.get(before)) == Some(&"-c");
        let text = match argument.strip_prefix("--").or_else(|| argument.strip_prefix("-c")) {
            Some(text) => text,
            None if follows_switch => argument,
            None => continue,
        };
        if let Some((name, value)) = text.split_once('=') {
            settings.push((name.replace('-', "_").to_ascii_lowercase(), value.to_owned()));
        }
    }
    settings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_value_of_a_file_counts() {
        let text = "archive_mode = on\n#archive_mode = off\nArchive_Mode='off' # why\narchive_mode_x = on\n";
        assert_eq!(value_in(text, ARCHIVE_MODE), Some("off"));
        assert_eq!(value_in(" archive_mode always# so\n", ARCHIVE_MODE), Some("always"));
        assert_eq!(value_in("archive_command = 'true'\n", ARCHIVE_MODE), None);
        assert_eq!(
            ["on", "always", "t", "1", "off", "of", "F", "no", "0"].map(is_on),
            [true, true, true, true, false, false, false, false, false]
        );
    }

    #[test]
    fn a_command_line_is_read_as_the_server_writes_it() {
        let text = "/usr/bin/postgres \"-D\" \"/a b\" \"-c\" \"archive_mode=on\" \"--archive-mode=off\" \
            \"-cconfig_file=/etc/p.conf\" \"-p\" \"5433\"\n";
        let expected = [("archive_mode", "on"), ("archive_mode", "off"), ("config_file", "/etc/p.conf")];
        assert_eq!(command_line(text), expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
    }
}
