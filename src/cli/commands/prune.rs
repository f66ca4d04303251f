//! `chronolith prune`.

use crate::base::units::parse_size;
use crate::cli::fault::{Fault, exit};
use crate::cli::render;
use crate::cli::session::Session;
use crate::ops::prune::{PruneOptions, PruneReport, Unused, prune};
use crate::repo::Repository;
use clap::Args;
use serde_json::{Value, json};
use std::sync::Arc;

/// Deletes what no snapshot needs, beside running backups
///
/// In two steps: packs that hold nothing needed are announced first, and deleted by a later prune, once the grace has
/// passed and every running backup has heard of it. Of packs that are needed in parts, those parts are copied first, sealed
/// as they are, until no more than --max-unused is left that nobody needs. With an owner's key, what is needed is read and
/// sealed anew where it holds more than --max-held that is not: content that was sealed together with it, or that it
/// is stored as a difference from.
#[derive(Args)]
pub struct Arguments {
    /// Shows what would be announced
    #[arg(short = 'n', long)]
    pub dry_run: bool,
    #[command(flatten)]
    pub bounds: Bounds,
}

/// How far a prune goes; `forget --prune` takes the same.
#[derive(Args)]
pub struct Bounds {
    /// Time between announcement and deletion: 0, 30m, 24h, 7d [default: 24h]. Given here, it also
    /// shortens what was announced with a longer one
    #[arg(long, value_name = "TIME")]
    pub grace: Option<String>,
    /// How much that nobody needs may stay in packs that are needed in parts: a share of what is kept, a
    /// size, or unlimited [default: 5%]
    #[arg(long, value_name = "SHARE")]
    pub max_unused: Option<String>,
    /// How much may stay only because of how what is needed is stored, as a difference from it or in one frame with
    /// it: a share of what is kept, a size, or unlimited. More is sealed anew where that is worth it; with 0, whatever it costs.
    /// Takes an owner's key [default: 10%, or unlimited for a key that reads no content]
    #[arg(long, value_name = "SHARE")]
    pub max_held: Option<String>,
    /// Copies or seals anew what is needed out of packs and frames, and merges archived log, of this size
    /// together at most, in one go: 10G
    #[arg(long, value_name = "SIZE")]
    pub max_repack: Option<String>,
}

impl Bounds {
    /// Says whether any of them was given.
    pub fn are_given(&self) -> bool {
        let Self { grace, max_unused, max_held, max_repack } = self;
        [grace, max_unused, max_held, max_repack].iter().any(|bound| bound.is_some())
    }

    /// Returns the options of a prune.
    pub fn options(&self) -> Result<PruneOptions, Fault> {
        let mut options = PruneOptions::new(concat!("chronolith ", env!("CARGO_PKG_VERSION")));
        if let Some(text) = &self.max_unused {
            options.max_unused = unused(text)?;
        }
        if let Some(text) = &self.max_held {
            options.max_held = Some(unused(text)?);
        }
        if let Some(text) = &self.max_repack {
            let size = parse_size(text);
            let refused = || Fault::usage(format!("{text:?} is no size"), "give one such as 500M or 10G");
            options.max_repack_bytes = Some(size.ok_or_else(refused)?);
        }
        Ok(match &self.grace {
            Some(grace) => options.within(seconds(grace)?),
            None => options,
        })
    }
}

fn unused(text: &str) -> Result<Unused, Fault> {
    if text == "unlimited" {
        return Ok(Unused::Share { hundredths: 10_000 });
    }
    let share = |number: &str| {
        let share = number.parse::<f64>().ok().filter(|share| (0.0..=100.0).contains(share))?;
        Some(Unused::Share { hundredths: (share * 100.0).round() as u32 })
    };
    let read = match text.strip_suffix('%') {
        Some(number) => share(number),
        None => parse_size(text).map(Unused::Bytes),
    };
    read.ok_or_else(|| {
        Fault::usage(
            format!("{text:?} is neither a share nor a size"),
            "give one such as 5%, 0%, 2G or unlimited",
        )
    })
}

