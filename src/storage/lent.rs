//! A store that somebody else lends, to be read only: requests and answers are bytes, carried by whatever connects
//! the two.
//!
//! The borrower ([`LentStore`]) may be anybody: the lender's side ([`answer`]) knows no request that changes anything,
//! and takes every byte of one for hostile. What the lender answers is as little believed as what any store says.
//!
//! A request is a kind (one byte), two numbers of eight bytes, and the name; an answer is a kind and what belongs to
//! it. Numbers are little-endian.

use super::names::{NAME_BYTES_MAX, check_name, check_prefix};
use super::{Capabilities, ObjectInfo, Operation, PutOutcome, StorageError, Store};
use crate::base::Timestamp;
use std::io;

const GET: u8 = 1;
const GET_RANGE: u8 = 2;
const HEAD: u8 = 3;
const LIST: u8 = 4;
const DOUBT: u8 = 5;

const DONE: u8 = 0;
const NOT_FOUND: u8 = 1;
const TRUNCATED: u8 = 2;
const TOO_LARGE: u8 = 3;
const INVALID: u8 = 4;
const DENIED: u8 = 5;
const TRANSIENT: u8 = 6;
const FAILED: u8 = 7;

/// Most bytes that one answer may carry: more than any object that is read at once.
const ANSWER_BYTES_MAX: u64 = 1 << 30;

/// Carries requests to the lender. Shared between threads, whose requests may be under way at once.
pub trait Line: Send + Sync {
    /// Sends a request and waits for its answer.
    ///
    /// # Errors
    ///
    /// When there is nobody at the other end any more.
    fn ask(&self, request: Vec<u8>) -> io::Result<Vec<u8>>;
}

/// A store that is read through a line.
pub struct LentStore<L> {
    line: L,
    location: String,
}

impl<L: Line> LentStore<L> {
    /// Borrows what is at the other end; `location` names it for people.
    pub fn new(line: L, location: String) -> Self {
        Self { line, location }
    }

    fn ask(
        &self,
        operation: Operation,
        kind: u8,
        numbers: [u64; 2],
        name: &str,
    ) -> Result<Vec<u8>, StorageError> {
        let mut request = vec![kind];
        request.extend(numbers.iter().flat_map(|number| number.to_le_bytes()));
        request.extend_from_slice(name.as_bytes());
        let lost = |source: io::Error| StorageError::Transient {
            operation,
            name: name.to_owned(),
            source: Box::new(source),
        };
        let answer = self.line.ask(request).map_err(lost)?;
        match answer.split_first() {
            Some((&DONE, _)) => {}
            Some((&kind, rest)) => return Err(error_of(operation, name, kind, rest)),
            None => return Err(lost(io::Error::other("the answer is empty"))),
        }
        let mut answer = answer;
        answer.drain(..1);
        Ok(answer)
    }

    fn read_only(&self, operation: Operation, name: &str) -> StorageError {
        let source = Box::new(io::Error::other("the store is lent to be read"));
        StorageError::Denied { operation, name: name.to_owned(), source }
    }
}

fn garbled(operation: Operation, name: &str) -> StorageError {
    let source = Box::new(io::Error::other("the answer makes no sense"));
    StorageError::Fatal { operation, name: name.to_owned(), source }
}

/// Takes numbers from the front of bytes.
fn number(bytes: &mut &[u8]) -> Option<u64> {
    let (first, rest) = bytes.split_first_chunk::<8>()?;
    *bytes = rest;
    Some(u64::from_le_bytes(*first))
}

fn error_of(operation: Operation, name: &str, kind: u8, mut rest: &[u8]) -> StorageError {
    let name = name.to_owned();
    let source = |text: &[u8]| Box::new(io::Error::other(String::from_utf8_lossy(text).into_owned()));
    let mut two = || Some((number(&mut rest)?, number(&mut rest)?));
    match kind {
        NOT_FOUND => StorageError::NotFound { operation, name },
        TRUNCATED => match two() {
            Some((length_bytes, wanted_bytes)) => {
                StorageError::Truncated { operation, name, length_bytes, wanted_bytes }
            }
            None => garbled(operation, &name),
        },
        TOO_LARGE => match two() {
            Some((length_bytes, limit_bytes)) => {
                StorageError::TooLarge { operation, name, length_bytes, limit_bytes }
            }
            None => garbled(operation, &name),
        },
        INVALID => StorageError::Invalid { operation, name, why: "the lender refuses it" },
        DENIED => StorageError::Denied { operation, name, source: source(rest) },
        TRANSIENT => StorageError::Transient { operation, name, source: source(rest) },
        _ => StorageError::Fatal { operation, name, source: source(rest) },
    }
}

