//! A session: somebody relies on objects of others. A series of renewals, each an object.
//!
//! Normative: `format-spec/session.md` and `format-spec/concurrency.md`.

use super::FormatError;
use super::bytes::{at_most, ensure, invalid};
use super::cbor::{Extra, Field, decode_map, encode_map, required};
use super::sets::{IdSet, ascending_by, not_empty};
use crate::base::{CondemnedId, SessionId, SnapshotId, Timestamp, limits};

const WHAT: &str = "session";

/// What a session does with the objects that it relies on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SessionPurpose {
    /// Adds to the repository and adopts what is there.
    Write,
    /// Restores, mounts or checks.
    Read,
    /// Prunes, repairs or merges.
    Maintain,
    /// A purpose of a newer program, by its code: treated as writing and maintaining.
    Other(u64),
}

impl SessionPurpose {
    fn from_code(code: u64) -> Result<Self, FormatError> {
        match code {
            0 => Err(invalid(WHAT, "there is no purpose 0")),
            1 => Ok(Self::Write),
            2 => Ok(Self::Read),
            3 => Ok(Self::Maintain),
            _ => Ok(Self::Other(code)),
        }
    }

    fn code(self) -> u64 {
        match self {
            Self::Write => 1,
            Self::Read => 2,
            Self::Maintain => 3,
            Self::Other(code) => code,
        }
    }
}

/// One renewal of a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Session {
    /// Random, the same in all renewals; with the signer it identifies the session.
    pub session: [u8; 32],
    /// Number of this renewal, from 1.
    pub sequence: u64,
    /// The renewal before, for all but the first.
    pub predecessor: Option<SessionId>,
    /// What it does.
    pub purpose: SessionPurpose,
    /// When the session began, by the host's clock.
    pub started: Timestamp,
    /// When it was renewed, by the host's clock.
    pub renewed: Timestamp,
    /// The host, for people.
    pub host: String,
    /// Name and version of the program, for people.
    pub program: String,
    /// The next renewal comes within this many seconds.
    pub promise_seconds: u64,
    /// Condemnations on whose objects the session does not rely.
    pub seen: IdSet<CondemnedId>,
    /// Snapshots that it reads: roots while it lives.
    pub snapshots: IdSet<SnapshotId>,
    /// Log streams that it reads, in ascending order: roots while it lives.
    pub streams: Vec<String>,
    /// Whether this is the last renewal.
    pub ended: bool,
    /// Fields of newer programs.
    pub extra: Extra,
}

impl Session {
    /// Encodes the payload of the object.
    pub fn encode(&self) -> Result<Vec<u8>, FormatError> {
        self.check()?;
        let bytes = encode_map(&self.extra, |map| {
            map.at(0).bytes(&self.session);
            map.at(1).unsigned(self.sequence);
            map.optional(2, self.predecessor, |place, id| place.bytes(id.as_bytes()));
            map.at(3).unsigned(self.purpose.code());
            map.at(4).signed(self.started.nanoseconds());
            map.at(5).signed(self.renewed.nanoseconds());
            map.at(6).text(&self.host);
            map.at(7).text(&self.program);
            map.at(8).unsigned(self.promise_seconds);
            self.seen.write_packed(map, 9);
            self.snapshots.write_packed(map, 10);
            map.list(11, &self.streams, |place, stream| place.text(stream));
            map.optional(12, self.ended.then_some(true), |place, ended| place.boolean(ended));
        });
        at_most(WHAT, bytes.len() as u64, limits::STRUCTURED_BYTES_MAX)?;
        Ok(bytes)
    }

