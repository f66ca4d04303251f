//! The head of an archive in PostgreSQL's custom format: its table of contents, read and written.
//!
//! The layout is that of `pg_backup_archiver.c` and `pg_backup_custom.c` of PostgreSQL, archive versions 1.12
//! (9.0) to 1.16 (17). Names are bytes: they are in the encoding of the database.

use std::collections::BTreeMap;
use std::fmt;

const MAGIC: &[u8] = b"PGDMP";
/// The number of the custom format among formats of archives.
const CUSTOM: u8 = 1;
const OLDEST: (u8, u8) = (1, 12);
const NEWEST: (u8, u8) = (1, 16);
/// The versions of the form that PostgreSQL's programs write, and since which of their versions.
const WRITTEN_SINCE: [(u32, (u8, u8)); 5] =
    [(9, OLDEST), (10, (1, 13)), (12, (1, 14)), (16, (1, 15)), (17, NEWEST)];
/// The compression has a number, and no level, from here on.
const NAMED_COMPRESSION: (u8, u8) = (1, 15);
const TABLE_ACCESS_METHOD: (u8, u8) = (1, 14);
const RELATION_KIND: (u8, u8) = (1, 16);
/// Lengths of numbers that the program which wrote the archive may have had.
const NUMBER_BYTES: [u8; 2] = [4, 8];
/// States of the place of an entry's data.
const PLACE_SET: u8 = 2;

/// A text of the archive; `None` is none at all.
pub type Text = Option<Vec<u8>>;

/// An object of the dumped database, or its data.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TocEntry {
    /// Its number in this archive.
    pub id: i64,
    /// Whether a block of data belongs to it.
    pub has_data: bool,
    catalog: Text,
    object: Text,
    /// Its name.
    pub tag: Text,
    /// What it is: `TABLE`, `TABLE DATA`, `INDEX`.
    pub kind: Text,
    section: i64,
    /// The statement that makes it.
    pub statement: Text,
    drop: Text,
    /// The statement that its data follows.
    pub copy: Text,
    /// Its schema.
    pub schema: Text,
    /// Its tablespace, where that is not the database's.
    pub tablespace: Text,
    access_method: Text,
    relation_kind: i64,
    /// Its owner.
    pub owner: Text,
    with_oids: Text,
    /// Numbers of the entries that it needs.
    pub needs: Vec<i64>,
    place_state: u8,
    place: Vec<u8>,
}

/// Lengths and versions, without which nothing else can be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layout {
    /// Version of the archive's form: major, minor.
    pub version: (u8, u8),
    revision: u8,
    integer_bytes: u8,
    offset_bytes: u8,
}

/// Head and table of contents of an archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Contents {
    /// How numbers stand in it.
    pub layout: Layout,
    compression: i64,
    /// Second, minute, hour, day, month, year, whether it was summer time.
    made: [i64; 7],
    /// The database.
    pub database: Text,
    /// Version of the server.
    pub server_version: Text,
    /// Version of the program that wrote it.
    pub program_version: Text,
    /// All entries, in the order of a restore.
    pub entries: Vec<TocEntry>,
}

/// Why bytes are no archive that can be understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotAnArchive(pub String);

impl fmt::Display for NotAnArchive {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

enum Stop {
    /// The bytes end too early; perhaps more follow.
    More,
    Wrong(String),
}

type Read<T> = Result<T, Stop>;

struct Bytes<'a> {
    rest: &'a [u8],
}

