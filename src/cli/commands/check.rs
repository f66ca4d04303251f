//! `chronolith check`.

use crate::base::Timestamp;
use crate::cli::events;
use crate::cli::fault::{Fault, exit};
use crate::cli::render;
use crate::cli::session::Session;
use crate::ops::check::{
    CheckOptions, CheckReport, Finding, Gravity, Holding, LostLog, MendedFrom, ReadData, check,
    check_and_repair,
};
use crate::postgres::base::bases_of;
use crate::postgres::lineage::{ClusterName, lineages};
use crate::postgres::stream::{cluster_of, log_base, read_log_in_full};
use crate::repo::Repository;
use crate::timeline::{Hurt, Interval, LogBase, hurt};
use clap::Args;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

/// Lines of each kind that are shown to people; --json has all.
const SHOWN: usize = 50;

/// Checks that everything is there and as it was written
///
/// Always: every object, every tree and recipe, the index against the packs. Content is read only
/// when asked for. What was read and found right is noted in the repository, so that
/// --oldest-first goes through all of it over time; packs that are bad are reported there, and the next
/// backup stores again what they held. Ends with exit code 3 if something is damaged, after naming every
/// snapshot and path that is hurt; damage that was reported before and hurts nothing is told, no more.
#[derive(Args)]
pub struct Arguments {
    /// Reads, decrypts and identifies all content
    #[arg(long, conflicts_with_all = ["read_data_subset", "oldest_first"])]
    pub read_data: bool,
    /// Reads a part of it: a percentage (5%), a size (10G), or one of several parts (1/7)
    #[arg(long, value_name = "PART", conflicts_with = "oldest_first")]
    pub read_data_subset: Option<String>,
    /// Reads what was not verified for the longest time first
    #[arg(long)]
    pub oldest_first: bool,
    /// Begins no new pack after this time: 90s, 30m, 2h; what is reported as damaged is read in any case
    #[arg(long, value_name = "TIME", requires = "oldest_first")]
    pub time_budget: Option<String>,
    /// Notes nothing in the repository
    #[arg(long)]
    pub no_ledger: bool,
    /// Puts right what is found damaged, as far as there is parity of it (`chronolith parity add`), a second
    /// copy, or a catalogue that lists it; without this, a check says what could be put right
    #[arg(long)]
    pub repair: bool,
}

fn budget(text: &str) -> Result<Duration, Fault> {
    let refused =
        || Fault::usage(format!("{text:?} is no span of time"), "give a number with s, m or h, such as 30m");
    let number = text.trim_end_matches(['s', 'm', 'h']);
    let seconds: u64 = number.parse().map_err(|_| refused())?;
    let unit = match text.get(number.len()..) {
        Some("" | "s") => 1,
        Some("m") => 60,
        Some("h") => 3600,
        _ => return Err(refused()),
    };
    seconds.checked_mul(unit).map(Duration::from_secs).ok_or_else(refused)
}

fn read_data(arguments: &Arguments) -> Result<ReadData, Fault> {
    if arguments.read_data {
        return Ok(ReadData::All);
    }
    if arguments.oldest_first {
        let budget = arguments.time_budget.as_deref().map(budget).transpose()?;
        return Ok(ReadData::OldestFirst { budget });
    }
    match &arguments.read_data_subset {
        Some(part) => Ok(ReadData::parse(part)?),
        None => Ok(ReadData::None),
    }
}

/// Runs the command.
pub fn run(session: &Session, arguments: &Arguments) -> Result<u8, Fault> {
    session.doing(format!("check {}", session.place()?));
    let options = CheckOptions {
        read_data: read_data(arguments)?,
        keep_ledger: !arguments.no_ledger,
        program: concat!("chronolith ", env!("CARGO_PKG_VERSION")).to_owned(),
    };
    if !session.settings.also.is_empty() {
        return each(session, &options, arguments.repair);
    }
    one(session, &session.open()?, &options, arguments.repair, None)
}

