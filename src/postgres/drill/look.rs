//! What is looked at in a throw-away server.

use super::Drill;
use super::settings::{PORT, sockets};
use crate::base::{Timestamp, explain};
use crate::postgres::connection::Server;
use crate::postgres::error::PostgresError;
use crate::postgres::restore::as_owner;
use crate::repo::RepoError;
use crate::timeline::Target;
use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

const ASK: &str = "ask";
/// What the server's log says at the end of a recovery, before a time in UTC.
const LAST_TRANSACTION: &str = "last completed transaction was at log time ";
/// Problems of one kind that are told one by one.
const TOLD_MAX: usize = 20;
/// How much of a row or a line is shown.
const SHOWN_CHARACTERS: usize = 300;
/// How much `pg_amcheck` may say.
const OUTPUT_BYTES_MAX: u64 = 1 << 20;
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Statements that must hold: each brings no row, or only rows with a single `true`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assertion {
    /// What people call it: the statement, or the file's name.
    pub name: String,
    /// The statements.
    pub sql: String,
}

/// A database, as it was recorded and as it was found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DatabaseFound {
    /// Bytes of its files when they were backed up; `None` for one that was not there then.
    pub recorded_bytes: Option<u64>,
    /// Its size in the restored server; `None` for one that is not there.
    pub found_bytes: Option<u64>,
    /// Tables, indexes and sequences that were looked at; `None` where nobody may connect.
    pub relations: Option<u64>,
}

/// What was found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Findings {
    /// When the last transaction ended that was replayed; `None` where none was.
    pub recovered_to: Option<Timestamp>,
    /// The timeline that the restored server went on with.
    pub timeline: u64,
    /// The databases.
    pub databases: BTreeMap<String, DatabaseFound>,
    /// Assertions that were made.
    pub assertions: u64,
    /// Whether `pg_amcheck` looked.
    pub amcheck: bool,
    /// What does not hold.
    pub problems: Vec<String>,
    /// What is worth knowing.
    pub notes: Vec<String>,
}

impl Drill {
    /// Looks at everything that was asked for.
    pub(super) fn look(&self, data: &Path, log: &Path) -> Result<Findings, PostgresError> {
        // A server that is started anew to be asked who rules it begins another log.
        let log = std::fs::read(log).map_err(PostgresError::file("read", log))?;
        let recovered_to = last_transaction(&String::from_utf8_lossy(&log));
        let user = self.superuser(data)?;
        let mut findings = Findings::default();
        let mut server = self.connect("template1", &user)?;
        findings.recovered_to = recovered_to;
        self.look_at_recovery(&mut server, &mut findings)?;
        let names = self.look_at_databases(&mut server, &mut findings)?;
        drop(server);
        for name in &names {
            self.check_interrupted()?;
            if let Err(error) = self.look_into(name, &user, &mut findings) {
                findings.problems.push(format!("database {name}: {}", explain(&error)));
            }
        }
        self.assert_all(&user, &mut findings)?;
        if self.options.amcheck {
            self.amcheck(&names, &user, data, &mut findings)?;
        }
        Ok(findings)
    }

    fn check_interrupted(&self) -> Result<(), PostgresError> {
        match self.repository.environment().observer.interrupted() {
            true => Err(RepoError::Interrupted.into()),
            false => Ok(()),
        }
    }

    /// Where the recovery ended; never behind the target.
    fn look_at_recovery(&self, server: &mut Server, findings: &mut Findings) -> Result<(), PostgresError> {
        let rows = server.query(ASK, "SELECT timeline_id FROM pg_control_checkpoint()", &[])?;
        let row = rows.first().ok_or_else(|| server.odd(ASK))?;
        findings.timeline = u64::try_from(row.get::<_, i32>(0)).unwrap_or(0);
        if let (Target::Time { at, .. }, Some(reached)) = (&self.options.target, findings.recovered_to)
            && reached > *at
        {
            let reached = crate::ops::show_time(reached, &jiff::tz::TimeZone::UTC);
            let text =
                format!("the recovery went beyond its target, to a transaction that ended at {reached}");
            findings.problems.push(text);
        }
        Ok(())
    }

