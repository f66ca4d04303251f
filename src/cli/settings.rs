//! Where the global options come from: the command line, else the environment, else a profile of the
//! configuration file.

use super::arguments::Global;
use super::edges;
use super::fault::Fault;
use super::places::local_path;
use super::talk::{Level, Manner};
use crate::base::SecretBytes;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

/// The profile that is taken when none is named, where the configuration file has it.
const DEFAULT_PROFILE: &str = "default";

/// Where the key to the repository comes from.
pub enum Way {
    /// A password as such, from the environment.
    Password(SecretBytes),
    /// A file that holds the password.
    PasswordFile(PathBuf),
    /// A command that prints the password.
    PasswordCommand(String),
    /// A key file or recovery sheet.
    KeyFile(PathBuf),
}

/// The folder of the client's cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CachePlace {
    /// None: everything is read from the repository each time.
    None,
    /// This one.
    Folder(PathBuf),
}

/// All that the global options say, wherever they stood.
pub struct Settings {
    /// The repository, if one was named.
    pub repository: Option<String>,
    /// Other places that hold the same repository.
    pub also: Vec<String>,
    /// In how many of all places a write has to succeed; in all, where nothing is said.
    pub quorum: Option<usize>,
    /// The way to unlock it, if one was named; else a terminal is asked.
    pub way: Option<Way>,
    /// How much is said.
    pub level: Level,
    /// Whether progress is shown.
    pub progress: bool,
    /// Whether programs are to read the output.
    pub json: bool,
    /// The cache.
    pub cache: CachePlace,
    /// Whether the kernel's keyring may remember opened slots.
    pub key_cache: bool,
    /// The cluster that the profile names.
    pub cluster: Option<String>,
    /// The id that the repository must have, by the profile that names it.
    pub repository_id: Option<String>,
    /// The program that servers call, by the profile.
    pub program: Option<PathBuf>,
    /// The configuration file, which need not exist.
    pub configuration: Option<PathBuf>,
    /// The profile that was named.
    pub profile: Option<String>,
}

/// One profile: the global options by their names, and the cluster of a database's commands.
#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Profile {
    repo: Option<String>,
    #[serde(default)]
    also: Vec<String>,
    quorum: Option<usize>,
    password_file: Option<PathBuf>,
    password_command: Option<String>,
    key_file: Option<PathBuf>,
    json: Option<bool>,
    quiet: Option<bool>,
    verbose: Option<bool>,
    no_progress: Option<bool>,
    cache_dir: Option<PathBuf>,
    no_cache: Option<bool>,
    no_key_cache: Option<bool>,
    cluster: Option<String>,
    repository_id: Option<String>,
    program: Option<PathBuf>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct Configuration {
    #[serde(default)]
    profile: BTreeMap<String, Profile>,
}

fn variable(name: &str) -> Option<OsString> {
    std::env::var_os(name).filter(|value| !value.is_empty())
}

fn text_variable(name: &str) -> Result<Option<String>, Fault> {
    variable(name).map(OsString::into_string).transpose().map_err(|_| {
        Fault::usage(format!("the environment variable {name} is no text"), "set it to UTF-8 text")
    })
}

fn read_configuration(path: &Path, must_exist: bool) -> Result<Configuration, Fault> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && !must_exist => {
            return Ok(Configuration::default());
        }
        Err(error) => return Err(Fault::file("read the configuration file", path, &error)),
    };
    parse(&text, path)
}

/// Makes sure that a text could stand in a configuration file.
pub fn check_configuration(text: &str, path: &Path) -> Result<(), Fault> {
    parse(text, path).map(drop)
}

fn parse(text: &str, path: &Path) -> Result<Configuration, Fault> {
    toml::from_str(text).map_err(|error| {
        let why = error.to_string().replace('\n', " ");
        Fault::usage(
            format!("the configuration file {} does not hold: {}", path.display(), why.trim()),
            "docs/configuration.md shows what may stand in it",
        )
    })
}

