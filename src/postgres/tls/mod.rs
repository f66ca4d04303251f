//! Encrypted connections to servers, in the words and by the rules of PostgreSQL's own programs.
//!
//! A server is asked over TCP whether it encrypts; where it does, both talk TLS 1.2 or 1.3. Through a Unix socket
//! nothing is encrypted, since nobody can listen there. What `sslmode` promises is kept, however the server
//! or whoever stands in its place behaves: `require` and more never go on in the clear, and the two that verify
//! accept no certificate that they cannot verify.
//!
//! - `options`: what a connection string, a service and the environment say
//! - `encryption`: the same with the files that it names, read and understood
//! - `trust`: whether a server's certificate is one of whom it should be; `certificate`: what stands in one
//! - `stream`: TLS for the session that runs queries; that of the replication protocol is in `replication::socket`

mod certificate;
mod encryption;
mod options;
mod stream;
mod trust;

pub(super) use encryption::{Encryption, Handshake, Way};
pub use options::TlsOptions;
pub(super) use options::{Binding, Mode};
pub(super) use stream::Connector;

use std::io;

/// Why an encrypted connection did not come about.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{why}")]
pub struct TlsFailure {
    /// What was wrong.
    pub why: String,
    /// What to try.
    pub cure: String,
}

impl TlsFailure {
    pub(super) fn new(why: impl Into<String>, cure: impl Into<String>) -> Self {
        Self { why: why.into(), cure: cure.into() }
    }

    /// Says that a server does not encrypt.
    pub(super) fn not_offered(mode: Mode) -> Self {
        Self::new(
            format!("it does not encrypt connections, and sslmode={mode} asks for that"),
            "set ssl = on there, with a certificate and its key, or connect through its Unix socket on its host",
        )
    }

    /// Says why a handshake failed: the reason that was found here, where it is ours.
    pub(super) fn of(error: &io::Error) -> Self {
        let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
        if let Some(rustls::Error::InvalidCertificate(rustls::CertificateError::Other(other))) = inner
            && let Some(ours) = other.0.downcast_ref::<Self>()
        {
            return ours.clone();
        }
        let why = inner.map_or_else(|| error.to_string(), ToString::to_string);
        Self::new(
            format!("no encrypted connection came about: {why}"),
            "look into the server's log; it must speak TLS 1.2 or 1.3, and nobody may answer in its place",
        )
    }
}
