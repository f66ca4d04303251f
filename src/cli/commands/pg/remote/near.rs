//! The near side: has the repository, and lends it to this program on another host.

use super::super::restore::{Arguments, archiver};
use super::frames::{self, Frame, GREETING, Kind};
use super::{Ending, Held, Order, Question, Sent, confused};
use crate::base::{Observer, SecretBytes, SnapshotId};
use crate::cli::edges;
use crate::cli::fault::{Fault, exit, system};
use crate::cli::render;
use crate::cli::session::Session;
use crate::cli::talk::Level;
use crate::format::session::SessionPurpose;
use crate::postgres::archive::push_bytes;
use crate::postgres::lineage::{ClusterName, lineages, stream_of};
use crate::repo::{Presence, RecoverySheet, Repository};
use crate::storage::answer;
use clap::Args;
use crossbeam_channel::{Sender, bounded};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde_json::{Value, json};
use std::io::{self, Read};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Requests to the store that are answered at once.
const ANSWERERS: usize = 4;
/// How long a wait lasts before it is looked whether the user wants to stop.
const WAIT: Timespec = Timespec { tv_sec: 0, tv_nsec: 200_000_000 };
/// How often, and after what time, it is looked whether a connection that is done has ended.
const CLOSING_LOOKS: u32 = 100;
const CLOSING_LOOK: Duration = Duration::from_millis(50);
/// What is shown of words that should have been a greeting.
const SHOWN_BYTES: usize = 120;

/// Where else a restore goes.
#[derive(Args)]
pub struct Remote {
    /// Restores on this host, through SSH: it needs this program, and neither the repository nor a key
    #[arg(long, value_name = "USER@HOST")]
    pub remote: Option<String>,
    /// With --remote: the command that connects, with its options [env: CHRONOLITH_SSH; default: ssh]
    #[arg(long, value_name = "COMMAND", requires = "remote")]
    pub ssh_command: Option<String>,
    /// With --remote: this program on the other host [default: chronolith]
    #[arg(long, value_name = "PATH", requires = "remote")]
    pub remote_program: Option<String>,
}

/// Reads what the other side says, as long as nobody wants to stop.
struct Watched<'a> {
    output: ChildStdout,
    session: &'a Session,
}

impl Read for Watched<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            if self.session.talk.interrupted() {
                return Err(io::Error::other("interrupted"));
            }
            let mut watched = [PollFd::new(&self.output, PollFlags::IN)];
            match poll(&mut watched, Some(&WAIT)) {
                Ok(0) | Err(rustix::io::Errno::INTR) => {}
                Ok(_) | Err(_) => return self.output.read(buffer),
            }
        }
    }
}

/// The process that connects, which does not outlive the restore.
struct Connection(Child);

impl Drop for Connection {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Connection {
    fn open(session: &Session, remote: &Remote, host: &str) -> Result<Self, Fault> {
        let given = remote.ssh_command.clone().or_else(|| std::env::var("CHRONOLITH_SSH").ok());
        let given = given.filter(|given| !given.trim().is_empty()).unwrap_or_else(|| "ssh".to_owned());
        let words = shlex::split(&given).unwrap_or_default();
        let (program, options) = words
            .split_first()
            .ok_or_else(|| Fault::usage(format!("{given:?} is no command"), "--ssh-command 'ssh -p 2222'"))?;
        let manner = session.talk.manner();
        let own = remote.remote_program.as_deref().unwrap_or("chronolith");
        let mut there = vec![own, "--no-cache", "--no-key-cache"];
        // With --json the summary alone is told, and that here.
        match (manner.level, manner.json.is_some()) {
            (Level::Quiet, _) | (_, true) => there.push("-q"),
            (Level::Verbose, _) => there.push("-v"),
            (Level::Normal, _) => {}
        }
        if !manner.progress {
            there.push("--no-progress");
        }
        there.extend(["pg", "restore-here"]);
        let there = shlex::try_join(there)
            .map_err(|_| Fault::usage(format!("{own:?} cannot stand in a command"), ""))?;
        let mut command = Command::new(program);
        command.args(options).arg(host).arg(there).stdin(Stdio::piped()).stdout(Stdio::piped());
        // What unlocks the repository is not for whoever connects.
        for (name, _) in std::env::vars_os()
            .filter(|(name, _)| name.to_str().is_some_and(|name| name.starts_with("CHRONOLITH_")))
        {
            command.env_remove(name);
        }
        let child = command.spawn().map_err(|error| {
            Fault::failed(
                format!("{program} cannot be started: {}", system(&error)),
                "install it, or name another with --ssh-command",
            )
        })?;
        Ok(Self(child))
    }

    /// Lets it end by itself, after the other side has said that it is done, and not for ever.
    fn close(&mut self) {
        for _ in 0..CLOSING_LOOKS {
            if !matches!(self.0.try_wait(), Ok(None)) {
                return;
            }
            std::thread::sleep(CLOSING_LOOK);
        }
        let _ = self.0.kill();
    }

