//! Writing past the page cache leaves the file that ordinary writes would.

use chronolith::direct::DirectWriter;
use proptest::prelude::*;
use rustix::fs::OFlags;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::FileExt;
use tempfile::TempDir;

/// Lengths around what the writer knows: its block, what it writes through the cache, its buffer.
fn lengths() -> impl Strategy<Value = usize> {
    prop_oneof![
        0..200_usize,
        Just(4096),
        4000..4200_usize,
        Just(128 << 10),
        (256 << 10) - 5000..(256 << 10) + 5000_usize,
        (1 << 20) - 5000..(1 << 20) + 5000_usize,
        Just(2 << 20),
    ]
}

/// Pieces as `(gap, length)`: each begins where the last one ended, or past a gap, or before it.
fn pieces() -> impl Strategy<Value = Vec<(i64, usize)>> {
    let gap = prop_oneof![6 => Just(0_i64), 1 => 1..10_000_i64, 1 => Just(4096), 1 => -9000..0_i64];
    proptest::collection::vec((gap, lengths()), 1..8)
}

fn pattern(number: usize, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    blake3::Hasher::new().update(&number.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

fn opened(folder: &TempDir, name: &str) -> File {
    let path = folder.path().join(name);
    File::options().read(true).write(true).create(true).truncate(true).open(path).unwrap()
}

/// The writer, or `None` with the reason on the screen: the test then compares nothing.
fn writer(file: &File) -> Option<DirectWriter> {
    let writer = DirectWriter::new(file);
    if writer.is_none() {
        eprintln!("the build folder lies on a file system that is never written to directly");
    }
    writer
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(debug_assertions) { 48 } else { 256 }))]

    #[test]
    fn any_pieces_end_where_they_belong(pieces in pieces()) {
        let folder = TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let (plain, file) = (opened(&folder, "plain"), opened(&folder, "direct"));
        if let Some(mut direct) = writer(&file) {
            let mut at = 0_u64;
            for (number, (gap, length)) in pieces.into_iter().enumerate() {
                at = at.saturating_add_signed(gap);
                let bytes = pattern(number, length);
                plain.write_all_at(&bytes, at).unwrap();
                direct.write_at(&file, at, &bytes).unwrap();
                at += length as u64;
            }
            direct.flush(&file).unwrap();
            let (mut expected, mut found) = (Vec::new(), Vec::new());
            (&plain).read_to_end(&mut expected).unwrap();
            (&file).read_to_end(&mut found).unwrap();
            prop_assert!(expected == found);
        }
    }
}

#[test]
fn after_a_flush_the_file_is_open_as_before() {
    let folder = TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let file = opened(&folder, "file");
    let Some(mut direct) = writer(&file) else { return };
    let flags = || rustix::fs::fcntl_getfl(&file).unwrap();
    direct.write_at(&file, 0, &pattern(1, 3 << 20)).unwrap();
    assert!(flags().contains(OFlags::DIRECT), "nothing went past the page cache");
    direct.flush(&file).unwrap();
    assert!(!flags().contains(OFlags::DIRECT));
    // A read of a few bytes at an odd place, which a file open for direct requests would refuse.
    let mut some = [0; 7];
    file.read_exact_at(&mut some, 12_345).unwrap();
    assert_eq!(some, pattern(1, 3 << 20)[12_345..12_352]);
}

#[test]
fn a_file_system_in_memory_gets_no_writer() {
    let Ok(folder) = TempDir::new_in("/dev/shm") else { return };
    assert!(DirectWriter::new(&opened(&folder, "file")).is_none());
}

#[test]
fn what_the_system_refuses_is_told_and_no_content_is_shown() {
    let folder = TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let file = opened(&folder, "file");
    let Some(mut direct) = writer(&file) else { return };
    direct.write_at(&file, 0, b"secret").unwrap();
    assert!(!format!("{direct:?}").contains("115"), "{direct:?}");
    drop(file);
    // Open for reading only.
    let file = File::open(folder.path().join("file")).unwrap();
    let mut direct = DirectWriter::new(&file).unwrap();
    let told = direct.write_at(&file, 0, &pattern(2, 2 << 20)).unwrap_err();
    assert_eq!(told.raw_os_error(), Some(rustix::io::Errno::BADF.raw_os_error()));
}
