//! Whether packs disagree about a frame ([CONCURRENCY-48]): then one of them is forged, and copies of both would
//! rest on one word.
//!
//! Who can open the frame looks whether it is what it claims to be. Others go by the packs' own tables, since an
//! index run may say what it likes, and by what those have reported who read content.

use super::damaged::SpoiltPacks;
use super::error::RepoError;
use super::index::{KnownPack, Located};
use super::packs::pack_name;
use super::repository::Repository;
use super::scan::{FrameState, PackScanner};
use crate::base::{BlobId, PackId, limits};
use crate::format::pack::{FrameRecord, Origin};
use crate::storage::StorageError;
use std::collections::HashMap;
use std::sync::Arc;

/// Tables of contents that are remembered.
const TABLES: usize = 64;

/// What became of a frame that is to be copied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Nothing speaks against it.
    Sound,
    /// Another pack holds something else that claims to be this frame, and nobody can tell which it is.
    Contested,
    /// It was opened, and is not what it claims to be.
    Forged,
}

/// What a pack says of itself.
enum Table {
    /// It is gone, or is no pack and never will be one.
    Nothing,
    /// It cannot be read, and may be whole another day.
    Unknown,
    /// Its table of contents.
    Frames(Arc<KnownPack>, Vec<FrameRecord>),
}

/// Judges frames of which packs disagree.
#[derive(Default)]
pub(super) struct Contests {
    tables: HashMap<PackId, Table>,
    reported: Option<SpoiltPacks>,
    scanner: Option<PackScanner>,
}

impl Contests {
    /// Says whether a frame may be copied.
    ///
    /// # Errors
    ///
    /// When the store does not answer.
    pub fn judge(
        &mut self,
        repository: &Arc<Repository>,
        pack: &Arc<KnownPack>,
        frame: &FrameRecord,
        sealed: &[u8],
    ) -> Result<Verdict, RepoError> {
        if !self.is_contested(repository, pack, frame, sealed)? {
            return Ok(Verdict::Sound);
        }
        let scanner = match &mut self.scanner {
            Some(scanner) => scanner,
            None => self.scanner.insert(PackScanner::new(repository)?),
        };
        let (state, read) = scanner.salvage(pack, frame)?;
        Ok(match state {
            _ if read != sealed => Verdict::Contested,
            FrameState::Good => Verdict::Sound,
            FrameState::Bad(_) => Verdict::Forged,
            FrameState::Baseless(_) | FrameState::Closed => Verdict::Contested,
        })
    }

    fn is_contested(
        &mut self,
        repository: &Arc<Repository>,
        pack: &KnownPack,
        frame: &FrameRecord,
        sealed: &[u8],
    ) -> Result<bool, RepoError> {
        let Some(origin) = pack.origins.get(usize::from(frame.origin)) else { return Ok(false) };
        let mut at = 0;
        for (id, length) in &frame.blobs {
            for copy in repository.index().find(pack.class, id, false, |known| known.id != pack.id) {
                let record = &copy.record;
                let claims = copy.pack.origins.get(usize::from(record.origin)) == Some(origin)
                    && record.counter == frame.counter;
                let alike = (record.base, record.depth, record.encoding, record.plain_length)
                    == (frame.base, frame.depth, frame.encoding, frame.plain_length)
                    && (record.offset, record.length, record.sealed_length)
                        == (at, *length, frame.sealed_length);
                if claims
                    && !(alike && has_bytes(repository, &copy.pack.id, record.frame_offset, sealed)?)
                    && self.holds_other(repository, &copy, origin, frame, sealed)?
                    && !self.is_reported(repository, &copy.pack.id, &pack.id, id)?
                {
                    return Ok(true);
                }
            }
            at = at.saturating_add(*length);
        }
        Ok(false)
    }

    /// Says whether a pack really holds something else under an origin and counter. What a run says of a pack
    /// that its signer did not sign is not asked ([INDEX-9]).
    fn holds_other(
        &mut self,
        repository: &Repository,
        copy: &Located,
        origin: &Origin,
        frame: &FrameRecord,
        sealed: &[u8],
    ) -> Result<bool, RepoError> {
        if self.tables.len() >= TABLES && !self.tables.contains_key(&copy.pack.id) {
            self.tables.clear();
        }
        let table = match self.tables.get(&copy.pack.id) {
            Some(table) => table,
            None => {
                let table = read_table(repository, &copy.pack)?;
                self.tables.entry(copy.pack.id).or_insert(table)
            }
        };
        let (known, frames) = match table {
            Table::Nothing => return Ok(false),
            Table::Unknown => return Ok(true),
            Table::Frames(known, frames) => (known, frames),
        };
        if known.signer != copy.pack.signer {
            return Ok(false);
        }
        for other in frames {
            let same_place = known.origins.get(usize::from(other.origin)) == Some(origin)
                && other.counter == frame.counter;
            let described = FrameRecord { origin: frame.origin, offset: frame.offset, ..other.clone() };
            if same_place && !(described == *frame && has_bytes(repository, &known.id, other.offset, sealed)?)
            {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Says whether somebody who reads content has reported the one pack for this blob, and nobody the other.
    fn is_reported(
        &mut self,
        repository: &Repository,
        pack: &PackId,
        not: &PackId,
        blob: &BlobId,
    ) -> Result<bool, RepoError> {
        let reported = match &self.reported {
            Some(reported) => reported,
            None => self.reported.insert(repository.damage_reports()?.forged(repository.registry())),
        };
        Ok(reported.names(pack, blob) && !reported.names(not, blob))
    }
}

/// Says whether these bytes lie in a pack, or the pack is gone.
fn has_bytes(repository: &Repository, pack: &PackId, at: u32, sealed: &[u8]) -> Result<bool, RepoError> {
    let mut found = Vec::new();
    let store = &repository.environment().store;
    match store.get_range(&pack_name(pack), at.into(), sealed.len(), &mut found) {
        Ok(()) => Ok(found == sealed),
        Err(StorageError::NotFound { .. }) => Ok(true),
        Err(error @ StorageError::Transient { .. }) => Err(error.into()),
        Err(_) => Ok(false),
    }
}

fn read_table(repository: &Repository, pack: &KnownPack) -> Result<Table, RepoError> {
    let name = pack_name(&pack.id);
    match repository.describe_pack(&pack.id, pack.length.into()) {
        Ok((known, frames)) => Ok(Table::Frames(known, frames)),
        Err(RepoError::Storage(StorageError::NotFound { .. })) => Ok(Table::Nothing),
        Err(error @ RepoError::Storage(StorageError::Transient { .. })) => Err(error),
        // Where the bytes are those of its name it was made that way.
        Err(RepoError::Damaged { .. } | RepoError::Untrusted { .. }) => {
            match repository.environment().store.get(&name, limits::PACK_BYTES_MAX) {
                Ok(bytes) if blake3::hash(&bytes) == *pack.id.as_bytes() => Ok(Table::Nothing),
                Err(error @ StorageError::Transient { .. }) => Err(error.into()),
                _ => Ok(Table::Unknown),
            }
        }
        Err(_) => Ok(Table::Unknown),
    }
}