    /// Says how the connection ended.
    fn ended(&mut self) -> String {
        match self.0.wait() {
            Ok(status) => status.to_string(),
            Err(error) => system(&error),
        }
    }
}

/// Refuses what would mean something else on the other host.
fn check(arguments: &Arguments, host: &str) -> Result<(), Fault> {
    if host.is_empty() || host.starts_with('-') {
        return Err(Fault::usage(format!("{host:?} is no host"), "--remote user@host"));
    }
    if !arguments.pgdata.is_absolute() {
        return Err(Fault::usage(
            format!("{} is not an absolute path", arguments.pgdata.display()),
            "name the data directory on the other host with its whole path",
        ));
    }
    match arguments
        .tablespace_map
        .iter()
        .find(|map| !map.split_once('=').is_some_and(|(_, new)| new.starts_with('/')))
    {
        Some(map) => Err(Fault::usage(
            format!("--tablespace-map {map:?} is not OLD=NEW with an absolute NEW"),
            "--tablespace-map /old=/new, where NEW is a path of the other host",
        )),
        None => Ok(()),
    }
}

/// Restores on another host.
pub fn run(session: &Session, arguments: &Arguments, host: &str) -> Result<u8, Fault> {
    check(arguments, host)?;
    let cluster = arguments.cluster.name(session)?;
    session.doing(format!("restore {cluster} into {} on {host}", arguments.pgdata.display()));
    let repository = session.open()?;
    let words = arguments.words(session, &repository)?;
    let loan = RecoverySheet::lend(&repository);
    let order = Order {
        words,
        loan: String::from_utf8_lossy(loan.expose()).into_owned(),
        lender: format!("the repository on {}", edges::host_name()),
    };
    let mut connection = Connection::open(session, &arguments.remote, host)?;
    let (Some(input), Some(output)) = (connection.0.stdin.take(), connection.0.stdout.take()) else {
        return Err(Fault::failed("the connection has no input and output", ""));
    };
    let mut output = Watched { output, session };
    greeted(session, &mut output, &mut connection, host)?;
    let lender = Lender { session, arguments, cluster: &cluster, repository: &repository, host };
    let ended = lender.converse(&mut connection, &mut output, input, order);
    session.check_interrupted()?;
    match ended? {
        Some(ending) => {
            if ending.fault.is_some() {
                session.doing(format!("{} on {host}", ending.doing));
            }
            ending.into_result()
        }
        None => Err(Fault::failed(
            format!(
                "the connection to {host} broke off ({}); what is there cannot be started",
                connection.ended()
            ),
            "run it again: it goes on with what is there",
        )),
    }
}

/// Waits for the greeting: whatever else comes, nothing is told to whoever says it.
fn greeted(
    session: &Session,
    output: &mut Watched<'_>,
    connection: &mut Connection,
    host: &str,
) -> Result<(), Fault> {
    let mut said = vec![0; GREETING.len()];
    let mut filled = 0;
    while let Some(rest) = said.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match output.read(rest) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => break,
        }
    }
    session.check_interrupted()?;
    said.truncate(filled);
    if said == GREETING {
        return Ok(());
    }
    if filled < GREETING.len() {
        let shown = shown(&said);
        let also = if shown.is_empty() { String::new() } else { format!(", after it had said {shown}") };
        return Err(Fault::failed(
            format!("no chronolith answered on {host}: the connection ended ({}){also}", connection.ended()),
            format!(
                "see that `ssh {host} chronolith --version` works; --remote-program names the program there"
            ),
        ));
    }
    Err(Fault::failed(
        format!("something else than chronolith answered on {host}: {}", shown(&said)),
        "let the shell there print nothing when it is not at a terminal",
    ))
}

fn shown(said: &[u8]) -> String {
    let text = String::from_utf8_lossy(said.get(..said.len().min(SHOWN_BYTES)).unwrap_or_default());
    if text.trim().is_empty() { String::new() } else { format!("{:?}", text.trim()) }
}

/// Who answers the other side.
struct Lender<'a> {
    session: &'a Session,
    arguments: &'a Arguments,
    cluster: &'a ClusterName,
    repository: &'a Arc<Repository>,
    host: &'a str,
}

