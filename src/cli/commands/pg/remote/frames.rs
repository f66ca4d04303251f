//! What goes through the line: frames of a kind, a number and bytes.

use std::io::{self, Read, Write};

/// What the far side says first, and nobody else by chance.
pub const GREETING: &[u8] = b"chronolith is here to restore, 1\n";
/// Longest frame: the longest answer of a lent store, and a little.
const FRAME_BYTES_MAX: u64 = (1 << 30) + (1 << 20);

/// What a frame is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The far side's version.
    Version,
    /// What it is to do.
    Order,
    /// A request to the store.
    Store,
    /// Whether a cluster is meant.
    Confirm,
    /// What is to be held.
    Hold,
    /// The answer to the question of the same number.
    Answer,
    /// The summary, for programs.
    Summary,
    /// How it ended; nothing follows.
    End,
    /// A file of the log that is to be archived.
    Archive,
}

const KINDS: [Kind; 9] = [
    Kind::Version,
    Kind::Order,
    Kind::Store,
    Kind::Confirm,
    Kind::Hold,
    Kind::Answer,
    Kind::Summary,
    Kind::End,
    Kind::Archive,
];

/// A frame.
#[derive(Debug, PartialEq, Eq)]
pub struct Frame {
    /// What it is.
    pub kind: Kind,
    /// The number of a question, and of its answer.
    pub number: u32,
    /// What it says.
    pub bytes: Vec<u8>,
}

/// Writes a frame, and sends it off.
pub fn write(out: &mut impl Write, kind: Kind, number: u32, bytes: &[u8]) -> io::Result<()> {
    let place = KINDS.iter().position(|known| *known == kind).unwrap_or_default();
    let mut head = [0; 13];
    let length = bytes.len() as u64;
    let (first, rest) = head.split_at_mut(8);
    first.copy_from_slice(&length.to_le_bytes());
    let (kind, number_bytes) = rest.split_at_mut(1);
    kind.fill(u8::try_from(place).unwrap_or_default());
    number_bytes.copy_from_slice(&number.to_le_bytes());
    out.write_all(&head)?;
    out.write_all(bytes)?;
    out.flush()
}

/// Reads the next frame; `None` where the line ended between two.
pub fn read(input: &mut impl Read) -> io::Result<Option<Frame>> {
    let mut head = Vec::new();
    input.by_ref().take(13).read_to_end(&mut head)?;
    if head.is_empty() {
        return Ok(None);
    }
    let broken = || io::Error::from(io::ErrorKind::UnexpectedEof);
    let (length, rest) = head.split_first_chunk::<8>().ok_or_else(broken)?;
    let (&kind, number) = rest.split_first().ok_or_else(broken)?;
    let number = number.try_into().map_err(|_| broken())?;
    let length = u64::from_le_bytes(*length);
    let kind = KINDS.get(usize::from(kind)).copied().filter(|_| length <= FRAME_BYTES_MAX);
    let kind = kind.ok_or_else(|| io::Error::other("what came is no frame"))?;
    // Memory is taken as the bytes come, not as they are promised.
    let mut bytes = Vec::new();
    input.by_ref().take(length).read_to_end(&mut bytes)?;
    match bytes.len() as u64 == length {
        true => Ok(Some(Frame { kind, number: u32::from_le_bytes(number), bytes })),
        false => Err(broken()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_come_as_they_went_and_nothing_else_is_one() {
        let mut line = Vec::new();
        for (number, kind) in (0..).zip(KINDS) {
            write(&mut line, kind, number, &vec![7; number as usize * 1000]).unwrap();
        }
        let mut rest = line.as_slice();
        for (number, kind) in (0..).zip(KINDS) {
            let frame = read(&mut rest).unwrap().unwrap();
            assert_eq!((frame.kind, frame.number, frame.bytes.len()), (kind, number, number as usize * 1000));
        }
        assert_eq!(read(&mut rest).unwrap(), None);
        for cut in [1, 12, line.len() - 1] {
            let mut rest = &line[..cut];
            while let Ok(Some(_)) = read(&mut rest) {}
            assert!(read(&mut &line[..cut.min(12)]).is_err());
        }
        for wrong in [vec![0xff; 13], b"bash: chronolith: command not found\n".to_vec()] {
            assert!(read(&mut wrong.as_slice()).is_err());
        }
    }
}
