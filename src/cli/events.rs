//! What programs read: lines of JSON, each naming its schema and version (`docs/json.md`).

use crate::base::Timestamp;
use crate::ops::SnapshotView;
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
        "notes": view.notes,
        "summary": self::summary(summary),
        "facts": snapshot.facts,
    })
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
