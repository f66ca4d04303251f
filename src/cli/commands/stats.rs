//! `chronolith stats`.

use crate::cli::fault::{Fault, exit};
use crate::cli::render::{self, Align, Table};
use crate::cli::session::Session;
use crate::ops::stats::{By, Figures, StatsReport, stats};
use clap::{Args, ValueEnum};
use serde_json::{Value, json};

/// Shows what snapshots hold and what they take
#[derive(Args)]
pub struct Arguments {
    /// Puts the figures together by this
    #[arg(long, value_enum, value_name = "WHAT")]
    pub by: Option<Grouping>,
}

/// What figures are put together by.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum Grouping {
    /// Each snapshot by itself
    Snapshot,
    /// The snapshots of one label
    Label,
    /// The snapshots of one host
    Host,
}

impl Grouping {
    const fn by(self) -> By {
        match self {
            Self::Snapshot => By::Snapshot,
            Self::Label => By::Label,
            Self::Host => By::Host,
        }
    }
}

fn fields(name: &str, figures: &Figures) -> Value {
    json!({
        "name": name,
        "snapshots": figures.snapshots,
        "raw_bytes": figures.raw_bytes,
        "unique_bytes": figures.unique_bytes,
        "metadata_bytes": figures.metadata_bytes,
        "stored_bytes": figures.stored_bytes,
        "base_bytes": figures.base_bytes,
        "base_stored_bytes": figures.base_stored_bytes,
        "alone_bytes": figures.alone_bytes,
        "alone_stored_bytes": figures.alone_stored_bytes,
    })
}

/// Runs the command.
pub fn run(session: &Session, arguments: &Arguments) -> Result<u8, Fault> {
    session.doing(format!("count what {} holds", session.place()?));
    let repository = session.open()?;
    let snapshots = session.snapshots(&repository)?;
    let views = snapshots.iter().map(|view| (view.id, &view.snapshot));
    let report = stats(&repository, views, arguments.by.map(Grouping::by))?;
    if session.settings.json {
        for (name, figures) in &report.groups {
            session.talk.event("group", fields(name, figures))?;
        }
        let mut summary = fields("", &report.total);
        if let Value::Object(summary) = &mut summary {
            summary.remove("name");
            summary.insert("packs".to_owned(), json!(report.packs));
            summary.insert("pack_bytes".to_owned(), json!(report.pack_bytes));
            summary.insert("index_bytes".to_owned(), json!(report.index_bytes));
            summary.insert("logs".to_owned(), json!(report.logs));
            summary.insert("log_bytes".to_owned(), json!(report.log_bytes));
            summary.insert("other_bytes".to_owned(), json!(report.other_bytes));
            summary.insert("unreadable".to_owned(), json!(report.unreadable.len()));
        }
        session.talk.event("summary", summary)?;
    } else {
        write_table(session, arguments, &report)?;
    }
    session.talk.flush()?;
    for what in &report.unreadable {
        session.talk.tell(&format!("warning: {what}; the figures lack what it holds"));
    }
    Ok(if report.unreadable.is_empty() { exit::DONE } else { exit::INCOMPLETE })
}

fn write_table(session: &Session, arguments: &Arguments, report: &StatsReport) -> Result<(), Fault> {
    let mut table = Table::new(&[
        ("what", Align::Left),
        ("snapshots", Align::Right),
        ("raw", Align::Right),
        ("unique", Align::Right),
        ("stored", Align::Right),
        ("held alone", Align::Right),
        ("only as base", Align::Right),
    ]);
    let row = |name: &str, figures: &Figures| {
        vec![
            name.to_owned(),
            figures.snapshots.to_string(),
            render::size(figures.raw_bytes),
            render::size(figures.unique_bytes),
            render::size(figures.stored_bytes),
            render::size(figures.alone_stored_bytes),
            render::size(figures.base_stored_bytes),
        ]
    };
    if arguments.by.is_some() {
        for (name, figures) in &report.groups {
            let shown = match arguments.by {
                Some(Grouping::Snapshot) => name.get(..8).unwrap_or(name),
                _ => name,
            };
            table.row(row(&render::visible(shown), figures));
        }
    }
    table.row(row("all", &report.total));
    table.lines().iter().try_for_each(|line| session.talk.line(line))?;
    session.talk.line(&format!(
        "in the store: {} in {}, index {}, logs {} in {}, other objects {}",
        render::size(report.pack_bytes),
        render::count(report.packs, "pack", "packs"),
        render::size(report.index_bytes),
        render::size(report.log_bytes),
        render::count(report.logs, "object", "objects"),
        render::size(report.other_bytes)
    ))
}