impl Lender<'_> {
    /// Answers until the other side says how it ended; `None` where the line ends before.
    fn converse(
        &self,
        connection: &mut Connection,
        output: &mut Watched<'_>,
        input: ChildStdin,
        order: Order,
    ) -> Result<Option<Ending>, Fault> {
        let input = Mutex::new(input);
        // That nobody reads any more shows where the other side is read.
        let send = |kind, number, bytes: &[u8]| {
            let mut input = input.lock().unwrap_or_else(PoisonError::into_inner);
            let _ = frames::write(&mut *input, kind, number, bytes);
        };
        let store = &self.repository.environment().store;
        let (requests, to_answer) = bounded::<(u32, Vec<u8>)>(ANSWERERS);
        std::thread::scope(|scope| {
            for _ in 0..ANSWERERS {
                let to_answer = to_answer.clone();
                let send = &send;
                scope.spawn(move || {
                    for (number, request) in to_answer {
                        send(Kind::Answer, number, &answer(&**store, &request));
                    }
                });
            }
            drop(to_answer);
            let ended = self.listen(output, order, &requests, &send);
            // Whoever still writes to it would wait for somebody to read.
            match ended {
                Ok(Some(_)) => connection.close(),
                _ => drop(connection.0.kill()),
            }
            drop(requests);
            ended
        })
    }

    /// Takes what the other side says, until it says how it ended or says nothing more.
    fn listen(
        &self,
        output: &mut Watched<'_>,
        order: Order,
        requests: &Sender<(u32, Vec<u8>)>,
        send: &impl Fn(Kind, u32, &[u8]),
    ) -> Result<Option<Ending>, Fault> {
        let mut order = Some(order);
        let mut held = Vec::new();
        // Without a yes to this cluster nothing of it is taken.
        let mut is_meant = self.arguments.force;
        loop {
            let Ok(Some(Frame { kind, number, bytes })) = frames::read(output) else { return Ok(None) };
            match kind {
                Kind::Version => {
                    self.check_version(&bytes)?;
                    let order = order.take().ok_or_else(|| confused("its version again"))?;
                    let told = SecretBytes::new(serde_json::to_vec(&order).map_err(unwritten)?);
                    send(Kind::Order, 0, told.expose());
                }
                Kind::Store if order.is_none() => {
                    // The others end only with this thread.
                    let _ = requests.send((number, bytes));
                }
                Kind::Confirm => {
                    let answered = self.confirm(&read(&bytes, "a question")?).map(|()| exit::DONE);
                    is_meant |= answered.is_ok();
                    send(Kind::Answer, number, &ending(&answered)?);
                }
                Kind::Hold => {
                    let answered = self.hold(&read(&bytes, "what to hold")?);
                    let said = answered.map(|presence| held.push(presence)).map(|()| exit::DONE);
                    send(Kind::Answer, number, &ending(&said)?);
                }
                Kind::Archive if self.arguments.delta && !self.arguments.dry_run && is_meant => {
                    let answered = self.archive(&bytes).map(|()| exit::DONE);
                    send(Kind::Answer, number, &ending(&answered)?);
                }
                Kind::Summary => {
                    let mut fields: Value = read(&bytes, "a summary")?;
                    if let Some(fields) = fields.as_object_mut() {
                        fields.insert("remote".to_owned(), json!(self.host));
                    }
                    self.session.talk.event("summary", fields)?;
                }
                Kind::End => return Ok(Some(read(&bytes, "an end")?)),
                Kind::Store | Kind::Order | Kind::Answer | Kind::Archive => {
                    return Err(confused("what is not its turn"));
                }
            }
        }
    }

    fn check_version(&self, version: &[u8]) -> Result<(), Fault> {
        let own = env!("CARGO_PKG_VERSION");
        match version == own.as_bytes() {
            true => Ok(()),
            false => Err(Fault::failed(
                format!("{} has chronolith {}, this host {own}", self.host, String::from_utf8_lossy(version)),
                "install the same version on both; --remote-program names the program there",
            )),
        }
    }

    fn confirm(&self, question: &Question) -> Result<(), Fault> {
        let given = self.arguments.confirm.as_ref();
        // It comes from there, and goes to a terminal here.
        let what = format!("{} on {}", render::visible(&question.what), self.host);
        super::super::confirm(self.session, given, self.cluster, &what, &question.whose)
    }

    /// Archives a file that the other side sent, with the key that was given here.
    fn archive(&self, bytes: &[u8]) -> Result<(), Fault> {
        let (sent, content) = Sent::read(bytes)?;
        // A name that no log was archived under yet is not there for it to take.
        let known = lineages(self.repository, self.cluster)?;
        if !known.iter().any(|lineage| lineage.system_identifier == sent.system_identifier) {
            return Err(confused("log of another cluster"));
        }
        let archiver = archiver(self.cluster);
        push_bytes(self.repository, &archiver, sent.system_identifier, &sent.name, content)?;
        Ok(())
    }

    fn hold(&self, held: &Held) -> Result<Presence, Fault> {
        let snapshot: SnapshotId = held.snapshot.parse().map_err(|_| confused("what is no snapshot"))?;
        let stream = stream_of(self.cluster, held.system_identifier);
        let program = concat!("chronolith ", env!("CARGO_PKG_VERSION"));
        let base = [snapshot].into_iter().collect();
        Ok(Presence::begin_reading(self.repository, SessionPurpose::Read, base, vec![stream], program)?)
    }
}

fn unwritten(error: serde_json::Error) -> Fault {
    Fault::failed(format!("cannot write what the other side is to read: {error}"), "")
}

fn ending(result: &Result<u8, Fault>) -> Result<Vec<u8>, Fault> {
    serde_json::to_vec(&Ending::of(result, String::new())).map_err(unwritten)
}

fn read<T: serde::de::DeserializeOwned>(bytes: &[u8], what: &str) -> Result<T, Fault> {
    serde_json::from_slice(bytes).map_err(|_| confused(what))
}
