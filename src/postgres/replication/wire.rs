//! Messages of the protocol: a byte that says what it is, a length, a body.

use super::socket::Socket;
use crate::base::Observer;
use crate::postgres::error::PostgresError;
use crate::postgres::tls::TlsFailure;
use crate::repo::RepoError;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Longer messages no server sends here: the longest holds a history file.
const MESSAGE_BYTES_MAX: usize = 64 << 20;
const HEADER_BYTES: usize = 5;
/// What is read at once.
const READ_BYTES: usize = 256 << 10;
/// How long a server may not take what it is sent.
const WRITE_WITHIN: Duration = Duration::from_secs(60);

/// Why a session with a server came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum ReplicationError {
    /// The connection could not be made, or was lost: it may be made again.
    #[error("{0}")]
    Lost(String),
    /// The server says no.
    #[error("{text}")]
    Refused {
        /// The class of its error, by the five signs of the server's manual.
        code: String,
        /// What it says.
        text: String,
    },
    /// No encrypted connection came about, as it was asked for.
    #[error("{0}")]
    Unsafe(TlsFailure),
    /// What came is not of this protocol.
    #[error("it answered with something else than it was asked for: {0}")]
    Odd(&'static str),
    /// The user has had enough.
    #[error("interrupted")]
    Interrupted,
}

impl ReplicationError {
    /// Says what was being done, and to which server.
    pub fn at(self, doing: &'static str, place: &str) -> PostgresError {
        match self {
            Self::Interrupted => RepoError::Interrupted.into(),
            Self::Unsafe(failure) => PostgresError::tls(doing, place, failure),
            Self::Refused { code, text } => {
                PostgresError::Server { doing, server: place.to_owned(), why: text, code: Some(code) }
            }
            other => {
                PostgresError::Server { doing, server: place.to_owned(), why: other.to_string(), code: None }
            }
        }
    }

    /// Says whether the server gave an error of this class.
    pub fn is(&self, wanted: &str) -> bool {
        matches!(self, Self::Refused { code, .. } if code == wanted)
    }

    /// Says whether another way to connect, encrypted or not, may succeed where this one did not. A wrong
    /// password is wrong in every way, and is not sent again.
    pub(super) fn wants_another_way(&self) -> bool {
        matches!(self, Self::Unsafe(_)) || self.is("28000")
    }

    /// Says whether the same may succeed later: the server is gone, starts or stops, or is full; or a session
    /// before this one still holds the slot.
    pub fn may_pass(&self) -> bool {
        match self {
            Self::Lost(_) => true,
            Self::Refused { code, .. } => {
                code.starts_with("08") || code.starts_with("57P") || code == "53300" || code == "55006"
            }
            Self::Unsafe(_) | Self::Odd(_) | Self::Interrupted => false,
        }
    }
}

/// One message.
pub(super) struct Message<'a> {
    pub kind: u8,
    pub body: &'a [u8],
}

/// A connection and what has come over it.
pub(super) struct Wire {
    socket: Socket,
    buffer: Vec<u8>,
    begin: usize,
    end: usize,
    observer: Arc<dyn Observer>,
    /// Whether an interruption ends every wait.
    pub heeds: bool,
}

impl Wire {
    pub fn new(socket: Socket, observer: Arc<dyn Observer>) -> Self {
        Self { socket, buffer: vec![0; READ_BYTES], begin: 0, end: 0, observer, heeds: true }
    }

    /// Returns what binds a password's proof to the connection, where it is encrypted.
    pub fn end_point(&self) -> Option<Vec<u8>> {
        self.socket.end_point()
    }