/// Checks every place that holds the repository on its own; what is damaged in one may be whole in another.
fn each(session: &Session, options: &CheckOptions, repair: bool) -> Result<u8, Fault> {
    // What is noted in the repository is meant for all places, and what is bad in one is not bad in all.
    let options = &CheckOptions { keep_ledger: false, ..options.clone() };
    let mut worst = exit::DONE;
    let (mut places, mut repositories) = (Vec::new(), Vec::new());
    for (place, opened) in session.open_each()? {
        session.doing(format!("check {place}"));
        let code = match opened {
            Ok(repository) => {
                if !session.settings.json {
                    session.talk.line(&render::visible(&format!("{place}:")))?;
                }
                let code = one(session, &repository, options, repair, Some(&place))?;
                places.push(place);
                repositories.push(repository);
                code
            }
            Err(fault) => {
                let why = fault.why();
                session.talk.event("summary", json!({ "store": place, "damaged": true, "why": why }))?;
                if !session.settings.json {
                    session.talk.line(&render::visible(&format!("{place}: it cannot be opened: {why}")))?;
                }
                exit::INCOMPLETE
            }
        };
        worst = worst.max(code);
    }
    if worst == exit::INCOMPLETE {
        session.talk.tell("what is whole in another place: `chronolith mirror --heal -r PATH --to PATH`");
    }
    session.doing("compare the places of the repository".to_owned());
    if tell_lacking(session, &places, &repositories)? {
        worst = exit::INCOMPLETE;
    }
    Ok(worst)
}

/// Says which places lack what others hold; returns whether there is one.
fn tell_lacking(
    session: &Session,
    places: &[String],
    repositories: &[Arc<Repository>],
) -> Result<bool, Fault> {
    let mut found = false;
    for (place, lacking) in places.iter().zip(Holding::compare(repositories)?) {
        if lacking.is_empty() {
            continue;
        }
        found = true;
        if session.settings.json {
            let snapshots: Vec<String> = lacking.snapshots.iter().map(ToString::to_string).collect();
            let logs = lacking.logs.iter().map(|(stream, name)| json!({ "stream": stream, "name": name }));
            let fields = json!({ "store": place, "snapshots": snapshots,
                "annotations": lacking.annotations.len(), "logs": logs.collect::<Vec<_>>() });
            session.talk.event("lacking", fields)?;
        }
        let counts = [
            (lacking.snapshots.len(), "snapshot", "snapshots"),
            (lacking.annotations.len(), "tag, pin or other remark", "tags, pins and other remarks"),
            (lacking.logs.len(), "file of a log", "files of logs"),
        ];
        let counts = counts.iter().filter(|(count, ..)| *count > 0);
        let counts = counts.map(|(count, one, many)| render::count(*count as u64, one, many));
        session.talk.tell(&format!(
            "{} lacks {} that another place holds: `chronolith mirror -r PATH --to {}` brings it up to date",
            render::visible(place),
            counts.collect::<Vec<_>>().join(", "),
            render::visible(place)
        ));
    }
    Ok(found)
}

fn one(
    session: &Session,
    repository: &Arc<Repository>,
    options: &CheckOptions,
    repair: bool,
    place: Option<&str>,
) -> Result<u8, Fault> {
    let report = match repair {
        true => check_and_repair(repository, options)?,
        false => check(repository, options)?,
    };
    let hurt = hurt_intervals(session, repository, &report)?;
    if session.settings.json {
        write_events(session, &report, &hurt, place)?;
    } else {
        write_lines(session, &report)?;
        hurt.iter().try_for_each(|hurt| session.talk.line(&hurt.line()))?;
    }
    session.talk.flush()?;
    let counts = &report.counts;
    session.talk.tell(&format!(
        "{}, {}, {}, {} of {} read ({})",
        render::count(counts.snapshots, "snapshot", "snapshots"),
        render::count(counts.logs, "log object", "log objects"),
        render::count(counts.nodes, "tree and recipe node", "tree and recipe nodes"),
        counts.packs_read,
        render::count(counts.packs, "pack", "packs"),
        render::size(counts.bytes_read)
    ));
    for sentence in &report.unchecked {
        session.talk.tell(&format!("not checked: {sentence}"));
    }
    let mended = report.mended.iter().filter(|mended| mended.in_place).count() as u64;
    if repair {
        session.talk.tell(&match (mended, report.mended.len() as u64 - mended) {
            (0, 0) => "nothing was found damaged that this brings back".to_owned(),
            (done, left) => format!(
                "{} put right{}",
                render::count(done, "object", "objects"),
                if left == 0 { String::new() } else { format!(", {left} could not be") }
            ),
        });
    }
    if report.reported > 0 {
        session.talk.tell(&format!(
            "reported {} as damaged: backups rely on what is bad in them no longer",
            render::count(report.reported, "pack", "packs")
        ));
    }
    if report.cancelled > 0 {
        session.talk.tell(&format!(
            "took back {}: what they named is right again",
            render::count(report.cancelled, "report of damage", "reports of damage")
        ));
    }
    session.talk.tell(verdict(&report));
    cures(&report, repair).iter().for_each(|cure| session.talk.tell(cure));
    Ok(if report.is_damaged() { exit::INCOMPLETE } else { exit::DONE })
}

