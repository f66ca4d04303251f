//! `chronolith key`.

use super::rekey;
use crate::base::{KeyId, Observer, SlotId};
use crate::cli::edges;
use crate::cli::events;
use crate::cli::fault::{Fault, exit, output};
use crate::cli::render::{self, Align, Table};
use crate::cli::session::Session;
use crate::cli::unlock::{self, NewFile, NewWay};
use crate::format::trust::scope::Scope;
use crate::format::trust::{Role, Standing};
use crate::ops::keys::{self, KeyList, KeyView, Made, NewKey, SlotView};
use crate::repo::RecoverySheet;
use clap::{Args, Subcommand};
use serde_json::{Value, json};
use std::io::Write;
use std::path::{Path, PathBuf};

/// Lists, adds, removes and revokes keys, begins epochs, changes passwords, writes recovery sheets
///
/// A key has a role, and one or more slots that open it: a password, a key file, what a command
/// prints. Roles: owner (everything), maintainer (maintenance, reads no content), writer (adds
/// backups, reads none), reader (restores, adds nothing), auditor (lists and checks).
#[derive(Args)]
pub struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Lists the keys and their slots
    List,
    /// Adds a key with a role; without --role, another way to open the key in use
    Add(Add),
    /// Takes a key out of service, or deletes one slot
    Remove(Remove),
    /// Begins an epoch with new keys for what is backed up from now on; nothing old is sealed again
    Rotate,
    /// Ends a key that is in the wrong hands; says what of all that it signed is still accepted
    Revoke(rekey::Revoke),
    /// Changes what opens the key in use: its password, key file or command
    Passwd(New),
    /// Writes a recovery sheet: the keys themselves, as lines to print; it opens the repository when all else is lost
    Export(Export),
}

/// Where a new password or key comes from; without any of these the terminal is asked.
#[derive(Args)]
struct New {
    /// A file that holds the new password
    #[arg(long, value_name = "FILE", group = "new_way")]
    new_password_file: Option<PathBuf>,
    /// A shell command that prints the new password
    #[arg(long, value_name = "COMMAND", group = "new_way")]
    new_password_command: Option<String>,
    /// Makes this key file
    #[arg(long, value_name = "FILE", group = "new_way")]
    new_key_file: Option<PathBuf>,
}

#[derive(Args)]
struct Add {
    /// The role: owner, maintainer, writer, reader or auditor
    #[arg(long, value_name = "ROLE", value_parser = role)]
    role: Option<Role>,
    /// A name for people; without it the role, or user and host for the key in use
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// The trust domain: writers rely only on what keys of their own domain stored
    #[arg(long, value_name = "NAME", requires = "role")]
    domain: Option<String>,
    /// For a writer: the hosts it may write, * and ? stand for anything; may be given several times
    #[arg(long, value_name = "PATTERN", requires = "role")]
    host: Vec<String>,
    /// For a writer: the labels it may write; may be given several times
    #[arg(long, value_name = "PATTERN", requires = "role")]
    label: Vec<String>,
    /// For a writer: the clusters whose logs it may archive; may be given several times
    #[arg(long, value_name = "PATTERN", requires = "role")]
    cluster: Vec<String>,
    #[command(flatten)]
    new: New,
}

#[derive(Args)]
struct Remove {
    /// The id of a key or slot (8 digits or more), or the name of a key
    #[arg(value_name = "KEY|SLOT")]
    what: String,
    /// Says what would be removed, and stops
    #[arg(short = 'n', long)]
    dry_run: bool,
}

#[derive(Args)]
struct Export {
    /// The file to write [default: standard output]
    #[arg(long, value_name = "FILE")]
    to: Option<PathBuf>,
}

fn role(text: &str) -> Result<Role, String> {
    text.parse().map_err(|_| "roles are owner, maintainer, writer, reader and auditor".to_owned())
}

impl New {
    fn way(&self) -> Result<(NewWay, Option<NewFile<'_>>), Fault> {
        if let Some(path) = &self.new_key_file {
            let (secret, made) = unlock::new_key_file(path)?;
            return Ok((NewWay::KeyFile(secret), Some(made)));
        }
        let way = if let Some(path) = &self.new_password_file {
            NewWay::Password(unlock::from_file(path)?)
        } else if let Some(command) = &self.new_password_command {
            NewWay::Command(unlock::from_command(command)?)
        } else if unlock::has_terminal() {
            NewWay::Password(unlock::ask_twice("new password")?)
        } else {
            return Err(Fault::usage(
                "there is no new password, and no terminal to ask at",
                "give --new-password-file, --new-password-command or --new-key-file",
            ));
        };
        Ok((way, None))
    }
}