fn seconds(text: &str) -> Result<u64, Fault> {
    let refused = || {
        Fault::usage(
            format!("{text:?} is no span of time"),
            "give a number with s, m, h or d, such as 24h; at most 366d",
        )
    };
    let number = text.trim_end_matches(['s', 'm', 'h', 'd']);
    let unit = match text.get(number.len()..) {
        Some("s") => 1,
        Some("m") => 60,
        Some("h") => 3600,
        Some("d") => 86400,
        Some("") if number == "0" => 1,
        _ => return Err(refused()),
    };
    let seconds = number.parse::<u64>().ok().and_then(|number| number.checked_mul(unit));
    seconds.filter(|seconds| *seconds <= crate::base::limits::GRACE_SECONDS_MAX).ok_or_else(refused)
}

/// Runs the command.
pub fn run(session: &Session, arguments: &Arguments) -> Result<u8, Fault> {
    session.doing(format!("prune {}", session.place()?));
    let options = PruneOptions { dry_run: arguments.dry_run, ..arguments.bounds.options()? };
    let repository = session.open()?;
    let summary = prune_now(session, &repository, &options)?;
    if session.settings.json {
        session.talk.event("summary", summary)?;
    }
    Ok(exit::DONE)
}

/// Prunes, and tells people; returns what there is to tell programs.
pub fn prune_now(
    session: &Session,
    repository: &Arc<Repository>,
    options: &PruneOptions,
) -> Result<Value, Fault> {
    let report = prune(repository, options)?;
    tell(session, &report, options);
    Ok(summary(&report, options.dry_run))
}

fn summary(report: &PruneReport, dry_run: bool) -> Value {
    json!({
        "dry_run": dry_run,
        "packs": report.packs,
        "pack_bytes": report.pack_bytes,
        "needed_bytes": report.needed_bytes,
        "unused_bytes": report.unused_bytes,
        "unfinished_packs": report.unfinished_packs,
        "unfinished_bytes": report.unfinished_bytes,
        "condemned_packs": report.condemned_packs,
        "condemned_bytes": report.condemned_bytes,
        "condemned_snapshots": report.condemned_snapshots,
        "condemned_logs": report.condemned_logs,
        "condemned_log_bytes": report.condemned_log_bytes,
        "merged_logs": report.merged_logs,
        "merged_log_bytes": report.merged_log_bytes,
        "repacked_packs": report.repacked_packs,
        "repacked_bytes": report.repacked_bytes,
        "repack_copy_bytes": report.repack_copy_bytes,
        "base_bytes": report.base_bytes,
        "shared_frame_bytes": report.shared_frame_bytes,
        "held_bytes_max": report.held_bytes_max,
        "resealed_blobs": report.resealed.blobs,
        "resealed_bytes": report.resealed.bytes,
        "resealed_freed_bytes": report.resealed.freed_bytes,
        "unreadable_blobs": report.resealed.unreadable,
        "kept_bytes": report.kept_bytes,
        "held_packs": report.held_packs,
        "deleted_packs": report.deleted_packs,
        "deleted_bytes": report.deleted_bytes,
        "deleted_logs": report.deleted_logs,
        "deleted_log_bytes": report.deleted_log_bytes,
        "deleted_objects": report.deleted_objects,
        "merged_runs": report.merged_runs,
        "deleted_runs": report.deleted_runs,
        "copied_bytes": report.copied_bytes,
        "waiting_for_grace": report.waiting_for_grace,
        "waiting_seconds": report.waiting_seconds,
        "waiting_for": report.waiting_for,
    })
}