/// Says in one sentence how things stand.
fn verdict(report: &CheckReport) -> &'static str {
    let is_hurt = report.hurt.iter().any(|(id, _)| !report.hurt_perhaps.contains(id));
    if !report.is_damaged() {
        return match report.known_damage {
            0 => "no damage was found",
            _ => {
                "no snapshot is hurt: what is damaged was reported before, and whatever snapshots need of it is whole elsewhere"
            }
        };
    }
    if is_hurt || !report.lost_logs.is_empty() {
        "DAMAGED: something that was backed up cannot be had whole"
    } else if !report.hurt.is_empty() {
        "DAMAGED: something that was backed up may be lost, and this key cannot tell, since it reads no content"
    } else {
        "DAMAGED, though all snapshots and logs that can be listed are whole, as far as was looked"
    }
}

/// Says what helps against what was found, most useful first.
fn cures(report: &CheckReport, repair: bool) -> Vec<String> {
    let damage = || report.findings.iter().filter(|finding| finding.gravity == Gravity::Damage);
    let mendable = damage().filter(|finding| finding.mendable).count() as u64;
    let lies = |areas: &[&str]| {
        let is_in = |finding: &&Finding| areas.iter().any(|area| finding.object.starts_with(area));
        damage().filter(|finding| !finding.mendable).any(|finding| is_in(&finding))
    };
    let is_hurt = report.hurt.iter().any(|(id, _)| !report.hurt_perhaps.contains(id));
    let mut cures = Vec::new();
    if mendable > 0 && !repair {
        cures.push(format!(
            "`chronolith check --repair` puts right what parity, another copy or a catalogue brings back ({} of it)",
            render::count(mendable, "finding", "findings")
        ));
    }
    let mut add = |applies: bool, cure: &str| {
        if applies {
            cures.push(cure.to_owned());
        }
    };
    add(is_hurt, "back the sources up again, which stores what is missing wherever they still have it");
    add(
        !report.hurt_perhaps.is_empty(),
        "whether something is lost: `chronolith check --read-data` with an owner's or a reader's key; the sources backed up \
         again make it whole in any case",
    );
    add(!report.lost_logs.is_empty(), "archive again what segments of logs the server still has");
    add(lies(&["index/"]), "damaged parts of the index: `chronolith repair index`");
    add(
        report.undescribed > 0,
        "packs that no part of the index names, unless a backup that broke off left them: `chronolith repair index`",
    );
    let is_rotten =
        |finding: &&Finding| finding.gravity != Gravity::Note && finding.object.starts_with("packs/");
    add(
        lies(&["packs/"]) || report.is_damaged() && report.findings.iter().any(|finding| is_rotten(&finding)),
        "damaged packs: `chronolith repair packs` with an owner's key copies what is readable in them; `chronolith prune` \
         deletes them once nothing needs them",
    );
    add(
        is_hurt,
        "what stays lost, by snapshot and path: `chronolith repair snapshots --dry-run`, which makes copies that hold the rest",
    );
    add(
        damage().any(|finding| finding.what.contains("`chronolith repair snapshots` puts it back")),
        "what somebody has deleted: `chronolith repair snapshots` puts it back",
    );
    add(
        lies(&["sessions/"]),
        "damaged sessions: `chronolith prune` removes them once they are three days old",
    );
    add(
        lies(&["parity/"]),
        "damaged parity of what is damaged itself: `chronolith parity add` once that is whole again",
    );
    add(
        lies(&["condemned/", "damaged/"]),
        "damaged condemnations and reports of damage: remove them from the store by hand",
    );
    let areas =
        ["chronolith", "copies/", "trust/", "keys/", "catalog/", "snapshots/", "annotations/", "logs/"];
    add(
        lies(&areas) || is_hurt,
        "what a mirror of the repository holds whole: `chronolith mirror --heal --to MIRROR`, with `--lost` what is gone",
    );
    cures
}

