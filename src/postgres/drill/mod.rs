//! Drills: a base backup is restored into a private folder, its server replays the log and is started, what
//! it holds is looked at, and everything is thrown away.
//!
//! The restore is that of [`ClusterRestore`], kept within the folder (`RestoreOptions::contained`): generated
//! configuration, a Unix socket in the folder only, no archiving, no workers of replication or extensions,
//! nothing preloaded, tablespaces below the folder; log that would make one elsewhere is refused (B8).
//!
//! - `settings`: what the throw-away server is told
//! - `chance`: what can be recovered, and a second of it drawn at random
//! - `role`: the name of a role that may look at everything
//! - `look`: what is looked at
//! - `away`: how a server and its folder are thrown away
//! - `record`: what is noted in the repository

mod away;
mod chance;
mod look;
mod record;
mod role;
mod settings;

pub use away::{FOLDER_PREFIX, new_folder, throw_away};
pub use chance::{Drawn, Recoverable, recoverable};
pub use look::{Assertion, DatabaseFound, Findings};
pub use record::{METHOD_DRILL, record};

use super::error::PostgresError;
use super::lineage::ClusterName;
use super::programs::ClientPrograms;
use super::restore::{Awaited, ClusterRestore, RestoreOptions, RestoreReport, Timeline, start};
use crate::base::{SnapshotId, Timestamp};
use crate::repo::Repository;
use crate::timeline::Target;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The oldest servers that `pg_amcheck` looks at.
const AMCHECK_SINCE: u32 = 14;

/// What to drill, and what must hold.
pub struct DrillOptions {
    /// A private folder that is there and empty ([`new_folder`]); its user throws it away.
    pub folder: PathBuf,
    /// Where the recovery is to end.
    pub target: Target,
    /// Along which timeline.
    pub timeline: Timeline,
    /// From this base backup, instead of the newest that allows the target.
    pub base: Option<SnapshotId>,
    /// More settings for the throw-away server; those that keep it harmless are refused.
    pub settings: Vec<(String, String)>,
    /// Folders in which the server's programs may be.
    pub programs: Vec<PathBuf>,
    /// A superuser's name; without one it is found out.
    pub user: Option<String>,
    /// What must hold, and in which database.
    pub assertions: Vec<Assertion>,
    /// The database that the assertions are about.
    pub database: String,
    /// Lets `pg_amcheck` look at all tables and indexes.
    pub amcheck: bool,
    /// The command that brings files of the log, where something is archived.
    pub restore_command: Option<String>,
}

/// What a drill came to.
#[derive(Debug, Clone)]
pub struct DrillReport {
    /// What was restored.
    pub restored: RestoreReport,
    /// Seconds until the files were there.
    pub restore_seconds: f64,
    /// Seconds from then on until the server had replayed the log and was up.
    pub replay_seconds: f64,
    /// Seconds for looking.
    pub look_seconds: f64,
    /// What was found.
    pub findings: Findings,
}

impl DrillReport {
    /// Says whether everything holds.
    pub fn passed(&self) -> bool {
        self.findings.problems.is_empty()
    }
}

/// A drill that has been checked and can be shown or run.
pub struct Drill {
    repository: Arc<Repository>,
    options: DrillOptions,
    /// The restore that it begins with.
    pub restore: ClusterRestore,
}

impl Drill {
    /// Checks a drill, without writing anything.
    ///
    /// # Errors
    ///
    /// As [`ClusterRestore::prepare`]; when settings are to be changed that keep the server harmless, or when
    /// `pg_amcheck` is asked for and is not there.
    pub fn prepare(
        repository: &Arc<Repository>,
        cluster: &ClusterName,
        options: DrillOptions,
    ) -> Result<Self, PostgresError> {
        settings::check(&options.settings)?;
        let restore_options = RestoreOptions {
            target: options.target.clone(),
            timeline: options.timeline,
            base: options.base,
            restore_command: options.restore_command.clone(),
            programs: options.programs.clone(),
            contained: Some(options.folder.clone()),
            ..RestoreOptions::new(options.folder.join("data"))
        };
        let mut restore = ClusterRestore::prepare(repository, cluster, restore_options)?;
        restore.set(settings::throw_away(&options.folder, restore.base.facts.major, &options.settings));
        let drill = Self { repository: repository.clone(), options, restore };
        if drill.options.amcheck {
            drill.amcheck_programs()?;
        }
        Ok(drill)
    }

    /// Lets the server fetch its log with another command.
    pub fn fetch_with(&mut self, command: String) {
        self.restore.fetch_with(command);
    }

    fn programs(&self) -> Result<PathBuf, PostgresError> {
        let programs = self.restore.programs.clone();
        programs
            .ok_or_else(|| PostgresError::refused("the server's programs were not found", "--programs DIR"))
    }

    /// Finds `pg_amcheck`, which need not lie beside the programs that were found: they may be links.
    fn amcheck_programs(&self) -> Result<ClientPrograms, PostgresError> {
        let major = self.restore.base.facts.major;
        if major < AMCHECK_SINCE {
            return Err(PostgresError::refused(
                format!(
                    "pg_amcheck looks at PostgreSQL {AMCHECK_SINCE} and newer, and the backup is of {major}"
                ),
                "leave --amcheck away",
            ));
        }
        let mut candidates = self.options.programs.clone();
        let server = self.programs()?.join("postgres").canonicalize().ok();
        candidates.extend(server.as_deref().and_then(Path::parent).map(Path::to_owned));
        ClientPrograms::find(&candidates, "pg_amcheck", major, major)
    }

    /// Restores, starts the server, looks. Steps, and what a crash after each leaves: the folder, with or
    /// without a server that works in it and can do no harm; [`throw_away`] removes both.
    ///
    /// # Errors
    ///
    /// When it cannot be restored or does not start. What does not hold is in the report.
    pub fn run(&self) -> Result<DrillReport, PostgresError> {
        let environment = self.repository.environment();
        let seconds = |since: Timestamp| {
            let passed = environment.clock.now().nanoseconds().saturating_sub(since.nanoseconds());
            std::time::Duration::from_nanos(u64::try_from(passed).unwrap_or(0)).as_secs_f64()
        };
        let began = environment.clock.now();
        let restored = self.restore.run()?;
        let restore_seconds = seconds(began);
        let began = environment.clock.now();
        let data = self.options.folder.join("data");
        let observer = environment.observer.as_ref();
        let log = start(&self.programs()?, &data, Awaited::Promotion, observer).map_err(without_log)?;
        let replay_seconds = seconds(began);
        let began = environment.clock.now();
        let findings = self.look(&data, &log)?;
        Ok(DrillReport { restored, restore_seconds, replay_seconds, look_seconds: seconds(began), findings })
    }
}

/// The server's log is thrown away with its folder: what it said last is all that there is of it, unless the folder
/// is kept.
fn without_log(error: PostgresError) -> PostgresError {
    match error {
        PostgresError::Failed { why, .. } => PostgresError::failed(
            why,
            "with --keep the folder stays, and in it all that the server said (data.restore.log); --throw-away removes \
             it then",
        ),
        error => error,
    }
}
