//! Index runs without seals: a head, plain blocks, a plain directory, room for a signature.
#![no_main]
use chronolith::format::index::{Directory, IndexBlock, IndexHead, encode_block};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Ok(head) = IndexHead::decode(bytes, bytes.len() as u64) else { return };
    let mut again = Vec::new();
    head.encode(&mut again);
    assert_eq!(again, bytes[..again.len()]);
    let plain = &bytes[head.directory_offset as usize..][..head.directory_stored_length as usize];
    let Ok(directory) = Directory::decode(plain, &head) else { return };
    again.clear();
    directory.encode(&mut again).unwrap();
    assert_eq!(again, plain);
    for entry in &directory.blocks {
        let plain = &bytes[entry.offset as usize..][..entry.stored_length as usize];
        let Ok(block) = IndexBlock::of(plain, entry) else { continue };
        if let Ok(records) = block.decode_all(entry, &directory) {
            again.clear();
            encode_block(&records, &mut again).unwrap();
            assert_eq!(again, plain);
        }
    }
});