    /// Compares the databases with those that the snapshot recorded; returns those to look into.
    fn look_at_databases(
        &self,
        server: &mut Server,
        findings: &mut Findings,
    ) -> Result<Vec<String>, PostgresError> {
        for (name, bytes) in &self.restore.base.facts.databases {
            findings.databases.entry(name.clone()).or_default().recorded_bytes = Some(*bytes);
        }
        let sql = "SELECT datname::text, datallowconn, pg_database_size(oid) FROM pg_database";
        let mut names = Vec::new();
        for row in server.query(ASK, sql, &[])? {
            let name: String = row.get(0);
            let found = findings.databases.entry(name.clone()).or_default();
            found.found_bytes = u64::try_from(row.get::<_, i64>(2)).ok();
            if row.get(1) {
                names.push(name);
            }
        }
        // Behind the end of the backup the log may have dropped what was there.
        let exact = self.options.target == Target::Immediate || self.restore.plan.segments.is_empty();
        for (name, database) in &findings.databases {
            match (exact, database.recorded_bytes, database.found_bytes) {
                (true, Some(_), None) => {
                    findings.problems.push(format!("database {name} was backed up and is not there"));
                }
                (false, Some(_), None) => findings
                    .notes
                    .push(format!("database {name} was dropped between the backup and the target")),
                (_, None, Some(_)) => {
                    findings.notes.push(format!("database {name} was created since the backup began"));
                }
                _ => {}
            }
        }
        names.sort();
        Ok(names)
    }

    /// Connects to a database, and looks whether each relation has the pages that it cannot be without.
    fn look_into(&self, name: &str, user: &str, findings: &mut Findings) -> Result<(), PostgresError> {
        let mut server = self.connect(name, user)?;
        let sql = "SELECT c.oid::regclass::text, pg_relation_size(c.oid) = 0 AND (c.relkind = 'S' OR a.amname = 'btree') \
            FROM pg_class c LEFT JOIN pg_am a ON a.oid = c.relam \
            WHERE c.relkind IN ('r', 'i', 't', 'm', 'S') AND c.relpersistence = 'p'";
        let observer = self.repository.environment().observer.clone();
        let rows = server.query_patiently(ASK, sql, &[], observer.as_ref())?;
        let lacking = rows.iter().filter(|row| row.get::<_, Option<bool>>(1).unwrap_or(false));
        for row in lacking.take(TOLD_MAX) {
            let relation: String = row.get(0);
            findings.problems.push(format!("database {name}: {relation} has no page"));
        }
        if let Some(database) = findings.databases.get_mut(name) {
            database.relations = Some(rows.len() as u64);
        }
        if self.options.amcheck {
            // pg_amcheck makes an extension, which must not set off anything. Triggers on events are not set off by
            // what is done to themselves.
            let sql = "SELECT format('ALTER EVENT TRIGGER %I DISABLE', evtname) FROM pg_event_trigger WHERE evtenabled <> 'D'";
            for row in server.query(ASK, sql, &[])? {
                server.execute("disable triggers of", row.get(0))?;
            }
        }
        Ok(())
    }

    fn assert_all(&self, user: &str, findings: &mut Findings) -> Result<(), PostgresError> {
        if self.options.assertions.is_empty() {
            return Ok(());
        }
        let observer = self.repository.environment().observer.clone();
        for assertion in &self.options.assertions {
            self.check_interrupted()?;
            findings.assertions += 1;
            // Each in a session of its own: none depends on what another left behind.
            let rows = self.connect(&self.options.database, user).and_then(|mut server| {
                server.execute("begin a session with", "RESET search_path")?;
                server.run_patiently("run statements on", &assertion.sql, observer.as_ref())
            });
            let why = match rows {
                Ok(rows) => match rows.iter().find(|row| !is_true(row)) {
                    Some(row) => format!("it brought the row ({})", show(row)),
                    None => continue,
                },
                Err(PostgresError::Server { why, .. }) => why,
                Err(error) => return Err(error),
            };
            findings.problems.push(format!("{} does not hold: {why}", shorten(&assertion.name)));
        }
        Ok(())
    }