    /// Waits for the next message; `None` when the patience is at its end. Without one it waits as long as the
    /// connection holds.
    pub fn receive(&mut self, patience: Option<Duration>) -> Result<Option<Message<'_>>, ReplicationError> {
        let found = self.next(patience)?;
        Ok(found.map(|(kind, body)| Message { kind, body: self.body(body) }))
    }

    /// Waits for a message that must come.
    pub fn expect(&mut self, patience: Duration) -> Result<Message<'_>, ReplicationError> {
        self.receive(Some(patience))?.ok_or_else(|| ReplicationError::Lost("it does not answer".to_owned()))
    }

    /// Does the same, and returns where the body stands until the next wait.
    pub fn next(
        &mut self,
        patience: Option<Duration>,
    ) -> Result<Option<(u8, Range<usize>)>, ReplicationError> {
        let since = Instant::now();
        let length = loop {
            if let Some(length) = self.length()?
                && self.end - self.begin >= length
            {
                break length;
            }
            if self.heeds && self.observer.interrupted() {
                return Err(ReplicationError::Interrupted);
            }
            if !self.fill()? && patience.is_some_and(|patience| since.elapsed() >= patience) {
                return Ok(None);
            }
        };
        let kind = self.buffer.get(self.begin).copied().unwrap_or_default();
        let body = self.begin + HEADER_BYTES..self.begin + length;
        self.begin = body.end;
        Ok(Some((kind, body)))
    }

    /// Returns the body of the message that came last.
    pub fn body(&self, place: Range<usize>) -> &[u8] {
        self.buffer.get(place).unwrap_or_default()
    }

    /// Returns the length of the message that has begun to come.
    fn length(&self) -> Result<Option<usize>, ReplicationError> {
        let held = self.buffer.get(self.begin..self.end).unwrap_or_default();
        let Some((_, rest)) = held.split_first() else { return Ok(None) };
        let Some(length) = rest.first_chunk() else { return Ok(None) };
        match usize::try_from(i32::from_be_bytes(*length)) {
            Ok(length) if (4..=MESSAGE_BYTES_MAX).contains(&length) => Ok(Some(length + 1)),
            _ => Err(ReplicationError::Odd("a message of impossible length")),
        }
    }

    /// Reads on; false when nothing came for a moment.
    fn fill(&mut self) -> Result<bool, ReplicationError> {
        if self.begin == self.end {
            (self.begin, self.end) = (0, 0);
        }
        let needed = self.length()?.unwrap_or(HEADER_BYTES);
        if self.begin + needed > self.buffer.len() || self.end == self.buffer.len() {
            self.buffer.copy_within(self.begin..self.end, 0);
            (self.begin, self.end) = (0, self.end - self.begin);
            self.buffer.resize(self.buffer.len().max(needed), 0);
        }
        let space = self.buffer.get_mut(self.end..).unwrap_or_default();
        match self.socket.read(space) {
            Ok(Some(0)) => Err(ReplicationError::Lost("it closed the connection".to_owned())),
            Ok(Some(count)) => {
                self.end += count;
                Ok(true)
            }
            Ok(None) => Ok(false),
            Err(error) => Err(ReplicationError::Lost(format!("the connection was lost: {error}"))),
        }
    }

    /// Sends bytes.
    pub fn send(&mut self, mut bytes: &[u8]) -> Result<(), ReplicationError> {
        let since = Instant::now();
        while !bytes.is_empty() {
            match self.socket.write(bytes) {
                Ok(Some(count)) => bytes = bytes.get(count..).unwrap_or_default(),
                Ok(None) if self.heeds && self.observer.interrupted() => {
                    return Err(ReplicationError::Interrupted);
                }
                Ok(None) if since.elapsed() < WRITE_WITHIN => {}
                Ok(None) => return Err(ReplicationError::Lost("it takes nothing any more".to_owned())),
                Err(error) => {
                    return Err(ReplicationError::Lost(format!("the connection was lost: {error}")));
                }
            }
        }
        Ok(())
    }

    /// Sends a message.
    pub fn send_message(&mut self, kind: u8, body: &[u8]) -> Result<(), ReplicationError> {
        let length =
            i32::try_from(body.len() + 4).map_err(|_| ReplicationError::Odd("a message too long to send"))?;
        let mut message = Vec::with_capacity(body.len() + HEADER_BYTES);
        message.push(kind);
        message.extend_from_slice(&length.to_be_bytes());
        message.extend_from_slice(body);
        self.send(&message)
    }
}

/// Reads a body from its beginning.
pub(super) struct Fields<'a>(pub &'a [u8]);

impl<'a> Fields<'a> {
    pub fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    pub fn u8(&mut self) -> Option<u8> {
        self.array().map(u8::from_be_bytes)
    }