impl<'a> Bytes<'a> {
    fn take(&mut self, count: usize) -> Read<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(count).ok_or(Stop::More)?;
        self.rest = rest;
        Ok(taken)
    }

    fn byte(&mut self) -> Read<u8> {
        Ok(self.take(1)?.first().copied().unwrap_or_default())
    }

    fn integer(&mut self, layout: &Layout) -> Read<i64> {
        let bytes = self.take(layout.integer_length())?;
        layout.integer(bytes).ok_or_else(|| Stop::Wrong("a number in it is too large".to_owned()))
    }

    fn text(&mut self, layout: &Layout) -> Read<Text> {
        match usize::try_from(self.integer(layout)?) {
            Ok(length) => Ok(Some(self.take(length)?.to_vec())),
            Err(_) => Ok(None),
        }
    }

    fn layout(&mut self) -> Read<Layout> {
        if self.take(MAGIC.len())? != MAGIC {
            return Err(Stop::Wrong("it does not begin as an archive of pg_dump does".to_owned()));
        }
        let (version, revision) = ((self.byte()?, self.byte()?), self.byte()?);
        if !(OLDEST..=NEWEST).contains(&version) {
            let (major, minor) = version;
            let (known, newest) = NEWEST;
            return Err(Stop::Wrong(format!(
                "it is an archive of version {major}.{minor}, and only those up to {known}.{newest} are known here"
            )));
        }
        let (integer_bytes, offset_bytes) = (self.byte()?, self.byte()?);
        if !NUMBER_BYTES.contains(&integer_bytes) || !NUMBER_BYTES.contains(&offset_bytes) {
            return Err(Stop::Wrong("numbers in it have an odd length".to_owned()));
        }
        if self.byte()? != CUSTOM {
            return Err(Stop::Wrong("it is an archive of another format than custom".to_owned()));
        }
        Ok(Layout { version, revision, integer_bytes, offset_bytes })
    }

    fn entry(&mut self, layout: &Layout) -> Read<TocEntry> {
        let since = |version| layout.version >= version;
        let mut entry = TocEntry {
            id: self.integer(layout)?,
            has_data: self.integer(layout)? != 0,
            catalog: self.text(layout)?,
            object: self.text(layout)?,
            tag: self.text(layout)?,
            kind: self.text(layout)?,
            section: self.integer(layout)?,
            statement: self.text(layout)?,
            drop: self.text(layout)?,
            copy: self.text(layout)?,
            schema: self.text(layout)?,
            tablespace: self.text(layout)?,
            access_method: if since(TABLE_ACCESS_METHOD) { self.text(layout)? } else { None },
            relation_kind: if since(RELATION_KIND) { self.integer(layout)? } else { 0 },
            owner: self.text(layout)?,
            with_oids: self.text(layout)?,
            ..TocEntry::default()
        };
        while let Some(text) = self.text(layout)? {
            let number = std::str::from_utf8(&text).ok().and_then(|text| text.parse().ok());
            let odd = || Stop::Wrong("what an entry needs is no number".to_owned());
            entry.needs.push(number.ok_or_else(odd)?);
        }
        entry.place_state = self.byte()?;
        entry.place = self.take(usize::from(layout.offset_bytes))?.to_vec();
        Ok(entry)
    }

    fn contents(&mut self) -> Read<Contents> {
        let layout = self.layout()?;
        let compression = match layout.version >= NAMED_COMPRESSION {
            true => i64::from(self.byte()?),
            false => self.integer(&layout)?,
        };
        let mut made = [0; 7];
        for number in &mut made {
            *number = self.integer(&layout)?;
        }
        let (database, server_version) = (self.text(&layout)?, self.text(&layout)?);
        let program_version = self.text(&layout)?;
        let count = self.integer(&layout)?;
        let mut entries = Vec::new();
        for _ in 0..count {
            entries.push(self.entry(&layout)?);
        }
        Ok(Contents { layout, compression, made, database, server_version, program_version, entries })
    }
}

/// Returns the newest version of archives that the programs of a major version of PostgreSQL read.
pub fn read_by(major: u32) -> (u8, u8) {
    let known = WRITTEN_SINCE.iter().rev().find(|(since, _)| *since <= major);
    known.map_or(OLDEST, |(_, version)| *version)
}

/// Returns the first major version of PostgreSQL whose programs read a version of archives.
pub fn read_since(version: (u8, u8)) -> u32 {
    WRITTEN_SINCE.iter().find(|(_, written)| *written >= version).map_or(u32::MAX, |(since, _)| *since)
}

impl Layout {
    /// Returns how many bytes a number takes: its sign, then its value.
    pub fn integer_length(&self) -> usize {
        1 + usize::from(self.integer_bytes)
    }

    /// Reads a number of that length.
    pub fn integer(&self, bytes: &[u8]) -> Option<i64> {
        let (sign, value) = bytes.split_first()?;
        let value = value.iter().rev().try_fold(0_i64, |sum, byte| {
            sum.checked_mul(256).and_then(|sum| sum.checked_add(i64::from(*byte)))
        })?;
        Some(if *sign == 0 { value } else { -value })
    }

    fn put_integer(&self, out: &mut Vec<u8>, value: i64) {
        out.push(u8::from(value < 0));
        let bytes = value.unsigned_abs().to_le_bytes();
        out.extend(bytes.iter().take(usize::from(self.integer_bytes)));
    }

    fn put_text(&self, out: &mut Vec<u8>, text: &Text) {
        match text {
            Some(text) => {
                self.put_integer(out, i64::try_from(text.len()).unwrap_or(i64::MAX));
                out.extend_from_slice(text);
            }
            None => self.put_integer(out, -1),
        }
    }
}

impl TocEntry {
    /// Says whether it is of this kind.
    pub fn is(&self, kind: &str) -> bool {
        self.kind.as_deref() == Some(kind.as_bytes())
    }

    /// Returns the kind, for people.
    pub fn kind(&self) -> String {
        show(&self.kind)
    }

    fn write(&self, layout: &Layout, out: &mut Vec<u8>) {
        layout.put_integer(out, self.id);
        layout.put_integer(out, i64::from(self.has_data));
        for text in [&self.catalog, &self.object, &self.tag, &self.kind] {
            layout.put_text(out, text);
        }
        layout.put_integer(out, self.section);
        for text in [&self.statement, &self.drop, &self.copy, &self.schema, &self.tablespace] {
            layout.put_text(out, text);
        }
        if layout.version >= TABLE_ACCESS_METHOD {
            layout.put_text(out, &self.access_method);
        }
        if layout.version >= RELATION_KIND {
            layout.put_integer(out, self.relation_kind);
        }
        layout.put_text(out, &self.owner);
        layout.put_text(out, &self.with_oids);
        for number in &self.needs {
            layout.put_text(out, &Some(number.to_string().into_bytes()));
        }
        layout.put_text(out, &None);
        out.push(self.place_state);
        out.extend_from_slice(&self.place);
    }
}