/// Runs the command.
pub fn run(session: &Session, arguments: &Arguments) -> Result<u8, Fault> {
    let place = session.place()?.to_owned();
    match &arguments.verb {
        Verb::List => {
            session.doing(format!("list the keys of {place}"));
            list(session)
        }
        Verb::Add(add) => {
            session.doing(format!("add a key to {place}"));
            self::add(session, add)
        }
        Verb::Remove(remove) => {
            session.doing(format!("remove {} from {place}", remove.what));
            self::remove(session, remove)
        }
        Verb::Rotate => {
            session.doing(format!("begin a new epoch in {place}"));
            rekey::rotate_keys(session)
        }
        Verb::Revoke(revoke) => {
            session.doing(format!("revoke a key of {place}"));
            rekey::revoke(session, revoke)
        }
        Verb::Passwd(new) => {
            session.doing(format!("change what opens {place}"));
            passwd(session, new)
        }
        Verb::Export(export) => {
            session.doing(format!("write a recovery sheet of {place}"));
            self::export(session, export.to.as_deref())
        }
    }
}

fn standing(key: &KeyView) -> &'static str {
    match key.record.standing() {
        Standing::Active => "active",
        Standing::Retired => "removed",
        Standing::Revoked => "revoked",
    }
}

fn slot_fields(slot: &SlotView) -> Value {
    json!({
        "slot": slot.id.to_string(),
        "kind": slot.kind,
        "name": slot.name,
        "created": events::time(slot.created),
    })
}

fn list(session: &Session) -> Result<u8, Fault> {
    let repository = session.open()?;
    let list = keys::list(&repository)?;
    if session.settings.json {
        for key in &list.keys {
            let record = &key.record;
            session.talk.event(
                "key",
                json!({
                    "key": record.id.to_string(),
                    "role": record.role.name(),
                    "name": record.name,
                    "domain": record.domain,
                    "hosts": record.scope.hosts,
                    "labels": record.scope.labels,
                    "streams": record.scope.streams,
                    "created": events::time(record.created),
                    "standing": standing(key),
                    "own": key.own,
                    "slots": key.slots.iter().map(slot_fields).collect::<Vec<_>>(),
                }),
            )?;
        }
        let unlisted: Vec<Value> = list.unlisted.iter().map(slot_fields).collect();
        session.talk.event("summary", json!({ "keys": list.keys.len(), "unlisted_slots": unlisted }))?;
        return Ok(exit::DONE);
    }
    show(session, &list)?;
    for slot in &list.unlisted {
        session.talk.warn(&format!(
            "the slot {} ({}, {:?}) belongs to no key: left over, or put there by somebody; \
             `chronolith key remove {0}` deletes it",
            slot.id.short(),
            slot.kind,
            slot.name,
        ));
    }
    Ok(exit::DONE)
}

fn show(session: &Session, list: &KeyList) -> Result<(), Fault> {
    let titles = ["key", "role", "name", "may write", "created", "opened by"];
    let mut table = Table::new(&titles.map(|title| (title, Align::Left)));
    for key in &list.keys {
        let record = &key.record;
        let mut name = record.name.clone();
        if !record.domain.is_empty() {
            name.push_str(&format!(" (domain {})", record.domain));
        }
        if key.own {
            name.push_str(" (in use)");
        }
        let slots: Vec<String> =
            key.slots.iter().map(|slot| format!("{} {}", slot.kind, slot.id.short())).collect();
        let opened = match (key.record.standing(), slots.is_empty()) {
            (Standing::Active, false) => slots.join(", "),
            (Standing::Active, true) => "nothing".to_owned(),
            _ => standing(key).to_owned(),
        };
        table.row(vec![
            record.id.short(),
            record.role.name().to_owned(),
            name,
            may_write(record.role, &record.scope),
            render::time(record.created),
            opened,
        ]);
    }
    table.lines().iter().try_for_each(|line| session.talk.line(line))
}

fn may_write(role: Role, scope: &Scope) -> String {
    let any = |patterns: &[String], what: &str| match patterns {
        [] => String::new(),
        patterns => format!("{what} {}", patterns.join(" ")),
    };
    match role {
        Role::Owner => "anything".to_owned(),
        Role::Writer => {
            let parts =
                [any(&scope.hosts, "hosts"), any(&scope.labels, "labels"), any(&scope.streams, "logs")];
            let said: Vec<String> = parts.into_iter().filter(|part| !part.is_empty()).collect();
            if said.is_empty() { "anything".to_owned() } else { said.join(", ") }
        }
        _ => "nothing".to_owned(),
    }
}

fn done(session: &Session, made: &Made, role: Role, what: &str) -> Result<(), Fault> {
    session.talk.tell(&format!("{what} {} ({role})", made.key.short()));
    session.talk.event(
        "summary",
        json!({ "key": made.key.to_string(), "slot": made.slot.to_string(), "role": role.name() }),
    )
}

