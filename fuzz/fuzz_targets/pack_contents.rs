//! Plain tables of contents. The first bytes of the input say what the trailer says of the pack.
#![no_main]
use chronolith::base::KeyId;
use chronolith::crypto::Suite;
use chronolith::format::pack::{BlobClass, PackTrailer, TableOfContents};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Some((numbers, plain)) = bytes.split_first_chunk::<10>() else { return };
    let [a, b, c, d, e, f, g, h, i, j] = *numbers;
    let frames = plain.first_chunk().map_or(0, |count| u32::from_le_bytes(*count));
    let trailer = PackTrailer {
        contents_offset: u32::from_le_bytes([a, b, c, d]),
        contents_plain_length: plain.len() as u32,
        epoch: 1,
        suite: Suite::ChaCha20Poly1305,
        class: BlobClass::Content,
        origin_count: u16::from_le_bytes([i, j]),
        frame_count: frames,
        blob_count: u32::from_le_bytes([e, f, g, h]),
        salt: [0; 32],
        commitment: [0; 32],
        signer: KeyId::new([0; 32]),
    };
    if let Ok(contents) = TableOfContents::decode(plain, &trailer) {
        let mut again = Vec::new();
        contents.encode(&mut again).unwrap();
        assert_eq!(again, plain);
    }
});
