//! `chronolith snapshots`.

use crate::cli::events;
use crate::cli::fault::{Fault, exit};
use crate::cli::render::{self, Align, Table};
use crate::cli::session::Session;
use crate::ops::SnapshotView;
use clap::Args;
use serde_json::json;
use std::collections::BTreeMap;

/// Lists the snapshots, oldest first
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
    let all = snapshots.iter().count();
    session.talk.tell(&match chosen.len() {
        0 if all > 0 => format!("none of {} matches", render::count(all as u64, "snapshot", "snapshots")),
        0 => "there are no snapshots yet".to_owned(),
        shown => render::count(shown as u64, "snapshot", "snapshots"),
    });
    Ok(exit::DONE)
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
