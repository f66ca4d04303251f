//! Plain blocks of index runs as caches map them: searched without having been checked as a whole.
#![no_main]
use chronolith::base::BlobId;
use chronolith::format::index::IndexBlock;
use chronolith::format::pack::BlobClass;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Some((counts, plain)) = bytes.split_first_chunk::<4>() else { return };
    let [a, b, c, d] = *counts;
    let Ok(block) = IndexBlock::new(plain, u16::from_le_bytes([a, b]), u16::from_le_bytes([c, d])) else {
        return;
    };
    for record in block.records().flatten() {
        assert!(record.check().is_ok());
    }
    let id = plain.first_chunk().map_or(BlobId::new([7; 32]), |id| BlobId::new(*id));
    for class in [BlobClass::Content, BlobClass::Metadata] {
        for record in block.find(&id, class).flatten() {
            assert_eq!((record.id, record.class), (id, class));
        }
    }
});