    /// Decodes the payload of the object.
    pub fn decode(bytes: &[u8]) -> Result<Self, FormatError> {
        at_most(WHAT, bytes.len() as u64, limits::STRUCTURED_BYTES_MAX)?;
        let (mut session, mut sequence, mut predecessor, mut purpose) = (None, None, None, None);
        let (mut started, mut renewed, mut host, mut program) = (None, None, None, None);
        let (mut promise, mut ended) = (None, false);
        let (mut seen, mut snapshots, mut streams) = (IdSet::default(), IdSet::default(), Vec::new());
        let extra = decode_map(WHAT, bytes, |number, value| {
            match number {
                0 => session = Some(value.fixed()?),
                1 => sequence = Some(value.unsigned()?),
                2 => predecessor = Some(SessionId::new(value.fixed()?)),
                3 => purpose = Some(SessionPurpose::from_code(value.unsigned()?)?),
                4 => started = Some(value.timestamp()?),
                5 => renewed = Some(value.timestamp()?),
                6 => host = Some(value.text(limits::NAME_BYTES_MAX)?.to_owned()),
                7 => program = Some(value.text(limits::NAME_BYTES_MAX)?.to_owned()),
                8 => promise = Some(value.unsigned()?),
                9 => seen = IdSet::read_packed(value, limits::STRUCTURED_BYTES_MAX)?,
                10 => snapshots = IdSet::read_packed(value, limits::STRUCTURED_BYTES_MAX)?,
                11 => {
                    let read = |name: super::cbor::Reader<'_, '_>| {
                        name.text(limits::NAME_BYTES_MAX).map(str::to_owned)
                    };
                    streams = not_empty(WHAT, value.array(limits::LIST_IDS_MAX, read)?)?;
                }
                12 if value.boolean()? => ended = true,
                12 => return Err(invalid(WHAT, "`ended` is left out unless true")),
                _ => return Ok(Field::Unknown),
            }
            Ok(Field::Known)
        })?;
        let read = Self {
            session: required(session, WHAT)?,
            sequence: required(sequence, WHAT)?,
            predecessor,
            purpose: required(purpose, WHAT)?,
            started: required(started, WHAT)?,
            renewed: required(renewed, WHAT)?,
            host: required(host, WHAT)?,
            program: required(program, WHAT)?,
            promise_seconds: required(promise, WHAT)?,
            seen,
            snapshots,
            streams,
            ended,
            extra,
        };
        read.check()?;
        Ok(read)
    }

    fn check(&self) -> Result<(), FormatError> {
        let chained = self.sequence > 0 && (self.sequence == 1) == self.predecessor.is_none();
        ensure(chained, WHAT, "the first renewal alone has no predecessor, and sequences count from 1")?;
        ensure(self.promise_seconds > 0, WHAT, "the promise is 0 seconds")?;
        at_most("promise of a session", self.promise_seconds, limits::SESSION_PROMISE_SECONDS_MAX)?;
        ensure(!self.streams.iter().any(String::is_empty), WHAT, "a stream has no name")?;
        ascending_by(WHAT, &self.streams, |stream| stream.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn renewal() -> Session {
        Session {
            session: [7; 32],
            sequence: 2,
            predecessor: Some(SessionId::new([1; 32])),
            purpose: SessionPurpose::Write,
            started: Timestamp::from_nanoseconds(1),
            renewed: Timestamp::from_nanoseconds(2),
            host: "db1".to_owned(),
            program: "chronolith 1.0".to_owned(),
            promise_seconds: 300,
            seen: [CondemnedId::new([3; 32])].into_iter().collect(),
            snapshots: [SnapshotId::new([4; 32])].into_iter().collect(),
            streams: vec!["a".to_owned(), "b".to_owned()],
            ended: true,
            extra: vec![(77, vec![0xF5])],
        }
    }

    #[test]
    fn comes_back() {
        let first = Session {
            sequence: 1,
            predecessor: None,
            seen: IdSet::default(),
            snapshots: IdSet::default(),
            streams: Vec::new(),
            ended: false,
            purpose: SessionPurpose::Other(9),
            ..renewal()
        };
        for session in [renewal(), first] {
            assert_eq!(Session::decode(&session.encode().unwrap()).unwrap(), session);
        }
    }

    #[test]
    fn refuses_what_breaks_a_rule() {
        let broken = [
            Session { sequence: 0, ..renewal() },
            Session { sequence: 1, ..renewal() },
            Session { predecessor: None, ..renewal() },
            Session { promise_seconds: 0, ..renewal() },
            Session { promise_seconds: 86401, ..renewal() },
            Session { streams: vec!["b".to_owned(), "a".to_owned()], ..renewal() },
            Session { streams: vec![String::new()], ..renewal() },
        ];
        for session in broken {
            assert!(session.encode().is_err(), "{session:?}");
        }
    }
}