fn write_object(out: &mut Vec<u8>, object: &ObjectInfo) {
    out.extend_from_slice(&object.length.to_le_bytes());
    out.push(u8::from(object.modified.is_some()));
    let modified = object.modified.map_or(0, Timestamp::nanoseconds);
    out.extend_from_slice(&modified.to_le_bytes());
    out.extend_from_slice(&(object.name.len() as u64).to_le_bytes());
    out.extend_from_slice(object.name.as_bytes());
}

fn read_object(bytes: &mut &[u8]) -> Option<ObjectInfo> {
    let length = number(bytes)?;
    let (&is_known, rest) = bytes.split_first()?;
    *bytes = rest;
    let modified = i64::from_le_bytes(number(bytes)?.to_le_bytes());
    let name_length = usize::try_from(number(bytes)?).ok()?;
    let (name, rest) = bytes.split_at_checked(name_length)?;
    *bytes = rest;
    let modified = (is_known == 1).then(|| Timestamp::from_nanoseconds(modified));
    Some(ObjectInfo { name: String::from_utf8(name.to_vec()).ok()?, length, modified })
}

impl<L: Line> Store for LentStore<L> {
    fn put(&self, name: &str, _bytes: &[u8]) -> Result<PutOutcome, StorageError> {
        Err(self.read_only(Operation::Put, name))
    }

    fn replace(&self, name: &str, _bytes: &[u8]) -> Result<(), StorageError> {
        Err(self.read_only(Operation::Replace, name))
    }

    fn get(&self, name: &str, limit_bytes: u64) -> Result<Vec<u8>, StorageError> {
        check_name(Operation::Get, name)?;
        let bytes = self.ask(Operation::Get, GET, [limit_bytes, 0], name)?;
        let length_bytes = bytes.len() as u64;
        if length_bytes > limit_bytes {
            let name = name.to_owned();
            return Err(StorageError::TooLarge {
                operation: Operation::Get,
                name,
                length_bytes,
                limit_bytes,
            });
        }
        Ok(bytes)
    }

    fn get_range(
        &self,
        name: &str,
        offset: u64,
        length: usize,
        out: &mut Vec<u8>,
    ) -> Result<(), StorageError> {
        check_name(Operation::GetRange, name)?;
        let bytes = self.ask(Operation::GetRange, GET_RANGE, [offset, length as u64], name)?;
        if bytes.len() != length {
            return Err(garbled(Operation::GetRange, name));
        }
        out.extend_from_slice(&bytes);
        Ok(())
    }

    fn head(&self, name: &str) -> Result<ObjectInfo, StorageError> {
        check_name(Operation::Head, name)?;
        let answer = self.ask(Operation::Head, HEAD, [0, 0], name)?;
        let mut rest = answer.as_slice();
        let object = read_object(&mut rest).filter(|object| object.name == name && rest.is_empty());
        object.ok_or_else(|| garbled(Operation::Head, name))
    }

    fn list(&self, prefix: &str) -> Result<Vec<ObjectInfo>, StorageError> {
        check_prefix(prefix)?;
        let answer = self.ask(Operation::List, LIST, [0, 0], prefix)?;
        let (mut rest, mut objects) = (answer.as_slice(), Vec::new());
        while !rest.is_empty() {
            let object = read_object(&mut rest).filter(|object| {
                object.name.starts_with(prefix) && check_name(Operation::List, &object.name).is_ok()
            });
            objects.push(object.ok_or_else(|| garbled(Operation::List, prefix))?);
        }
        match objects.is_sorted_by(|a, b| a.name < b.name) {
            true => Ok(objects),
            false => Err(garbled(Operation::List, prefix)),
        }
    }