    /// Lets the server's own program look at every table and B-tree index.
    fn amcheck(
        &self,
        names: &[String],
        user: &str,
        data: &Path,
        findings: &mut Findings,
    ) -> Result<(), PostgresError> {
        let program = self.amcheck_programs()?.folder.join("pg_amcheck");
        let mut command = as_owner(&program, data)?;
        command.arg("--install-missing").args(["--heapallindexed", "--parent-check", "--no-password"]);
        command.arg("--host").arg(sockets(&self.options.folder)).args(["--port", &PORT.to_string()]);
        command.args(["--username", user, "--maintenance-db", "template1"]);
        for name in names {
            // A name, not a pattern.
            command.arg(format!("--database=\"{}\"", name.replace('"', "\"\"")));
        }
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().map_err(PostgresError::file("run", &program))?;
        let (out, err) = (child.stdout.take(), child.stderr.take());
        let status = std::thread::scope(|scope| {
            let reading = [scope.spawn(|| read_all(out)), scope.spawn(|| read_all(err))];
            let status = loop {
                match child.try_wait().map_err(PostgresError::file("run", &program))? {
                    Some(status) => break status,
                    None if self.repository.environment().observer.interrupted() => {
                        let _ = child.kill();
                        let _ = child.wait();
                        return Err(RepoError::Interrupted.into());
                    }
                    None => std::thread::sleep(LOOK_EVERY),
                }
            };
            let said: Vec<String> =
                reading.into_iter().flat_map(std::thread::ScopedJoinHandle::join).collect();
            Ok::<_, PostgresError>((status, said))
        });
        let (status, said) = status?;
        findings.amcheck = true;
        if !status.success() {
            let lines: Vec<&str> = said.iter().flat_map(|text| text.lines()).collect();
            findings
                .problems
                .extend(lines.iter().take(TOLD_MAX).map(|line| format!("amcheck: {}", shorten(line))));
            if lines.is_empty() {
                findings.problems.push(format!("pg_amcheck failed ({status})"));
            }
        }
        Ok(())
    }
}

/// Takes the time of the last transaction out of the log of a recovery.
fn last_transaction(log: &str) -> Option<Timestamp> {
    let (_, rest) = log.rsplit_once(LAST_TRANSACTION)?;
    let time: jiff::Timestamp = rest.lines().next()?.trim().replacen(' ', "T", 1).parse().ok()?;
    i64::try_from(time.as_nanosecond()).ok().map(Timestamp::from_nanoseconds)
}

/// Reads what a program says: as much as may be shown, the rest for its own sake.
fn read_all(source: Option<impl Read>) -> String {
    let mut bytes = Vec::new();
    if let Some(mut source) = source {
        // What cannot be read was not said.
        let _ = source.by_ref().take(OUTPUT_BYTES_MAX).read_to_end(&mut bytes);
        let _ = std::io::copy(&mut source, &mut std::io::sink());
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn is_true(row: &[Option<String>]) -> bool {
    matches!(row, [Some(value)] if value == "t")
}

fn show(row: &[Option<String>]) -> String {
    let words: Vec<&str> = row.iter().map(|value| value.as_deref().unwrap_or("null")).collect();
    shorten(&words.join(", "))
}

fn shorten(text: &str) -> String {
    match text.char_indices().nth(SHOWN_CHARACTERS) {
        Some((end, _)) => format!("{}...", text.get(..end).unwrap_or_default()),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_transaction_is_read() {
        let log = "2026-01-15 13:31:00.000 UTC [7] LOG:  redo done at 0/3000148 system usage: CPU\n\
            2026-01-15 13:31:00.000 UTC [7] LOG:  last completed transaction was at log time 2026-01-15 13:30:00.25+00\n\
            2026-01-15 13:31:00.000 UTC [1] LOG:  database system is ready\n";
        assert_eq!(last_transaction(log), Some(Timestamp::from_nanoseconds(1_768_483_800_250_000_000)));
        assert_eq!(last_transaction("LOG:  redo is not required\n"), None);
    }

    #[test]
    fn only_true_is_true() {
        let row = |values: &[Option<&str>]| -> Vec<Option<String>> {
            values.iter().map(|value| value.map(str::to_owned)).collect()
        };
        assert!(is_true(&row(&[Some("t")])));
        for wrong in [&[Some("f")][..], &[None], &[], &[Some("t"), Some("t")], &[Some("true")], &[Some("1")]]
        {
            assert!(!is_true(&row(wrong)), "{wrong:?}");
        }
        assert_eq!(show(&row(&[Some("1"), None])), "1, null");
    }
}
