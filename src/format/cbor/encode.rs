//! Writing: every value in its one canonical form.

use super::{ARRAY, BYTES, Extra, FALSE, MAP, NEGATIVE, TEXT, TRUE, UNSIGNED};
use std::collections::BTreeMap;

/// Encodes an object: a map of numbered fields, together with the unknown ones it was read with.
pub fn encode_map(extra: &Extra, write: impl FnOnce(&mut MapWriter<'_>)) -> Vec<u8> {
    // Room for a bundle of secrets, so that growing leaves no copy of them behind.
    let mut out = Vec::with_capacity(1024);
    Writer { out: &mut out }.map(extra, write);
    out
}

/// Encodes an object that is a bare array.
pub fn encode_array<T>(items: &[T], each: impl FnMut(Writer<'_>, &T)) -> Vec<u8> {
    let mut out = Vec::new();
    Writer { out: &mut out }.array(items, each);
    out
}

/// The place where one value goes.
#[must_use = "a place that is left empty makes the object unreadable"]
pub struct Writer<'a> {
    out: &'a mut Vec<u8>,
}

impl<'a> Writer<'a> {
    /// Appends one value to the bytes.
    pub fn new(out: &'a mut Vec<u8>) -> Self {
        Self { out }
    }

    /// Writes an unsigned integer.
    pub fn unsigned(self, value: u64) {
        head(self.out, UNSIGNED, value);
    }

    /// Writes a signed integer.
    pub fn signed(self, value: i64) {
        match u64::try_from(value) {
            Ok(value) => head(self.out, UNSIGNED, value),
            // -1 - value: flipping all bits, which can't overflow.
            Err(_) => head(self.out, NEGATIVE, (!value).unsigned_abs()),
        }
    }

    /// Writes a byte string.
    pub fn bytes(self, value: &[u8]) {
        head(self.out, BYTES, value.len() as u64);
        self.out.extend_from_slice(value);
    }

    /// Writes a text.
    pub fn text(self, value: &str) {
        head(self.out, TEXT, value.len() as u64);
        self.out.extend_from_slice(value.as_bytes());
    }

    /// Writes a truth value.
    pub fn boolean(self, value: bool) {
        self.out.push(if value { TRUE } else { FALSE });
    }

    /// Writes an array, each item through the function.
    pub fn array<T>(self, items: &[T], mut each: impl FnMut(Writer<'_>, &T)) {
        head(self.out, ARRAY, items.len() as u64);
        for item in items {
            each(Writer { out: self.out }, item);
        }
    }

    /// Writes an array whose items are encoded already, one after the other.
    pub fn encoded_array(self, count: u64, items: &[u8]) {
        head(self.out, ARRAY, count);
        self.out.extend_from_slice(items);
    }

    /// Writes a map of numbered fields, together with the unknown ones it was read with.
    pub fn map(self, extra: &Extra, write: impl FnOnce(&mut MapWriter<'_>)) {
        let start = self.out.len();
        let mut map = MapWriter { out: self.out, extra, fields: 0, next: 0 };
        write(&mut map);
        map.extra_below(None);
        let fields = map.fields;
        // The head of a map counts its fields, which is known only now.
        let mut counted = Vec::with_capacity(9);
        head(&mut counted, MAP, fields);
        self.out.splice(start..start, counted);
    }

    /// Writes a map from text to text, in canonical order: shorter keys first, then bytewise.
    pub fn text_map(self, map: &BTreeMap<String, String>) {
        let mut entries: Vec<_> = map.iter().collect();
        entries.sort_by_key(|(key, _)| (key.len(), key.as_bytes()));
        head(self.out, MAP, entries.len() as u64);
        for (key, value) in entries {
            Writer { out: self.out }.text(key);
            Writer { out: self.out }.text(value);
        }
    }
}

/// Writes the fields of one map, in ascending order.
pub struct MapWriter<'a> {
    out: &'a mut Vec<u8>,
    extra: &'a [(u64, Vec<u8>)],
    fields: u64,
    /// The least number that may still come.
    next: u64,
}

impl MapWriter<'_> {
    /// Opens the place of a field. Numbers ascend; exactly one value must follow.
    pub fn at(&mut self, number: u64) -> Writer<'_> {
        self.extra_below(Some(number));
        debug_assert!(number >= self.next, "field {number} is out of order");
        self.key(number);
        Writer { out: self.out }
    }

    /// Writes a field only where there is a value.
    pub fn optional<T>(&mut self, number: u64, value: Option<T>, write: impl FnOnce(Writer<'_>, T)) {
        if let Some(value) = value {
            write(self.at(number), value);
        }
    }

    /// Writes a list only where it is not empty.
    pub fn list<T>(&mut self, number: u64, items: &[T], each: impl FnMut(Writer<'_>, &T)) {
        if !items.is_empty() {
            self.at(number).array(items, each);
        }
    }

    fn key(&mut self, number: u64) {
        head(self.out, UNSIGNED, number);
        self.fields += 1;
        self.next = number.saturating_add(1);
    }

    /// Writes the unknown fields that come before a number, or all that are left. One with the number of
    /// a field that is now known is dropped: the known one counts.
    fn extra_below(&mut self, number: Option<u64>) {
        while let Some(((unknown, value), rest)) = self.extra.split_first() {
            if number.is_some_and(|number| *unknown > number) {
                break;
            }
            self.extra = rest;
            if number != Some(*unknown) && (*unknown >= self.next) {
                self.key(*unknown);
                self.out.extend_from_slice(value);
            }
        }
    }
}

/// Writes a type and its argument in as few bytes as it takes.
#[expect(clippy::cast_possible_truncation, reason = "each arm's range fits its type")]
fn head(out: &mut Vec<u8>, major: u8, argument: u64) {
    let major = major << 5;
    match argument {
        0..24 => out.push(major | argument as u8),
        24..=0xFF => out.extend_from_slice(&[major | 24, argument as u8]),
        0x100..=0xFFFF => {
            out.push(major | 25);
            out.extend_from_slice(&(argument as u16).to_be_bytes());
        }
        0x1_0000..=0xFFFF_FFFF => {
            out.push(major | 26);
            out.extend_from_slice(&(argument as u32).to_be_bytes());
        }
        _ => {
            out.push(major | 27);
            out.extend_from_slice(&argument.to_be_bytes());
        }
    }
}
