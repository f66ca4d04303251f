//! The first screen of help: every command, in groups, with what one needs to begin.

/// A group of commands: its title, and name and purpose of each.
type Group = (&'static str, &'static [(&'static str, &'static str)]);

/// All commands as the screen shows them. A test compares them with those that exist.
pub const GROUPS: &[Group] = &[
    ("Begin", &[("init", "make a repository")]),
    ("Back up", &[("backup", "make a snapshot of a stream, of commands' outputs, of files and folders")]),
    (
        "Look",
        &[
            ("snapshots", "list the snapshots"),
            ("ls", "list what a snapshot, or a folder in it, holds"),
            ("find", "find names in snapshots"),
            ("diff", "show what differs between two snapshots"),
        ],
    ),
    (
        "Restore",
        &[
            ("restore", "a snapshot, a folder or a file of it, into a folder"),
            ("cat", "a file or stream to standard output"),
        ],
    ),
    (
        "Say",
        &[
            ("tag note", "give snapshots tags, or take them off; write a note on one"),
            ("pin unpin", "keep snapshots whatever a policy says, or no longer"),
        ],
    ),
    (
        "Let go",
        &[
            ("forget", "say which snapshots are no longer needed, by name or by a policy"),
            ("undelete", "bring back what was forgotten and not yet deleted"),
            ("prune", "delete what no snapshot needs, beside running backups"),
        ],
    ),
    (
        "Prove",
        &[
            ("check", "that everything is there and as it was written"),
            ("verify", "snapshots: read back in full, digests and signatures compared"),
            ("repair", "the index, packs or snapshots, from what is left; says what is lost"),
            ("parity", "Reed-Solomon parity against bits that rot: add, drop, status, repair"),
            ("stats", "what snapshots hold and what they take"),
        ],
    ),
    ("Elsewhere", &[("mirror copy", "the same repository elsewhere, without keys; snapshots into another")]),
    ("Databases", &[("pg", "PostgreSQL: base backups, the write-ahead log in an archive, dumps")]),
    ("Keys", &[("key", "list, add, remove, revoke, rotate keys; passwd, export (recovery sheet)")]),
    (
        "More",
        &[
            ("demo", "the whole way on real databases, in a temporary folder"),
            ("completions", "completion for a shell"),
        ],
    ),
];

/// Returns the screen.
pub fn screen() -> String {
    let mut text = String::from(
        "Backups of databases, files and logs in one deduplicating, encrypted repository.\n\n\
         Usage: chronolith COMMAND [OPTIONS]      chronolith help COMMAND\n\n",
    );
    for (title, commands) in GROUPS {
        for (at, (name, purpose)) in commands.iter().enumerate() {
            let title = if at == 0 { title } else { "" };
            text.push_str(&format!("{title:<10}{name:<12} {purpose}\n"));
        }
    }
    text.push_str(
        "\n-r PATH or CHRONOLITH_REPO names the repository; CHRONOLITH_PASSWORD, --password-file,\n\
         --password-command or --key-file unlocks it, else the terminal is asked. --json -q -v\n\
         SNAP is an id (8 digits or more), a LABEL (its newest), LABEL@HOST, LABEL@{TIME} or latest.\n",
    );
    text
}
