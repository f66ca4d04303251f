//! Which server takes a dump, and which `pg_restore` reads it: looked at before anything is written.

use super::{LoadOptions, PlannedLoad};
use crate::ops::SnapshotView;
use crate::postgres::dump::contents::{read_by, read_since};
use crate::postgres::dump::{DumpFacts, Known};
use crate::postgres::error::PostgresError;
use crate::postgres::programs::ClientPrograms;

/// The first version that has a setting `transaction_timeout`.
const TRANSACTION_TIMEOUT: u32 = 17;

/// Refuses a server that cannot take the dump.
pub(super) fn server(facts: &DumpFacts, known: &Known, options: &LoadOptions) -> Result<(), PostgresError> {
    if known.is_standby {
        return Err(PostgresError::refused(
            "the server is a standby, into which nothing can be loaded",
            "load into its primary, or into another server",
        ));
    }
    if facts.major > known.major() && !options.force {
        return Err(PostgresError::refused(
            format!(
                "the dump is of PostgreSQL {}, and the server is of version {}: what the older one does not know \
                 would fail",
                facts.server_version, known.version
            ),
            "load into a server of the same version or a newer one; --force tries it all the same",
        ));
    }
    Ok(())
}

/// Refuses a dump that the `pg_restore` at hand does not read, or would not bring into this server.
pub(super) fn readable(
    planned: &[PlannedLoad],
    facts: &DumpFacts,
    programs: &ClientPrograms,
    known: &Known,
    options: &LoadOptions,
) -> Result<(), PostgresError> {
    let newest = read_by(programs.major);
    if let Some(plan) = planned.iter().find(|plan| plan.contents.layout.version > newest) {
        let (major, minor) = plan.contents.layout.version;
        let wanted = read_since((major, minor));
        return Err(PostgresError::refused(
            format!(
                "the dump of {} is an archive of version {major}.{minor}, which pg_restore {} does not read: it reads \
                 those up to {}.{}",
                plan.database, programs.version, newest.0, newest.1
            ),
            format!("install postgresql-client-{wanted}, or name the folder of its programs with --programs"),
        ));
    }
    // Every pg_restore since then begins with a setting that older servers refuse.
    if programs.major >= TRANSACTION_TIMEOUT && known.major() < TRANSACTION_TIMEOUT && !options.force {
        return Err(PostgresError::refused(
            format!(
                "the dump was made by pg_dump {}, so pg_restore {} would load it, which sets transaction_timeout; the \
                 server is of version {} and does not know that",
                facts.program_version, programs.version, known.version
            ),
            format!(
                "load into a server of version {TRANSACTION_TIMEOUT} or newer, or dump with pg_dump {} (pg dump \
                 --programs DIR); what is here goes in with chronolith cat SNAP:{} | pg_restore -f - | sed \
                 '/^SET transaction_timeout/d' | psql -v ON_ERROR_STOP=1 -1 NAME",
                known.major(),
                planned.first().map_or("databases/NAME.dump", |plan| plan.path.as_str()),
            ),
        ));
    }
    Ok(())
}

/// Refuses dumps in SQL, and says how they go in.
pub(super) fn plain(facts: &DumpFacts, known: &Known, view: &SnapshotView) -> PostgresError {
    let made_by = facts.program_major();
    let (filter, why) = match made_by >= TRANSACTION_TIMEOUT && known.major() < TRANSACTION_TIMEOUT {
        true => (
            "sed '/^SET transaction_timeout/d' | ",
            format!("; a server of version {} does not know transaction_timeout", known.version),
        ),
        false => ("", String::new()),
    };
    PostgresError::refused(
        "the dumps of this snapshot are plain SQL, which cannot be chosen from or checked before",
        format!(
            "chronolith cat {}:databases/NAME.sql | {filter}psql -v ON_ERROR_STOP=1 -1 NAME, with a psql that is not \
             older than pg_dump was ({}): it may have written \\restrict, which older ones do not know{why}",
            view.id.short(),
            facts.program_version
        ),
    )
}
