#![no_main]
//! What a PostgreSQL server writes and this program reads: records of the log, the control file, histories of
//! timelines. Whatever the bytes are, reading them ends, and what is noted lies in what was read.
use chronolith::postgres::wal::{FirstPage, Noted, walk, walk_behind, walk_from};
use chronolith::postgres::{ControlFile, read_history};
use libfuzzer_sys::fuzz_target;

/// Numbers by which the pages of versions 13 to 18 begin.
const MAGICS: [u16; 6] = [0xD106, 0xD10D, 0xD110, 0xD113, 0xD116, 0xD118];
const ADDRESS: u64 = 5 << 20;

/// The header of a segment's first page, of one MiB, with the rest of a record behind it or without.
fn first_page(magic: u16, rest: u32) -> Vec<u8> {
    let info = 2 | u16::from(rest > 0);
    let mut page = [magic.to_le_bytes(), info.to_le_bytes(), 1_u16.to_le_bytes(), [0; 2]].concat();
    page.extend(ADDRESS.to_le_bytes());
    page.extend(u64::from(rest).to_le_bytes());
    page.extend(7_u64.to_le_bytes());
    page.extend(((1_u64 << 20) | 8192 << 32).to_le_bytes());
    page
}

fuzz_target!(|bytes: &[u8]| {
    let _ = ControlFile::parse(bytes);
    let _ = read_history(7, bytes);
    let _ = FirstPage::read(bytes);
    let Some(([version, rest, begun], records)) = bytes.split_first_chunk::<3>() else { return };
    let magic = MAGICS[usize::from(*version) % MAGICS.len()];
    let segment = [first_page(magic, u32::from(*rest)).as_slice(), records].concat();
    let first = FirstPage::read(&segment).expect("a known page");
    let noted = walk(&segment, &first);
    assert!((ADDRESS..=ADDRESS + segment.len() as u64).contains(&noted.end.0));
    assert!(noted.restore_points.values().all(|at| (ADDRESS..noted.end.0).contains(&at.0)));
    // Of a part no more is noted than of the whole.
    let part = walk_from(&segment, &first, segment.len() / 2);
    assert!(part.init_forks.is_subset(&noted.init_forks) && part.commit_count <= noted.commit_count);
    // The beginning of a record that another segment left.
    let (begun, _) = records.split_at(records.len().min(usize::from(*begun)));
    let behind = walk_behind(&segment, &first, &Noted { begun: begun.to_vec(), ..Noted::default() });
    assert_eq!(behind.end, noted.end);
});
