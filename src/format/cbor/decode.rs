//! Reading: total, bounded, and nothing but the canonical form is accepted.

use super::{ARRAY, BYTES, CRITICAL_FIELD, DEPTH_MAX, Extra, FALSE, MAP, NEGATIVE, TEXT, TRUE, UNSIGNED};
use crate::base::Timestamp;
use crate::format::FormatError;
use std::collections::BTreeMap;

/// Says whether a field was read or is one that this program does not know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Field {
    /// The field's value was taken from its reader.
    Known,
    /// The value was left where it is: it is kept as it stands.
    Unknown,
}

/// Decodes an object: a map of numbered fields and nothing after it. Returns the unknown fields.
///
/// `what` names the object in errors. The function takes the value of each field whose number it knows.
pub fn decode_map<'a>(
    what: &'static str,
    bytes: &'a [u8],
    read: impl FnMut(u64, Reader<'a, '_>) -> Result<Field, FormatError>,
) -> Result<Extra, FormatError> {
    let mut cursor = Cursor { what, rest: bytes };
    let extra = Reader { cursor: &mut cursor }.map(read)?;
    cursor.end()?;
    Ok(extra)
}

/// Decodes an object that is a bare array with at most `limit` items and nothing after it.
pub fn decode_array<'a, T>(
    what: &'static str,
    bytes: &'a [u8],
    limit: u64,
    each: impl FnMut(Reader<'a, '_>) -> Result<T, FormatError>,
) -> Result<Vec<T>, FormatError> {
    let mut cursor = Cursor { what, rest: bytes };
    let items = Reader { cursor: &mut cursor }.array(limit, each)?;
    cursor.end()?;
    Ok(items)
}

/// Returns the value of a field that must be there.
pub fn required<T>(value: Option<T>, what: &'static str) -> Result<T, FormatError> {
    value.ok_or(FormatError::Invalid { what, why: "the field is missing" })
}

struct Cursor<'a> {
    what: &'static str,
    rest: &'a [u8],
}

impl<'a> Cursor<'a> {
    fn invalid<T>(&self, why: &'static str) -> Result<T, FormatError> {
        Err(FormatError::Invalid { what: self.what, why })
    }

    fn end(&self) -> Result<(), FormatError> {
        if self.rest.is_empty() { Ok(()) } else { self.invalid("bytes follow its end") }
    }

    fn take(&mut self, length: u64) -> Result<&'a [u8], FormatError> {
        let length = usize::try_from(length).map_err(|_| FormatError::Truncated)?;
        let (taken, rest) = self.rest.split_at_checked(length).ok_or(FormatError::Truncated)?;
        self.rest = rest;
        Ok(taken)
    }

    fn number<const N: usize>(&mut self) -> Result<u64, FormatError> {
        let (taken, rest) = self.rest.split_first_chunk::<N>().ok_or(FormatError::Truncated)?;
        self.rest = rest;
        Ok(taken.iter().fold(0, |number, byte| number << 8 | u64::from(*byte)))
    }

    /// Reads a type and its argument, which must be in its shortest form.
    fn head(&mut self) -> Result<(u8, u64), FormatError> {
        let (&first, rest) = self.rest.split_first().ok_or(FormatError::Truncated)?;
        self.rest = rest;
        let (argument, least) = match first & 0x1F {
            short @ 0..24 => (u64::from(short), 0),
            24 => (self.number::<1>()?, 24),
            25 => (self.number::<2>()?, 0x100),
            26 => (self.number::<4>()?, 0x1_0000),
            27 => (self.number::<8>()?, 0x1_0000_0000),
            31 => return self.invalid("indefinite lengths are not allowed"),
            _ => return self.invalid("not CBOR"),
        };
        if argument < least {
            return self.invalid("an integer or length is not in its shortest form");
        }
        Ok((first >> 5, argument))
    }

    fn expect(&mut self, major: u8, why: &'static str) -> Result<u64, FormatError> {
        match self.head()? {
            (found, argument) if found == major => Ok(argument),
            _ => self.invalid(why),
        }
    }

    fn text(&mut self, length: u64) -> Result<&'a str, FormatError> {
        let bytes = self.take(length)?;
        std::str::from_utf8(bytes).or_else(|_| self.invalid("a text is not UTF-8"))
    }

    /// Passes over one value of any type, checking that it is canonical.
    fn skip(&mut self, depth: u8) -> Result<(), FormatError> {
        let Some(depth) = depth.checked_sub(1) else {
            return self.invalid("values are nested too deeply");
        };
        match self.rest.first() {
            Some(&(FALSE | TRUE)) => return self.take(1).map(|_| ()),
            Some(&first) if first >> 5 > MAP => {
                return self.invalid("only integers, strings, booleans, arrays and maps are allowed");
            }
            _ => {}
        }
        match self.head()? {
            (UNSIGNED | NEGATIVE, _) => {}
            (BYTES, length) => {
                self.take(length)?;
            }
            (TEXT, length) => {
                self.text(length)?;
            }
            // Each item takes a byte at least, so a hostile count ends with the bytes.
            (ARRAY, count) => {
                for _ in 0..count {
                    self.skip(depth)?;
                }
            }
            (_, count) => {
                let mut previous: &[u8] = &[];
                for _ in 0..count {
                    let key = self.raw(depth)?;
                    if key <= previous {
                        return self.invalid("the keys of a map are not in ascending order");
                    }
                    previous = key;
                    self.skip(depth)?;
                }
            }
        }
        Ok(())
    }

    fn raw(&mut self, depth: u8) -> Result<&'a [u8], FormatError> {
        let before = self.rest;
        self.skip(depth)?;
        Ok(before.get(..before.len() - self.rest.len()).unwrap_or_default())
    }
}

