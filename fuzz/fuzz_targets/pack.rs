//! The layout of packs: head, origins, trailer.
#![no_main]
use chronolith::format::pack::{PackTail, PackView};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let _ = PackTail::parse(bytes, bytes.len() as u64);
    if let Ok(view) = PackView::parse(bytes) {
        let mut again = Vec::new();
        view.head.encode(&mut again);
        view.origins.iter().for_each(|origin| origin.encode(&mut again));
        assert_eq!(again, bytes[..again.len()]);
        again.clear();
        again.extend_from_slice(view.contents_sealed);
        view.origins.iter().for_each(|origin| origin.encode(&mut again));
        view.trailer.encode(&mut again);
        again.extend_from_slice(&view.signature);
        assert_eq!(again, bytes[bytes.len() - again.len()..]);
    }
});
