//! Metadata blobs: tree nodes and recipe nodes, several of them sharing a frame.

use crate::base::BlobId;
use crate::format::pack::BlobClass;
use crate::repo::{FrameEncoder, RepoError, WriteSession};

/// Plain bytes of nodes that are sealed together: neighbours of a tree are read together.
pub const METADATA_FRAME_BYTES: usize = 128 << 10;
/// Compression level of metadata: it is small and read often.
const LEVEL: i32 = 6;

/// Stores metadata blobs that are new.
pub struct MetadataWriter<'a> {
    session: &'a WriteSession,
    encoder: FrameEncoder,
    plain: Vec<u8>,
    blobs: Vec<(BlobId, u32)>,
}

impl<'a> MetadataWriter<'a> {
    /// Prepares a writer.
    ///
    /// # Errors
    ///
    /// When memory is short.
    pub fn new(session: &'a WriteSession) -> Result<Self, RepoError> {
        Ok(Self { session, encoder: FrameEncoder::new(LEVEL)?, plain: Vec::new(), blobs: Vec::new() })
    }

    /// Stores a node unless it is known, and returns its id.
    ///
    /// # Errors
    ///
    /// When sealing or an earlier upload failed.
    pub fn put(&mut self, node: &[u8]) -> Result<BlobId, RepoError> {
        let id = self.session.repository().keyring().blob_id(BlobClass::Metadata, node)?;
        if self.session.claim(BlobClass::Metadata, &id) {
            let length = u32::try_from(node.len()).map_err(|_| RepoError::Internal {
                doing: "storing a tree",
                why: "a node is longer than 4 GiB".to_owned(),
            })?;
            self.plain.extend_from_slice(node);
            self.blobs.push((id, length));
            if self.plain.len() >= METADATA_FRAME_BYTES {
                self.flush()?;
            }
        }
        Ok(id)
    }

    /// Seals what is still in memory.
    ///
    /// # Errors
    ///
    /// When sealing or an earlier upload failed.
    pub fn flush(&mut self) -> Result<(), RepoError> {
        if self.blobs.is_empty() {
            return Ok(());
        }
        let blobs = std::mem::take(&mut self.blobs);
        self.session.store_frame(&mut self.encoder, BlobClass::Metadata, &self.plain, blobs)?;
        self.plain.clear();
        Ok(())
    }
}