fn configuration_file(global: &Global) -> Option<PathBuf> {
    global.config.clone().or_else(|| variable("CHRONOLITH_CONFIG").map(PathBuf::from))
}

fn named_profile(global: &Global) -> Result<Option<String>, Fault> {
    global.profile.clone().map_or_else(|| text_variable("CHRONOLITH_PROFILE"), |name| Ok(Some(name)))
}

fn profile(global: &Global) -> Result<Profile, Fault> {
    let named = named_profile(global)?;
    let given = configuration_file(global);
    let must_exist = given.is_some() || named.is_some();
    let Some(path) = given.or_else(edges::configuration_file) else {
        return match named {
            Some(name) => Err(Fault::usage(
                format!("there is no configuration file to find the profile {name:?} in"),
                "name one with --config FILE",
            )),
            None => Ok(Profile::default()),
        };
    };
    let mut configuration = read_configuration(&path, must_exist)?;
    let name = named.as_deref().unwrap_or(DEFAULT_PROFILE);
    match configuration.profile.remove(name) {
        Some(mut profile) => {
            let folder = path.parent().unwrap_or(Path::new("."));
            profile.resolve(folder);
            Ok(profile)
        }
        None if named.is_none() => Ok(Profile::default()),
        None => {
            let there = configuration.profile.into_keys().collect::<Vec<_>>().join(", ");
            Err(Fault::usage(
                format!("{} has no profile {name:?}", path.display()),
                if there.is_empty() { "it has none at all".to_owned() } else { format!("it has: {there}") },
            ))
        }
    }
}

impl Profile {
    /// Paths in a profile, those of repositories too, are meant from where the configuration file stands; `~/` is the
    /// home folder, since no shell has seen it.
    fn resolve(&mut self, folder: &Path) {
        let home = edges::home();
        let resolved = |path: &Path| match (path.strip_prefix("~"), &home) {
            (Ok(below), Some(home)) => home.join(below),
            _ => folder.join(path),
        };
        for place in self.repo.iter_mut().chain(&mut self.also) {
            if let Ok(path) = local_path(place)
                && let Some(joined) = resolved(&path).to_str()
            {
                joined.clone_into(place);
            }
        }
        let paths = [&mut self.password_file, &mut self.key_file, &mut self.cache_dir, &mut self.program];
        for path in paths.into_iter().flatten() {
            *path = resolved(path);
        }
    }

    fn way(&mut self) -> Vec<Way> {
        let file = self.password_file.take().map(Way::PasswordFile);
        let command = self.password_command.take().map(Way::PasswordCommand);
        let key = self.key_file.take().map(Way::KeyFile);
        [file, command, key].into_iter().flatten().collect()
    }
}

fn only_one(mut ways: Vec<Way>, place: &str) -> Result<Option<Way>, Fault> {
    if ways.len() > 1 {
        return Err(Fault::usage(
            format!("{place} names several ways to unlock the repository"),
            "leave one of them: a password, a file with it, a command that prints it, or a key file",
        ));
    }
    Ok(ways.pop())
}

fn way(global: &Global, profile: &mut Profile) -> Result<Option<Way>, Fault> {
    let given = [
        global.password_file.clone().map(Way::PasswordFile),
        global.password_command.clone().map(Way::PasswordCommand),
        global.key_file.clone().map(Way::KeyFile),
    ];
    if let Some(way) = only_one(given.into_iter().flatten().collect(), "the command line")? {
        return Ok(Some(way));
    }
    let password = variable("CHRONOLITH_PASSWORD").map(|value| SecretBytes::new(value.into_vec()));
    let environment = [
        password.map(Way::Password),
        variable("CHRONOLITH_PASSWORD_FILE").map(|path| Way::PasswordFile(path.into())),
        text_variable("CHRONOLITH_PASSWORD_COMMAND")?.map(Way::PasswordCommand),
        variable("CHRONOLITH_KEY_FILE").map(|path| Way::KeyFile(path.into())),
    ];
    if let Some(way) = only_one(environment.into_iter().flatten().collect(), "the environment")? {
        return Ok(Some(way));
    }
    only_one(profile.way(), "the profile")
}

