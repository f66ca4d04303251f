//! What a demonstration shows: chapters, lines, and a table at the end.

use crate::cli::fault::Fault;
use crate::cli::render::{self, Align, Table};
use crate::cli::talk::Talk;
use crate::ops::backup::BackupReport;
use std::sync::Arc;

/// What is shown, with the figures for the summary.
pub struct Story {
    talk: Arc<Talk>,
    chapters: u32,
    table: Table,
    proofs: Vec<String>,
}

impl Story {
    /// Begins.
    pub fn new(talk: Arc<Talk>) -> Self {
        let table = Table::new(&[
            ("backup", Align::Left),
            ("read", Align::Right),
            ("new", Align::Right),
            ("stored", Align::Right),
            ("time", Align::Right),
        ]);
        Self { talk, chapters: 0, table, proofs: Vec::new() }
    }

    fn line(&self, line: &str) -> Result<(), Fault> {
        self.talk.line(line)?;
        // Somebody is watching, even where output goes through a pipe.
        self.talk.flush()
    }

    /// Shows a line of the introduction.
    pub fn say(&self, text: &str) -> Result<(), Fault> {
        self.line(text)
    }

    /// Begins a chapter.
    pub fn chapter(&mut self, title: &str) -> Result<(), Fault> {
        self.chapters += 1;
        self.line(&format!("\n{}. {title}", self.chapters))
    }

    /// Shows the command that a user would type for what comes next.
    pub fn command(&self, command: &str) -> Result<(), Fault> {
        self.line(&format!("   $ {command}"))
    }

    /// Shows what happened.
    pub fn tell(&self, text: &str) -> Result<(), Fault> {
        self.line(&format!("   {text}"))
    }

    /// Shows what was compared and found equal, and keeps it for the summary.
    pub fn proved(&mut self, text: String) -> Result<(), Fault> {
        self.line(&format!("   {text}"))?;
        self.proofs.push(text);
        Ok(())
    }

    /// Shows what a backup cost, and keeps it for the summary.
    pub fn backed_up(&mut self, what: &str, report: &BackupReport, seconds: f64) -> Result<(), Fault> {
        let summary = &report.summary;
        let id = report.snapshot.map(|id| id.short()).unwrap_or_default();
        self.tell(&format!(
            "snapshot {id}: {} read, {} new, {} stored, in {}",
            render::size(summary.bytes),
            render::size(summary.new_bytes),
            render::size(summary.stored_bytes),
            render::span(seconds)
        ))?;
        self.table.row(vec![
            what.to_owned(),
            render::size(summary.bytes),
            render::size(summary.new_bytes),
            render::size(summary.stored_bytes),
            render::span(seconds),
        ]);
        Ok(())
    }

    /// Shows all figures.
    pub fn summary(&self, stored: u64, seconds: f64) -> Result<(), Fault> {
        self.line("\nSummary")?;
        self.table.lines().iter().try_for_each(|line| self.line(&format!("   {line}")))?;
        self.line(&format!("   the whole repository: {}", render::size(stored)))?;
        self.proofs.iter().try_for_each(|proof| self.line(&format!("   {proof}")))?;
        self.line(&format!("   {} in all; the folder is removed", render::span(seconds)))
    }
}
