//! Kinds of stored objects, and where in the store an object of a kind may lie.
//!
//! Listings (condemnations, reports of damage, catalogues) name objects by kind, folder and id. The name
//! in the store is always built from these, never taken as it stands, so that no listing can point
//! outside of its area. Normative: `format-spec/condemned.md`, [CONDEMNED-1].

use super::FormatError;
use super::bytes::{ensure, invalid};
use super::kind::ObjectKind;
use crate::base::ObjectId;
use std::fmt;

/// The folder of a log stream in which merged log packs lie.
pub const MERGED_FOLDER: &str = "merged";
/// The folder of a log stream in which records without content lie.
pub const RECORDS_FOLDER: &str = "records";

const WHAT: &str = "place of an object";

/// Returns the folder of the store in which objects of a kind lie; `None` for the configuration.
const fn area(kind: ObjectKind) -> Option<&'static str> {
    Some(match kind {
        ObjectKind::Configuration => return None,
        ObjectKind::Trust => "trust",
        ObjectKind::Slot => "keys",
        ObjectKind::ContentPack | ObjectKind::MetadataPack => "packs",
        ObjectKind::IndexRun => "index",
        ObjectKind::Snapshot => "snapshots",
        ObjectKind::LogPack | ObjectKind::LogRecord => "logs",
        ObjectKind::Annotation => "annotations",
        ObjectKind::Session => "sessions",
        ObjectKind::Condemned => "condemned",
        ObjectKind::Damaged => "damaged",
        ObjectKind::Catalog => "catalog",
        ObjectKind::Parity => "parity",
    })
}

/// Says whether the text has the form of the folders between a kind's area and the id.
fn is_folder_of(kind: ObjectKind, folder: &str) -> bool {
    let log = |segment: fn(&str) -> bool| {
        folder.split_once('/').is_some_and(|(stream, rest)| is_hexadecimal(stream, 64) && segment(rest))
    };
    match kind {
        ObjectKind::IndexRun | ObjectKind::Snapshot | ObjectKind::Annotation => {
            is_hexadecimal(folder, 8) && folder != "00000000"
        }
        ObjectKind::Parity => is_hexadecimal(folder, 64),
        ObjectKind::LogPack => log(|segment| segment == MERGED_FOLDER || is_hexadecimal(segment, 64)),
        ObjectKind::LogRecord => log(|segment| segment == RECORDS_FOLDER),
        _ => folder.is_empty(),
    }
}

fn is_hexadecimal(text: &str, digits: usize) -> bool {
    text.len() == digits && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// Where an object lies: its kind, the folders between the kind's area and the id, and the id.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    kind: ObjectKind,
    area: &'static str,
    folder: String,
    id: ObjectId,
}

impl Place {
    /// Takes a place; the folder must have the form that the kind has.
    pub fn new(kind: ObjectKind, folder: &str, id: ObjectId) -> Result<Self, FormatError> {
        let area = area(kind).ok_or(invalid(WHAT, "the configuration has no id"))?;
        ensure(is_folder_of(kind, folder), WHAT, "the kind has no such folder")?;
        Ok(Self { kind, area, folder: folder.to_owned(), id })
    }

    /// Returns the object's kind.
    pub fn kind(&self) -> ObjectKind {
        self.kind
    }

    /// Returns what stands between the area and the id: a generation, a stream and segment, a subject.
    pub fn folder(&self) -> &str {
        &self.folder
    }

    /// Returns the object's id.
    pub fn id(&self) -> ObjectId {
        self.id
    }
}

/// Writes the name in the store.
impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.area)?;
        match self.kind {
            ObjectKind::ContentPack | ObjectKind::MetadataPack => {
                let [first, ..] = self.id.as_bytes();
                write!(f, "/{first:02x}")?;
            }
            _ if self.folder.is_empty() => {}
            _ => write!(f, "/{}", self.folder)?,
        }
        write!(f, "/{}", self.id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_built_from_kind_and_folder() {
        let id = ObjectId::new([0xAB; 32]);
        let hash = "0123456789abcdef".repeat(4);
        let name = |kind, folder: &str| Place::new(kind, folder, id).map(|place| place.to_string());
        let text = id.to_string();
        assert_eq!(name(ObjectKind::ContentPack, "").unwrap(), format!("packs/ab/{text}"));
        assert_eq!(name(ObjectKind::Snapshot, "0000000a").unwrap(), format!("snapshots/0000000a/{text}"));
        assert_eq!(name(ObjectKind::Session, "").unwrap(), format!("sessions/{text}"));
        assert_eq!(name(ObjectKind::Parity, &hash).unwrap(), format!("parity/{hash}/{text}"));
        let segment = format!("{hash}/{hash}");
        assert_eq!(name(ObjectKind::LogPack, &segment).unwrap(), format!("logs/{segment}/{text}"));
        assert!(name(ObjectKind::LogPack, &format!("{hash}/merged")).is_ok());
        assert!(name(ObjectKind::LogRecord, &format!("{hash}/records")).is_ok());
    }

    #[test]
    fn no_folder_leaves_its_area() {
        let hash = "0123456789abcdef".repeat(4);
        for kind in ObjectKind::ALL {
            for folder in
                ["..", "/", "a", "00000000", "0000000A", "../0000000a", "0000000a/", &format!("{hash}/..")]
            {
                assert!(Place::new(kind, folder, ObjectId::new([1; 32])).is_err(), "{kind:?} {folder}");
            }
        }
    }
}
