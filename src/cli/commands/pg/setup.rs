//! `chronolith pg setup`.

use super::Cluster;
use super::connection::Connection;
use super::restore::archiver;
use super::server_command::{
    PASSWORD_COMMAND, absolute, other_places, profile_command, program, repository, server_command, way,
};
use crate::base::Observer;
use crate::cli::fault::{Fault, exit};
use crate::cli::profile::ServerProfile;
use crate::cli::render;
use crate::cli::session::Session;
use crate::postgres::Server;
use crate::postgres::lineage::{ClusterName, lineages};
use crate::postgres::setup::{
    Setup, apply, archiver_state, catch_up, is_archived, look, server_user, switch_segment,
};
use crate::repo::Repository;
use clap::Args;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How often the archive is looked into.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Shows what a server needs so that its log is archived, sets it, proves it
///
/// Without --apply and --check nothing is changed. Give the key that the server is to archive with
/// (--key-file), which the server's user must be able to read. --apply writes a profile with the repository and
/// its id, the cluster, the key and the program into a configuration file, so that archive_command is short.
#[derive(Args)]
pub struct Arguments {
    #[command(flatten)]
    pub cluster: Cluster,
    /// Sets what is missing (ALTER SYSTEM)
    #[arg(long, conflicts_with = "check")]
    pub apply: bool,
    /// Replaces another way of archiving, and another profile of the same name
    #[arg(long, requires = "apply")]
    pub force: bool,
    /// Proves that archiving works: ends a segment, and waits until it is in the repository. Archives what the server
    /// does not by itself: the history of a timeline that began while it did not archive, and its log since then
    #[arg(long)]
    pub check: bool,
    /// How many seconds to wait for that segment
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    pub timeout: u64,
    /// The configuration file that the profile goes into [default: the one in use]
    #[arg(long, value_name = "FILE", conflicts_with = "no_profile")]
    pub profile_file: Option<PathBuf>,
    /// The name of the profile [default: the one in use, else that of the cluster]
    #[arg(long, value_name = "NAME", conflicts_with = "no_profile")]
    pub profile_name: Option<String>,
    /// Writes no profile: archive_command says everything
    #[arg(long)]
    pub no_profile: bool,
    #[command(flatten)]
    pub connection: Connection,
}

/// A profile and the file that it goes into.
struct Planned {
    file: PathBuf,
    profile: ServerProfile,
}

impl Arguments {
    /// Puts the profile together.
    fn plan(
        &self,
        session: &Session,
        cluster: &ClusterName,
        opened: &Repository,
    ) -> Result<Option<Planned>, Fault> {
        if self.no_profile {
            return Ok(None);
        }
        let file = self.profile_file.as_ref().or(session.settings.configuration.as_ref());
        let file = file.ok_or_else(|| {
            Fault::usage(
                "there is no configuration file for the profile",
                "name one with --profile-file FILE",
            )
        })?;
        let (entry, value) = way(session)?;
        if entry == PASSWORD_COMMAND {
            return Err(Fault::usage(
                "a profile that the server's user reads must hold no secret, and a password command may",
                "give --key-file or --password-file; --no-profile puts everything into archive_command",
            ));
        }
        let name = self.profile_name.as_ref().or(session.settings.profile.as_ref());
        let mut entries = vec![("repo", repository(session)?.into())];
        let also = other_places(session)?;
        if !also.is_empty() {
            entries.push(("also", also.into()));
        }
        if let Some(quorum) = session.settings.quorum.and_then(|quorum| i64::try_from(quorum).ok()) {
            entries.push(("quorum", quorum.into()));
        }
        entries.extend([
            ("repository-id", opened.id().to_string().into()),
            ("cluster", cluster.to_string().into()),
            (entry, value.into()),
            ("program", program(session)?.into()),
        ]);
        let profile = ServerProfile { name: name.cloned().unwrap_or_else(|| cluster.to_string()), entries };
        Ok(Some(Planned { file: absolute(file)?, profile }))
    }
}

