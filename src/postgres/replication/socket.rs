//! Bytes to and from a server, through a Unix socket or over TCP, there also encrypted. Nothing waits longer than a
//! moment: whoever reads or writes hears that nothing happened, and can look whether it is still wanted.

use super::wire::ReplicationError;
use crate::postgres::connection::Target;
use crate::postgres::tls::{Handshake, TlsFailure, Way};
use rustix::net::sockopt;
use rustls::{ClientConnection, StreamOwned};
use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixStream};
use std::path::Path;
use std::time::{Duration, Instant};

/// The moment.
const LOOK_EVERY: Duration = Duration::from_millis(100);
const CONNECT_WITHIN: Duration = Duration::from_secs(15);
/// A peer that is gone without a word is noticed after this long, while nothing is said: probes begin after
/// the first, come at the interval of the second, and this many go unanswered.
const PROBE_AFTER: Duration = Duration::from_secs(60);
const PROBE_EVERY: Duration = Duration::from_secs(10);
const PROBES: u32 = 6;

/// The question whether the server encrypts: a length, and a number in the place of the protocol's version.
const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 0x04, 0xD2, 0x16, 0x2F];

/// A connection.
pub(super) enum Socket {
    Unix(UnixStream),
    Tcp(TcpStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

fn connect_unix(path: &str) -> io::Result<UnixStream> {
    match path.strip_prefix('@') {
        Some(name) => UnixStream::connect_addr(&SocketAddr::from_abstract_name(name)?),
        None => UnixStream::connect(Path::new(path)),
    }
}

fn connect_tcp(host: &str, port: u16) -> io::Result<TcpStream> {
    let mut problem = None;
    for address in (host, port).to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, CONNECT_WITHIN) {
            Ok(stream) => return Ok(stream),
            Err(error) => problem = Some(error),
        }
    }
    Err(problem.unwrap_or_else(|| io::Error::new(io::ErrorKind::NotFound, "the host has no address")))
}

fn lost(error: io::Error) -> ReplicationError {
    ReplicationError::Lost(error.to_string())
}

impl Socket {
    /// Connects, in one of the ways that the target allows.
    pub fn open(target: &Target, way: Way) -> Result<Self, ReplicationError> {
        if target.is_socket() {
            return Self::open_unix(target).map_err(lost);
        }
        let stream = Self::open_tcp(target).map_err(lost)?;
        match &target.encryption.handshake {
            Some(handshake) if way != Way::Clear => {
                if Self::ask(&stream)? {
                    return Self::encrypt(stream, handshake);
                }
                match way {
                    Way::IfOffered => Ok(Self::Tcp(stream)),
                    _ => Err(ReplicationError::Unsafe(TlsFailure::not_offered(target.encryption.mode))),
                }
            }
            _ => Ok(Self::Tcp(stream)),
        }
    }

    fn open_unix(target: &Target) -> io::Result<Self> {
        let stream = connect_unix(&target.place)?;
        stream.set_read_timeout(Some(LOOK_EVERY))?;
        stream.set_write_timeout(Some(LOOK_EVERY))?;
        Ok(Self::Unix(stream))
    }

    fn open_tcp(target: &Target) -> io::Result<TcpStream> {
        let stream = connect_tcp(target.address.as_ref().unwrap_or(&target.host), target.port)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(LOOK_EVERY))?;
        stream.set_write_timeout(Some(LOOK_EVERY))?;
        sockopt::set_socket_keepalive(&stream, true)?;
        sockopt::set_tcp_keepidle(&stream, PROBE_AFTER)?;
        sockopt::set_tcp_keepintvl(&stream, PROBE_EVERY)?;
        sockopt::set_tcp_keepcnt(&stream, PROBES)?;
        Ok(stream)
    }

    /// Asks whether the server encrypts. Its answer is one byte, and no more is read: what somebody in between puts
    /// behind it is not taken for something that came encrypted, but for a part of the handshake, which it ends.
    fn ask(mut stream: &TcpStream) -> Result<bool, ReplicationError> {
        stream.write_all(&SSL_REQUEST).map_err(lost)?;
        let (since, mut answer) = (Instant::now(), [0]);
        loop {
            match moment(stream.read(&mut answer)).map_err(lost)? {
                Some(0) => return Err(ReplicationError::Lost("it closed the connection".to_owned())),
                Some(_) => break,
                None if since.elapsed() < CONNECT_WITHIN => {}
                None => return Err(ReplicationError::Lost("it does not answer".to_owned())),
            }
        }
        match answer {
            [b'S'] => Ok(true),
            [b'N'] => Ok(false),
            _ => Err(ReplicationError::Odd("no answer to the question whether it encrypts")),
        }
    }

    fn encrypt(mut stream: TcpStream, handshake: &Handshake) -> Result<Self, ReplicationError> {
        let failed = |error: &io::Error| ReplicationError::Unsafe(TlsFailure::of(error));
        let connection = ClientConnection::new(handshake.config.clone(), handshake.name.clone());
        let mut connection = connection.map_err(|error| failed(&io::Error::other(error)))?;
        let since = Instant::now();
        while connection.is_handshaking() {
            match connection.complete_io(&mut stream) {
                Ok((0, 0)) => return Err(failed(&io::ErrorKind::UnexpectedEof.into())),
                Ok(_) => {}
                Err(error) => match moment(Err(error)) {
                    Ok(_) if since.elapsed() < CONNECT_WITHIN => {}
                    Ok(_) => return Err(failed(&io::ErrorKind::TimedOut.into())),
                    Err(error) => return Err(failed(&error)),
                },
            }
        }
        Ok(Self::Tls(Box::new(StreamOwned::new(connection, stream))))
    }

    /// Returns what binds a password's proof to this connection, where it is encrypted.
    pub fn end_point(&self) -> Option<Vec<u8>> {
        match self {
            Self::Tls(stream) => Handshake::end_point(stream.conn.peer_certificates()),
            _ => None,
        }
    }

    /// Reads what is there; `None` when nothing came for a moment, 0 when the server has closed.
    pub fn read(&mut self, space: &mut [u8]) -> io::Result<Option<usize>> {
        moment(match self {
            Self::Unix(stream) => stream.read(space),
            Self::Tcp(stream) => stream.read(space),
            Self::Tls(stream) => stream.read(space),
        })
    }

    /// Writes what there is room for; `None` when there was none for a moment.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<Option<usize>> {
        moment(match self {
            Self::Unix(stream) => stream.write(bytes),
            Self::Tcp(stream) => stream.write(bytes),
            Self::Tls(stream) => stream.write(bytes),
        })
    }
}

fn moment(outcome: io::Result<usize>) -> io::Result<Option<usize>> {
    match outcome {
        Ok(count) => Ok(Some(count)),
        Err(error) => match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::Interrupted => Ok(None),
            _ => Err(error),
        },
    }
}
