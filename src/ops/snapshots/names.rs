//! Which snapshot a name means: an id or the beginning of one, a label, a label of a host or at a time.
//!
//! A name means the same for every command, because it is looked up here only.

use super::super::error::OpsError;
use super::super::time::{read_time, show_time};
use super::{SnapshotView, Snapshots};
use crate::base::{SnapshotId, Timestamp};
use crate::repo::RepoError;
use std::collections::BTreeSet;

/// Fewest digits of an id that stand for the whole.
const PREFIX_DIGITS_MIN: usize = 8;
/// Most bytes of a label.
pub const LABEL_BYTES_MAX: usize = 255;
/// The name of the newest snapshot of all.
const LATEST: &str = "latest";

/// Says whether a text can be a label: not empty, no `:` `@` or control characters, and not to be
/// taken for an id or for `latest`.
pub fn is_label(text: &str) -> bool {
    let id = text.len() >= PREFIX_DIGITS_MIN && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    !text.is_empty()
        && !id
        && text != LATEST
        && text.len() <= LABEL_BYTES_MAX
        && !text.contains(|c: char| c == ':' || c == '@' || c.is_control())
}

/// Cuts a label so that it fits, with a hash of `whole` behind it: the rest tells series apart too.
pub fn cut_label(label: &str, whole: &str) -> String {
    let hash = blake3::hash(whole.as_bytes()).to_hex();
    let hash = hash.get(..8).unwrap_or_default();
    let most = LABEL_BYTES_MAX - hash.len() - 1;
    let end = (0..=most.min(label.len())).rev().find(|end| label.is_char_boundary(*end)).unwrap_or(0);
    format!("{}~{hash}", label.get(..end).unwrap_or_default())
}

/// Refuses what cannot be a label.
///
/// # Errors
///
/// [`OpsError::Usage`] with the rule.
pub fn check_label(text: &str) -> Result<(), OpsError> {
    if is_label(text) {
        return Ok(());
    }
    Err(OpsError::Usage(format!(
        "{text:?} cannot be a label: a label has no ':', no '@', no control characters and at most {LABEL_BYTES_MAX} bytes, \
         and is neither {LATEST:?} nor eight or more hexadecimal digits"
    )))
}

impl Snapshots {
    /// Finds the snapshot that a name means, one that does not count or cannot be read too, by its id.
    ///
    /// # Errors
    ///
    /// As [`Snapshots::resolve`].
    pub fn resolve_any(&self, name: &str) -> Result<SnapshotId, OpsError> {
        let error = match self.resolve(name) {
            Ok(view) => return Ok(view.id),
            Err(error) => error,
        };
        let digits = name.len() >= PREFIX_DIGITS_MIN && name.bytes().all(|byte| byte.is_ascii_hexdigit());
        let prefix = name.to_ascii_lowercase();
        let mut found: Vec<SnapshotId> = self
            .refused_snapshots()
            .map(|(id, _)| id)
            .filter(|id| digits && id.to_string().starts_with(&prefix))
            .collect();
        found.dedup();
        match found.as_slice() {
            [id] => Ok(*id),
            _ => Err(error),
        }
    }

    /// Finds the snapshot that a name means: an id or a unique prefix of at least eight digits, a
    /// label (its newest), `LABEL@HOST`, `LABEL@{TIME}` (its newest at or before that time), `LABEL@HOST@{TIME}`, or
    /// `latest`. Where several hosts have a label and none is given, it is this host's ([`Snapshots::on_host`]).
    ///
    /// # Errors
    ///
    /// When none answers to it, or several could.
    pub fn resolve(&self, name: &str) -> Result<&SnapshotView, OpsError> {
        let (base, time) = match name.split_once("@{") {
            Some((base, rest)) => {
                let time = rest.strip_suffix('}').ok_or_else(|| unknown_form(name))?;
                (base, Some(self.read_time(time)?))
            }
            None => (name, None),
        };
        let in_time = |view: &&SnapshotView| time.is_none_or(|time| view.snapshot.started <= time);
        let no_such = || self.no_such(name);
        if base == LATEST {
            self.require_one_label()?;
            return self.iter().rev().find(in_time).ok_or_else(no_such);
        }
        let (label, host) = match base.split_once('@') {
            Some((label, host)) => (label, Some(host)),
            None => (base, None),
        };
        if time.is_none() && host.is_none() && !is_label(label) {
            return self.resolve_id(name);
        }
        let labelled = |view: &&SnapshotView| view.snapshot.label == label && in_time(view);
        let hosts: BTreeSet<&str> =
            self.iter().filter(labelled).map(|view| view.snapshot.host.as_str()).collect();
        let host = match (host.or(self.host.as_deref().filter(|own| hosts.contains(own))), hosts.len()) {
            (None, 2..) => {
                let candidates =
                    hosts.iter().map(|host| format!("{label}@{host}")).collect::<Vec<_>>().join(", ");
                return Err(RepoError::Ambiguous { name: name.to_owned(), candidates }.into());
            }
            (host, _) => host,
        };
        let of_host = |view: &&SnapshotView| host.is_none_or(|host| view.snapshot.host == host);
        self.iter().rev().filter(labelled).find(of_host).ok_or_else(no_such)
    }