/// Says which of the files that the server's user needs it cannot read; `None` where nobody can tell.
fn unreadable(server: &mut Server, files: &[&Path]) -> Result<Option<Vec<String>>, Fault> {
    let user = server_user(server)?;
    let lacks = |user: crate::postgres::setup::ServerUser| {
        let refused = files.iter().filter(|file| !user.may_read(file));
        refused.map(|file| file.display().to_string()).collect()
    };
    Ok(user.map(lacks))
}

fn refuse_unreadable(files: &[String]) -> Fault {
    Fault::usage(
        format!("the server's user cannot read {}: it could not archive", files.join(" and ")),
        "put it where that user may look, and give it to it (chown, chmod 600 for a key); --profile-file FILE names \
         another configuration file, such as one in /etc/chronolith",
    )
}

/// Runs the command.
pub fn run(session: &Session, arguments: &Arguments) -> Result<u8, Fault> {
    let cluster = arguments.cluster.name(session)?;
    session.doing(format!("set up the archiving of {cluster}"));
    let (entry, secret) = way(session)?;
    let opened = session.open()?;
    let planned = arguments.plan(session, &cluster, &opened)?;
    let command = match &planned {
        Some(Planned { file, profile }) => {
            profile_command(&program(session)?, file, &profile.name, "archive-push", "%p")?
        }
        None => server_command(session, &cluster, "archive-push", "%p")?,
    };
    let mut server = arguments.connection.open(None)?;
    let setup = look(&mut server, &command)?;
    let secret = (entry != PASSWORD_COMMAND).then(|| PathBuf::from(secret));
    let secrets: Vec<&Path> = secret.iter().map(PathBuf::as_path).collect();
    let lacking = unreadable(&mut server, &secrets)?;
    if arguments.check {
        tell_lacking(session, lacking.as_deref());
        return prove(session, arguments, &cluster, &mut server, &setup, &opened);
    }
    if arguments.apply {
        if let Some(lacking) = lacking.as_ref().filter(|lacking| !lacking.is_empty()) {
            return Err(refuse_unreadable(lacking));
        }
        if let Some(Planned { file, profile }) = &planned {
            if profile.write(file, arguments.force)? {
                session.talk.tell(&format!("profile {} is in {}", profile.name, file.display()));
            }
            if let Some(lacking) = unreadable(&mut server, &[file])?.filter(|lacking| !lacking.is_empty()) {
                return Err(refuse_unreadable(&lacking));
            }
        }
        apply(&mut server, &setup, arguments.force)?;
        let known = lineages(&opened, &cluster)?;
        // A name that nobody has yet is taken by what the server itself archives first.
        if !setup.standby && known.iter().any(|known| known.system_identifier == setup.system_identifier) {
            complete(session, &mut server, &opened, &cluster, &setup, false)?;
        }
    } else {
        tell_lacking(session, lacking.as_deref());
    }
    show(session, arguments, &server, &setup, planned.as_ref(), lacking.map(|lacking| lacking.is_empty()))?;
    Ok(exit::DONE)
}

fn tell_lacking(session: &Session, lacking: Option<&[String]>) {
    match lacking {
        Some([]) => {}
        Some(files) => {
            session.talk.warn(&format!("the server's user cannot read {}", files.join(" and ")));
        }
        None => session.talk.note("whether the server's user can read the key, this role cannot tell"),
    }
}

