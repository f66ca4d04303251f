//! What was said of encryption, with the files that it names, read and understood: all that can be wrong with them
//! is found before a server is talked to.

use super::certificate::{Certificate, end_point};
use super::options::{Binding, Mode, TlsOptions};
use super::trust::{Trust, Verifier};
use crate::postgres::error::PostgresError;
use rustls::ClientConfig;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer, ServerName};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use std::fs::{self, Metadata};
use std::net::Ipv4Addr;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use zeroize::Zeroizing;

/// The word that stands for all whom this host trusts, in the place of a file.
const SYSTEM: &str = "system";
/// Where systems keep the certificates of all whom they trust, in one file.
const SYSTEM_FILES: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// How one try to connect goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::postgres) enum Way {
    /// In the clear.
    Clear,
    /// Encrypted where the server can.
    IfOffered,
    /// Encrypted or not at all.
    Encrypted,
}

/// What a handshake takes.
#[derive(Clone)]
pub(in crate::postgres) struct Handshake {
    pub config: Arc<ClientConfig>,
    /// What the server is told that it is called.
    pub name: ServerName<'static>,
}

/// How a connection is encrypted.
#[derive(Clone)]
pub(in crate::postgres) struct Encryption {
    pub mode: Mode,
    pub binding: Binding,
    /// `None` where nothing is encrypted.
    pub handshake: Option<Handshake>,
}

impl Encryption {
    /// Reads what the options name. Of a Unix socket nothing is encrypted.
    pub fn new(options: &TlsOptions, host: &str, is_socket: bool) -> Result<Self, PostgresError> {
        let (mode, binding) = (options.mode()?, options.binding()?);
        let is_system = options.root.as_deref() == Some(Path::new(SYSTEM));
        let mode = match mode {
            Some(mode) if is_system && mode < Mode::VerifyFull => {
                return Err(PostgresError::refused(
                    format!("sslmode={mode} would accept any certificate of anybody whom this host trusts"),
                    "sslrootcert=system goes with sslmode=verify-full only",
                ));
            }
            None if is_system => Mode::VerifyFull,
            mode => mode.unwrap_or(Mode::Prefer),
        };
        if is_socket || mode == Mode::Disable {
            if binding == Binding::Require {
                return Err(PostgresError::refused(
                    "channel_binding=require asks for an encrypted connection, and this one would not be",
                    "connect over TCP with sslmode=require, or leave channel_binding out",
                ));
            }
            return Ok(Self { mode: Mode::Disable, binding, handshake: None });
        }
        let trust = trust(options, mode, is_system, host)?;
        let provider = Arc::new(aws_lc_rs::default_provider());
        let config = config(options, mode, trust, &provider)?;
        // What cannot be a name is not told to the server; the certificate is compared with what was given.
        let name = ServerName::try_from(host.to_owned());
        let name = name.unwrap_or_else(|_| ServerName::from(std::net::IpAddr::from(Ipv4Addr::LOCALHOST)));
        Ok(Self { mode, binding, handshake: Some(Handshake { config: Arc::new(config), name }) })
    }

    /// Returns the tries, in order: the second where the first was refused.
    pub fn ways(&self) -> &'static [Way] {
        match self.mode {
            Mode::Disable => &[Way::Clear],
            Mode::Allow => &[Way::Clear, Way::Encrypted],
            Mode::Prefer => &[Way::IfOffered, Way::Clear],
            Mode::Require | Mode::VerifyCa | Mode::VerifyFull => &[Way::Encrypted],
        }
    }
}

