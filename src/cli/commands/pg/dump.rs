//! `chronolith pg dump`.

use super::connection::Connection;
use super::programs::places_of_programs;
use crate::base::Observer;
use crate::cli::commands::backup::{effort, parse_tag};
use crate::cli::edges;
use crate::cli::events;
use crate::cli::fault::{Fault, exit};
use crate::cli::render;
use crate::cli::session::Session;
use crate::ingest::Effort;
use crate::ops::backup::BackupOptions;
use crate::postgres::dump::{DumpFormat, DumpOptions, DumpReport, dump};
use clap::{Args, ValueEnum};
use serde_json::json;
use std::path::PathBuf;
use std::time::Instant;

/// Databases that are named one by one.
const DATABASES_SHOWN: usize = 20;

/// How a dump is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// An archive for pg_restore and `pg load`, uncompressed: the repository compresses
    Custom,
    /// SQL for psql
    Plain,
}

/// Dumps databases and the roles of a running server, into one snapshot
///
/// The globals (roles, tablespaces) and each database, by the server's own pg_dump: all databases that
/// can be entered and are no templates, where none is named. Each database is consistent in itself; two of them
/// are not of the same moment. If any of them fails, nothing is committed.
#[derive(Args)]
pub struct Arguments {
    /// The databases [default: all but templates]
    #[arg(value_name = "DB")]
    pub databases: Vec<String>,
    /// Only schemas of this pattern, of one database; may be given several times
    #[arg(long, value_name = "PATTERN")]
    pub schema: Vec<String>,
    /// Only tables of this pattern, of one database; may be given several times
    #[arg(long, value_name = "PATTERN")]
    pub table: Vec<String>,
    /// How many databases are dumped at a time
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub jobs: u16,
    /// How dumps are written
    #[arg(long, value_enum, value_name = "HOW", default_value_t = Format::Custom)]
    pub format: Format,
    /// Ties the dumps of one thing together [default: the databases that are named, else all-databases; of parts also
    /// what is dumped of them, such as `app only table=orders`]
    #[arg(long, value_name = "NAME")]
    pub label: Option<String>,
    /// Tags the snapshot; may be given several times
    #[arg(long, value_name = "K[=V]")]
    pub tag: Vec<String>,
    /// The level of compression, 1 (fast) to 19 (small), or `auto`
    #[arg(long, value_name = "N", default_value = "3", value_parser = effort)]
    pub level: Effort,
    /// The folder of PostgreSQL's programs [default: looked for]
    #[arg(long, value_name = "DIR")]
    pub programs: Option<PathBuf>,
    #[command(flatten)]
    pub connection: Connection,
}

/// What is the same for all backups of this host.
pub fn backup_options() -> BackupOptions {
    let program = concat!("chronolith ", env!("CARGO_PKG_VERSION"));
    BackupOptions::new(&edges::host_name(), &edges::user_name(), program)
}

/// Runs the command.
pub fn run(session: &Session, arguments: &Arguments) -> Result<u8, Fault> {
    session.doing(format!("dump databases into {}", session.place()?));
    let began = Instant::now();
    let tags = arguments.tag.iter().map(|tag| parse_tag(tag)).collect::<Result<_, _>>()?;
    let mut server = arguments.connection.open(None)?;
    let repository = session.open()?;
    let options = DumpOptions {
        databases: arguments.databases.clone(),
        schemas: arguments.schema.clone(),
        tables: arguments.table.clone(),
        jobs: usize::from(arguments.jobs),
        format: match arguments.format {
            Format::Custom => DumpFormat::Custom,
            Format::Plain => DumpFormat::Plain,
        },
        programs: places_of_programs(arguments.programs.as_ref()),
        backup: BackupOptions {
            label: arguments.label.clone(),
            tags,
            effort: arguments.level,
            ..backup_options()
        },
    };
    let report = dump(&repository, &mut server, &options)?;
    session.talk.end();
    show(session, &report, began.elapsed().as_secs_f64())?;
    Ok(exit::DONE)
}

fn show(session: &Session, report: &DumpReport, seconds: f64) -> Result<(), Fault> {
    let (talk, facts, backup) = (&session.talk, &report.facts, &report.backup);
    for advice in &backup.advice {
        talk.warn(advice);
    }
    talk.event(
        "summary",
        json!({
            "snapshot": backup.snapshot.map(|id| id.to_string()),
            "host": backup.host,
            "label": backup.label,
            "parent": backup.parent.map(|id| id.to_string()),
            "seconds": seconds,
            "system_identifier": facts.system_identifier.map(|identifier| identifier.to_string()),
            "server_version": facts.server_version,
            "dump_version": facts.program_version,
            "from": if facts.from_standby { "standby" } else { "primary" },
            "format": match facts.format { DumpFormat::Custom => "custom", DumpFormat::Plain => "plain" },
            "role_passwords": facts.role_passwords,
            "only": facts.only,
            "databases": facts.databases,
            "differences": backup.differences,
            "summary": events::summary(&backup.summary),
        }),
    )?;
    let Some(id) = backup.snapshot else { return Ok(()) };
    for (name, database) in facts.databases.iter().take(DATABASES_SHOWN) {
        let rows = match (database.tables, database.rows) {
            (Some(tables), Some(rows)) => format!(
                ", {} in {}",
                render::count(rows, "row", "rows"),
                render::count(tables, "table", "tables")
            ),
            _ => String::new(),
        };
        let objects = match database.large_objects.unwrap_or(0) {
            0 => String::new(),
            count => format!(", {}", render::count(count, "large object", "large objects")),
        };
        let name = render::visible(name);
        talk.tell(&format!("{name}: {}{rows}{objects}", render::size(database.dump_bytes)));
    }
    let more = facts.databases.len().saturating_sub(DATABASES_SHOWN) as u64;
    if more > 0 {
        talk.tell(&format!("and {} more", render::count(more, "database", "databases")));
    }
    let summary = &backup.summary;
    let parent = backup.parent.map_or(String::new(), |id| format!(", compared with {}", id.short()));
    let count = render::count(facts.databases.len() as u64, "database", "databases");
    let consistent = if facts.databases.len() > 1 { ", each consistent in itself" } else { "" };
    talk.tell(&format!(
        "snapshot {} of {}:{}{parent}: {count}{consistent}, and the globals",
        id.short(),
        backup.host,
        backup.label
    ));
    talk.tell(&format!(
        "{} in {}: {} new, {} stored",
        render::size(summary.bytes),
        render::span(seconds),
        render::size(summary.new_bytes),
        render::size(summary.stored_bytes)
    ));
    Ok(())
}