/// The place from which one value is taken.
pub struct Reader<'a, 'c> {
    cursor: &'c mut Cursor<'a>,
}

impl<'a> Reader<'a, '_> {
    /// Names the object in errors.
    pub fn what(&self) -> &'static str {
        self.cursor.what
    }

    /// Reads an unsigned integer.
    pub fn unsigned(self) -> Result<u64, FormatError> {
        self.cursor.expect(UNSIGNED, "an unsigned integer is expected")
    }

    /// Reads an unsigned integer that fits a smaller type.
    pub fn small<T: TryFrom<u64>>(self) -> Result<T, FormatError> {
        let number = self.cursor.expect(UNSIGNED, "an unsigned integer is expected")?;
        T::try_from(number).or_else(|_| self.cursor.invalid("an integer is out of range"))
    }

    /// Reads a signed integer.
    pub fn signed(self) -> Result<i64, FormatError> {
        let (major, argument) = self.cursor.head()?;
        match (major, i64::try_from(argument)) {
            (UNSIGNED, Ok(value)) => Ok(value),
            (NEGATIVE, Ok(value)) => Ok(!value),
            (UNSIGNED | NEGATIVE, Err(_)) => self.cursor.invalid("an integer is out of range"),
            _ => self.cursor.invalid("an integer is expected"),
        }
    }

    /// Reads a time: signed nanoseconds since 1970.
    pub fn timestamp(self) -> Result<Timestamp, FormatError> {
        self.signed().map(Timestamp::from_nanoseconds)
    }

    /// Reads a byte string of at most so many bytes.
    pub fn bytes(self, limit: u64) -> Result<&'a [u8], FormatError> {
        let length = self.cursor.expect(BYTES, "a byte string is expected")?;
        at_most(self.cursor.what, length, limit)?;
        self.cursor.take(length)
    }

    /// Reads a byte string of exactly so many bytes.
    pub fn fixed<const N: usize>(self) -> Result<[u8; N], FormatError> {
        let length = self.cursor.expect(BYTES, "a byte string is expected")?;
        if usize::try_from(length) != Ok(N) {
            return self.cursor.invalid("a byte string has the wrong length");
        }
        let taken = self.cursor.take(length)?;
        taken.try_into().map_err(|_| FormatError::Truncated)
    }

    /// Reads a text of at most so many bytes.
    pub fn text(self, limit: u64) -> Result<&'a str, FormatError> {
        let length = self.cursor.expect(TEXT, "a text is expected")?;
        at_most(self.cursor.what, length, limit)?;
        self.cursor.text(length)
    }

    /// Reads a truth value.
    pub fn boolean(self) -> Result<bool, FormatError> {
        match self.cursor.take(1)? {
            [FALSE] => Ok(false),
            [TRUE] => Ok(true),
            _ => self.cursor.invalid("a truth value is expected"),
        }
    }

    /// Reads an array of at most so many items, each through the function.
    pub fn array<T>(
        self,
        limit: u64,
        mut each: impl FnMut(Reader<'a, '_>) -> Result<T, FormatError>,
    ) -> Result<Vec<T>, FormatError> {
        let count = self.cursor.expect(ARRAY, "an array is expected")?;
        at_most(self.cursor.what, count, limit)?;
        // Grows with what is really there: a count costs nothing before its items were read.
        let mut items = Vec::new();
        for _ in 0..count {
            items.push(each(Reader { cursor: self.cursor })?);
        }
        Ok(items)
    }

    /// Reads a map of numbered fields; returns those that the function does not know.
    pub fn map(
        self,
        mut read: impl FnMut(u64, Reader<'a, '_>) -> Result<Field, FormatError>,
    ) -> Result<Extra, FormatError> {
        let count = self.cursor.expect(MAP, "a map is expected")?;
        let (mut extra, mut least) = (Extra::new(), Some(0));
        for _ in 0..count {
            let number = self.cursor.expect(UNSIGNED, "the key of a field is not a number")?;
            if least.is_none_or(|least| number < least) {
                return self.cursor.invalid("fields are not in ascending order");
            }
            least = number.checked_add(1);
            match read(number, Reader { cursor: self.cursor })? {
                Field::Known => {}
                Field::Unknown if number >= CRITICAL_FIELD => {
                    return Err(FormatError::Unsupported { what: "critical field" });
                }
                Field::Unknown => extra.push((number, self.cursor.raw(DEPTH_MAX)?.to_vec())),
            }
        }
        Ok(extra)
    }

    /// Reads a map from text to text, with bounds on the entries and on the bytes of each text.
    pub fn text_map(self, entries_max: u64, bytes_max: u64) -> Result<BTreeMap<String, String>, FormatError> {
        let count = self.cursor.expect(MAP, "a map is expected")?;
        at_most(self.cursor.what, count, entries_max)?;
        let (mut map, mut previous) = (BTreeMap::new(), None);
        for _ in 0..count {
            let key = Reader { cursor: self.cursor }.text(bytes_max)?;
            let order = Some((key.len(), key));
            if order <= previous {
                return self.cursor.invalid("the keys of a map are not in ascending order");
            }
            previous = order;
            let value = Reader { cursor: self.cursor }.text(bytes_max)?;
            map.insert(key.to_owned(), value.to_owned());
        }
        Ok(map)
    }
}

fn at_most(what: &'static str, value: u64, limit: u64) -> Result<(), FormatError> {
    if value <= limit { Ok(()) } else { Err(FormatError::TooLarge { what, value, limit }) }
}