impl Handshake {
    /// Returns what binds a password's proof to a connection, of the certificates that the server has shown.
    pub fn end_point(shown: Option<&[CertificateDer<'static>]>) -> Option<Vec<u8>> {
        shown?.first().and_then(end_point)
    }
}

/// Takes the file that is named, or the one with the usual name if it is there.
fn file(named: Option<&PathBuf>, options: &TlsOptions, usual: &str) -> Option<PathBuf> {
    let usual = || options.folder.as_ref().map(|folder| folder.join(usual)).filter(|path| path.exists());
    named.cloned().or_else(usual)
}

fn read(path: &Path) -> Result<Zeroizing<Vec<u8>>, PostgresError> {
    fs::read(path).map(Zeroizing::new).map_err(PostgresError::file("read", path))
}

/// Reads all objects of a kind in a file in the form PEM.
fn objects<T: PemObject>(path: &Path, what: &str) -> Result<Vec<T>, PostgresError> {
    let bytes = read(path)?;
    let found: Result<Vec<T>, _> = T::pem_slice_iter(&bytes).collect();
    match found {
        Ok(found) if !found.is_empty() => Ok(found),
        _ => Err(PostgresError::refused(
            format!("{} holds no {what} that can be read", path.display()),
            "it must be in the form PEM, which begins with -----BEGIN",
        )),
    }
}

/// Reads whose word counts for who a server is; `None` where any server will do.
fn trust(
    options: &TlsOptions,
    mode: Mode,
    is_system: bool,
    host: &str,
) -> Result<Option<Trust>, PostgresError> {
    let root = match is_system {
        true => SYSTEM_FILES.iter().map(PathBuf::from).find(|path| path.exists()),
        false => file(options.root.as_ref(), options, "root.crt"),
    };
    let root = match root {
        // As for PostgreSQL's own programs: who has such a file wants it to be used.
        Some(root) if mode >= Mode::Require => root,
        None if mode > Mode::Require => {
            return Err(PostgresError::refused(
                format!("sslmode={mode} needs the certificates of those who may vouch for the server"),
                "name a file of them with sslrootcert (else ~/.postgresql/root.crt is taken), or sslrootcert=system for \
                 those whom this host trusts",
            ));
        }
        _ if options.revoked.is_some() => {
            return Err(PostgresError::refused(
                format!("sslcrl says which certificates count no more, but with sslmode={mode} all count"),
                "use sslmode=verify-full or verify-ca, with sslrootcert",
            ));
        }
        _ => return Ok(None),
    };
    let roots: Vec<CertificateDer<'static>> = objects(&root, "certificate")?;
    let lists: Vec<CertificateRevocationListDer<'static>> =
        match file(options.revoked.as_ref(), options, "root.crl") {
            Some(path) => objects(&path, "list of revoked certificates")?,
            None => Vec::new(),
        };
    let host = (mode == Mode::VerifyFull).then(|| host.to_owned());
    Trust::new(roots, &lists, host, root.display().to_string()).map(Some)
}

fn config(
    options: &TlsOptions,
    mode: Mode,
    trust: Option<Trust>,
    provider: &Arc<CryptoProvider>,
) -> Result<ClientConfig, PostgresError> {
    let odd = |error: rustls::Error| PostgresError::failed(format!("TLS cannot be set up: {error}"), "");
    let verifier = Arc::new(Verifier::new(provider.signature_verification_algorithms, trust));
    let builder = ClientConfig::builder_with_provider(provider.clone());
    let builder = builder.with_safe_default_protocol_versions().map_err(odd)?;
    let builder = builder.dangerous().with_custom_certificate_verifier(verifier);
    let identity = match identity(options, provider) {
        // What nobody named is no reason not to connect where hardly anything was asked for.
        Err(_) if mode < Mode::Require && options.certificate.is_none() && options.key.is_none() => None,
        identity => identity?,
    };
    Ok(match identity {
        Some(identity) => builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(identity))),
        None => builder.with_no_client_auth(),
    })
}

/// Reads the certificate that is shown to the server, and its key.
fn identity(options: &TlsOptions, provider: &CryptoProvider) -> Result<Option<CertifiedKey>, PostgresError> {
    let Some(path) = file(options.certificate.as_ref(), options, "postgresql.crt") else {
        return match &options.key {
            None => Ok(None),
            Some(_) => Err(PostgresError::refused(
                "sslkey names a key, and there is no certificate for it",
                "name the certificate with sslcert, or leave both out",
            )),
        };
    };
    let chain: Vec<CertificateDer<'static>> = objects(&path, "certificate")?;
    let key_path = file(options.key.as_ref(), options, "postgresql.key").ok_or_else(|| {
        PostgresError::refused(
            format!("there is no key for the certificate {}", path.display()),
            "name it with sslkey (else ~/.postgresql/postgresql.key is taken)",
        )
    })?;
    let unknown = |_| {
        PostgresError::refused(
            format!("the key {} is of a kind that is not known here", key_path.display()),
            "RSA (of 2048 bits or more), ECDSA and Ed25519 are known",
        )
    };
    let key = provider.key_provider.load_private_key(private_key(&key_path)?).map_err(unknown)?;
    let of_certificate = chain.first().and_then(Certificate::read).and_then(|certificate| certificate.key());
    if key.public_key() != of_certificate {
        return Err(PostgresError::refused(
            format!("the key {} does not go with the certificate {}", key_path.display(), path.display()),
            "name the key that the certificate was made for",
        ));
    }
    Ok(Some(CertifiedKey::new(chain, key)))
}

/// Reads a key, which nobody else may be able to read.
fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, PostgresError> {
    let about = fs::metadata(path).map_err(PostgresError::file("read", path))?;
    if !about.is_file() || is_open_to_others(&about) {
        return Err(PostgresError::refused(
            format!("the key {} can be read by others, or is no file", path.display()),
            "chmod 600, or 640 where root owns it",
        ));
    }
    let bytes = read(path)?;
    let is_locked = |mark: &[u8]| bytes.windows(mark.len()).any(|window| window == mark);
    if is_locked(b"ENCRYPTED PRIVATE KEY") || is_locked(b"Proc-Type: 4,ENCRYPTED") {
        return Err(PostgresError::refused(
            format!("the key {} has a passphrase, which this program does not ask for", path.display()),
            "openssl pkey -in KEY -out NEW writes it without one; keep that with mode 600",
        ));
    }
    PrivateKeyDer::from_pem_slice(&bytes).map_err(|_| {
        PostgresError::refused(
            format!("{} holds no key that can be read", path.display()),
            "it must be in the form PEM, which begins with -----BEGIN",
        )
    })
}

/// As PostgreSQL's own programs see it: the group of root's files may read them.
fn is_open_to_others(about: &Metadata) -> bool {
    let forbidden = if about.uid() == 0 { 0o037 } else { 0o077 };
    about.permissions().mode() & forbidden != 0
}
