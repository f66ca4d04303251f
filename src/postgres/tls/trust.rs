//! Whether a server's certificate is one of whom it should be.
//!
//! Chains are verified by the library. Two sorts of certificates it does not take are usual for database servers
//! and are accepted where that is as safe: one that stands in the file of trusted certificates itself (as the one
//! that a server has signed for itself), and one of the first version, which is what the recipe in PostgreSQL's manual
//! makes, where a certificate in that file has signed it directly.

use super::TlsFailure;
use super::certificate::Certificate;
use crate::postgres::error::PostgresError;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{
    WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature,
    verify_tls13_signature_with_raw_key,
};
use rustls::pki_types::{
    CertificateDer, CertificateRevocationListDer, ServerName, SignatureVerificationAlgorithm,
    SubjectPublicKeyInfoDer, TrustAnchor, UnixTime,
};
use rustls::{
    CertificateError, DigitallySignedStruct, Error as TlsError, OtherError, PeerMisbehaved, SignatureScheme,
};
use std::sync::Arc;
use webpki::{
    CertRevocationList, EndEntityCert, Error as PkiError, KeyUsage, OwnedCertRevocationList,
    RawPublicKeyEntity, RevocationOptionsBuilder, anchor_from_trusted_cert,
};

const RENEW: &str = "the server needs another certificate; look at the clock of this host, too";

/// Whose word counts for who a server is.
#[derive(Debug)]
pub(super) struct Trust {
    roots: Vec<CertificateDer<'static>>,
    anchors: Vec<TrustAnchor<'static>>,
    revoked: Vec<CertRevocationList<'static>>,
    /// Whom the certificate must be for, where that matters.
    host: Option<String>,
    /// Where the roots come from, for people.
    file: String,
}

