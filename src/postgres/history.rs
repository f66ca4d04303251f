//! History files: the ancestors of a timeline, and where each was left.
//!
//! A line holds a timeline in decimal, the position at which the next branched off, and for people a reason.

use super::segment::Lsn;
use crate::timeline::TimelinePath;

/// Longest history file that is read: a line for each of very many promotions.
pub const HISTORY_BYTES_MAX: u64 = 16 << 20;

/// Why a history file cannot be believed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the history of timeline {timeline} is damaged in line {line}: {why}")]
pub struct HistoryError {
    /// The timeline whose history it is.
    pub timeline: u64,
    /// The line, from 1.
    pub line: usize,
    /// What is wrong.
    pub why: &'static str,
}

/// Reads the history file of a timeline: the way that leads to it.
///
/// # Errors
///
/// What the server would refuse: lines of another form, timelines that do not grow, or that are not
/// smaller than the one whose history it is.
pub fn read_history(timeline: u64, content: &[u8]) -> Result<TimelinePath, HistoryError> {
    let wrong = |line, why| HistoryError { timeline, line, why };
    let text = std::str::from_utf8(content).map_err(|_| wrong(1, "it is no text"))?;
    let (mut path, mut left, mut number) = (None::<TimelinePath>, 0, 0);
    for line in text.lines() {
        number += 1;
        let line = line.trim_start();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (ancestor, end) = read_line(line).ok_or_else(|| wrong(number, "it has another form"))?;
        let entered = match path {
            None => TimelinePath::root(ancestor),
            Some(path) => path.then(ancestor, left).map_err(|_| wrong(number, "it goes back"))?,
        };
        (path, left) = (Some(entered), end);
    }
    match path {
        Some(path) => path.then(timeline, left).map_err(|_| wrong(number, "it leads past its own timeline")),
        None => Err(wrong(number.max(1), "it names no ancestor")),
    }
}

fn read_line(line: &str) -> Option<(u64, u64)> {
    let mut words = line.split_ascii_whitespace();
    let timeline: u32 = words.next()?.parse().ok().filter(|timeline| *timeline > 0)?;
    let Lsn(end) = words.next()?.parse().ok()?;
    Some((u64::from(timeline), end))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A17: inside the file, timelines are decimal.
    #[test]
    fn ancestors_in_order() {
        let file = b"1\t0/3000000\tno recovery target specified\n\n\
            # a comment\n10\t0/5000158\tbefore 2026-01-15 14:30:00+01\n";
        let path = read_history(11, file).unwrap();
        let expected = TimelinePath::root(1).then(10, 0x300_0000).unwrap().then(11, 0x500_0158).unwrap();
        assert_eq!(path, expected);
        assert_eq!(path.parent(), Some((10, 0x500_0158)));
    }

    /// R9: a history that cannot be read ends on an older timeline unnoticed; it is refused by its line.
    #[test]
    fn damage_is_named() {
        let line = |content: &[u8]| read_history(3, content).unwrap_err().line;
        assert_eq!(line(b""), 1);
        assert_eq!(line(b"# nothing\n"), 1);
        assert_eq!(line(b"1\t0/3000000\n2\n"), 2);
        assert_eq!(line(b"1\t0/3000000\tx\n1\t0/4000000\ty\n"), 2);
        assert_eq!(line(b"1\t0/3000000\tx\n2\t0/2000000\ty\n"), 2);
        assert_eq!(line(b"3\t0/3000000\tx\n"), 1);
        assert_eq!(line(b"0x1\t0/3000000\n"), 1);
        assert_eq!(line(b"1\t0/30\xff\n"), 1);
    }
}
