//! What opens for nobody, told from what this client was not granted: an object of an epoch that there is not
//! ([CONCURRENCY-54]).
//!
//! Whoever can put an object can name any epoch in it. It would stop whoever deletes, and nobody has a key that
//! could do anything about it. Of what an owner or maintainer has signed it says something else: the registry had
//! that epoch once, and is not whole. What is of a version that this program does not know is another matter: a newer
//! one may know it ([VERSIONING-6]).

use super::amend;
use super::error::RepoError;
use super::repository::Repository;
use super::sealed::{Author, author};
use crate::format::FormatError;
use crate::format::envelope::Envelope;

impl Repository {
    /// Judges why an object did not open: what nobody can open is damaged.
    pub(super) fn judge(&self, name: &str, bytes: &[u8], error: RepoError) -> RepoError {
        let sealing = match error {
            RepoError::Forbidden { .. } => Envelope::parse(bytes).ok().and_then(|p| p.envelope.sealing),
            _ => return error,
        };
        let Some(epoch) = sealing.map(|sealing| sealing.epoch) else { return error };
        if self.registry().trust().epoch(epoch).is_some() {
            return error;
        }
        // It may have begun since this client opened the repository.
        match amend::load(self, &[self.registry().head()]) {
            Ok(now) if now.trust().epoch(epoch).is_some() => error,
            Ok(_) if self.is_of_who_deletes(name, bytes) => {
                RepoError::SetBack { object: name.to_owned(), epoch }
            }
            Ok(_) => {
                let why = "it is of an epoch that there is not";
                RepoError::damaged(name)(FormatError::Invalid { what: "object", why })
            }
            Err(failed) => failed,
        }
    }

    /// Says whether somebody signed an object who could delete everything anyhow.
    fn is_of_who_deletes(&self, name: &str, bytes: &[u8]) -> bool {
        let id = name.rsplit('/').next().and_then(|id| id.parse().ok());
        let kind = Envelope::parse(bytes).map(|parsed| parsed.envelope.kind);
        let (Some(id), Ok(kind)) = (id, kind) else { return false };
        let signer = author(name, id, kind, self.id(), bytes, |key| self.registry().any_key(key));
        matches!(signer, Author::Key(key) if self.registry().is_believed(&key))
    }
}