/// What damage does to what can be recovered of a cluster.
struct HurtInterval {
    cluster: ClusterName,
    hurt: Hurt,
}

impl HurtInterval {
    /// Until when an interval can be recovered.
    fn until(interval: &Interval) -> Timestamp {
        interval.to_time.unwrap_or(interval.from_time)
    }

    fn line(&self) -> String {
        let before = &self.hurt.before;
        let left = match &self.hurt.after {
            Some(after) => format!("only to {}", render::time(Self::until(after))),
            None => "not at all from its first base backup".to_owned(),
        };
        format!(
            "hurt: cluster {}, timeline {}: what could be recovered from {} to {} can be {left}",
            self.cluster,
            before.timeline,
            render::time(before.from_time),
            render::time(Self::until(before)),
        )
    }

    fn fields(&self) -> Value {
        let before = &self.hurt.before;
        json!({
            "cluster": self.cluster.to_string(),
            "timeline": before.timeline,
            "from": events::time(before.from_time),
            "to": events::time(Self::until(before)),
            "left_to": self.hurt.after.as_ref().map(|after| events::time(Self::until(after))),
        })
    }
}

/// Finds out what segments of logs that cannot be read back do to what can be recovered.
fn hurt_intervals(
    session: &Session,
    repository: &Arc<Repository>,
    report: &CheckReport,
) -> Result<Vec<HurtInterval>, Fault> {
    let mut streams: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    for lost in &report.lost_logs {
        streams.entry(&lost.stream).or_default().insert(lost.name.clone());
    }
    let mut found = Vec::new();
    for (stream, names) in streams {
        let Some((cluster, identifier)) = cluster_of(stream) else { continue };
        let mut known = lineages(repository, &cluster)?.into_iter();
        let Some(lineage) = known.find(|known| known.system_identifier == identifier) else { continue };
        let log = read_log_in_full(repository, &cluster, lineage)?;
        let bases = bases_of(&session.snapshots(repository)?, &cluster);
        let own = bases.iter().filter(|base| base.facts.system_identifier == identifier);
        let bases: Vec<LogBase> = own.map(log_base).collect();
        let hurt = hurt(&log.stream, &bases, &names).into_iter();
        found.extend(hurt.map(|hurt| HurtInterval { cluster: cluster.clone(), hurt }));
    }
    Ok(found)
}