    pub fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_be_bytes)
    }

    pub fn i32(&mut self) -> Option<i32> {
        self.array().map(i32::from_be_bytes)
    }

    pub fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_be_bytes)
    }

    /// Takes what stands before the next zero byte.
    pub fn text(&mut self) -> Option<&'a [u8]> {
        let end = self.0.iter().position(|byte| *byte == 0)?;
        let text = self.take(end)?;
        self.take(1)?;
        Some(text)
    }
}

/// Writes a text of several lines in one.
fn one_line(text: &str) -> String {
    text.lines().map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join(" ")
}

/// Reads what a server says in an error or a notice.
pub(super) fn said(body: &[u8]) -> ReplicationError {
    let mut fields = Fields(body);
    let (mut code, mut parts) = (String::new(), [const { String::new() }; 3]);
    while let Some(kind) = fields.u8().filter(|kind| *kind != 0) {
        let Some(text) = fields.text() else { break };
        let text = String::from_utf8_lossy(text).into_owned();
        let [message, detail, hint] = &mut parts;
        match kind {
            b'C' => code = text,
            b'M' => *message = one_line(&text),
            b'D' => *detail = one_line(&text),
            b'H' => *hint = one_line(&text),
            _ => {}
        }
    }
    let parts: Vec<String> = parts.into_iter().filter(|part| !part.is_empty()).collect();
    ReplicationError::Refused { code, text: parts.join("; ") }
}

/// Reads a notice; `None` where it is no warning.
pub(super) fn warning(body: &[u8]) -> Option<String> {
    let mut fields = Fields(body);
    let mut is_warning = false;
    while let Some(kind) = fields.u8().filter(|kind| *kind != 0) {
        is_warning |= fields.text()? == b"WARNING" && kind == b'V';
    }
    is_warning.then(|| said(body).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Quiet;
    use std::io::Write;
    use std::os::unix::net::UnixStream;

    fn wire() -> (Wire, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        ours.set_read_timeout(Some(Duration::from_millis(5))).unwrap();
        (Wire::new(Socket::Unix(ours), Arc::new(Quiet)), theirs)
    }

    #[test]
    fn messages_of_all_lengths_come_whole() {
        let (mut wire, mut theirs) = wire();
        let lengths = [0_usize, 1, 3, 70_000, READ_BYTES - 5, READ_BYTES, READ_BYTES * 3 + 1, 7];
        let writer = std::thread::spawn(move || {
            for length in lengths {
                let header = i32::try_from(length + 4).unwrap().to_be_bytes();
                theirs.write_all(&[&b"d"[..], &header, &vec![b'x'; length]].concat()).unwrap();
            }
        });
        for length in lengths {
            let message = wire.receive(None).unwrap().unwrap();
            assert_eq!((message.kind, message.body.len()), (b'd', length));
            assert!(message.body.iter().all(|byte| *byte == b'x'));
        }
        writer.join().unwrap();
        assert!(matches!(wire.receive(None), Err(ReplicationError::Lost(_))), "it is closed");
    }

    #[test]
    fn what_is_no_message_is_refused_and_silence_is_heard() {
        let (mut wire, mut theirs) = wire();
        assert!(wire.receive(Some(Duration::ZERO)).unwrap().is_none());
        theirs.write_all(b"HT").unwrap();
        assert!(wire.receive(Some(Duration::ZERO)).unwrap().is_none(), "half a header");
        theirs.write_all(b"TP/1.1 400").unwrap();
        assert!(matches!(wire.receive(None), Err(ReplicationError::Odd(_))));
    }

    #[test]
    fn errors_of_a_server() {
        let error = said(b"SERROR\0C58P01\0Mit is gone\0Dlong ago\0\0");
        assert!(error.is("58P01") && !error.may_pass());
        assert_eq!(error.to_string(), "it is gone; long ago");
        assert!(said(b"C57P01\0Mx\0\0").may_pass());
        assert_eq!(said(b"M").to_string(), "");
        assert_eq!(warning(b"VWARNING\0C01000\0Mbad page\0\0").as_deref(), Some("bad page"));
        assert_eq!(warning(b"VNOTICE\0Mfine\0\0"), None);
    }
}
