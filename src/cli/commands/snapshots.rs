//! `chronolith snapshots`.

use crate::cli::events;
use crate::cli::fault::{Fault, exit};
use crate::cli::render::{self, Align, Table};
use crate::cli::session::Session;
use crate::cli::talk::Level;
use crate::ops::{Said, SnapshotView};
use clap::Args;
use serde_json::json;
use std::collections::BTreeMap;

/// Lists the snapshots, oldest first
///
/// With -v also what was said about them since, by whom and when: tags, pins, notes, verifications.
#[derive(Args, Default)]
pub struct Arguments {
    /// Only those with this tag; several times: with all of them
    #[arg(long, value_name = "K[=V]")]
    pub tag: Vec<String>,
    /// Only those of this host
    #[arg(long, value_name = "NAME")]
    pub host: Option<String>,
    /// Only those with this label
    #[arg(long, value_name = "NAME")]
    pub label: Option<String>,
    /// Only those with a note that holds this text, in whatever case
    #[arg(long, value_name = "TEXT")]
    pub note: Option<String>,
    /// Only those that are pinned
    #[arg(long)]
    pub pinned: bool,
    /// Also those that were forgotten, as long as they are there
    #[arg(long)]
    pub forgotten: bool,
    /// Only the newest N of each host and label
    #[arg(long, value_name = "N")]
    pub latest: Option<usize>,
}

/// Says whether a snapshot has a tag, written `K` or `K=V`.
pub fn has_tag(view: &SnapshotView, tag: &str) -> bool {
    match tag.split_once('=') {
        Some((key, value)) => view.tags.get(key).is_some_and(|found| found.as_deref() == Some(value)),
        None => view.tags.contains_key(tag),
    }
}

impl Arguments {
    fn matches(&self, view: &SnapshotView) -> bool {
        let is =
            |wanted: &Option<String>, found: &str| wanted.as_deref().is_none_or(|wanted| wanted == found);
        is(&self.host, &view.snapshot.host)
            && is(&self.label, &view.snapshot.label)
            && self.tag.iter().all(|tag| has_tag(view, tag))
            && (!self.pinned || !view.pinned.is_empty())
            && self.note.as_ref().is_none_or(|text| {
                let text = text.to_lowercase();
                view.notes.iter().any(|note| note.to_lowercase().contains(&text))
            })
    }
}

/// Runs the command.
pub fn run(session: &Session, arguments: &Arguments) -> Result<u8, Fault> {
    session.doing(format!("list the snapshots of {}", session.place()?));
    let repository = session.open()?;
    let snapshots = session.snapshots(&repository)?;
    let mut chosen: Vec<&SnapshotView> = snapshots
        .with_forgotten()
        .iter()
        .filter(|view| (arguments.forgotten || !view.forgotten) && arguments.matches(view))
        .collect();
    if let Some(most) = arguments.latest {
        let mut seen: BTreeMap<(&str, &str), usize> = BTreeMap::new();
        let mut newest: Vec<&SnapshotView> = chosen
            .into_iter()
            .rev()
            .filter(|view| {
                let count = seen.entry((&view.snapshot.host, &view.snapshot.label)).or_default();
                *count += 1;
                *count <= most
            })
            .collect();
        newest.reverse();
        chosen = newest;
    }
    if session.settings.json {
        for view in &chosen {
            session.talk.event("snapshot", events::snapshot(view))?;
        }
        session.talk.event("summary", json!({ "snapshots": chosen.len() }))?;
        return Ok(exit::DONE);
    }
    show(session, &chosen)?;
    if session.settings.level >= Level::Verbose {
        let names = repository.registry().trust();
        for (view, said) in chosen.iter().flat_map(|view| view.said.iter().map(move |said| (view, said))) {
            let who = names.key(&said.signer).map_or("", |key| key.name.as_str());
            session.talk.line(&render::visible(&said_line(view, said, who)))?;
        }
    }
    let all = snapshots.iter().count();
    session.talk.tell(&match chosen.len() {
        0 if all > 0 => format!("none of {} matches", render::count(all as u64, "snapshot", "snapshots")),
        0 => "there are no snapshots yet".to_owned(),
        shown => render::count(shown as u64, "snapshot", "snapshots"),
    });
    Ok(exit::DONE)
}

/// Writes who said what about a snapshot, and when.
fn said_line(view: &SnapshotView, said: &Said, who: &str) -> String {
    let mut what = events::said_kind(said).to_owned();
    if let Some(key) = &said.key {
        what.push_str(&format!(" {key}"));
    }
    if let Some(outcome) = said.outcome {
        let method = said.method.as_deref().unwrap_or_default();
        what.push_str(&format!(" ({method}): {}", events::outcome(outcome)));
    }
    if let Some(value) = &said.value {
        let sign = if said.key.is_some() { "=" } else { ": " };
        what.push_str(&format!("{sign}{value}"));
    }
    let (id, key, time) = (view.id.short(), said.signer.short(), render::time(said.created));
    format!("{id}  {time}  {who} ({key}): {what}")
}

fn show(session: &Session, views: &[&SnapshotView]) -> Result<(), Fault> {
    if views.is_empty() {
        return Ok(());
    }
    let mut table = Table::new(&[
        ("snapshot", Align::Left),
        ("started", Align::Left),
        ("host", Align::Left),
        ("label", Align::Left),
        ("size", Align::Right),
        ("added", Align::Right),
        ("tags", Align::Left),
    ]);
    for view in views {
        let snapshot = &view.snapshot;
        let mut remarks = vec![render::tags(&view.tags)];
        remarks.extend((!view.pinned.is_empty()).then(|| "(pinned)".to_owned()));
        let notes = view.notes.len() as u64;
        remarks.extend((notes > 0).then(|| format!("({})", render::count(notes, "note", "notes"))));
        remarks.extend(view.forgotten.then(|| "(forgotten)".to_owned()));
        remarks.extend(
            (snapshot.summary.unreadable > 0)
                .then(|| format!("({} unreadable)", snapshot.summary.unreadable)),
        );
        remarks.retain(|remark| !remark.is_empty());
        table.row(vec![
            view.id.short(),
            render::time(snapshot.started),
            snapshot.host.clone(),
            snapshot.label.clone(),
            render::size(snapshot.summary.bytes),
            render::size(snapshot.summary.stored_bytes),
            remarks.join(" "),
        ]);
    }
    table.lines().iter().try_for_each(|line| session.talk.line(line))
}