fn tell(session: &Session, report: &PruneReport, options: &PruneOptions) {
    let dry_run = options.dry_run;
    let packs = |number| render::count(number, "pack", "packs");
    let tell = |text: String| session.talk.tell(&text);
    tell(format!(
        "{} with {}, of which snapshots need {}",
        packs(report.packs),
        render::size(report.pack_bytes),
        render::size(report.needed_bytes)
    ));
    let resealed = &report.resealed;
    if resealed.blobs > 0 {
        tell(format!(
            "{}: {} with {}, which frees about {} of what held more than is needed",
            if dry_run { "would be sealed anew" } else { "sealed anew" },
            render::count(resealed.blobs, "chunk, tree or recipe", "chunks, trees and recipes"),
            render::size(resealed.bytes),
            render::size(resealed.freed_bytes)
        ));
    }
    let verb = if dry_run { "would be announced" } else { "announced" };
    tell(format!(
        "{verb} for deletion: {} with {}, {}",
        packs(report.condemned_packs),
        render::size(report.condemned_bytes),
        render::count(report.condemned_snapshots, "forgotten snapshot", "forgotten snapshots")
    ));
    if report.condemned_logs > 0 {
        tell(format!(
            "{verb} too: {} of archived logs with {}",
            render::count(report.condemned_logs, "object", "objects"),
            render::size(report.condemned_log_bytes)
        ));
    }
    if report.merged_logs > 0 {
        tell(format!(
            "{} of archived logs with {} {} fewer",
            render::count(report.merged_logs, "object", "objects"),
            render::size(report.merged_log_bytes),
            if dry_run { "would be merged into" } else { "were merged into" }
        ));
    }
    if report.repacked_packs > 0 {
        tell(format!(
            "among them are {} that are needed in parts, or small: {} of {} {} first",
            packs(report.repacked_packs),
            render::size(report.repack_copy_bytes),
            render::size(report.repacked_bytes),
            if dry_run { "would be copied" } else { "were copied" }
        ));
    }
    if !dry_run {
        tell(format!("deleted: {} with {}", packs(report.deleted_packs), render::size(report.deleted_bytes)));
        if report.deleted_logs > 0 {
            let logs = render::count(report.deleted_logs, "object", "objects");
            tell(format!("deleted: {logs} of archived logs with {}", render::size(report.deleted_log_bytes)));
        }
    }
    tell(format!("once all that is announced is deleted, packs take {}", render::size(report.kept_bytes)));
    let stays = [
        (report.unused_bytes, "that nobody needs stay in packs that are needed (--max-unused, --max-repack)"),
        (
            report.base_bytes,
            "stay only because needed content is stored as what differs from it (--max-held)",
        ),
        (
            report.shared_frame_bytes,
            "stay only because they were sealed together with what is needed (--max-held)",
        ),
    ];
    if report.unfinished_packs > 0 {
        tell(format!(
            "{} with {} may be of a backup that is running or was broken off: they stay until its session is over",
            packs(report.unfinished_packs),
            render::size(report.unfinished_bytes)
        ));
    }
    for (bytes, why) in stays.into_iter().filter(|(bytes, _)| *bytes > 0) {
        tell(format!("{} {why}", render::size(bytes)));
    }
    if report.held_bytes_max.is_none()
        && options.max_held.is_none()
        && report.base_bytes + report.shared_frame_bytes > 0
    {
        tell(
            "this key reads no content, so none is sealed anew to free that: prune with an owner's key"
                .to_owned(),
        );
    }
    if resealed.unreadable > 0 {
        tell(format!(
            "{} could not be read and {} as before (see the warnings)",
            render::count(resealed.unreadable, "chunk, tree or recipe", "chunks, trees and recipes"),
            if resealed.unreadable == 1 { "stays" } else { "stay" }
        ));
    }
    if report.held_packs > 0 {
        tell(format!(
            "{} stay, since what is needed of them cannot be copied (see the warnings)",
            packs(report.held_packs)
        ));
    }
    if let Some(seconds) = report.waiting_seconds {
        tell(format!(
            "what was announced and is still there waits for its grace to pass: prune again in {}, or now with a \
             shorter --grace",
            render::span(seconds as f64)
        ));
    }
    for holder in &report.waiting_for {
        tell(format!(
            "what was announced waits for a session of {}: until that ends, or has stood still for the time of grace (15 \
             minutes at least) after a prune saw it",
            render::visible(holder)
        ));
    }
}
