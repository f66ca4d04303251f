#![no_main]
use chronolith::format::log::{LogPackFront, LogPackView};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    // The table of contents is sealed: here the sealed bytes stand for plain ones.
    let Ok(view) = LogPackView::parse(bytes) else { return };
    assert!(LogPackFront::parse(bytes).is_ok());
    let plain = view.trailer.contents_plain_length as usize;
    for frame in view.contents(&view.contents_sealed[..plain]).map(|table| table.frames).unwrap_or_default() {
        assert!(view.frame(&frame).is_ok());
    }
});
