//! A session: connecting, passwords, commands and their results.

use super::authentication::authenticate;
use super::socket::Socket;
use super::wire::{Fields, Message, ReplicationError, Wire, said, warning};
use crate::base::Observer;
use crate::ops::OpsError;
use crate::postgres::connection::{ConnectionOptions, Target};
use crate::postgres::error::PostgresError;
use crate::postgres::segment::{LogFile, Lsn, SegmentSize};
use crate::postgres::tls::Way;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

/// Version 3.0 of the protocol.
const PROTOCOL: i32 = 3 << 16;
/// The database that password files mean where no database is connected to.
const REPLICATION: &str = "replication";
/// How long a server may think about a small thing.
pub(super) const ANSWER_WITHIN: Duration = Duration::from_secs(60);

/// The name of a replication slot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlotName(String);

impl FromStr for SlotName {
    type Err = OpsError;

    /// Takes a name of the form that the server takes.
    fn from_str(name: &str) -> Result<Self, OpsError> {
        let well_formed = (1..=63).contains(&name.len())
            && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
        match well_formed {
            true => Ok(Self(name.to_owned())),
            false => Err(OpsError::Usage(format!(
                "{name:?} is no name for a replication slot: up to 63 lower-case letters, digits and underlines"
            ))),
        }
    }
}

impl fmt::Display for SlotName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Where a server is and who connects, so that a lost connection can be made again.
pub struct Endpoint(Target);

impl Endpoint {
    /// Fills in what the options leave open: where no host is named, the usual folders of sockets; passwords
    /// are looked up for the database `replication`, then for the one that is named.
    ///
    /// # Errors
    ///
    /// When the options ask for what this program cannot do.
    pub fn new(options: &ConnectionOptions, system_user: &str) -> Result<Self, PostgresError> {
        options.target(system_user, &[REPLICATION]).map(Self)
    }

    /// Returns where the server is, for people.
    pub fn place(&self) -> &str {
        &self.0.place
    }
}

/// What a server says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    /// What tells its cluster from all others.
    pub system_identifier: u64,
    /// The timeline that it is on.
    pub timeline: u32,
    /// How far its log is safe on its own disk.
    pub position: Lsn,
}

/// A replication slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slot {
    /// From where on the server keeps its log for it, and on which timeline; `None` where it keeps nothing.
    pub restart: Option<(Lsn, u32)>,
}

/// Rows of values in text.
pub(super) type Rows = Vec<Vec<Option<Vec<u8>>>>;

/// A session of the replication protocol.
pub struct Replication {
    pub(super) wire: Wire,
    place: String,
    version: u32,
    version_text: String,
    /// Warnings of the server.
    pub(super) warnings: Vec<String>,
}

impl Replication {
    /// Connects, in one way after the other, as far as the options allow.
    ///
    /// # Errors
    ///
    /// When nobody answers, the server refuses, or it does not encrypt as it was asked to.
    pub fn connect(endpoint: &Endpoint, observer: Arc<dyn Observer>) -> Result<Self, ReplicationError> {
        let target = &endpoint.0;
        let mut before = None;
        let mut ways = target.encryption.ways().iter().peekable();
        while let Some(way) = ways.next() {
            match (Self::open(target, *way, observer.clone()), before.take()) {
                (Err(error), _) if ways.peek().is_some() && error.wants_another_way() => {
                    before = Some(error);
                }
                (Err(ReplicationError::Refused { code, text }), Some(first)) => {
                    return Err(ReplicationError::Refused {
                        code,
                        text: format!("{first}; and then: {text}"),
                    });
                }
                (outcome, _) => return outcome,
            }
        }
        Err(ReplicationError::Odd("no way to connect"))
    }

