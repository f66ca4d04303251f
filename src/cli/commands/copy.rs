//! `chronolith copy`.

use crate::base::ErrorClass;
use crate::cli::fault::{Fault, exit};
use crate::cli::render;
use crate::cli::session::Session;
use crate::cli::settings::{Way, second_repository, second_way};
use crate::ops::copy::{CopiedLogs, CopiedSnapshot, CopyOptions, Outcome, copy_logs, copy_snapshots};
use crate::ops::{SnapshotView, Snapshots};
use crate::postgres::base::bases_of;
use crate::postgres::lineage::ClusterName;
use crate::postgres::stream::cluster_of;
use clap::Args;
use serde_json::json;
use std::collections::BTreeSet;
use std::path::PathBuf;

/// Copies snapshots and archived logs into another repository, which has keys of its own
///
/// Content is read, verified and cut anew; only what the other repository lacks is stored. Times, hosts, labels, tags, pins
/// and notes go with a snapshot, and where it came from: run again, it copies only what is new. Ends with exit code 3 if
/// something could not be read whole, after naming it.
#[derive(Args)]
pub struct Arguments {
    /// The repository to copy into: a folder [env: CHRONOLITH_TO_REPO]
    #[arg(long, value_name = "PATH")]
    to: Option<String>,
    /// A file that holds its password [env: CHRONOLITH_TO_PASSWORD_FILE; the password itself: CHRONOLITH_TO_PASSWORD]
    #[arg(long, value_name = "FILE", group = "to_way")]
    to_password_file: Option<PathBuf>,
    /// A shell command that prints its password [env: CHRONOLITH_TO_PASSWORD_COMMAND]
    #[arg(long, value_name = "COMMAND", group = "to_way")]
    to_password_command: Option<String>,
    /// Its key file, or a recovery sheet [env: CHRONOLITH_TO_KEY_FILE]
    #[arg(long, value_name = "FILE", group = "to_way")]
    to_key_file: Option<PathBuf>,
    /// Snapshots to copy
    #[arg(value_name = "SNAP")]
    snapshots: Vec<String>,
    /// Everything: all snapshots and all archived logs
    #[arg(long, conflicts_with_all = ["snapshots", "label", "host", "cluster"])]
    all: bool,
    /// All snapshots with this label
    #[arg(long, value_name = "LABEL")]
    label: Vec<String>,
    /// All snapshots of this host; with --label those of both
    #[arg(long, value_name = "HOST")]
    host: Vec<String>,
    /// Base backups and the archived log of this PostgreSQL cluster
    #[arg(long, value_name = "NAME")]
    cluster: Vec<String>,
    /// Shows what would be copied
    #[arg(short = 'n', long)]
    dry_run: bool,
}

/// Runs the command.
pub fn run(session: &Session, arguments: &Arguments) -> Result<u8, Fault> {
    let to = match &arguments.to {
        Some(to) => to.clone(),
        None => second_repository()?.ok_or_else(|| {
            Fault::usage("no repository to copy into was named", "give --to PATH, or set CHRONOLITH_TO_REPO")
        })?,
    };
    session.doing(format!("copy from {} to {to}", session.place()?));
    let clusters = arguments.cluster.iter().map(|name| Ok(ClusterName::new(name)?));
    let clusters = clusters.collect::<Result<Vec<_>, Fault>>()?;
    let nothing = arguments.snapshots.is_empty()
        && arguments.label.is_empty()
        && arguments.host.is_empty()
        && clusters.is_empty();
    if nothing && !arguments.all {
        return Err(Fault::usage(
            "nothing was named",
            "give snapshots, --label, --host or --cluster, or --all for everything",
        ));
    }
    let ways = [
        arguments.to_password_file.clone().map(Way::PasswordFile),
        arguments.to_password_command.clone().map(Way::PasswordCommand),
        arguments.to_key_file.clone().map(Way::KeyFile),
    ];
    let way = second_way(ways.into_iter().flatten().collect())?;
    let (source, target) = session.open_both(&to, way.as_ref())?;
    session.doing(format!("copy from {} to {to}", session.place()?));
    let snapshots = session.snapshots(&source)?;
    let chosen = choose(arguments, &clusters, &snapshots)?;
    let options = CopyOptions {
        dry_run: arguments.dry_run,
        ..CopyOptions::new(concat!("chronolith ", env!("CARGO_PKG_VERSION")))
    };
    let copied = copy_snapshots(&source, &target, &chosen, &options)?;
    let logs = match arguments.all || !clusters.is_empty() {
        true => {
            let wanted = |stream: &str| {
                let of = |cluster: &ClusterName| {
                    cluster.stream() == stream
                        || cluster_of(stream).is_some_and(|(found, _)| found == *cluster)
                };
                arguments.all || clusters.iter().any(of)
            };
            copy_logs(&source, &target, wanted, &options)?
        }
        false => CopiedLogs::default(),
    };
    tell(session, arguments, &copied, &logs)?;
    let failed = copied.iter().any(|one| matches!(one.outcome, Outcome::Failed(_)));
    Ok(if failed || !logs.failed.is_empty() { exit::INCOMPLETE } else { exit::DONE })
}