    /// Finds the snapshot and the path that `SNAP[:PATH]` means. The path comes as its components;
    /// without one it is empty and means the whole snapshot.
    ///
    /// # Errors
    ///
    /// As [`Snapshots::resolve`]; also for a path with `..` in it.
    pub fn resolve_with_path(
        &self,
        name: impl AsRef<[u8]>,
    ) -> Result<(&SnapshotView, Vec<Vec<u8>>), OpsError> {
        let (snapshot, path) = split_path(name.as_ref());
        let snapshot =
            std::str::from_utf8(snapshot).map_err(|_| unknown_form(&String::from_utf8_lossy(snapshot)))?;
        let view = self.resolve(snapshot)?;
        let path: Vec<Vec<u8>> = path
            .unwrap_or_default()
            .split(|byte| *byte == b'/')
            .filter(|part| !part.is_empty() && *part != b".")
            .map(<[u8]>::to_vec)
            .collect();
        if path.iter().any(|part| part == b"..") {
            return Err(OpsError::Usage("a path in a snapshot has no \"..\"".to_owned()));
        }
        Ok((view, path))
    }

    fn resolve_id(&self, name: &str) -> Result<&SnapshotView, OpsError> {
        let digits = name.len() >= PREFIX_DIGITS_MIN && name.bytes().all(|byte| byte.is_ascii_hexdigit());
        if !digits {
            return Err(unknown_form(name));
        }
        let prefix = name.to_ascii_lowercase();
        let mut found = self.views.iter().filter(|view| view.id.to_string().starts_with(&prefix));
        match (found.next(), found.next()) {
            (Some(view), None) => Ok(view),
            (None, _) => Err(self.no_such(name)),
            (Some(first), Some(second)) => Err(RepoError::Ambiguous {
                name: name.to_owned(),
                candidates: format!("{}, {}", first.id, second.id),
            }
            .into()),
        }
    }

    fn require_one_label(&self) -> Result<(), OpsError> {
        let labels = self.labels();
        if labels.len() <= 1 {
            return Ok(());
        }
        let candidates = labels.into_iter().collect::<Vec<_>>().join(", ");
        Err(RepoError::Ambiguous { name: LATEST.to_owned(), candidates: format!("the labels {candidates}") }
            .into())
    }

    fn labels(&self) -> BTreeSet<&str> {
        self.iter().map(|view| view.snapshot.label.as_str()).collect()
    }

    fn no_such(&self, name: &str) -> OpsError {
        RepoError::NoSnapshot(name.to_owned()).into()
    }

    fn read_time(&self, text: &str) -> Result<Timestamp, OpsError> {
        let environment = self.repository.environment();
        let read = read_time(text, environment.clock.now(), &self.zone).ok_or_else(|| {
            OpsError::Usage(format!(
                "{text:?} is no time: write 2026-01-15 14:30, 2026-01-15T14:30:00+01:00, yesterday or 2 hours ago"
            ))
        })?;
        if read.assumed {
            environment.observer.note(&format!("{text} is {}", show_time(read.time, &self.zone)));
        }
        Ok(read.time)
    }
}

fn unknown_form(name: &str) -> OpsError {
    OpsError::Usage(format!(
        "{name:?} names no snapshot: give an id or at least {PREFIX_DIGITS_MIN} digits of it, a label, LABEL@HOST or LABEL@{{TIME}}"
    ))
}

/// Parts `SNAP:PATH` at the first colon outside of `@{TIME}`.
fn split_path(name: &[u8]) -> (&[u8], Option<&[u8]>) {
    let time = name.windows(2).position(|pair| pair == b"@{");
    let colon = name.iter().position(|byte| *byte == b':');
    let from = match (time, colon) {
        (Some(time), Some(colon)) if time < colon => {
            name.iter().position(|byte| *byte == b'}').unwrap_or(name.len())
        }
        _ => 0,
    };
    let found = name.iter().enumerate().skip(from).find(|(_, byte)| **byte == b':');
    let parted = found.and_then(|(at, _)| name.split_at_checked(at));
    match parted {
        Some((snapshot, path)) => (snapshot, path.split_first().map(|(_, path)| path)),
        None => (name, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels() {
        for good in ["dump", "app.sql", "d", "abcdefg", "deadbee", "/var/lib/app", "two words", "ünï"] {
            assert!(is_label(good), "{good}");
        }
        for bad in ["", "latest", "deadbeef", "DEADBEEF0", "a:b", "a@b", "a\nb"] {
            assert!(!is_label(bad), "{bad}");
        }
        assert_eq!(cut_label("app", "a:p").len(), "app~01234567".len());
        let (one, other) = (cut_label(&"ü".repeat(300), "one"), cut_label(&"ü".repeat(300), "other"));
        assert!(is_label(&one) && one.len() >= LABEL_BYTES_MAX - 1 && one != other, "{one}");
        assert!(check_label("a:b").unwrap_err().to_string().contains("no ':'"));
    }

    #[test]
    fn a_path_follows_the_first_colon_outside_of_a_time() {
        let split = |text: &'static str| {
            let (snapshot, path) = split_path(text.as_bytes());
            (std::str::from_utf8(snapshot).unwrap(), path.map(|path| std::str::from_utf8(path).unwrap()))
        };
        assert_eq!(split("dump"), ("dump", None));
        assert_eq!(split("dump:"), ("dump", Some("")));
        assert_eq!(split("dump:a:b@{c}"), ("dump", Some("a:b@{c}")));
        assert_eq!(split("dump@{14:30}"), ("dump@{14:30}", None));
        assert_eq!(split("dump@{14:30}:a/b:c"), ("dump@{14:30}", Some("a/b:c")));
        assert_eq!(split("dump@{14:30"), ("dump@{14:30", None));
        assert_eq!(split(":x"), ("", Some("x")));
    }
}