    fn open(target: &Target, way: Way, observer: Arc<dyn Observer>) -> Result<Self, ReplicationError> {
        let mut session = Self {
            wire: Wire::new(Socket::open(target, way)?, observer),
            place: target.place.clone(),
            version: 0,
            version_text: String::new(),
            warnings: Vec::new(),
        };
        let mut body = PROTOCOL.to_be_bytes().to_vec();
        let parameters =
            [("user", target.user.as_str()), (REPLICATION, "true"), ("application_name", "chronolith")];
        for text in parameters.iter().flat_map(|(name, value)| [name, value]) {
            if text.contains('\0') {
                return Err(ReplicationError::Odd("a name with a zero byte in it"));
            }
            body.extend_from_slice(text.as_bytes());
            body.push(0);
        }
        body.push(0);
        let length = i32::try_from(body.len() + 4).unwrap_or(i32::MAX).to_be_bytes();
        session.wire.send(&[&length[..], &body].concat())?;
        authenticate(&mut session.wire, target)?;
        session.settle()?;
        Ok(session)
    }

    /// Returns where the server is, for people.
    pub fn place(&self) -> &str {
        &self.place
    }

    /// Takes the warnings that the server gave since the last command.
    pub fn take_warnings(&mut self) -> Vec<String> {
        std::mem::take(&mut self.warnings)
    }

    /// Returns the server's major version.
    pub fn major(&self) -> u32 {
        self.version
    }

    /// Returns the server's version as it writes it.
    pub fn version(&self) -> &str {
        &self.version_text
    }