fn show(
    session: &Session,
    arguments: &Arguments,
    server: &Server,
    setup: &Setup,
    planned: Option<&Planned>,
    readable: Option<bool>,
) -> Result<(), Fault> {
    let talk = &session.talk;
    let settings: Vec<Value> = setup
        .settings
        .iter()
        .map(|s| json!({ "name": s.name, "found": s.found, "wanted": s.wanted, "restart": s.restart }))
        .collect();
    talk.event(
        "summary",
        json!({
            "system_identifier": setup.system_identifier.to_string(),
            "server_version": setup.version,
            "standby": setup.standby,
            "settings": settings,
            "ready": setup.is_ready(),
            "applied": arguments.apply,
            "restart": setup.needs_restart(),
            "profile": planned.map(|planned| json!({
                "file": planned.file.display().to_string(), "name": planned.profile.name,
            })),
            "key_readable": readable,
        }),
    )?;
    talk.tell(&format!(
        "PostgreSQL {} at {}, system {}",
        setup.version,
        server.place(),
        setup.system_identifier
    ));
    if setup.is_ready() {
        talk.tell("everything is set; --check proves that it works");
        return Ok(());
    }
    if !session.settings.json {
        for statement in setup.settings.iter().filter_map(|setting| setting.statement()) {
            talk.line(&format!("{statement};"))?;
        }
    }
    if let Some(other) = setup.other_command.as_ref().filter(|_| !arguments.apply) {
        talk.tell(&format!("the log is archived in another way already: {other}"));
    }
    let next = match (arguments.apply, setup.needs_restart()) {
        (true, true) => "it is set; the server must be started anew, then --check proves that it works",
        (true, false) => "it is set; --check proves that it works",
        (false, true) => "--apply sets this; the server must be started anew for it",
        (false, false) => "--apply sets this",
    };
    talk.tell(next);
    Ok(())
}

/// Archives what the server itself never does of the timeline that it is on.
fn complete(
    session: &Session,
    server: &mut Server,
    repository: &Repository,
    cluster: &ClusterName,
    setup: &Setup,
    with_segments: bool,
) -> Result<(), Fault> {
    let identifier = setup.system_identifier;
    let done = catch_up(server, repository, &archiver(cluster), identifier, with_segments)?;
    for name in &done.histories {
        session.talk.note(&format!("{name} was not archived, which the server does only once; it is now"));
    }
    if !done.histories.is_empty() {
        session.talk.note(
            "take a base backup: log of the time in between that pg_wal has no longer is in no archive",
        );
    }
    if let (Some(first), Some(last)) = (done.segments.first(), done.segments.last()) {
        session.talk.note(&format!(
            "{} of the time when the server did not archive came into the repository: {first} to {last}",
            render::count(done.segments.len() as u64, "segment", "segments")
        ));
    }
    if let (Some(first), Some(last)) = (done.left.first(), done.left.last()) {
        session.talk.warn(&format!(
            "{first} to {last} are of the time when the server did not archive: take a base backup, or archive them \
             with pg archive-push"
        ));
    }
    Ok(())
}

/// Ends a segment and waits until the repository holds it.
fn prove(
    session: &Session,
    arguments: &Arguments,
    cluster: &ClusterName,
    server: &mut Server,
    setup: &Setup,
    repository: &Repository,
) -> Result<u8, Fault> {
    if setup.standby {
        return Err(Fault::usage("the server is a standby, which ends no segments", "check the primary"));
    }
    let off = setup.settings.iter().find(|s| s.name == "archive_mode" && s.wanted.is_some());
    if off.is_some() {
        return Err(Fault::failed(
            "the server does not archive (archive_mode)",
            "pg setup --apply, and a restart",
        ));
    }
    let began = Instant::now();
    let segment = switch_segment(server)?;
    loop {
        if is_archived(repository, cluster, setup.system_identifier, segment)? {
            break;
        }
        if began.elapsed() >= Duration::from_secs(arguments.timeout) {
            let state = archiver_state(server)?;
            let failed = state.last_failed.map_or(String::new(), |name| {
                format!("; the server failed {} times, last with {name}: its own log says why", state.failed)
            });
            return Err(Fault::failed(
                format!("{segment} is not in the repository after {} seconds{failed}", arguments.timeout),
                "the server's user must be able to run the program, read the key and write the repository",
            ));
        }
        session.check_interrupted()?;
        std::thread::sleep(LOOK_EVERY);
    }
    let seconds = began.elapsed().as_secs_f64();
    complete(session, server, repository, cluster, setup, true)?;
    session.talk.event(
        "summary",
        json!({ "system_identifier": setup.system_identifier.to_string(), "segment": segment.to_string(), "seconds": seconds }),
    )?;
    session.talk.tell(&format!(
        "{segment} was ended, and came into the repository in {seconds:.1} s: archiving works"
    ));
    Ok(exit::DONE)
}
