//! What a restored server is told: where to recover to, where its log comes from, and what it must not do.
//!
//! The settings are added to `postgresql.auto.conf`, which is read last. Those of an earlier recovery, and
//! where the old server followed another, are taken out.
//!
//! What is true of one recovery only stands in a file of its own, which `postgresql.auto.conf` includes and which the
//! server itself empties when the recovery has ended (`recovery_end_command`). Left there, a timeline or a target would
//! stop every standby that is made of the restored server later. The file must be there until then: a server that
//! lost it does not start, where it would otherwise recover to somewhere else. A standby, which is to recover for ever,
//! and a server that is thrown away have everything in one file.

use super::{RecoveryAction, RestoreOptions, Timeline};
use crate::base::Timestamp;
use crate::postgres::base::BaseFacts;
use crate::postgres::segment::Lsn;
use crate::timeline::Target;
use std::path::Path;

/// Settings that belong to one recovery, or tie a server to another.
const TAKEN_OUT: [&str; 15] = [
    "restore_command",
    "archive_cleanup_command",
    "recovery_end_command",
    "recovery_target",
    "recovery_target_name",
    "recovery_target_time",
    "recovery_target_xid",
    "recovery_target_lsn",
    "recovery_target_inclusive",
    "recovery_target_timeline",
    "recovery_target_action",
    "recovery_min_apply_delay",
    "primary_conninfo",
    "primary_slot_name",
    "archive_mode",
];
/// The settings of which at most one may be set; an empty text unsets what a configuration file says.
const TARGETS: [&str; 5] = [
    "recovery_target",
    "recovery_target_time",
    "recovery_target_lsn",
    "recovery_target_xid",
    "recovery_target_name",
];
/// What configuration files may say of the old server that a copy must not do: these commands remove what
/// others still need, or tell the world that another server has taken over.
const OVERRIDDEN: [(&str, &str); 3] =
    [("archive_cleanup_command", ""), ("recovery_end_command", ""), ("recovery_min_apply_delay", "0")];
/// A command that says that nothing is archived.
const NOTHING_ARCHIVED: &str = "exit 1";
/// The file with the settings of one recovery.
pub(super) const OF_RECOVERY: &str = "chronolith.recovery.conf";
const ARCHIVE_MODE: &str = "archive_mode";

/// The content of configuration files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Configuration {
    /// Of `postgresql.auto.conf`.
    pub automatic: String,
    /// Of the file with the settings of one recovery, where there is one.
    pub of_recovery: Option<String>,
}

/// Quotes a value for a configuration file.
pub(super) fn quote(value: &str) -> String {
    let mut quoted = String::from("'");
    for character in value.chars() {
        match character {
            '\'' => quoted.push_str("''"),
            '\\' => quoted.push_str("\\\\"),
            '\n' => quoted.push_str("\\n"),
            '\r' => quoted.push_str("\\r"),
            other => quoted.push(other),
        }
    }
    quoted.push('\'');
    quoted
}

/// Writes an instant as servers read it in any zone: with its offset, without names of zones (B13).
pub(super) fn server_time(time: Timestamp) -> String {
    let time = jiff::Timestamp::from_nanosecond(i128::from(time.nanoseconds())).unwrap_or_default();
    time.strftime("%Y-%m-%d %H:%M:%S.%6f+00").to_string()
}

/// Returns the name of the setting that a line of a configuration file sets.
pub(super) fn name_of(line: &str) -> &str {
    let line = line.trim_start();
    let end = line.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == '.')).unwrap_or(line.len());
    line.get(..end).unwrap_or_default()
}

/// Returns the settings that make the target.
fn target(options: &RestoreOptions) -> Vec<(&'static str, String)> {
    let (name, value, inclusive) = match &options.target {
        Target::Latest => return Vec::new(),
        Target::Immediate => ("recovery_target", "immediate".to_owned(), true),
        Target::Time { at, inclusive } => ("recovery_target_time", server_time(*at), *inclusive),
        Target::Position { at, inclusive } => ("recovery_target_lsn", Lsn(*at).to_string(), *inclusive),
        Target::Transaction { number } => ("recovery_target_xid", number.to_string(), !options.exclusive),
        Target::Point { name } => ("recovery_target_name", name.clone(), true),
    };
    let action = match options.action {
        RecoveryAction::Promote => "promote",
        RecoveryAction::Pause => "pause",
        RecoveryAction::Shutdown => "shutdown",
    };
    // Always said: a configuration file may say otherwise from an earlier recovery.
    let inclusive = if inclusive { "on" } else { "off" };
    vec![
        (name, value),
        ("recovery_target_action", action.to_owned()),
        ("recovery_target_inclusive", inclusive.to_owned()),
    ]
}

/// Says whether a setting is among those that were asked for.
fn is_given(options: &RestoreOptions, name: &str) -> bool {
    options.settings.iter().any(|(given, _)| given.eq_ignore_ascii_case(name))
}

/// Writes a line of a configuration file.
fn line(name: &str, value: &str) -> String {
    format!("{name} = {}\n", quote(value))
}

