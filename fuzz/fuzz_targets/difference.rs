#![no_main]
//! Differences: what is encoded against a base decodes to what it was, whatever both are; and no matches that
//! anybody makes up lead the one who writes them astray.
use chronolith::codec::{Compressor, Decompressor, Encoding};
use chronolith::sequences::{FrameWriter, Match, Refusal};
use libfuzzer_sys::fuzz_target;

/// Makes two long texts that have much in common out of a short script: each step takes a stretch of the first for
/// the second, or something of its own.
fn texts(script: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let mut base = Vec::new();
    let mut seed = blake3::Hasher::new();
    seed.update(script.get(..4).unwrap_or_default());
    base.resize(usize::from(script.first().copied().unwrap_or(0)) * 1_500, 0);
    seed.finalize_xof().fill(&mut base);
    let mut plain = Vec::new();
    for step in script.as_chunks::<4>().0 {
        let [kind, a, b, c] = *step;
        let from = usize::from(u16::from_le_bytes([a, b])) * 7 % base.len().max(1);
        let length = usize::from(c) << (kind % 12);
        let stretch = base.get(from..(from + length).min(base.len())).unwrap_or_default();
        match kind & 0xc0 {
            0 => plain.extend_from_slice(step),
            0x40 => plain.extend(std::iter::repeat_n(a, length)),
            _ => plain.extend_from_slice(stretch),
        }
        if plain.len() > 1 << 20 {
            break;
        }
    }
    (base, plain)
}

fuzz_target!(|script: &[u8]| {
    let (base, plain) = texts(script);
    let level = if script.len() % 8 == 0 { 6 } else { 3 };
    let mut encoded = Vec::new();
    Compressor::new(level).unwrap().difference(&base, &plain, &mut encoded).unwrap();
    let mut decoded = Vec::new();
    let mut decompressor = Decompressor::new().unwrap();
    decompressor.decode(Encoding::Difference, Some(&base), &encoded, plain.len(), &mut decoded).unwrap();
    assert!(decoded == plain);

    // The script once more, as matches.
    let number = |two: &[u8; 2]| usize::from(u16::from_le_bytes(*two));
    let mut matches = Vec::new();
    let mut at = 0;
    for six in script.as_chunks::<6>().0 {
        let [literals, distance, length] = [0, 2, 4].map(|from| number(six[from..].first_chunk().unwrap()));
        // Mostly such that they fit, or nothing but the first would ever be looked at.
        let distance = if script.len() % 2 == 0 { distance % (base.len() + at + literals).max(1) } else { distance };
        matches.push(Match { literals, distance, length });
        at += literals + length;
    }
    let mut frame = Vec::new();
    match FrameWriter::new().unwrap().write(base.len(), &plain, &matches, &mut frame) {
        // A frame of its length, whatever is in it.
        Ok(()) => {
            let mut decoded = Vec::new();
            let _ = decompressor.decode(Encoding::Difference, Some(&base), &frame, plain.len(), &mut decoded);
            assert!(decoded.len() <= plain.len());
        }
        Err(Refusal::Matches) => assert!(frame.is_empty()),
        Err(Refusal::Zstd(code)) => panic!("zstd refused what was looked at: {code}"),
    }
});
