//! What programs read: lines of JSON, each naming its schema and version (`docs/json.md`).

use crate::base::Timestamp;
use crate::format::annotation::{AnnotationKind, Outcome};
use crate::format::tree::{ContentDigest, EntryKind, TreeEntry};
use crate::ops::{Said, SnapshotView};
use serde_json::{Map, Value, json};

/// The schema of one command's lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Schema {
    /// The command.
    pub name: &'static str,
    /// Grows when a field changes its meaning or goes; new fields do not count.
    pub version: u32,
}

/// Writes one line: the schema, the kind of event, its fields.
pub fn event(schema: Schema, name: &str, fields: Value) -> String {
    let mut line = Map::new();
    line.insert("schema".to_owned(), json!(format!("chronolith.{}/{}", schema.name, schema.version)));
    line.insert("event".to_owned(), json!(name));
    if let Value::Object(fields) = fields {
        line.extend(fields);
    }
    Value::Object(line).to_string()
}

/// Writes a time as RFC 3339 in UTC, to the nanosecond.
pub fn time(time: Timestamp) -> Value {
    match jiff::Timestamp::from_nanosecond(i128::from(time.nanoseconds())) {
        Ok(time) => json!(time.to_string()),
        Err(_) => Value::Null,
    }
}

/// Returns the fields that describe a snapshot.
pub fn snapshot(view: &SnapshotView) -> Value {
    let snapshot = &view.snapshot;
    let summary = &snapshot.summary;
    json!({
        "id": view.id.to_string(),
        "host": snapshot.host,
        "label": snapshot.label,
        "user": snapshot.user,
        "kind": snapshot.kind,
        "mode": mode(snapshot.mode),
        "started": time(snapshot.started),
        "ended": time(snapshot.ended),
        "stored": view.stored.map(time),
        "parent": snapshot.parent.map(|id| id.to_string()),
        "sources": snapshot.sources,
        "program": snapshot.program,
        "signer": view.signer.to_string(),
        "tags": view.tags,
        "pinned": !view.pinned.is_empty(),
        "forgotten": view.forgotten,
        "notes": view.notes,
        "annotations": view.said.iter().map(said).collect::<Vec<_>>(),
        "summary": self::summary(summary),
        "facts": snapshot.facts,
    })
}

/// Returns the word for what was said about a snapshot.
pub const fn said_kind(said: &Said) -> &'static str {
    match said.kind {
        AnnotationKind::Tag => "tag",
        AnnotationKind::Pin => "pin",
        AnnotationKind::Note => "note",
        AnnotationKind::Verified => "verified",
        _ => "other",
    }
}

fn said(said: &Said) -> Value {
    json!({
        "id": said.id.to_string(),
        "kind": said_kind(said),
        "key": said.key,
        "value": said.value,
        "method": said.method,
        "outcome": said.outcome.map(outcome),
        "signer": said.signer.to_string(),
        "created": time(said.created),
    })
}

/// Returns the word for how a verification ended.
pub const fn outcome(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Passed => "passed",
        Outcome::Failed => "failed",
        Outcome::Incomplete => "incomplete",
    }
}

/// Returns the fields of a snapshot's figures.
pub fn summary(summary: &crate::format::snapshot::SnapshotSummary) -> Value {
    json!({
        "files": summary.files,
        "directories": summary.directories,
        "others": summary.others,
        "bytes": summary.bytes,
        "new_blobs": summary.new_blobs,
        "new_bytes": summary.new_bytes,
        "stored_bytes": summary.stored_bytes,
        "unreadable": summary.unreadable,
        "unchanged_files": summary.unchanged_files,
    })
}

/// Returns the word for how a backup was made.
pub fn mode(mode: crate::format::snapshot::SnapshotMode) -> &'static str {
    use crate::format::snapshot::SnapshotMode;
    match mode {
        SnapshotMode::Full => "full",
        SnapshotMode::Incremental => "incremental",
        SnapshotMode::Differential => "differential",
    }
}
/// Returns the fields that describe an entry of a tree at a path.
pub fn entry(path: &[u8], entry: &TreeEntry) -> Map<String, Value> {
    let mut fields = Map::new();
    bytes(&mut fields, "path", path);
    fields.insert("kind".to_owned(), json!(kind(entry.kind)));
    fields.insert("mode".to_owned(), json!(entry.mode));
    fields.insert("user_id".to_owned(), json!(entry.user_id));
    fields.insert("group_id".to_owned(), json!(entry.group_id));
    fields.insert("modified".to_owned(), time(entry.modified));
    fields.insert("bytes".to_owned(), json!(entry.content.as_ref().map(|content| content.length)));
    if let Some(target) = &entry.target {
        bytes(&mut fields, "target", target);
    }
    if let Some(name) = &entry.user_name {
        bytes(&mut fields, "user", name);
    }
    if let Some(name) = &entry.group_name {
        bytes(&mut fields, "group", name);
    }
    if let Some(ContentDigest::Blake3(digest)) =
        entry.content.as_ref().and_then(|content| content.digest.as_ref())
    {
        fields.insert("blake3".to_owned(), json!(hexadecimal(digest)));
    }
    fields
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Returns the word for what a name stands for.
pub const fn kind(kind: EntryKind) -> &'static str {
    match kind {
        EntryKind::File => "file",
        EntryKind::Directory => "folder",
        EntryKind::Symlink => "link",
        EntryKind::Fifo => "pipe",
        EntryKind::Socket => "socket",
        EntryKind::CharacterDevice => "character-device",
        EntryKind::BlockDevice => "block-device",
    }
}

/// Adds a name or path. One that is no UTF-8 comes with its odd bytes replaced, and in hexadecimal too.
pub fn bytes(fields: &mut Map<String, Value>, name: &str, value: &[u8]) {
    match std::str::from_utf8(value) {
        Ok(text) => {
            fields.insert(name.to_owned(), json!(text));
        }
        Err(_) => {
            fields.insert(name.to_owned(), json!(String::from_utf8_lossy(value)));
            fields.insert(format!("{name}_hex"), json!(hexadecimal(value)));
        }
    }
}