/// Returns the way to unlock a second repository, which has options and variables of its own.
pub fn second_way(given: Vec<Way>) -> Result<Option<Way>, Fault> {
    if let Some(way) = only_one(given, "the command line")? {
        return Ok(Some(way));
    }
    let password = variable("CHRONOLITH_TO_PASSWORD").map(|value| SecretBytes::new(value.into_vec()));
    let environment = [
        password.map(Way::Password),
        variable("CHRONOLITH_TO_PASSWORD_FILE").map(|path| Way::PasswordFile(path.into())),
        text_variable("CHRONOLITH_TO_PASSWORD_COMMAND")?.map(Way::PasswordCommand),
        variable("CHRONOLITH_TO_KEY_FILE").map(|path| Way::KeyFile(path.into())),
    ];
    only_one(environment.into_iter().flatten().collect(), "the environment")
}

/// Returns the second repository that the environment names.
pub fn second_repository() -> Result<Option<String>, Fault> {
    text_variable("CHRONOLITH_TO_REPO")
}

impl Settings {
    /// Brings together what the command line, the environment and the configuration file say.
    pub fn collect(global: &Global) -> Result<Self, Fault> {
        let mut profile = profile(global)?;
        let way = way(global, &mut profile)?;
        let named = named_profile(global)?;
        let given = match &global.repo {
            Some(repository) => Some(repository.clone()),
            None => text_variable("CHRONOLITH_REPO")?,
        };
        // The id is that of the profile's repository; of another one only where the profile was asked for by name.
        let repository_id = profile.repository_id.filter(|_| given.is_none() || named.is_some());
        // The other places of a profile are those of its own repository.
        let (repository, also, quorum) = match given {
            Some(given) => (Some(given), Vec::new(), None),
            None => (profile.repo, profile.also, profile.quorum),
        };
        let also = if global.also.is_empty() { also } else { global.also.clone() };
        let quorum = global.quorum.or(quorum);
        if also.is_empty() && quorum.is_some_and(|quorum| quorum > 1) {
            return Err(Fault::usage(
                "a quorum was asked for, and the repository is in one place only",
                "name the others with --also PATH",
            ));
        }
        let chosen = |given: bool, kept: Option<bool>| given || kept.unwrap_or(false);
        let (quiet, verbose) = if global.quiet || global.verbose {
            (global.quiet, global.verbose)
        } else {
            (profile.quiet.unwrap_or(false), profile.verbose.unwrap_or(false))
        };
        let level = match (quiet, verbose) {
            (true, _) => Level::Quiet,
            (false, true) => Level::Verbose,
            (false, false) => Level::Normal,
        };
        let folder = global
            .cache_dir
            .clone()
            .or_else(|| variable("CHRONOLITH_CACHE_DIR").map(PathBuf::from))
            .or(profile.cache_dir);
        let none = global.no_cache || (global.cache_dir.is_none() && profile.no_cache.unwrap_or(false));
        let cache = match folder.or_else(edges::cache_folder) {
            Some(folder) if !none => CachePlace::Folder(folder),
            _ => CachePlace::None,
        };
        Ok(Self {
            repository,
            also,
            quorum,
            way,
            level,
            progress: !chosen(global.no_progress, profile.no_progress),
            json: chosen(global.json, profile.json),
            cache,
            key_cache: !chosen(global.no_key_cache, profile.no_key_cache),
            cluster: profile.cluster,
            repository_id,
            program: profile.program,
            configuration: configuration_file(global).or_else(edges::configuration_file),
            profile: named,
        })
    }

    /// Returns how the command speaks.
    pub fn manner(&self, schema: super::events::Schema) -> Manner {
        Manner { level: self.level, progress: self.progress, json: self.json.then_some(schema) }
    }
}
