//! Which entries of an archive are loaded, where only some schemas or tables are wanted.

use super::tag::is_about;
use crate::postgres::dump::contents::{Contents, Text, TocEntry, show};
use std::collections::{BTreeMap, BTreeSet};

/// What can be named with `--table`.
const NAMED: [&str; 6] =
    ["TABLE", "FOREIGN TABLE", "VIEW", "MATERIALIZED VIEW", "SEQUENCE", "SEQUENCE OWNED BY"];
/// What belongs to a table, and comes with it.
const FOLLOWS: [&str; 21] = [
    "TABLE DATA",
    "MATERIALIZED VIEW DATA",
    "INDEX",
    "INDEX ATTACH",
    "CONSTRAINT",
    "CHECK CONSTRAINT",
    "FK CONSTRAINT",
    "TRIGGER",
    "RULE",
    "POLICY",
    "ROW SECURITY",
    "DEFAULT",
    "COMMENT",
    "ACL",
    "SECURITY LABEL",
    "SEQUENCE",
    "SEQUENCE OWNED BY",
    "SEQUENCE SET",
    "STATISTICS",
    "STATISTICS DATA",
    "TABLE ATTACH",
];
/// What belongs to one table, and may speak of others.
const OF_A_TABLE: [&str; 7] =
    ["CONSTRAINT", "CHECK CONSTRAINT", "FK CONSTRAINT", "TRIGGER", "RULE", "POLICY", "DEFAULT"];
/// What a database has of itself, or is spoken of with the database only.
const OF_DATABASE: [&str; 6] =
    ["DATABASE", "DATABASE PROPERTIES", "ENCODING", "STDSTRINGS", "SEARCHPATH", "BLOBS"];

/// What was chosen.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Selection {
    /// Numbers of the entries.
    pub entries: BTreeSet<i64>,
    /// Numbers of those that others need, which may be there already.
    pub needed: BTreeSet<i64>,
    /// Foreign keys that lead to tables which were not chosen, and are left out.
    pub left_out: Vec<String>,
}

fn fits(entry: &TocEntry, pattern: &str) -> bool {
    let (schema, tag) =
        (entry.schema.as_deref().unwrap_or_default(), entry.tag.as_deref().unwrap_or_default());
    tag == pattern.as_bytes() || [schema, b".", tag].concat() == pattern.as_bytes()
}

fn is_relation(entry: &TocEntry) -> bool {
    NAMED.iter().take(5).any(|kind| entry.is(kind))
}

/// Chooses the entries of schemas and tables, named exactly, a table also as `SCHEMA.TABLE`.
///
/// # Errors
///
/// The first name that nothing in the archive has.
pub fn select(contents: &Contents, schemas: &[String], tables: &[String]) -> Result<Selection, String> {
    let mut chosen = BTreeSet::new();
    let own = |entry: &&TocEntry| !OF_DATABASE.iter().any(|kind| entry.is(kind));
    for name in schemas {
        let is_in = |entry: &TocEntry| {
            entry.schema.as_deref() == Some(name.as_bytes())
                || (entry.is("SCHEMA") && entry.tag.as_deref() == Some(name.as_bytes()))
                || is_about(entry, "SCHEMA", name.as_bytes())
        };
        let found = contents.entries.iter().filter(own).filter(|entry| is_in(entry));
        let before = chosen.len();
        chosen.extend(found.map(|entry| entry.id));
        if chosen.len() == before {
            return Err(format!("the dump has no schema {name:?}"));
        }
    }
    for name in tables {
        let found = contents.entries.iter().filter(|entry| is_relation(entry) && fits(entry, name));
        let before = chosen.len();
        chosen.extend(found.map(|entry| entry.id));
        if chosen.len() == before {
            return Err(format!("the dump has no table {name:?}"));
        }
    }
    let by_id: BTreeMap<i64, &TocEntry> = contents.entries.iter().map(|entry| (entry.id, entry)).collect();
    let mut left_out = BTreeSet::new();
    // Each round takes what hangs on the last; a dump is a few rounds deep.
    loop {
        let before = chosen.len();
        for entry in contents.entries.iter().filter(own) {
            follow(entry, contents, &by_id, &mut chosen, &mut left_out);
        }
        if chosen.len() == before {
            break;
        }
    }
    let needed = needed(&by_id, &chosen);
    let left_out = left_out.into_iter().filter(|id| !chosen.contains(id));
    let left_out = left_out.filter_map(|id| by_id.get(&id)).map(|entry| show(&entry.tag)).collect();
    Ok(Selection { entries: chosen, needed, left_out })
}

