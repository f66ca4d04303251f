//! `chronolith init`.

use crate::base::Observer;
use crate::cli::edges;
use crate::cli::fault::{Fault, exit};
use crate::cli::session::Session;
use crate::cli::settings::Way;
use crate::cli::talk::Level;
use crate::cli::unlock::{self, NewWay};
use crate::crypto::Suite;
use crate::repo::{InitOptions, RecoverySheet, Repository, init, open};
use clap::{Args, ValueEnum};
use serde_json::json;
use std::path::{Path, PathBuf};

/// The cipher suites by their names.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum Cipher {
    /// Fast on every machine.
    #[value(name = "chacha20-poly1305")]
    ChaCha20Poly1305,
    /// Faster where the processor has instructions for it.
    #[value(name = "aes-256-gcm")]
    Aes256Gcm,
}

/// Makes a repository in a folder that is empty or does not exist
#[derive(Args)]
pub struct Arguments {
    /// Makes a key file that opens the repository, instead of a password
    #[arg(long, value_name = "FILE", conflicts_with = "way")]
    pub new_key_file: Option<PathBuf>,
    /// The cipher
    #[arg(long, value_name = "NAME", default_value = "chacha20-poly1305")]
    pub cipher: Cipher,
    /// Does without a second way in
    #[arg(long)]
    pub no_recovery: bool,
}

impl From<Cipher> for Suite {
    fn from(cipher: Cipher) -> Self {
        match cipher {
            Cipher::ChaCha20Poly1305 => Self::ChaCha20Poly1305,
            Cipher::Aes256Gcm => Self::Aes256Gcm,
        }
    }
}

/// Runs the command.
pub fn run(session: &Session, arguments: &Arguments) -> Result<u8, Fault> {
    let place = session.place()?.to_owned();
    session.doing(format!("make a repository at {place}"));
    let key_name = format!("{}@{}", edges::user_name(), edges::host_name());
    let options = InitOptions::recommended(arguments.cipher.into(), &key_name)?;
    let (way, made) = match &arguments.new_key_file {
        Some(path) => {
            let (secret, made) = unlock::new_key_file(path)?;
            (NewWay::KeyFile(secret), Some(made))
        }
        None => (unlock::new_opening(session.settings.way.as_ref())?, None),
    };
    let environment = session.environment(session.create_store()?);
    let id = init(&environment, &options, &way.slot(options.password))?;
    if let Some(made) = made {
        made.keep();
    }
    session.talk.tell(&format!("repository {} made at {place}", id.short()));
    session.talk.event("summary", json!({ "repository": id.to_string(), "cipher": options.suite.name() }))?;
    let key_file = match (&arguments.new_key_file, &session.settings.way) {
        (Some(path), _) | (None, Some(Way::KeyFile(path))) => Some(path.as_path()),
        _ => None,
    };
    if let Some(path) = key_file {
        session.talk.tell(&format!(
            "the key file {} lies on this host: if it backs up this host, keep a copy elsewhere",
            path.display()
        ));
    }
    if arguments.no_recovery {
        return Ok(exit::DONE);
    }
    if session.settings.json || session.talk.manner().level == Level::Quiet || !unlock::has_terminal() {
        session.talk.warn(
            "there is one way in: what it opens is lost with it. `chronolith key export --to FILE` writes a \
             recovery sheet, `chronolith key add --role owner` makes a second key",
        );
        return Ok(exit::DONE);
    }
    session.doing("make a second way into the new repository");
    let repository = open(environment, &way.credential())?;
    second_way(&repository)?;
    Ok(exit::DONE)
}

/// Asks for the second way in until there is one.
fn second_way(repository: &Repository) -> Result<(), Fault> {
    unlock::show(
        "\nWithout its key this repository cannot be read by anybody. A second way in, kept elsewhere,\n\
         is the recovery sheet: it holds the keys themselves and opens the repository without a password.\n",
    )?;
    loop {
        let answer = unlock::ask_line(
            "Show the sheet here, to be printed or written down (s), go without one (n), or write it to a file (FILE)? ",
        )?;
        let sheet = RecoverySheet::export(repository);
        match answer.trim() {
            // Neither is the name of a file that anybody means.
            "" | "y" | "Y" | "yes" => {}
            "n" | "N" | "no" => {
                return unlock::show(
                    "No second way in was made. `chronolith key export --to FILE` makes one at any time.\n",
                );
            }
            "s" | "S" => {
                unlock::show(&String::from_utf8_lossy(sheet.expose()))?;
                return Ok(());
            }
            path => match unlock::write_secret(Path::new(path), &sheet) {
                Ok(made) => {
                    made.keep();
                    return unlock::show(&format!("{path} is written: move it to another place.\n"));
                }
                Err(fault) => unlock::show(&format!("{}\n", fault.why()))?,
            },
        }
    }
}
