//! `chronolith verify`.

use crate::base::SnapshotId;
use crate::cli::events;
use crate::cli::fault::{Fault, exit};
use crate::cli::render;
use crate::cli::session::Session;
use crate::format::trust::Standing;
use crate::ops::verify::{Verified, verify};
use clap::Args;
use serde_json::{Value, json};

/// Lines of problems that are shown to people; --json has all.
const SHOWN: usize = 50;

/// Reads snapshots back in full and compares everything with its digests and signatures
///
/// Nothing is written but the result, which is noted in the repository and shown by
/// `chronolith snapshots -v`. Ends with exit code 3 if something is not as it was backed up.
#[derive(Args)]
pub struct Arguments {
    /// The snapshots
    #[arg(value_name = "SNAP", required = true)]
    pub snapshots: Vec<String>,
    /// Notes nothing in the repository
    #[arg(long)]
    pub no_ledger: bool,
}

/// Runs the command.
pub fn run(session: &Session, arguments: &Arguments) -> Result<u8, Fault> {
    session.doing(format!("verify snapshots of {}", session.place()?));
    let repository = session.open()?;
    let snapshots = session.snapshots(&repository)?;
    let ids = arguments.snapshots.iter().map(|name| snapshots.resolve(name).map(|view| view.id));
    let ids = ids.collect::<Result<Vec<SnapshotId>, _>>()?;
    let mut failed = 0_u64;
    for view in ids.iter().filter_map(|id| snapshots.get(id)) {
        session.doing(format!("verify snapshot {}", view.id.short()));
        let program = concat!("chronolith ", env!("CARGO_PKG_VERSION"));
        let verified = verify(&repository, view, program, !arguments.no_ledger)?;
        failed += u64::from(!verified.passed());
        show(session, &verified)?;
    }
    session.talk.event("summary", json!({ "snapshots": ids.len(), "failed": failed }))?;
    session.talk.flush()?;
    Ok(if failed > 0 { exit::INCOMPLETE } else { exit::DONE })
}

fn show(session: &Session, verified: &Verified) -> Result<(), Fault> {
    let standing = match verified.standing {
        Some(Standing::Active) => "active",
        Some(Standing::Retired) => "removed",
        Some(Standing::Revoked) => "revoked",
        None => "unknown",
    };
    if session.settings.json {
        let problems: Vec<Value> = verified
            .problems
            .iter()
            .map(|(path, what)| {
                let mut fields = serde_json::Map::new();
                events::bytes(&mut fields, "path", path);
                fields.insert("what".to_owned(), json!(what));
                Value::Object(fields)
            })
            .collect();
        let fields = json!({
            "id": verified.id.to_string(), "passed": verified.passed(), "files": verified.files,
            "bytes": verified.bytes, "without_digest": verified.without_digest,
            "signer": verified.signer.to_string(), "signer_name": verified.signer_name,
            "signer_standing": standing, "problems": problems, "problems_more": verified.problems_more,
        });
        return session.talk.event("snapshot", fields);
    }
    for (path, what) in verified.problems.iter().take(SHOWN) {
        let path = crate::localfs::printable(path);
        session.talk.line(&render::visible(&format!("{}:{path}: {what}", verified.id.short())))?;
    }
    let hidden = verified.problems.len().saturating_sub(SHOWN) as u64 + verified.problems_more;
    if hidden > 0 {
        session.talk.line(&format!("... and {hidden} more paths"))?;
    }
    let word = if verified.passed() { "good" } else { "NOT as it was backed up" };
    let mut line = format!(
        "snapshot {}: {word}; {} ({}) read back; signed by {} {:?} ({standing})",
        verified.id.short(),
        render::count(verified.files, "file", "files"),
        render::size(verified.bytes),
        verified.signer.short(),
        verified.signer_name,
    );
    if verified.without_digest > 0 {
        line.push_str(&format!("; {} without a digest of the whole", verified.without_digest));
    }
    session.talk.line(&render::visible(&line))
}