/// Says whether an entry is of one of the chosen tables itself, and does not only speak of it: such are tagged
/// with the name of their table and their own.
fn is_of_chosen(entry: &TocEntry, by_id: &BTreeMap<i64, &TocEntry>, chosen: &BTreeSet<i64>) -> bool {
    let tag = entry.tag.as_deref().unwrap_or_default();
    entry.needs.iter().filter(|id| chosen.contains(id)).filter_map(|id| by_id.get(id)).any(|table| {
        let name = table.tag.as_deref().unwrap_or_default();
        let rest = tag.strip_prefix(name);
        is_relation(table) && table.schema == entry.schema && rest.is_some_and(|rest| rest.starts_with(b" "))
    })
}

fn follow(
    entry: &TocEntry,
    contents: &Contents,
    by_id: &BTreeMap<i64, &TocEntry>,
    chosen: &mut BTreeSet<i64>,
    left_out: &mut BTreeSet<i64>,
) {
    let relation = |id: &&i64| by_id.get(id).is_some_and(|entry| is_relation(entry));
    let hangs = entry.needs.iter().any(|id| chosen.contains(id));
    if !hangs || !FOLLOWS.iter().any(|kind| entry.is(kind)) {
        return;
    }
    if OF_A_TABLE.iter().any(|kind| entry.is(kind)) && !is_of_chosen(entry, by_id, chosen) {
        return;
    }
    if entry.is("FK CONSTRAINT") && !entry.needs.iter().filter(relation).all(|id| chosen.contains(id)) {
        chosen.remove(&entry.id);
        left_out.insert(entry.id);
        return;
    }
    if entry.is("TABLE ATTACH") {
        // A part of a table that was chosen comes with it; the whole does not come with a part.
        let part = contents
            .entries
            .iter()
            .find(|other| other.is("TABLE") && other.tag == entry.tag && other.schema == entry.schema);
        let whole = entry.needs.iter().filter(|id| part.is_none_or(|part| part.id != **id));
        if !whole.filter(relation).any(|id| chosen.contains(id)) {
            return;
        }
        chosen.extend(part.map(|part| part.id));
    }
    if entry.is("SEQUENCE OWNED BY") || entry.is("DEFAULT") {
        let sequences = entry.needs.iter().filter(|id| by_id.get(id).is_some_and(|e| e.is("SEQUENCE")));
        chosen.extend(sequences);
    }
    chosen.insert(entry.id);
}

/// Returns what the chosen entries need, and what that needs: types, functions, schemas, extensions.
fn needed(by_id: &BTreeMap<i64, &TocEntry>, chosen: &BTreeSet<i64>) -> BTreeSet<i64> {
    let mut needed = BTreeSet::new();
    let mut to_do: Vec<i64> = chosen.iter().copied().collect();
    let schema_of = |schema: &Text| {
        let mut entries = by_id.values();
        entries.find(|entry| entry.is("SCHEMA") && entry.tag == *schema).map(|entry| entry.id)
    };
    while let Some(entry) = to_do.pop().and_then(|id| by_id.get(&id)) {
        let schema = schema_of(&entry.schema);
        for id in entry.needs.iter().copied().chain(schema) {
            let Some(other) = by_id.get(&id) else { continue };
            if other.has_data || chosen.contains(&id) || OF_DATABASE.iter().any(|kind| other.is(kind)) {
                continue;
            }
            if needed.insert(id) {
                to_do.push(id);
            }
        }
    }
    needed
}
