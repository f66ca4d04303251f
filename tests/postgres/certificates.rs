//! Certificates of a test, made by the `openssl` program.

use super::support::server::check;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;

/// What extensions there are, by name.
const SECTIONS: &str = "
[req]
distinguished_name = name
prompt = no
[name]
CN = unused
[authority]
basicConstraints = critical, CA:TRUE
keyUsage = critical, keyCertSign, cRLSign
subjectKeyIdentifier = hash
[server]
basicConstraints = CA:FALSE
subjectAltName = DNS:db.example.org, DNS:*.wild.example.org, IP:127.0.0.1
[client]
basicConstraints = CA:FALSE
extendedKeyUsage = clientAuth
[ca]
default_ca = lists
[lists]
database = index.txt
default_md = sha256
default_crl_days = 5
crl_extensions = list
crlnumber = number
policy = any
serial = serial
unique_subject = no
[any]
commonName = supplied
[list]
authorityKeyIdentifier = keyid
";

/// A folder of certificates (`NAME.crt`) and keys (`NAME.key`).
pub struct Certificates {
    folder: TempDir,
}

impl Certificates {
    /// Makes a folder with one authority, `root`, that is good for ten days.
    pub fn new() -> Self {
        let certificates = Self { folder: TempDir::new().unwrap() };
        fs::write(certificates.path("sections"), SECTIONS).unwrap();
        fs::write(certificates.path("index.txt"), "").unwrap();
        fs::write(certificates.path("number"), "01\n").unwrap();
        fs::write(certificates.path("serial"), "01\n").unwrap();
        certificates.authority("root");
        certificates
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn text(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }

    fn openssl(&self, arguments: &[&str]) {
        let mut command = Command::new("openssl");
        check(
            "openssl (Debian package openssl)",
            command.args(arguments).current_dir(self.folder.path()).output(),
        );
    }

    /// Makes an authority that has signed itself.
    pub fn authority(&self, name: &str) {
        self.signed_by_itself(name, name, "authority", "10");
    }

    /// Makes a certificate that has signed itself, with the extensions of a section.
    pub fn signed_by_itself(&self, name: &str, common: &str, section: &str, days: &str) {
        let (key, out) = (format!("{name}.key"), format!("{name}.crt"));
        let subject = format!("/CN={common}");
        self.openssl(&[
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
            "-config",
            "sections",
            "-extensions",
            section,
            "-subj",
            &subject,
            "-days",
            days,
            "-keyout",
            &key,
            "-out",
            &out,
        ]);
    }

    /// Makes a key, and a request for a certificate.
    fn request(&self, name: &str, common: &str) {
        let (key, request, subject) = (format!("{name}.key"), format!("{name}.csr"), format!("/CN={common}"));
        self.openssl(&[
            "req",
            "-new",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
            "-config",
            "sections",
            "-subj",
            &subject,
            "-keyout",
            &key,
            "-out",
            &request,
        ]);
    }

    /// Makes a certificate for a common name, signed by an authority; without a section it is of version 1.
    pub fn signed(&self, name: &str, common: &str, by: &str, section: Option<&str>, days: &str) {
        self.request(name, common);
        let (request, out) = (format!("{name}.csr"), format!("{name}.crt"));
        let serial = format!("{}", 1000 + name.len());
        let (authority, authority_key) = (format!("{by}.crt"), format!("{by}.key"));
        let mut sign = vec![
            "x509",
            "-req",
            "-in",
            &request,
            "-CA",
            &authority,
            "-CAkey",
            &authority_key,
            "-set_serial",
            &serial,
            "-days",
            days,
            "-sha256",
            "-out",
            &out,
        ];
        if let Some(section) = section {
            sign.extend(["-extfile", "sections", "-extensions", section]);
        }
        self.openssl(&sign);
    }

    /// Makes one that has expired.
    pub fn expired(&self, name: &str, common: &str, by: &str, section: Option<&str>) {
        self.request(name, common);
        let (authority, authority_key) = (format!("{by}.crt"), format!("{by}.key"));
        let (request, out) = (format!("{name}.csr"), format!("{name}.crt"));
        let mut sign = vec![
            "ca",
            "-batch",
            "-notext",
            "-config",
            "sections",
            "-cert",
            &authority,
            "-keyfile",
            &authority_key,
        ];
        sign.extend(["-outdir", ".", "-startdate", "20200101000000Z", "-enddate", "20210101000000Z"]);
        sign.extend(["-in", &request, "-out", &out]);
        if let Some(section) = section {
            sign.extend(["-extensions", section]);
        }
        self.openssl(&sign);
    }

    /// Makes a list of what an authority has revoked: these certificates.
    pub fn revoke(&self, list: &str, by: &str, revoked: &[&str]) {
        let (authority, authority_key) = (format!("{by}.crt"), format!("{by}.key"));
        let by = ["-config", "sections", "-cert", &authority, "-keyfile", &authority_key];
        for name in revoked {
            self.openssl(&[&["ca", "-revoke", &format!("{name}.crt")], &by[..]].concat());
        }
        self.openssl(&[&["ca", "-gencrl", "-out", list], &by[..]].concat());
    }

    /// Gives a key a passphrase.
    pub fn lock(&self, name: &str, locked: &str) {
        self.openssl(&["pkey", "-in", name, "-aes256", "-passout", "pass:geheim", "-out", locked]);
    }

    /// Writes several files one behind the other.
    pub fn chain(&self, names: &[&str], out: &str) {
        let all: Vec<u8> = names.iter().flat_map(|name| fs::read(self.path(name)).unwrap()).collect();
        fs::write(self.path(out), all).unwrap();
    }

    pub fn copy(&self, name: &str, to: &Path) {
        fs::copy(self.path(name), to).unwrap();
    }
}
