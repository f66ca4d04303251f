//! What stands in a certificate: whom it is for, when it holds, who signed it.

use aws_lc_rs::digest::{self, Algorithm};
use rustls::pki_types::{CertificateDer, SubjectPublicKeyInfoDer, UnixTime};
use std::net::IpAddr;
use x509_cert::Version;
use x509_cert::der::asn1::ObjectIdentifier;
use x509_cert::der::{Decode, Encode};
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::ext::pkix::name::GeneralName;

/// A certificate that was taken apart.
#[derive(Debug, Clone)]
pub(super) struct Certificate(x509_cert::Certificate);

impl Certificate {
    /// Takes a certificate apart; `None` where it is none.
    pub fn read(bytes: &CertificateDer<'_>) -> Option<Self> {
        x509_cert::Certificate::from_der(bytes).ok().map(Self)
    }

    /// Says whether it is of the first version, which has no extensions: it cannot say what it is for.
    pub fn is_first_version(&self) -> bool {
        self.0.tbs_certificate().version() == Version::V1
    }

    /// Returns its public key with the kind of key.
    pub fn key(&self) -> Option<SubjectPublicKeyInfoDer<'static>> {
        self.0.tbs_certificate().subject_public_key_info().to_der().ok().map(Into::into)
    }

    /// Says whether it names itself as the one that signed it.
    pub fn is_issued_by(&self, other: &Self) -> bool {
        self.0.tbs_certificate().issuer() == other.0.tbs_certificate().subject()
    }

    /// Returns what is signed, the kind of signature without its tag and length, and the signature.
    pub fn signed(&self) -> Option<(Vec<u8>, Vec<u8>, Vec<u8>)> {
        let kind = self.0.signature_algorithm();
        // Both places must say the same.
        if kind != self.0.tbs_certificate().signature() {
            return None;
        }
        let mut algorithm = kind.oid.to_der().ok()?;
        if let Some(parameters) = &kind.parameters {
            algorithm.extend(parameters.to_der().ok()?);
        }
        let signature = self.0.signature().as_bytes()?.to_vec();
        Some((self.0.tbs_certificate().to_der().ok()?, algorithm, signature))
    }

    /// Says whether it holds at a time.
    pub fn holds_at(&self, now: UnixTime) -> bool {
        let validity = self.0.tbs_certificate().validity();
        let seconds = |time: x509_cert::time::Time| time.to_unix_duration().as_secs();
        (seconds(validity.not_before)..=seconds(validity.not_after)).contains(&now.as_secs())
    }

    /// Returns the names of hosts and the addresses that it is for. Where it has none of the kind that is asked for, the
    /// common name counts, as it does for PostgreSQL's own programs.
    pub fn names(&self, of_address: bool) -> Vec<String> {
        let certificate = self.0.tbs_certificate();
        let alternatives = certificate.get_extension::<SubjectAltName>().ok().flatten();
        let alternatives = alternatives.map(|(_, names)| names.0).unwrap_or_default();
        let mut names: Vec<String> = alternatives.iter().filter_map(name).collect();
        let is_wanted = |name: &GeneralName| match name {
            GeneralName::DnsName(_) => !of_address,
            GeneralName::IpAddress(_) => of_address,
            _ => false,
        };
        if !alternatives.iter().any(is_wanted) {
            let common = certificate.subject().common_name().ok().flatten();
            names.extend(common.map(|name| name.value().into_owned()));
        }
        names
    }

    /// Says whether it is for a host.
    pub fn is_for(&self, host: &str) -> bool {
        let address = host.parse::<IpAddr>().ok();
        self.names(address.is_some()).iter().any(|name| match address {
            Some(address) => name.parse() == Ok(address),
            None => fits(name, host),
        })
    }
}

fn name(name: &GeneralName) -> Option<String> {
    match name {
        GeneralName::DnsName(name) => Some(name.as_str().to_owned()),
        GeneralName::IpAddress(bytes) => {
            let bytes = bytes.as_bytes();
            let four = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
            four.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from)).ok().map(|ip| ip.to_string())
        }
        _ => None,
    }
}

/// Compares a name of a certificate with that of a host: `*.` stands for one label.
fn fits(name: &str, host: &str) -> bool {
    if name.eq_ignore_ascii_case(host) {
        return true;
    }
    let (Some(domain), Some((label, rest))) = (name.strip_prefix("*."), host.split_once('.')) else {
        return false;
    };
    !label.is_empty() && !domain.is_empty() && domain.eq_ignore_ascii_case(rest)
}

/// Returns what binds a password's proof to a connection with this certificate (`tls-server-end-point` of RFC
/// 5929): its digest by the function that its signature uses, or a better one. `None` where that names none.
pub(super) fn end_point(certificate: &CertificateDer<'_>) -> Option<Vec<u8>> {
    let read = Certificate::read(certificate)?;
    let function = function(read.0.signature_algorithm().oid)?;
    Some(digest::digest(function, certificate).as_ref().to_vec())
}

fn function(signature: ObjectIdentifier) -> Option<&'static Algorithm> {
    // MD5 and SHA-1 with RSA, DSA and ECDSA are replaced by SHA-256.
    match signature.to_string().as_str() {
        "1.2.840.113549.1.1.4" | "1.2.840.113549.1.1.5" | "1.2.840.10040.4.3" | "1.2.840.10045.4.1" => {
            Some(&digest::SHA256)
        }
        "1.2.840.113549.1.1.11" | "1.2.840.10045.4.3.2" | "2.16.840.1.101.3.4.3.2" => Some(&digest::SHA256),
        "1.2.840.113549.1.1.12" | "1.2.840.10045.4.3.3" => Some(&digest::SHA384),
        "1.2.840.113549.1.1.13" | "1.2.840.10045.4.3.4" => Some(&digest::SHA512),
        "1.2.840.113549.1.1.14" | "1.2.840.10045.4.3.1" => Some(&digest::SHA224),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_hosts() {
        for (name, host) in [("db1", "DB1"), ("*.example.org", "db1.example.org"), ("A.b", "a.B")] {
            assert!(fits(name, host), "{name} {host}");
        }
        for (name, host) in [
            ("*", "db1"),
            ("*.", "db1."),
            ("*.example.org", "example.org"),
            ("*.example.org", "a.b.example.org"),
            ("*.example.org", ".example.org"),
            ("d*.example.org", "db1.example.org"),
            ("db1", "db1.example.org"),
            ("db1\0.evil", "db1"),
        ] {
            assert!(!fits(name, host), "{name} {host}");
        }
    }

    #[test]
    fn digests_of_signatures() {
        let length = |oid: &str| function(ObjectIdentifier::new_unwrap(oid)).map(Algorithm::output_len);
        assert_eq!(length("1.2.840.113549.1.1.5"), Some(32), "SHA-1 is not used");
        assert_eq!(length("1.2.840.10045.4.3.3"), Some(48));
        assert_eq!(length("1.2.840.113549.1.1.13"), Some(64));
        assert_eq!(length("1.3.101.112"), None, "Ed25519 names no function");
    }
}