    fn delete(&self, name: &str) -> Result<(), StorageError> {
        Err(self.read_only(Operation::Delete, name))
    }

    fn doubt(&self, name: &str) -> bool {
        self.ask(Operation::Get, DOUBT, [0, 0], name).is_ok_and(|answer| answer == [1])
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            exclusive_put: false,
            consistent_list: true,
            modified_times: false,
            // What failed here failed at the lender's already, or the line is gone.
            retry: false,
            distant: true,
        }
    }

    fn location(&self) -> String {
        self.location.clone()
    }
}

/// Answers one request out of a store, which is only read, whatever the request says.
pub fn answer(store: &dyn Store, request: &[u8]) -> Vec<u8> {
    let answered = read_request(request).map_or_else(
        || {
            let name = String::new();
            Err(StorageError::Invalid { operation: Operation::Get, name, why: "the request makes no sense" })
        },
        |(kind, numbers, name)| serve(store, kind, numbers, name),
    );
    answered.unwrap_or_else(|error| refuse(&error))
}

fn read_request(request: &[u8]) -> Option<(u8, [u64; 2], &str)> {
    let (&kind, mut rest) = request.split_first()?;
    let numbers = [number(&mut rest)?, number(&mut rest)?];
    let name = std::str::from_utf8(rest).ok().filter(|name| name.len() <= NAME_BYTES_MAX)?;
    Some((kind, numbers, name))
}

fn serve(store: &dyn Store, kind: u8, numbers: [u64; 2], name: &str) -> Result<Vec<u8>, StorageError> {
    let mut out = vec![DONE];
    match (kind, numbers) {
        (GET, [limit, _]) => {
            check_name(Operation::Get, name)?;
            out.extend(store.get(name, limit.min(ANSWER_BYTES_MAX))?);
        }
        (GET_RANGE, [offset, length]) => {
            check_name(Operation::GetRange, name)?;
            let length = usize::try_from(length.min(ANSWER_BYTES_MAX)).unwrap_or(usize::MAX);
            store.get_range(name, offset, length, &mut out)?;
        }
        (HEAD, _) => {
            check_name(Operation::Head, name)?;
            write_object(&mut out, &store.head(name)?);
        }
        (LIST, _) => {
            check_prefix(name)?;
            store.list(name)?.iter().for_each(|object| write_object(&mut out, object));
        }
        (DOUBT, _) => {
            check_name(Operation::Get, name)?;
            out.push(u8::from(store.doubt(name)));
        }
        _ => {
            let name = name.to_owned();
            let why = "there is no such request";
            return Err(StorageError::Invalid { operation: Operation::Get, name, why });
        }
    }
    Ok(out)
}