impl Trust {
    pub fn new(
        roots: Vec<CertificateDer<'static>>,
        revoked: &[CertificateRevocationListDer<'static>],
        host: Option<String>,
        file: String,
    ) -> Result<Self, PostgresError> {
        let anchors = roots.iter().map(|root| anchor_from_trusted_cert(root).map(|anchor| anchor.to_owned()));
        let anchors: Result<Vec<_>, _> = anchors.collect();
        let anchors = anchors.map_err(|error| {
            PostgresError::refused(
                format!("{file} holds a certificate that cannot be read: {error}"),
                "make the file anew, with the certificates of those who may vouch for the server",
            )
        })?;
        let list = |list: &CertificateRevocationListDer<'_>| OwnedCertRevocationList::from_der(list);
        let revoked: Result<Vec<_>, _> = revoked.iter().map(|der| list(der).map(Into::into)).collect();
        let revoked = revoked.map_err(|error| {
            PostgresError::refused(
                format!("a list of revoked certificates (sslcrl) cannot be understood: {error}"),
                "it must be of version 2, with a number and the time of the next one",
            )
        })?;
        Ok(Self { roots, anchors, revoked, host, file })
    }

    fn check(
        &self,
        shown: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        now: UnixTime,
        algorithms: &[&dyn SignatureVerificationAlgorithm],
    ) -> Result<(), TlsFailure> {
        let odd = || TlsFailure::new("its certificate cannot be read", RENEW);
        // A certificate that was named itself needs nobody to vouch for it; who is to look for it in a list of revoked ones
        // cannot be known then.
        let is_named = self.revoked.is_empty() && self.roots.iter().any(|root| root == shown);
        match EndEntityCert::try_from(shown) {
            Err(PkiError::UnsupportedCertVersion) => {
                let certificate = Certificate::read(shown).filter(Certificate::is_first_version);
                let certificate = certificate.ok_or_else(odd)?;
                if !certificate.holds_at(now) {
                    return Err(TlsFailure::new("its certificate has expired, or does not hold yet", RENEW));
                }
                if !is_named && !self.has_signed(&certificate, now, algorithms) {
                    return Err(TlsFailure::new(
                        format!(
                            "its certificate is of version 1 and is not signed by one in {} itself",
                            self.file
                        ),
                        "sslrootcert must name the certificate of whoever signed it; or sign it anew with extensions (openssl \
                         x509 -req -extfile ...), which goes with certificates in between and sslcrl, too",
                    ));
                }
            }
            Err(_) => return Err(odd()),
            Ok(_) if is_named => {
                if !Certificate::read(shown).ok_or_else(odd)?.holds_at(now) {
                    return Err(TlsFailure::new("its certificate has expired, or does not hold yet", RENEW));
                }
            }
            Ok(entity) => self.verify_chain(&entity, others, now, algorithms)?,
        }
        match &self.host {
            Some(host) => self.check_name(&Certificate::read(shown).ok_or_else(odd)?, host),
            None => Ok(()),
        }
    }

    fn verify_chain(
        &self,
        entity: &EndEntityCert<'_>,
        others: &[CertificateDer<'_>],
        now: UnixTime,
        algorithms: &[&dyn SignatureVerificationAlgorithm],
    ) -> Result<(), TlsFailure> {
        let lists: Vec<&CertRevocationList<'_>> = self.revoked.iter().collect();
        // Every certificate of the chain must be in the keeping of a list, as for PostgreSQL's own programs.
        let revocation = RevocationOptionsBuilder::new(&lists).ok().map(RevocationOptionsBuilder::build);
        let usage = KeyUsage::server_auth();
        let verified =
            entity.verify_for_usage(algorithms, &self.anchors, others, now, usage, revocation, None);
        verified.map(drop).map_err(|error| match error {
            PkiError::UnknownIssuer | PkiError::CaUsedAsEndEntity => TlsFailure::new(
                format!("its certificate is not signed by anybody whose certificate is in {}", self.file),
                "sslrootcert must name the certificate of whoever signed the server's; if it does, somebody else may \
                 have answered",
            ),
            PkiError::CertExpired { .. } | PkiError::CertNotValidYet { .. } => {
                TlsFailure::new("its certificate has expired, or does not hold yet", RENEW)
            }
            PkiError::CertRevoked => TlsFailure::new("its certificate was revoked (sslcrl)", RENEW),
            PkiError::UnknownRevocationStatus => TlsFailure::new(
                "sslcrl has no list of whoever signed its certificate",
                "the file must hold a list of everybody who signed a certificate on the way",
            ),
            other => TlsFailure::new(format!("its certificate is not accepted: {other}"), RENEW),
        })
    }

    /// Says whether one of the roots has signed a certificate.
    fn has_signed(
        &self,
        certificate: &Certificate,
        now: UnixTime,
        algorithms: &[&dyn SignatureVerificationAlgorithm],
    ) -> bool {
        let Some((signed, kind, signature)) = certificate.signed() else { return false };
        let roots = self.roots.iter().filter_map(Certificate::read);
        let mut roots = roots.filter(|root| certificate.is_issued_by(root) && root.holds_at(now));
        self.revoked.is_empty()
            && roots.any(|root| {
                let Some(key) = root.key() else { return false };
                let Ok(key) = RawPublicKeyEntity::try_from(&key) else { return false };
                let mut fitting =
                    algorithms.iter().filter(|algorithm| *algorithm.signature_alg_id() == *kind);
                fitting.any(|algorithm| key.verify_signature(*algorithm, &signed, &signature).is_ok())
            })
    }

    fn check_name(&self, certificate: &Certificate, host: &str) -> Result<(), TlsFailure> {
        if certificate.is_for(host) {
            return Ok(());
        }
        let names = certificate.names(false);
        let whom = if names.is_empty() { "nobody".to_owned() } else { names.join(", ") };
        Err(TlsFailure::new(
            format!("its certificate is for {whom}, not for {host}"),
            "connect by a name that the certificate has (hostaddr says where that is); sslmode=verify-ca does not \
             look at names",
        ))
    }
}

/// Looks at what servers show, for the library.
#[derive(Debug)]
pub(super) struct Verifier {
    algorithms: WebPkiSupportedAlgorithms,
    trust: Option<Trust>,
}

impl Verifier {
    /// Without trust every certificate will do; its owner must still prove that he has the key.
    pub fn new(algorithms: WebPkiSupportedAlgorithms, trust: Option<Trust>) -> Self {
        Self { algorithms, trust }
    }
}

/// Returns the key of a certificate that the library does not read, as it reads none of the first version. Whether the
/// certificate is accepted is another question, and has been answered.
fn key_of_unread(certificate: &CertificateDer<'_>) -> Option<SubjectPublicKeyInfoDer<'static>> {
    match EndEntityCert::try_from(certificate) {
        Ok(_) => None,
        Err(_) => Certificate::read(certificate)?.key(),
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, TlsError> {
        if let Some(trust) = &self.trust {
            trust
                .check(end_entity, intermediates, now, self.algorithms.all)
                .map_err(|failure| CertificateError::Other(OtherError(Arc::new(failure))))?;
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        let Some(key) = key_of_unread(certificate) else {
            return verify_tls12_signature(message, certificate, signed, &self.algorithms);
        };
        let key = RawPublicKeyEntity::try_from(&key).map_err(|_| CertificateError::BadEncoding)?;
        let known = self.algorithms.mapping.iter().find(|(scheme, _)| *scheme == signed.scheme);
        let Some((_, algorithms)) = known else {
            return Err(PeerMisbehaved::SignedHandshakeWithUnadvertisedSigScheme.into());
        };
        let holds = |algorithm: &&dyn SignatureVerificationAlgorithm| {
            key.verify_signature(*algorithm, message, signed.signature()).is_ok()
        };
        match algorithms.iter().any(holds) {
            true => Ok(HandshakeSignatureValid::assertion()),
            false => Err(CertificateError::BadSignature.into()),
        }
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        match key_of_unread(certificate) {
            Some(key) => verify_tls13_signature_with_raw_key(message, &key, signed, &self.algorithms),
            None => verify_tls13_signature(message, certificate, signed, &self.algorithms),
        }
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
