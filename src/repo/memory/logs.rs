//! Merged log packs as catalogues tell of them: by their first records ([CATALOG-7]).

use super::{Memory, Opened};
use crate::format::ObjectKind;
use crate::format::catalog::CatalogEntry;
use crate::format::log::{LogRecord, LogRecordKind};
use crate::repo::logs::FoundLog;

impl Memory {
    /// Returns the merged log packs that are there as far as catalogues know. Whether their signers may make
    /// such is not asked.
    pub fn merges(&self) -> impl Iterator<Item = FoundLog> {
        self.entries().filter_map(merge)
    }
}

/// Returns a merged log pack as a catalogue lists it; nothing where its record turned out bad.
pub(in crate::repo) fn merge(entry: &CatalogEntry) -> Option<FoundLog> {
    if entry.place.kind() != ObjectKind::LogPack {
        return None;
    }
    let opened = Opened::unpack(&entry.original)?;
    let record = LogRecord::decode(&opened.payload).ok()?;
    (record.kind == LogRecordKind::Merged).then(|| FoundLog {
        id: entry.place.id().into(),
        object: entry.place.to_string(),
        length: entry.length,
        record,
        signer: opened.signer,
        stored: Some(entry.first_seen),
    })
}