    /// Waits for a message that must come.
    pub(super) fn expect(&mut self) -> Result<Message<'_>, ReplicationError> {
        self.wire.expect(ANSWER_WITHIN)
    }

    /// Reads what a server says before it takes commands.
    fn settle(&mut self) -> Result<(), ReplicationError> {
        loop {
            let message = self.expect()?;
            match message.kind {
                b'Z' => return Ok(()),
                b'E' => return Err(said(message.body)),
                b'S' => {
                    let mut fields = Fields(message.body);
                    if let (Some(b"server_version"), Some(value)) = (fields.text(), fields.text()) {
                        let digits: String =
                            value.iter().take_while(|b| b.is_ascii_digit()).map(|b| char::from(*b)).collect();
                        let text = String::from_utf8_lossy(value).into_owned();
                        (self.version, self.version_text) = (digits.parse().unwrap_or(0), text);
                    }
                }
                _ => {}
            }
        }
    }

    /// Sends a command.
    pub(super) fn command(&mut self, command: &str) -> Result<(), ReplicationError> {
        self.wire.send_message(b'Q', &[command.as_bytes(), b"\0"].concat())
    }

    /// Reads results to the last, or the error that stands in their place.
    pub(super) fn results(&mut self) -> Result<Rows, ReplicationError> {
        self.results_within(Some(ANSWER_WITHIN))
    }

    /// Does the same of what may take any time.
    pub(super) fn results_patiently(&mut self) -> Result<Rows, ReplicationError> {
        self.results_within(None)
    }

    fn results_within(&mut self, patience: Option<Duration>) -> Result<Rows, ReplicationError> {
        let (mut rows, mut problem) = (Rows::new(), None);
        loop {
            let silent = || ReplicationError::Lost("it does not answer".to_owned());
            let message = match self.wire.receive(patience).and_then(|message| message.ok_or_else(silent)) {
                Ok(message) => message,
                // What ends the session is said before it ends.
                Err(error) => return Err(problem.unwrap_or(error)),
            };
            match message.kind {
                b'Z' => return problem.map_or(Ok(rows), Err),
                b'E' => drop(problem.get_or_insert(said(message.body))),
                b'N' => {
                    let warning = warning(message.body);
                    self.warnings.extend(warning);
                }
                b'D' => rows.push(row(message.body).ok_or(ReplicationError::Odd("a row that is none"))?),
                // A copy would go on for ever.
                b'W' | b'H' | b'G' => return Err(ReplicationError::Odd("a copy")),
                _ => {}
            }
        }
    }

    fn ask(&mut self, command: &str) -> Result<Rows, ReplicationError> {
        self.command(command)?;
        self.results()
    }

    /// Asks who the server is.
    ///
    /// # Errors
    ///
    /// What it says.
    pub fn identify(&mut self) -> Result<Identity, ReplicationError> {
        let rows = self.ask("IDENTIFY_SYSTEM")?;
        let read = || {
            let row = rows.first()?;
            Some(Identity {
                system_identifier: text(row, 0)?.parse().ok()?,
                timeline: text(row, 1)?.parse().ok()?,
                position: text(row, 2)?.parse().ok()?,
            })
        };
        read().ok_or(ReplicationError::Odd("no name of a system"))
    }

    /// Asks for a setting.
    ///
    /// # Errors
    ///
    /// What the server says; of some settings only that this role may not know them.
    pub fn show(&mut self, setting: &str) -> Result<String, ReplicationError> {
        let rows = self.ask(&format!("SHOW {setting}"))?;
        let shown = rows.first().and_then(|row| text(row, 0)).map(str::to_owned);
        shown.ok_or(ReplicationError::Odd("no setting"))
    }

    /// Asks for the length of the log's segments.
    ///
    /// # Errors
    ///
    /// What the server says.
    pub fn segment_size(&mut self) -> Result<SegmentSize, ReplicationError> {
        let shown = self.show("wal_segment_size")?;
        let read = || {
            let digits = shown.trim_end_matches(|c: char| c.is_ascii_alphabetic());
            let factor = match shown.get(digits.len()..)? {
                "kB" => 1 << 10,
                "MB" => 1 << 20,
                "GB" => 1 << 30,
                _ => 1,
            };
            SegmentSize::new(digits.parse::<u64>().ok()?.checked_mul(factor)?).ok()
        };
        read().ok_or(ReplicationError::Odd("no length of segments"))
    }

    /// Fetches the history of a timeline.
    ///
    /// # Errors
    ///
    /// What the server says.
    pub fn history(&mut self, timeline: u32) -> Result<Vec<u8>, ReplicationError> {
        let mut rows = self.ask(&format!("TIMELINE_HISTORY {timeline}"))?;
        let row = rows.first_mut().filter(|row| {
            let file = text(row, 0).and_then(|name| name.parse().ok());
            file == Some(LogFile::History { timeline })
        });
        let content = row.and_then(|row| row.get_mut(1)?.take());
        content.ok_or(ReplicationError::Odd("no history of a timeline"))
    }

    /// Looks at a slot; `None` where there is none. Servers before 15 do not tell.
    ///
    /// # Errors
    ///
    /// What the server says.
    pub fn slot(&mut self, name: &SlotName) -> Result<Option<Slot>, ReplicationError> {
        let rows = self.ask(&format!("READ_REPLICATION_SLOT \"{name}\""))?;
        let Some(row) = rows.first().filter(|row| text(row, 0).is_some()) else { return Ok(None) };
        let restart = text(row, 1).and_then(|lsn| lsn.parse().ok());
        Ok(Some(Slot { restart: restart.zip(text(row, 2).and_then(|timeline| timeline.parse().ok())) }))
    }

    /// Makes a slot, for which the server keeps its log from now on.
    ///
    /// # Errors
    ///
    /// What the server says; class 42710 where there is one of that name.
    pub fn create_slot(&mut self, name: &SlotName) -> Result<(), ReplicationError> {
        self.ask(&format!("CREATE_REPLICATION_SLOT \"{name}\" PHYSICAL RESERVE_WAL")).map(drop)
    }

    /// Removes a slot.
    ///
    /// # Errors
    ///
    /// What the server says.
    pub fn drop_slot(&mut self, name: &SlotName) -> Result<(), ReplicationError> {
        self.ask(&format!("DROP_REPLICATION_SLOT \"{name}\"")).map(drop)
    }
}

impl Drop for Replication {
    fn drop(&mut self) {
        // The server notices by itself, too.
        let _ = self.wire.send_message(b'X', b"");
    }
}

pub(super) fn row(body: &[u8]) -> Option<Vec<Option<Vec<u8>>>> {
    let mut fields = Fields(body);
    let count = fields.u16()?;
    let mut values = Vec::new();
    for _ in 0..count {
        values.push(match usize::try_from(fields.i32()?) {
            Ok(length) => Some(fields.take(length)?.to_vec()),
            Err(_) => None,
        });
    }
    Some(values)
}

pub(super) fn text(row: &[Option<Vec<u8>>], at: usize) -> Option<&str> {
    std::str::from_utf8(row.get(at)?.as_deref()?).ok()
}
