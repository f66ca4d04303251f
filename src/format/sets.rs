//! Sets of ids, strictly ascending wherever they are stored, so that one set has one encoding.

use super::FormatError;
use super::bytes::{ensure, invalid};
use super::cbor::{MapWriter, Reader};
use crate::base::{
    AnnotationId, BlobId, CatalogId, CondemnedId, DamagedId, LogPackId, ObjectId, PackId, SnapshotId,
};

/// Implemented by the ids that stored sets hold.
pub trait SetId: Copy + Ord {
    /// Takes the id from its bytes.
    fn from_bytes(bytes: [u8; 32]) -> Self;
    /// Returns the bytes of the id.
    fn bytes(&self) -> &[u8; 32];
}

macro_rules! set_ids {
    ($($name:ident)*) => {$(
        impl SetId for $name {
            fn from_bytes(bytes: [u8; 32]) -> Self {
                Self::new(bytes)
            }

            fn bytes(&self) -> &[u8; 32] {
                self.as_bytes()
            }
        }
    )*};
}

set_ids! { AnnotationId BlobId CatalogId CondemnedId DamagedId LogPackId ObjectId PackId SnapshotId }

/// Ids in ascending order, none twice. Collecting into it sorts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdSet<T>(Vec<T>);

impl<T> Default for IdSet<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T: SetId> FromIterator<T> for IdSet<T> {
    fn from_iter<I: IntoIterator<Item = T>>(ids: I) -> Self {
        let mut ids: Vec<T> = ids.into_iter().collect();
        ids.sort_unstable();
        ids.dedup();
        Self(ids)
    }
}

impl<T: SetId> IdSet<T> {
    /// Says whether the id is in the set.
    pub fn contains(&self, id: &T) -> bool {
        self.0.binary_search(id).is_ok()
    }

    /// Returns the ids in ascending order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &T> {
        self.0.iter()
    }

    /// Returns the number of ids.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Says whether the set is empty.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Says whether an id is in both sets. Both are walked once.
    pub fn meets(&self, other: &Self) -> bool {
        let (mut left, mut right) = (self.0.iter().peekable(), other.0.iter().peekable());
        while let (Some(a), Some(b)) = (left.peek(), right.peek()) {
            match a.cmp(b) {
                std::cmp::Ordering::Equal => return true,
                std::cmp::Ordering::Less => left.next(),
                std::cmp::Ordering::Greater => right.next(),
            };
        }
        false
    }

    fn ascending(ids: Vec<T>, what: &'static str) -> Result<Self, FormatError> {
        ensure(!ids.is_empty(), what, "an empty set is left out")?;
        ensure(ids.is_sorted_by(|a, b| a < b), what, "ids are not strictly ascending")?;
        Ok(Self(ids))
    }

    /// Reads the packed form: one byte string of whole ids, never empty.
    pub(super) fn read_packed(reader: Reader<'_, '_>, bytes_max: u64) -> Result<Self, FormatError> {
        let what = reader.what();
        let (ids, rest) = reader.bytes(bytes_max)?.as_chunks::<32>();
        ensure(rest.is_empty(), what, "a set of ids is no multiple of 32 bytes")?;
        Self::ascending(ids.iter().map(|id| T::from_bytes(*id)).collect(), what)
    }

    /// Reads the form of an array with an item for each id, never empty.
    pub(super) fn read_array(reader: Reader<'_, '_>, ids_max: u64) -> Result<Self, FormatError> {
        let what = reader.what();
        Self::ascending(reader.array(ids_max, |item| item.fixed().map(T::from_bytes))?, what)
    }

    /// Writes the packed form, nothing where the set is empty.
    pub(super) fn write_packed(&self, map: &mut MapWriter<'_>, field: u64) {
        if !self.is_empty() {
            let mut packed = Vec::with_capacity(self.len().saturating_mul(32));
            self.iter().for_each(|id| packed.extend_from_slice(id.bytes()));
            map.at(field).bytes(&packed);
        }
    }

    /// Writes the form of an array, nothing where the set is empty.
    pub(super) fn write_array(&self, map: &mut MapWriter<'_>, field: u64) {
        map.list(field, &self.0, |item, id| item.bytes(id.bytes()));
    }
}

/// Refuses a list that is not strictly ascending by the key of its items.
pub(super) fn ascending_by<'a, T, K: Ord>(
    what: &'static str,
    items: &'a [T],
    key: impl Fn(&'a T) -> K,
) -> Result<(), FormatError> {
    ensure(items.is_sorted_by(|a, b| key(a) < key(b)), what, "entries are not strictly ascending")
}

/// Refuses a list that is there but empty: it must be left out, so that one object has one encoding.
pub(super) fn not_empty<T>(what: &'static str, items: Vec<T>) -> Result<Vec<T>, FormatError> {
    if items.is_empty() { Err(invalid(what, "an empty list is left out")) } else { Ok(items) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_sort_and_meet() {
        let id = |n: u8| PackId::new([n; 32]);
        let odd: IdSet<_> = [id(5), id(1), id(3), id(1)].into_iter().collect();
        let even: IdSet<_> = [id(4), id(2)].into_iter().collect();
        assert_eq!(odd.iter().copied().collect::<Vec<_>>(), [id(1), id(3), id(5)]);
        assert!(odd.contains(&id(3)) && !odd.contains(&id(2)));
        assert!(!odd.meets(&even) && !odd.meets(&IdSet::default()));
        assert!(odd.meets(&[id(5)].into_iter().collect()));
    }
}