fn add(session: &Session, add: &Add) -> Result<u8, Fault> {
    let limits = [&add.host, &add.label, &add.cluster];
    if add.role.is_some_and(|role| role != Role::Writer) && limits.iter().any(|limit| !limit.is_empty()) {
        return Err(Fault::usage(
            "--host, --label and --cluster say what a writer may write; other roles write no backups, owners \
             write all",
            "leave them out, or give --role writer",
        ));
    }
    if add.name.as_ref().is_some_and(String::is_empty) {
        return Err(Fault::usage("a key has a name", "give one, or leave --name out"));
    }
    // What is asked for comes first: from `open` on, ^C ends things in good order, which questions do not need.
    let (way, made) = add.new.way()?;
    let repository = session.open()?;
    let parameters = repository.config().password;
    let own = repository.keyring().identity.role;
    let opener = way.slot(parameters);
    let result = match add.role {
        Some(role) => {
            let new = NewKey {
                role,
                name: add.name.clone().unwrap_or_else(|| role.name().to_owned()),
                domain: add.domain.clone().unwrap_or_default(),
                scope: Scope {
                    hosts: add.host.clone(),
                    labels: add.label.clone(),
                    // The list of a cluster's lineages, and the log of each.
                    streams: add
                        .cluster
                        .iter()
                        .flat_map(|c| [format!("pg/{c}"), format!("pg/{c}/*")])
                        .collect(),
                },
            };
            (keys::add(&repository, &new, &opener)?, role, "added the key")
        }
        None => {
            let name =
                add.name.clone().unwrap_or_else(|| format!("{}@{}", edges::user_name(), edges::host_name()));
            (keys::add_slot(&repository, &opener, &name)?, own, "added another way to open the key")
        }
    };
    if let Some(made) = made {
        made.keep();
    }
    done(session, &result.0, result.1, result.2)?;
    Ok(exit::DONE)
}

/// What a name given to `remove` means.
enum Target {
    Key(KeyId),
    Slot(SlotId),
}

fn target(list: &KeyList, name: &str) -> Result<Target, Fault> {
    let slots = list.keys.iter().flat_map(|key| &key.slots).chain(&list.unlisted);
    let mut slots = slots.filter(|slot| name.len() >= 8 && slot.id.to_string().starts_with(name));
    match (slots.next(), slots.next(), keys::find(list, name)) {
        (Some(slot), None, Err(_)) => Ok(Target::Slot(slot.id)),
        (None, _, Ok(key)) => Ok(Target::Key(key)),
        (None, _, Err(error)) => Err(error.into()),
        _ => Err(Fault::usage(format!("{name:?} could be several keys and slots"), "give more digits")),
    }
}

fn remove(session: &Session, remove: &Remove) -> Result<u8, Fault> {
    let repository = session.open()?;
    let list = keys::list(&repository)?;
    let target = target(&list, &remove.what)?;
    let (what, id) = match &target {
        Target::Key(id) => {
            let key = list.keys.iter().find(|key| key.record.id == *id);
            if let Some(key) = key.filter(|key| key.record.standing() != Standing::Active) {
                let name = render::visible(&key.record.name);
                let why = format!("the key {} ({name}) is {} already", id.short(), standing(key));
                return Err(Fault::usage(why, "`chronolith key list` shows which are in service"));
            }
            let (role, name, slots) = key.map_or(("", "", 0), |key| {
                (key.record.role.name(), key.record.name.as_str(), key.slots.len())
            });
            let slots = render::count(slots as u64, "slot", "slots");
            (format!("the {role} key {} ({name}) with {slots}", id.short()), id.to_string())
        }
        Target::Slot(id) => (format!("the slot {}", id.short()), id.to_string()),
    };
    if remove.dry_run {
        session.talk.tell(&format!("would remove {what}"));
    } else {
        match &target {
            Target::Key(id) => drop(keys::remove(&repository, id)?),
            Target::Slot(id) => keys::remove_slot(&repository, id)?,
        }
        session.talk.tell(&format!("removed {what}"));
    }
    session.talk.event("summary", json!({ "removed": id, "dry_run": remove.dry_run }))?;
    Ok(exit::DONE)
}

fn passwd(session: &Session, new: &New) -> Result<u8, Fault> {
    let (repository, current) = session.open_with_slot()?;
    let (way, made) = new.way()?;
    let changed = keys::change_slot(&repository, &current, &way.slot(repository.config().password))?;
    if let Some(made) = made {
        made.keep();
    }
    done(session, &changed, repository.keyring().identity.role, "changed what opens the key")?;
    Ok(exit::DONE)
}

fn export(session: &Session, to: Option<&Path>) -> Result<u8, Fault> {
    if session.settings.json && to.is_none() {
        return Err(Fault::usage("a recovery sheet is no JSON", "write it to a file with --to FILE"));
    }
    let repository = session.open()?;
    let sheet = RecoverySheet::export(&repository);
    match to {
        Some(path) => {
            unlock::write_secret(path, &sheet)?.keep();
            session.talk.tell(&format!(
                "{} is written: print it or move it to another place; whoever has it has this key",
                path.display()
            ));
            session.talk.event("summary", json!({ "file": path.display().to_string() }))?;
        }
        None => {
            let mut out = std::io::stdout().lock();
            out.write_all(sheet.expose()).and_then(|()| out.flush()).map_err(output)?;
        }
    }
    Ok(exit::DONE)
}