fn refuse(error: &StorageError) -> Vec<u8> {
    let two = |kind: u8, first: u64, second: u64| {
        [[kind].as_slice(), &first.to_le_bytes(), &second.to_le_bytes()].concat()
    };
    let text = |kind: u8, source: &super::Cause| [[kind].as_slice(), source.to_string().as_bytes()].concat();
    match error {
        StorageError::NotFound { .. } => vec![NOT_FOUND],
        StorageError::Truncated { length_bytes, wanted_bytes, .. } => {
            two(TRUNCATED, *length_bytes, *wanted_bytes)
        }
        StorageError::TooLarge { length_bytes, limit_bytes, .. } => {
            two(TOO_LARGE, *length_bytes, *limit_bytes)
        }
        StorageError::Invalid { .. } => vec![INVALID],
        StorageError::Denied { source, .. } => text(DENIED, source),
        StorageError::Transient { source, .. } => text(TRANSIENT, source),
        StorageError::NoSpace { source, .. } | StorageError::Fatal { source, .. } => text(FAILED, source),
        StorageError::Conflict { .. } => vec![FAILED],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::MemoryStore;
    use std::sync::Arc;

    struct Direct(Arc<MemoryStore>);

    impl Line for Direct {
        fn ask(&self, request: Vec<u8>) -> io::Result<Vec<u8>> {
            Ok(answer(&*self.0, &request))
        }
    }

    /// Answers always the same.
    struct Says(Vec<u8>);

    impl Line for Says {
        fn ask(&self, _request: Vec<u8>) -> io::Result<Vec<u8>> {
            Ok(self.0.clone())
        }
    }

    fn filled() -> Arc<MemoryStore> {
        let store = Arc::new(MemoryStore::new());
        for (name, bytes) in [("chronolith", "configuration"), ("packs/a", "0123456789"), ("packs/b", "x")] {
            store.put(name, bytes.as_bytes()).unwrap();
        }
        store
    }

    #[test]
    fn a_lent_store_reads_as_the_store_itself() {
        let store = filled();
        let lent = LentStore::new(Direct(store.clone()), "elsewhere".to_owned());
        assert_eq!(lent.get("packs/a", 100).unwrap(), b"0123456789");
        let mut out = b"before".to_vec();
        lent.get_range("packs/a", 3, 4, &mut out).unwrap();
        assert_eq!(out, b"before3456");
        for name in ["packs/a", "chronolith", "none"] {
            match (lent.head(name), store.head(name)) {
                (Ok(lent), Ok(own)) => assert_eq!(lent, own),
                (Err(lent), Err(own)) => assert_eq!(lent.to_string(), own.to_string()),
                other => panic!("{other:?}"),
            }
        }
        for prefix in ["", "packs/", "none/"] {
            assert_eq!(lent.list(prefix).unwrap(), store.list(prefix).unwrap());
        }
        let same = |lent: StorageError, own: StorageError| assert_eq!(lent.to_string(), own.to_string());
        same(lent.get("none", 9).unwrap_err(), store.get("none", 9).unwrap_err());
        same(lent.get("packs/a", 9).unwrap_err(), store.get("packs/a", 9).unwrap_err());
        let past = |store: &dyn Store| store.get_range("packs/a", 8, 4, &mut Vec::new()).unwrap_err();
        same(past(&lent), past(&*store));
        assert!(!lent.doubt("packs/a"));
    }

    #[test]
    fn nothing_of_it_can_be_changed() {
        let store = filled();
        let lent = LentStore::new(Direct(store.clone()), "elsewhere".to_owned());
        let denied = |error: StorageError| assert!(matches!(error, StorageError::Denied { .. }), "{error}");
        denied(lent.put("packs/c", b"x").unwrap_err());
        denied(lent.replace("chronolith", b"x").unwrap_err());
        denied(lent.delete("packs/a").unwrap_err());
        // Whatever else a borrower sends.
        let before = store.list("").unwrap();
        for kind in 0..=255 {
            for rest in
                [&b""[..], b"short", &[0; 16], b"\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0packs/a", &[0xff; 700]]
            {
                let answered = answer(&*store, &[[kind].as_slice(), rest].concat());
                assert!(!answered.is_empty());
            }
        }
        assert!(answer(&*store, b"").first() == Some(&INVALID));
        let outside = [[GET].as_slice(), &[0xff; 16], b"../etc/passwd"].concat();
        assert_eq!(answer(&*store, &outside), [INVALID]);
        assert_eq!(store.list("").unwrap(), before);
    }

    #[test]
    fn answers_that_make_no_sense_are_errors() {
        let object = |name: &str| {
            let mut out = Vec::new();
            write_object(&mut out, &ObjectInfo { name: name.to_owned(), length: 1, modified: None });
            out
        };
        let done = |rest: &[u8]| [[DONE].as_slice(), rest].concat();
        let answers = [
            Vec::new(),
            vec![TRUNCATED, 1],
            vec![TOO_LARGE],
            vec![99],
            done(&object("other")[..5]),
            done(&[0xff; 40]),
            done(&[object("packs/b"), object("packs/a")].concat()),
            done(&object("packs/../x")),
        ];
        for said in answers {
            let lent = LentStore::new(Says(said.clone()), String::new());
            assert!(lent.head("packs/a").is_err(), "{said:?}");
            assert!(lent.list("packs/").is_err(), "{said:?}");
            let mut out = Vec::new();
            assert!(lent.get_range("packs/a", 0, 3, &mut out).is_err() && out.is_empty(), "{said:?}");
            assert!(lent.get("packs/a", 0).is_err() || said.len() == 1, "{said:?}");
        }
    }
}
