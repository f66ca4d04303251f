//! `backup_label` and `tablespace_map`: kept byte for byte, and read for what they say.

use crate::postgres::Lsn;

/// What a `backup_label` says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackupLabel {
    /// Where replay must begin.
    pub start: Lsn,
    /// The checkpoint that the backup begins with.
    pub checkpoint: Lsn,
    /// The timeline that it begins on.
    pub timeline: u32,
    /// Whether a standby was backed up.
    pub from_standby: bool,
}

impl BackupLabel {
    /// Reads the file; `None` when it is none.
    pub fn parse(content: &[u8]) -> Option<Self> {
        // Only the label that the user gave may be no text.
        let text = String::from_utf8_lossy(content);
        let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
        Some(Self {
            start: field("START WAL LOCATION:")?.split(' ').next()?.parse().ok()?,
            checkpoint: field("CHECKPOINT LOCATION:")?.parse().ok()?,
            timeline: field("START TIMELINE:")?.parse().ok()?,
            from_standby: field("BACKUP FROM:") == Some("standby"),
        })
    }
}

/// A tablespace in a `tablespace_map`: its number and the bytes of its path.
pub type MappedTablespace = (u32, Vec<u8>);

/// Reads a `tablespace_map`; `None` when it is none.
pub fn read_tablespace_map(content: &[u8]) -> Option<Vec<MappedTablespace>> {
    let mut found = Vec::new();
    let mut line = Vec::new();
    let mut bytes = content.iter();
    while let Some(byte) = bytes.next() {
        match byte {
            b'\\' => line.push(*bytes.next()?),
            b'\n' | b'\r' => {
                if !line.is_empty() {
                    found.push(split(&line)?);
                    line.clear();
                }
            }
            other => line.push(*other),
        }
    }
    if !line.is_empty() {
        found.push(split(&line)?);
    }
    Some(found)
}

fn split(line: &[u8]) -> Option<MappedTablespace> {
    let space = line.iter().position(|byte| *byte == b' ')?;
    let oid = std::str::from_utf8(line.get(..space)?).ok()?.parse().ok()?;
    Some((oid, line.get(space + 1..)?.to_vec()))
}

/// Writes a `tablespace_map` as the server does.
pub fn write_tablespace_map(tablespaces: &[MappedTablespace]) -> Vec<u8> {
    let mut content = Vec::new();
    for (oid, path) in tablespaces {
        content.extend_from_slice(format!("{oid} ").as_bytes());
        for byte in path {
            if matches!(byte, b'\n' | b'\r' | b'\\') {
                content.push(b'\\');
            }
            content.push(*byte);
        }
        content.push(b'\n');
    }
    content
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_of_the_server() {
        let text = "START WAL LOCATION: 0/2000028 (file 000000010000000000000002)\n\
            CHECKPOINT LOCATION: 0/2000060\nBACKUP METHOD: streamed\nBACKUP FROM: primary\n\
            START TIME: 2026-01-15 14:30:00 CET\nLABEL: chronolith main\nSTART TIMELINE: 1\n";
        let label = BackupLabel::parse(text.as_bytes()).unwrap();
        let expected = BackupLabel {
            start: Lsn(0x200_0028),
            checkpoint: Lsn(0x200_0060),
            timeline: 1,
            from_standby: false,
        };
        assert_eq!(label, expected);
        let standby = BackupLabel::parse(text.replace("primary", "standby").as_bytes()).unwrap();
        assert!(standby.from_standby);
        assert_eq!(BackupLabel::parse(b""), None);
        assert_eq!(BackupLabel::parse(&text.as_bytes()[..100]), None);
    }

    #[test]
    fn maps_come_back_whatever_a_path_holds() {
        let map: Vec<MappedTablespace> =
            vec![(16400, b"/srv/fast disk".to_vec()), (16401, b"/srv/a\nb\\c\xff".to_vec())];
        let content = write_tablespace_map(&map);
        assert_eq!(content, b"16400 /srv/fast disk\n16401 /srv/a\\\nb\\\\c\xff\n");
        assert_eq!(read_tablespace_map(&content), Some(map));
        assert_eq!(read_tablespace_map(b""), Some(Vec::new()));
        assert_eq!(read_tablespace_map(b"x /srv\n"), None);
    }
}