/// Writes a name for people.
pub fn show(text: &Text) -> String {
    String::from_utf8_lossy(text.as_deref().unwrap_or_default()).into_owned()
}

impl Contents {
    /// Reads the head of an archive, and says how long it is; `None` where it does not end within these bytes.
    ///
    /// # Errors
    ///
    /// When it is no archive, or one that this program does not know.
    pub fn read(bytes: &[u8]) -> Result<Option<(Self, usize)>, NotAnArchive> {
        let mut reader = Bytes { rest: bytes };
        match reader.contents() {
            Ok(contents) => Ok(Some((contents, bytes.len() - reader.rest.len()))),
            Err(Stop::More) => Ok(None),
            Err(Stop::Wrong(why)) => Err(NotAnArchive(why)),
        }
    }

    /// Writes the head.
    pub fn write(&self) -> Vec<u8> {
        let layout = &self.layout;
        let (major, minor) = layout.version;
        let mut out = MAGIC.to_vec();
        out.extend([major, minor, layout.revision, layout.integer_bytes, layout.offset_bytes, CUSTOM]);
        match layout.version >= NAMED_COMPRESSION {
            true => out.push(u8::try_from(self.compression).unwrap_or(0)),
            false => layout.put_integer(&mut out, self.compression),
        }
        self.made.iter().for_each(|number| layout.put_integer(&mut out, *number));
        for text in [&self.database, &self.server_version, &self.program_version] {
            layout.put_text(&mut out, text);
        }
        layout.put_integer(&mut out, i64::try_from(self.entries.len()).unwrap_or(i64::MAX));
        self.entries.iter().for_each(|entry| entry.write(layout, &mut out));
        out
    }

    /// Says whether data stands in it as it is.
    pub fn is_plain(&self) -> bool {
        self.compression == 0
    }

    /// Notes where the blocks of entries stand; the length of the head stays what it is.
    pub fn set_places(&mut self, places: &BTreeMap<i64, u64>) {
        let length = usize::from(self.layout.offset_bytes);
        for entry in self.entries.iter_mut().filter(|entry| entry.has_data) {
            if let Some(place) = places.get(&entry.id) {
                entry.place_state = PLACE_SET;
                entry.place = place.to_le_bytes().iter().take(length).copied().collect();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(version: (u8, u8)) -> Contents {
        let layout = Layout { version, revision: 0, integer_bytes: 4, offset_bytes: 8 };
        let text = |text: &str| Some(text.as_bytes().to_vec());
        let entry = TocEntry {
            id: 7,
            has_data: true,
            tag: text("t\"able"),
            kind: text("TABLE DATA"),
            section: 3,
            copy: text("COPY public.t FROM stdin;\n"),
            owner: text("ann"),
            with_oids: text("false"),
            needs: vec![3, 12],
            place_state: 1,
            place: vec![0; 8],
            ..TocEntry::default()
        };
        Contents {
            layout,
            compression: 0,
            made: [1, 2, 3, 4, 5, 126, -1],
            database: text("app"),
            server_version: text("15.18"),
            program_version: text("15.18"),
            entries: vec![entry.clone(), TocEntry { id: 9, ..entry }],
        }
    }

    #[test]
    fn what_is_written_is_read_in_every_version() {
        for minor in 12..=16 {
            let contents = sample((1, minor));
            let bytes = contents.write();
            let longer = [&bytes[..], b"data"].concat();
            assert_eq!(Contents::read(&longer), Ok(Some((contents.clone(), bytes.len()))));
            for end in 0..bytes.len() {
                assert_eq!(Contents::read(&bytes[..end]), Ok(None), "{end}");
            }
            let mut placed = contents;
            placed.set_places(&[(9, 70_000)].into());
            assert_eq!(placed.write().len(), bytes.len());
            assert_ne!(placed.write(), bytes);
        }
    }

    #[test]
    fn which_programs_read_which_archives() {
        assert_eq!([9, 11, 15, 16, 17, 18].map(|major| read_by(major).1), [12, 13, 14, 15, 16, 16]);
        assert_eq!([12, 13, 14, 15, 16].map(|minor| read_since((1, minor))), [9, 10, 12, 16, 17]);
    }

    #[test]
    fn what_is_no_archive_is_refused() {
        let bytes = sample((1, 14)).write();
        for (at, byte, why) in [
            (0, b'X', "begin"),
            (6, 11, "1.11"),
            (6, 17, "1.17"),
            (8, 3, "odd length"),
            (10, 3, "another format"),
        ] {
            let mut wrong = bytes.clone();
            wrong[at] = byte;
            assert!(Contents::read(&wrong).unwrap_err().0.contains(why), "{why}");
        }
    }
}
