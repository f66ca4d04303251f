//! One name in a folder, with all that is known of it.

use super::Content;
use crate::base::{BlobId, Timestamp, limits};
use crate::format::FormatError;
use crate::format::bytes::{at_most, ensure};
use crate::format::cbor::{Extra, Field, Reader, Writer, required};

/// What a name stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum EntryKind {
    /// A regular file, or a stream.
    File = 0,
    /// A folder.
    Directory = 1,
    /// A symbolic link.
    Symlink = 2,
    /// A named pipe.
    Fifo = 3,
    /// A socket.
    Socket = 4,
    /// A character device.
    CharacterDevice = 5,
    /// A block device.
    BlockDevice = 6,
}

impl EntryKind {
    const ALL: [Self; 7] = [
        Self::File,
        Self::Directory,
        Self::Symlink,
        Self::Fifo,
        Self::Socket,
        Self::CharacterDevice,
        Self::BlockDevice,
    ];

    fn from_number(number: u64) -> Result<Self, FormatError> {
        let found = Self::ALL.into_iter().find(|kind| *kind as u64 == number);
        found.ok_or(FormatError::Unsupported { what: "kind of tree entry" })
    }
}

/// Numbers of a device file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Device {
    /// The driver.
    pub major: u32,
    /// The device within the driver.
    pub minor: u32,
}

/// An extended attribute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExtendedAttribute {
    /// Its name, namespace included.
    pub name: Vec<u8>,
    /// Its value.
    pub value: Vec<u8>,
}

/// One name in a folder. What is not known is absent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TreeEntry {
    /// The name: bytes, not empty, without `/` and NUL, neither `.` nor `..`.
    pub name: Vec<u8>,
    /// What it stands for.
    pub kind: EntryKind,
    /// Permission bits with set-user-id, set-group-id and sticky: the low twelve bits of the mode.
    pub mode: u32,
    /// Owner.
    pub user_id: Option<u32>,
    /// Group.
    pub group_id: Option<u32>,
    /// Owner's name on the source's host.
    pub user_name: Option<Vec<u8>>,
    /// Group's name on the source's host.
    pub group_name: Option<Vec<u8>>,
    /// When the content changed.
    pub modified: Timestamp,
    /// When the entry itself changed.
    pub changed: Option<Timestamp>,
    /// When the content was last read.
    pub accessed: Option<Timestamp>,
    /// The file system it lies on.
    pub device: Option<u64>,
    /// Its number there: with the device, what hard links share.
    pub inode: Option<u64>,
    /// How many names it has.
    pub links: Option<u64>,
    /// Size as the file system said; for files the content's length.
    pub size: Option<u64>,
    /// Where a symbolic link points.
    pub target: Option<Vec<u8>>,
    /// Numbers of a device file.
    pub device_numbers: Option<Device>,
    /// Extended attributes, sorted strictly by name.
    pub attributes: Vec<ExtendedAttribute>,
    /// The folder's topmost tree node.
    pub subtree: Option<BlobId>,
    /// The file's content.
    pub content: Option<Content>,
    /// Fields of newer programs, kept as they were found.
    pub extra: Extra,
}

/// The bits of a mode that a tree entry keeps.
const MODE_BITS: u32 = 0o7777;

impl TreeEntry {
    /// Makes an entry of which no more is known.
    pub fn new(name: Vec<u8>, kind: EntryKind, mode: u32, modified: Timestamp) -> Self {
        Self {
            name,
            kind,
            mode,
            user_id: None,
            group_id: None,
            user_name: None,
            group_name: None,
            modified,
            changed: None,
            accessed: None,
            device: None,
            inode: None,
            links: None,
            size: None,
            target: None,
            device_numbers: None,
            attributes: Vec::new(),
            subtree: None,
            content: None,
            extra: Extra::new(),
        }
    }

    /// Checks what a reader relies on: a name that stays inside its folder, and for each kind the
    /// fields that it needs and no others.
    pub fn check(&self) -> Result<(), FormatError> {
        check_name(&self.name)?;
        ensure(self.mode & !MODE_BITS == 0, "entry mode", "has more than permission bits")?;
        let device = matches!(self.kind, EntryKind::CharacterDevice | EntryKind::BlockDevice);
        ensure(
            (self.kind == EntryKind::File) == self.content.is_some(),
            "entry content",
            "belongs to files and only to them",
        )?;
        ensure(
            (self.kind == EntryKind::Directory) == self.subtree.is_some(),
            "entry subtree",
            "belongs to folders and only to them",
        )?;
        ensure(
            (self.kind == EntryKind::Symlink) == self.target.is_some(),
            "entry target",
            "belongs to symbolic links and only to them",
        )?;
        ensure(
            device == self.device_numbers.is_some(),
            "entry device numbers",
            "belong to device files and only to them",
        )?;
        if let (Some(content), Some(size)) = (&self.content, self.size) {
            ensure(content.length == size, "entry size", "is not the length of the content")?;
        }
        self.check_bounds()
    }

    fn check_bounds(&self) -> Result<(), FormatError> {
        for name in [&self.user_name, &self.group_name].into_iter().flatten() {
            at_most("owner name", name.len() as u64, limits::NAME_BYTES_MAX)?;
        }
        if let Some(target) = &self.target {
            at_most("link target", target.len() as u64, limits::VALUE_BYTES_MAX)?;
        }
        at_most("extended attributes", self.attributes.len() as u64, limits::ENTRY_ATTRIBUTES_MAX)?;
        for attribute in &self.attributes {
            at_most("attribute name", attribute.name.len() as u64, limits::NAME_BYTES_MAX)?;
            at_most("attribute value", attribute.value.len() as u64, limits::VALUE_BYTES_MAX)?;
        }
        let sorted = self.attributes.is_sorted_by(|a, b| a.name < b.name);
        ensure(sorted, "extended attributes", "are not in strict order")
    }