/// Returns what is true of this recovery only. Without a timeline the server stays on that of its control file, which
/// needs no history.
fn of_recovery(options: &RestoreOptions, timeline: Option<u64>) -> String {
    let mut text = line("restore_command", options.restore_command.as_deref().unwrap_or(NOTHING_ARCHIVED));
    let target = target(options);
    for name in TARGETS.iter().filter(|name| target.iter().all(|(set, _)| set != *name)) {
        text.push_str(&line(name, ""));
    }
    for (name, value) in &target {
        text.push_str(&line(name, value));
    }
    let timeline = match options.timeline {
        // A standby goes on to whatever timeline comes.
        Timeline::Latest if options.standby => "latest".to_owned(),
        _ => timeline.map_or_else(|| "current".to_owned(), |timeline| timeline.to_string()),
    };
    text.push_str(&line("recovery_target_timeline", &timeline));
    // A server that can be read while it recovers waits, for ever, where the log says that the old one's limits
    // were raised after the backup (B15); one that cannot be read does not need them.
    let is_read = options.standby || options.action == RecoveryAction::Pause;
    text.push_str(&line("hot_standby", if is_read { "on" } else { "off" }));
    text
}

/// Returns the configuration of a restored server, from what `postgresql.auto.conf` said before.
pub(super) fn configure(
    before: &str,
    options: &RestoreOptions,
    facts: &BaseFacts,
    timeline: Option<u64>,
) -> Configuration {
    let include = format!("include '{OF_RECOVERY}'");
    let stays = |line: &&str| {
        let name = name_of(line).to_ascii_lowercase();
        let is_set_below = name == "hot_standby"
            || facts.settings.by_name().iter().any(|(setting, _)| *setting == name)
            || is_given(options, &name);
        let is_ours = is_set_below || line.starts_with("# chronolith: ") || *line == include;
        !TAKEN_OUT.contains(&name.as_str()) && !is_ours
    };
    let mut text: String = before.lines().filter(stays).map(|line| format!("{line}\n")).collect();
    for (name, value) in OVERRIDDEN {
        text.push_str(&line(name, value));
    }
    if !options.standby {
        for name in ["primary_conninfo", "primary_slot_name"] {
            text.push_str(&line(name, ""));
        }
    }
    let recovery = of_recovery(options, timeline);
    let of_recovery = match options.standby || options.contained.is_some() {
        true => {
            text.push_str(&recovery);
            None
        }
        false => {
            text.push_str("# chronolith: emptied by the server once its recovery has ended\n");
            text.push_str(&format!("{include}\n"));
            Some(recovery + &line("recovery_end_command", &format!(": > {OF_RECOVERY}")))
        }
    };
    text.push_str("# chronolith: recovery must not have less than the old server had\n");
    for (name, value) in facts.settings.by_name() {
        text.push_str(&format!("{name} = {value}\n"));
    }
    for (name, value) in &options.settings {
        text.push_str(&line(name, value));
    }
    // B16: a copy must not write into the archive of the original, unless somebody says that it is to.
    if !is_given(options, ARCHIVE_MODE) {
        text.push_str("# chronolith: off until somebody decides where this server archives\n");
        text.push_str(&line(ARCHIVE_MODE, "off"));
    }
    Configuration { automatic: text, of_recovery }
}