/// Returns the snapshots that were asked for, oldest first.
fn choose<'s>(
    arguments: &Arguments,
    clusters: &[ClusterName],
    snapshots: &'s Snapshots,
) -> Result<Vec<&'s SnapshotView>, Fault> {
    let mut named = BTreeSet::new();
    for name in &arguments.snapshots {
        named.insert(snapshots.resolve(name)?.id);
    }
    for cluster in clusters {
        named.extend(bases_of(snapshots, cluster).into_iter().map(|base| base.view.id));
    }
    let by_line = !arguments.label.is_empty() || !arguments.host.is_empty();
    let in_line = |view: &SnapshotView| {
        by_line
            && (arguments.label.is_empty() || arguments.label.contains(&view.snapshot.label))
            && (arguments.host.is_empty() || arguments.host.contains(&view.snapshot.host))
    };
    if by_line && !snapshots.iter().any(in_line) {
        return Err(Fault::Plain {
            class: ErrorClass::NotFound,
            why: "no snapshot has this label and host".to_owned(),
            advice: "`chronolith snapshots` shows what there is".to_owned(),
        });
    }
    // One that is forgotten is not what anybody means who does not name it.
    let wanted = |view: &&SnapshotView| {
        named.contains(&view.id) || !view.forgotten && (arguments.all || in_line(view))
    };
    Ok(snapshots.with_forgotten().iter().filter(wanted).collect())
}

fn tell(
    session: &Session,
    arguments: &Arguments,
    copied: &[CopiedSnapshot],
    logs: &CopiedLogs,
) -> Result<(), Fault> {
    let talk = &session.talk;
    let (mut new, mut present, mut failed, mut stored) = (0_u64, 0_u64, 0_u64, 0);
    for one in copied {
        let (word, copy, what) = match &one.outcome {
            Outcome::Copied { id, summary } => {
                new += 1;
                stored += if arguments.dry_run { 0 } else { summary.stored_bytes };
                let size = render::size(summary.bytes);
                let what = match id {
                    Some(id) => {
                        format!(
                            "copied to {} ({size}, {} stored)",
                            id.short(),
                            render::size(summary.stored_bytes)
                        )
                    }
                    None => format!("would be copied ({size})"),
                };
                ("copied", *id, what)
            }
            Outcome::Present(id) => {
                present += 1;
                ("present", Some(*id), format!("is there as {}", id.short()))
            }
            Outcome::Failed(why) => {
                failed += 1;
                ("failed", None, format!("not copied: {why}"))
            }
        };
        if session.settings.json {
            let fields = json!({ "id": one.from.to_string(), "host": one.host, "label": one.label,
                "outcome": word, "copy": copy.map(|id| id.to_string()), "what": what });
            talk.event("snapshot", fields)?;
        } else {
            let line = format!("{} {} of {}: {what}", one.from.short(), one.label, one.host);
            talk.line(&render::visible(&line))?;
        }
    }
    for (stream, name, why) in &logs.failed {
        talk.event("log", json!({ "stream": stream, "name": name, "why": why }))?;
        if !session.settings.json {
            talk.line(&render::visible(&format!("{name} of {stream}: not copied: {why}")))?;
        }
    }
    let fields = json!({
        "dry_run": arguments.dry_run, "copied": new, "present": present, "failed": failed,
        "stored_bytes": stored, "logs_copied": logs.copied, "logs_bytes": logs.bytes,
        "logs_present": logs.present, "logs_gaps": logs.gaps, "logs_failed": logs.failed.len(),
    });
    talk.event("summary", fields)?;
    talk.flush()?;
    let would = if arguments.dry_run { "would be " } else { "" };
    talk.tell(&format!(
        "{} {would}copied ({} stored), {present} were there",
        render::count(new, "snapshot", "snapshots"),
        render::size(stored)
    ));
    if logs.copied + logs.present > 0 {
        talk.tell(&format!(
            "{} of logs {would}copied ({}), {} were there",
            render::count(logs.copied, "file", "files"),
            render::size(logs.bytes),
            logs.present
        ));
    }
    Ok(())
}