    pub(super) fn encode(&self, out: Writer<'_>) -> Result<(), FormatError> {
        self.check()?;
        let mut content = Ok(());
        out.map(&self.extra, |map| {
            map.at(0).bytes(&self.name);
            map.at(1).unsigned(self.kind as u64);
            map.at(2).unsigned(u64::from(self.mode));
            map.optional(3, self.user_id, |out, id| out.unsigned(u64::from(id)));
            map.optional(4, self.group_id, |out, id| out.unsigned(u64::from(id)));
            map.optional(5, self.user_name.as_deref(), |out, value| out.bytes(value));
            map.optional(6, self.group_name.as_deref(), |out, value| out.bytes(value));
            map.at(7).signed(self.modified.nanoseconds());
            map.optional(8, self.changed, |out, time| out.signed(time.nanoseconds()));
            map.optional(9, self.accessed, |out, time| out.signed(time.nanoseconds()));
            map.optional(10, self.device, |out, value| out.unsigned(value));
            map.optional(11, self.inode, |out, value| out.unsigned(value));
            map.optional(12, self.links, |out, value| out.unsigned(value));
            map.optional(13, self.size, |out, value| out.unsigned(value));
            map.optional(14, self.target.as_deref(), |out, value| out.bytes(value));
            map.optional(15, self.device_numbers, |out, device| {
                out.array(&[device.major, device.minor], |out, number| out.unsigned(u64::from(*number)));
            });
            map.list(16, &self.attributes, |out, attribute| {
                out.array(&[&attribute.name, &attribute.value], |out, part| out.bytes(part));
            });
            map.optional(17, self.subtree, |out, id| out.bytes(id.as_bytes()));
            if let Some(file) = &self.content {
                content = file.encode(map.at(18));
            }
        });
        content
    }

    pub(super) fn decode(reader: Reader<'_, '_>) -> Result<Self, FormatError> {
        let (mut name, mut kind, mut mode, mut modified) = (None, None, None, None);
        let mut entry = Self::new(Vec::new(), EntryKind::File, 0, Timestamp::default());
        let extra = reader.map(|number, value| {
            match number {
                0 => name = Some(value.bytes(limits::NAME_BYTES_MAX)?.to_vec()),
                1 => kind = Some(EntryKind::from_number(value.unsigned()?)?),
                2 => mode = Some(value.small()?),
                3 => entry.user_id = Some(value.small()?),
                4 => entry.group_id = Some(value.small()?),
                5 => entry.user_name = Some(value.bytes(limits::NAME_BYTES_MAX)?.to_vec()),
                6 => entry.group_name = Some(value.bytes(limits::NAME_BYTES_MAX)?.to_vec()),
                7 => modified = Some(value.timestamp()?),
                8 => entry.changed = Some(value.timestamp()?),
                9 => entry.accessed = Some(value.timestamp()?),
                10 => entry.device = Some(value.unsigned()?),
                11 => entry.inode = Some(value.unsigned()?),
                12 => entry.links = Some(value.unsigned()?),
                13 => entry.size = Some(value.unsigned()?),
                14 => entry.target = Some(value.bytes(limits::VALUE_BYTES_MAX)?.to_vec()),
                15 => entry.device_numbers = Some(decode_device(value)?),
                16 => entry.attributes = decode_attributes(value)?,
                17 => entry.subtree = Some(BlobId::new(value.fixed()?)),
                18 => entry.content = Some(Content::decode(value)?),
                _ => return Ok(Field::Unknown),
            }
            Ok(Field::Known)
        })?;
        entry.name = required(name, "entry name")?;
        entry.kind = required(kind, "entry kind")?;
        entry.mode = required(mode, "entry mode")?;
        entry.modified = required(modified, "entry modification time")?;
        entry.extra = extra;
        entry.check()?;
        Ok(entry)
    }
}

/// Checks that a name stays inside its folder on every system that restores it.
pub(super) fn check_name(name: &[u8]) -> Result<(), FormatError> {
    at_most("entry name", name.len() as u64, limits::NAME_BYTES_MAX)?;
    ensure(!name.is_empty(), "entry name", "is empty")?;
    ensure(name != b"." && name != b"..", "entry name", "leads out of its folder")?;
    ensure(!name.contains(&b'/') && !name.contains(&0), "entry name", "has a slash or NUL in it")
}

fn decode_device(reader: Reader<'_, '_>) -> Result<Device, FormatError> {
    match reader.array(2, |part| part.small())?.as_slice() {
        [major, minor] => Ok(Device { major: *major, minor: *minor }),
        _ => Err(FormatError::Invalid { what: "entry device numbers", why: "are not two" }),
    }
}

fn decode_attributes(reader: Reader<'_, '_>) -> Result<Vec<ExtendedAttribute>, FormatError> {
    let attributes = reader.array(limits::ENTRY_ATTRIBUTES_MAX, |pair| {
        let mut parts = pair.array(2, |part| Ok(part.bytes(limits::VALUE_BYTES_MAX)?.to_vec()))?.into_iter();
        match (parts.next(), parts.next()) {
            (Some(name), Some(value)) => Ok(ExtendedAttribute { name, value }),
            _ => Err(FormatError::Invalid { what: "extended attribute", why: "is not a name and a value" }),
        }
    })?;
    ensure(!attributes.is_empty(), "extended attributes", "an empty list is left out")?;
    Ok(attributes)
}