/// Returns what is added to a configuration that lay elsewhere: everything is in the data directory now.
pub(super) fn configuration_here(data_directory: &Path) -> String {
    let here = |name: &str| quote(&data_directory.join(name).display().to_string());
    format!(
        "\n# chronolith: this file lay elsewhere\ndata_directory = {}\nhba_file = {}\nident_file = {}\nexternal_pid_file = ''\n",
        quote(&data_directory.display().to_string()),
        here("pg_hba.conf"),
        here("pg_ident.conf")
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::postgres::base::sample_facts;

    /// All that a server reads.
    fn written(options: &RestoreOptions, before: &str, timeline: Option<u64>) -> String {
        let Configuration { automatic, of_recovery } =
            super::configure(before, options, &sample_facts(), timeline);
        let include = format!("include '{OF_RECOVERY}'\n");
        assert_eq!(automatic.contains(&include), of_recovery.is_some());
        automatic.replace(&include, &of_recovery.unwrap_or_default())
    }

    fn configure(target: Target, before: &str) -> String {
        let options = RestoreOptions { target, ..RestoreOptions::new("/data".into()) };
        written(&options, before, Some(3))
    }

    /// B13: one target only, in a form that reads the same in every zone, inclusive unless said otherwise.
    #[test]
    fn one_target() {
        let at = Timestamp::from_nanoseconds(1_768_483_800_123_456_789);
        let text = configure(Target::Time { at, inclusive: false }, "");
        assert!(text.contains("\nrecovery_target_time = '2026-01-15 13:30:00.123456+00'\n"), "{text}");
        assert!(text.contains("\nrecovery_target_inclusive = 'off'\n"), "{text}");
        assert!(text.contains("\nrecovery_target_name = ''\n") && text.contains("\nrecovery_target = ''\n"));
        let set = text.lines().filter(|line| line.starts_with("recovery_target_time =")).count();
        assert_eq!(set, 1);
        let text = configure(Target::Position { at: 0x1_0000_0028, inclusive: true }, "");
        assert!(text.contains("\nrecovery_target_lsn = '1/28'\n"), "{text}");
        assert!(text.contains("\nrecovery_target_inclusive = 'on'\n"), "{text}");
        let text = configure(Target::Latest, "");
        assert!(
            text.contains("\nrecovery_target_timeline = '3'\n") && !text.contains("target_action"),
            "{text}"
        );
    }

    /// B15: limits that were raised after the backup stop only a server that can be read meanwhile.
    #[test]
    fn only_who_is_read_meanwhile_needs_the_limits() {
        let configure = |standby: bool, action: RecoveryAction| {
            let options = RestoreOptions { standby, action, ..RestoreOptions::new("/data".into()) };
            written(&options, "hot_standby = on\n", Some(3))
        };
        let off = "\nhot_standby = 'off'\n";
        assert!(configure(false, RecoveryAction::Promote).contains(off));
        assert!(configure(false, RecoveryAction::Shutdown).contains(off));
        for text in [configure(true, RecoveryAction::Promote), configure(false, RecoveryAction::Pause)] {
            assert!(text.contains("\nhot_standby = 'on'\n"), "{text}");
        }
    }

    /// B15, B16: what recovery needs is pinned, and a copy does not archive.
    #[test]
    fn what_is_pinned() {
        let text = configure(Target::Latest, "");
        for (name, value) in sample_facts().settings.by_name() {
            assert!(text.contains(&format!("\n{name} = {value}\n")), "{name}: {text}");
        }
        assert!(text.ends_with("\narchive_mode = 'off'\n"));
        let settings = vec![("Archive_Mode".to_owned(), "on".to_owned())];
        let text = written(&RestoreOptions { settings, ..RestoreOptions::new("/data".into()) }, "", Some(3));
        assert!(text.contains("\nArchive_Mode = 'on'\n") && !text.contains("archive_mode = 'off'"), "{text}");
    }

    /// What is true of one recovery only ends with it: it would stop standbys that are made of the server later.
    #[test]
    fn what_is_true_of_one_recovery_ends_with_it() {
        let options = RestoreOptions { target: Target::Immediate, ..RestoreOptions::new("/data".into()) };
        let Configuration { automatic, of_recovery } =
            super::configure("", &options, &sample_facts(), Some(3));
        let of_recovery = of_recovery.unwrap();
        for name in ["recovery_target", "recovery_target_timeline", "hot_standby", "restore_command"] {
            assert!(!automatic.contains(&format!("\n{name} =")), "{name}: {automatic}");
            assert!(format!("\n{of_recovery}").contains(&format!("\n{name} = ")), "{name}: {of_recovery}");
        }
        assert!(of_recovery.ends_with("\nrecovery_end_command = ': > chronolith.recovery.conf'\n"));
        let standby = RestoreOptions { standby: true, ..options.clone() };
        let contained = RestoreOptions { contained: Some("/f".into()), ..options };
        for options in [standby, contained] {
            let configuration = super::configure(&automatic, &options, &sample_facts(), Some(3));
            assert_eq!(configuration.of_recovery, None);
            assert!(!configuration.automatic.contains("include"));
        }
    }

    /// What `postgresql.conf` says is overridden: commands of the original must not run in a copy.
    #[test]
    fn a_copy_runs_no_commands_and_follows_nobody() {
        let text = configure(Target::Latest, "");
        let last = text.rsplit("recovery_end_command = ").next().unwrap();
        assert!(last.starts_with("': > chronolith.recovery.conf'\n"), "{text}");
        for line in ["archive_cleanup_command = ''", "recovery_end_command = ''", "primary_conninfo = ''"] {
            assert!(format!("\n{text}").contains(&format!("\n{line}\n")), "{line}: {text}");
        }
        assert!(text.contains("\nrecovery_min_apply_delay = '0'\n"), "{text}");
        let options = RestoreOptions { standby: true, ..RestoreOptions::new("/data".into()) };
        let text = written(&options, "", None);
        assert!(
            !text.contains("primary_conninfo") && text.contains("\nrecovery_end_command = ''\n"),
            "{text}"
        );
    }

    #[test]
    fn what_an_earlier_recovery_said_goes() {
        let before = "# Do not edit\nwork_mem = '5MB'\nrestore_command = 'old'\n primary_conninfo='host=x'\n\
            Recovery_Target_Time = 'old'\narchive_mode = on\nrecovery_target_x = 1\n";
        let text = configure(Target::Immediate, before);
        assert!(text.starts_with("# Do not edit\nwork_mem = '5MB'\nrecovery_target_x = 1\n"), "{text}");
        assert!(!text.contains("old'") && !text.contains("host=x"), "{text}");
        // Doing it twice changes nothing.
        assert_eq!(configure(Target::Immediate, &text), text);
    }

    #[test]
    fn values_are_quoted() {
        assert_eq!(quote("it's \\ a\nb"), "'it''s \\\\ a\\nb'");
    }
}