fn write_lines(session: &Session, report: &CheckReport) -> Result<(), Fault> {
    let more = |shown: usize, all: u64, what: &str| {
        let hidden = all.saturating_sub(shown as u64);
        if hidden > 0 {
            session.talk.line(&format!("... and {hidden} more {what} (--json has them)"))
        } else {
            Ok(())
        }
    };
    for mended in report.mended.iter().take(SHOWN) {
        let how = match (mended.from, mended.in_place) {
            (MendedFrom::Parity, true) => "put right from its parity",
            (MendedFrom::Parity, false) => "its parity did not help",
            (MendedFrom::OtherCopy, true) => "put right from its other copy",
            (MendedFrom::Catalogue, true) => "put right from a catalogue",
            (MendedFrom::Subject, true) => "made anew",
            (MendedFrom::Subject, false) => "not made anew: what it is of is damaged as well",
            (MendedFrom::OtherCopy | MendedFrom::Catalogue, false) => {
                "the store did not take its right bytes"
            }
        };
        session.talk.line(&format!("repair: {}: {how}", render::visible(&mended.object)))?;
    }
    more(SHOWN, report.mended.len() as u64, "repairs")?;
    for finding in report.findings.iter().take(SHOWN) {
        let word = match finding.gravity {
            Gravity::Note => "note",
            Gravity::Warning => "warning",
            Gravity::Damage => "damage",
        };
        session.talk.line(&format!("{word}: {}", render::visible(&finding.to_string())))?;
    }
    more(SHOWN, report.findings.len() as u64 + report.findings_more, "findings")?;
    for affected in report.affected.iter().take(SHOWN) {
        let word = if affected.is_certain { "hurt" } else { "may be hurt" };
        session.talk.line(&format!("{word}: {affected}"))?;
    }
    more(SHOWN, report.affected.len() as u64 + report.affected_more, "paths")
}

fn write_events(
    session: &Session,
    report: &CheckReport,
    hurt: &[HurtInterval],
    place: Option<&str>,
) -> Result<(), Fault> {
    hurt.iter().try_for_each(|hurt| session.talk.event("hurt_interval", hurt.fields()))?;
    for mended in &report.mended {
        let from = match mended.from {
            MendedFrom::Parity => "parity",
            MendedFrom::OtherCopy => "copy",
            MendedFrom::Catalogue => "catalogue",
            MendedFrom::Subject => "subject",
        };
        let fields = json!({ "object": mended.object, "from": from, "repaired": mended.in_place });
        session.talk.event("repair", fields)?;
    }
    for finding in &report.findings {
        let gravity = match finding.gravity {
            Gravity::Note => "note",
            Gravity::Warning => "warning",
            Gravity::Damage => "damage",
        };
        let fields = json!({ "gravity": gravity, "object": finding.object, "what": finding.what,
            "repairable": finding.mendable });
        session.talk.event("finding", fields)?;
    }
    for affected in &report.affected {
        let ranges: Vec<[u64; 2]> = affected.ranges.iter().map(|range| [range.start, range.end]).collect();
        let mut fields = serde_json::Map::new();
        fields.insert("snapshot".to_owned(), json!(affected.snapshot.to_string()));
        events::bytes(&mut fields, "path", &affected.path);
        fields.insert("missing".to_owned(), json!(ranges));
        fields.insert("because".to_owned(), json!(affected.because));
        fields.insert("certain".to_owned(), json!(affected.is_certain));
        session.talk.event("affected", Value::Object(fields))?;
    }
    let counts = &report.counts;
    session.talk.event(
        "summary",
        json!({
            "store": place,
            "damaged": report.is_damaged(),
            "damage": report.damaged,
            "findings": report.findings.len() as u64 + report.findings_more,
            "affected": report.affected.len() as u64 + report.affected_more,
            "hurt_snapshots": report.hurt.len(),
            "perhaps_hurt_snapshots": report.hurt_perhaps.len(),
            "hurt_forgotten_snapshots": report.hurt_forgotten.len(),
            "known_damage": report.known_damage,
            "repaired": report.mended.iter().filter(|mended| mended.in_place).count(),
            "reported": report.reported,
            "reports_cancelled": report.cancelled,
            "snapshots": counts.snapshots,
            "nodes": counts.nodes,
            "packs": counts.packs,
            "index_records": counts.index_records,
            "objects": counts.objects,
            "packs_read": counts.packs_read,
            "bytes_read": counts.bytes_read,
            "plain_bytes": counts.plain_bytes,
            "logs": counts.logs,
            "logs_read": counts.logs_read,
            "lost_logs": report.lost_logs.iter().map(lost_log).collect::<Vec<_>>(),
            "unchecked": report.unchecked,
        }),
    )
}

fn lost_log(lost: &LostLog) -> Value {
    json!({
        "stream": lost.stream,
        "name": lost.name,
        "earliest": lost.commits.map(|(earliest, _)| events::time(earliest)),
        "latest": lost.commits.map(|(_, latest)| events::time(latest)),
    })
}
