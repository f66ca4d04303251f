//! Opening a repository: configuration, slot, registry, grants, in the order in which each is believed.

use super::environment::Environment;
use super::error::RepoError;
use super::frames::internal;
use super::keyring::{EpochKeys, Identity as OwnIdentity, Keyring};
use super::later::Later;
use super::registry::Registry;
use super::repository::Repository;
use super::seen::Seen;
use super::sheet::RecoverySheet;
use super::slots::{Credential, believe_slot, open_slot};
use crate::base::{RepositoryId, Secret, SecretBytes, explain, limits};
use crate::crypto::derive::grant_info;
use crate::crypto::{ContentSecretKey, IdKey, SIGNATURE_BYTES, SignedMessage, SigningKey, unwrap, verify};
use crate::format::config::{Access, Config, Feature};
use crate::format::grant::Bundle;
use crate::format::kind::ObjectKind;
use crate::format::slot::Identity;
use crate::format::trust::{Act, Role, Standing};
use crate::storage::StorageError;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Features beyond the first version of the format that this program knows.
const KNOWN_FEATURES: [&str; 0] = [];

/// Refuses features that this program does not know, as far as they bear on what is to be done.
///
/// # Errors
///
/// [`RepoError::TooNew`] with the feature's own message.
pub(super) fn check_features(config: &Config, to_write: bool) -> Result<(), RepoError> {
    match config.access(&KNOWN_FEATURES) {
        Access::ReadOnly(feature) if to_write => Err(too_new(feature)),
        Access::Refused(feature) => Err(too_new(feature)),
        Access::Full | Access::ReadOnly(_) => Ok(()),
    }
}

fn too_new(feature: &Feature) -> RepoError {
    let Feature { name, program, message, .. } = feature;
    RepoError::TooNew(format!("{message} (feature {name}, known from version {program})"))
}

/// A configuration whose signature is checked once the registry is known.
#[derive(Clone)]
struct ReadConfig {
    object: &'static str,
    config: Config,
    signed: Vec<u8>,
    signature: [u8; SIGNATURE_BYTES],
}

/// Reads both copies of the configuration, the one with the higher revision first; nothing is
/// believed yet. At least one is well-formed.
fn read_configs(environment: &Environment) -> Result<Vec<ReadConfig>, RepoError> {
    let (mut found, mut problem) = (Vec::new(), None);
    for object in ["chronolith", "copies/chronolith"] {
        let bytes = match environment.store.get(object, limits::CONFIG_BYTES_MAX) {
            Ok(bytes) => bytes,
            Err(StorageError::NotFound { .. }) => continue,
            Err(error) => {
                problem.get_or_insert(RepoError::from(error));
                continue;
            }
        };
        match Config::parse(&bytes).map_err(RepoError::damaged(object)) {
            Ok(parsed) => {
                let (signed, signature) = (parsed.signed.to_vec(), parsed.signature);
                found.push(ReadConfig { object, config: parsed.config, signed, signature });
            }
            // An unknown version may be a flipped bit: what the other copy says is checked by its signature.
            Err(error) => {
                problem.get_or_insert(error);
            }
        }
    }
    found.sort_by_key(|read| std::cmp::Reverse(read.config.revision));
    match (found.is_empty(), problem) {
        (true, problem) => {
            Err(problem.unwrap_or_else(|| RepoError::NoRepository { location: environment.store.location() }))
        }
        (false, Some(problem)) => {
            environment.observer.warn(&explain(&problem));
            Ok(found)
        }
        (false, None) => Ok(found),
    }
}

/// Returns the repository's id, unless a feature forbids even reading.
fn checked_id(configs: &[ReadConfig]) -> Result<RepositoryId, RepoError> {
    let first = configs.first().ok_or_else(|| RepoError::Usage("there is no configuration".to_owned()))?;
    check_features(&first.config, false)?;
    Ok(first.config.repository)
}

/// Takes the copy with the highest revision that the registry lets count ([CONFIG-11]).
fn choose_config(
    environment: &Environment,
    found: Vec<ReadConfig>,
    registry: &Registry,
    seen: &Seen,
) -> Result<Config, RepoError> {
    let mut problem = None;
    for read in found {
        match believe_config(&read, registry, seen) {
            Ok(()) => {
                problem.iter().for_each(|why| environment.observer.warn(&explain(why)));
                return Ok(read.config);
            }
            Err(error) => {
                problem.get_or_insert(error);
            }
        }
    }
    Err(problem.unwrap_or_else(|| RepoError::Usage("there is no configuration".to_owned())))
}

/// Checks what the registry has to say about the configuration: its signer, and that it is no old one.
fn believe_config(read: &ReadConfig, registry: &Registry, seen: &Seen) -> Result<(), RepoError> {
    let untrusted = |why: String| RepoError::Untrusted { object: read.object.to_owned(), why };
    let config = &read.config;
    let public = registry
        .public_key(&config.signer, Act::Configuration)
        .ok_or_else(|| untrusted("it is not signed by an owner".to_owned()))?;
    // A configuration has no id by which a revocation could still accept it ([TRUST-12]).
    if registry.trust().permits(&config.signer, Act::Configuration) == Ok(Standing::Revoked) {
        return Err(untrusted("the owner who signed it was revoked".to_owned()));
    }
    let message = SignedMessage::new(&config.repository, ObjectKind::Configuration.number(), &read.signed);
    verify(&public, &message, &read.signature)
        .map_err(|_| untrusted("its signature does not hold".to_owned()))?;
    let least = registry.trust().least_revision.max(seen.revision);
    if config.revision < least {
        return Err(untrusted(format!(
            "it is revision {}, an old one: revision {least} was there before",
            config.revision
        )));
    }
    Ok(())
}

/// Unwraps the grants of all epochs that were made to this identity.
pub(super) fn open_grants(
    repository: &RepositoryId,
    registry: &Registry,
    exchange: &ContentSecretKey,
    key: &crate::base::KeyId,
) -> Result<Vec<Bundle>, RepoError> {
    let mut bundles = Vec::new();
    for epoch in &registry.trust().epochs {
        let Some(grant) = epoch.grant(key) else { continue };
        let info = grant_info(repository, epoch.number, key);
        let plain = unwrap(exchange, &info, &grant.wrapped).map_err(internal("opening a grant"))?;
        let bundle = Bundle::decode(&plain)
            .map_err(RepoError::damaged(format!("the grant of epoch {}", epoch.number)))?;
        if !bundle.belongs_to(epoch) {
            return Err(RepoError::Untrusted {
                object: format!("the grant of epoch {}", epoch.number),
                why: "it is that of another epoch".to_owned(),
            });
        }
        bundles.push(bundle);
    }
    Ok(bundles)
}

/// The id keys and the chunker's seed are the same in all epochs ([KEYS-14]).
pub(super) fn lasting_secrets_agree(bundles: &[Bundle]) -> Result<(), RepoError> {
    let same = |a: &Option<Secret>, b: &Option<Secret>| match (a, b) {
        (Some(a), Some(b)) => a.expose() == b.expose(),
        _ => true,
    };
    let agree = bundles.windows(2).all(|pair| match pair {
        [a, b] => {
            a.metadata_ids.expose() == b.metadata_ids.expose()
                && same(&a.content_ids, &b.content_ids)
                && same(&a.chunker_seed, &b.chunker_seed)
        }
        _ => true,
    });
    if agree {
        return Ok(());
    }
    Err(RepoError::Untrusted {
        object: "the registry of trust".to_owned(),
        why: "its epochs grant different id keys".to_owned(),
    })
}

/// Puts the keyring together. The role is that of the key in the registry; whoever borrows has no key there, and a
/// role only for what messages say.
fn keyring(
    registry: &Registry,
    identity: Identity,
    bundles: Vec<Bundle>,
    lent: Option<Role>,
) -> Result<Keyring, RepoError> {
    let signing = SigningKey::from_seed(&identity.signing_seed);
    let key = signing.key_id();
    let listed = registry.trust().key(&key).map(|record| record.role);
    let role = lent.or(listed).ok_or(RepoError::Untrusted {
        object: "this key".to_owned(),
        why: "the registry of trust does not list it".to_owned(),
    })?;
    let own = OwnIdentity {
        key,
        role,
        signing,
        seed: identity.signing_seed,
        exchange: identity.exchange,
        genesis: identity.genesis,
    };
    let (mut epochs, mut content_ids, mut metadata_ids, mut seed) = (BTreeMap::new(), None, None, None);
    lasting_secrets_agree(&bundles)?;
    for bundle in bundles {
        let Some(epoch) = registry.trust().epoch(bundle.epoch) else { continue };
        content_ids = bundle.content_ids.or(content_ids);
        metadata_ids = Some(bundle.metadata_ids);
        seed = bundle.chunker_seed.or(seed);
        epochs.insert(bundle.epoch, EpochKeys::new(bundle.epoch, bundle.metadata, epoch, bundle.content));
    }
    let metadata_ids = metadata_ids.ok_or_else(|| RepoError::Forbidden {
        role: role.name(),
        action: "read this repository: it was granted no epoch".to_owned(),
    })?;
    Ok(Keyring::new(own, epochs, content_ids.map(IdKey::new), IdKey::new(metadata_ids), seed))
}

/// Opens a repository with a password or key file.
///
/// # Errors
///
/// [`RepoError::NoRepository`], [`RepoError::WrongKey`], [`RepoError::TooNew`], or what was found
/// damaged or not to be believed on the way.
pub fn open(environment: Environment, credential: &Credential) -> Result<Arc<Repository>, RepoError> {
    from_either(read_configs(&environment)?, |configs| {
        let repository = checked_id(&configs)?;
        open_slot(&environment, &repository, credential, |slot, identity| {
            let opened = finish(environment.clone(), configs.clone(), identity, None, None)?;
            // [SLOT-6]: somebody else's slot could make this client sign with an identity that is not its own.
            believe_slot(&environment, &repository, opened.registry(), slot)?;
            Ok(opened)
        })
    })
}

/// Opens by what the first configuration says the repository is, or else by what the other says:
/// damage within an id or a feature still reads as text, and no slot opens under another id.
fn from_either(
    configs: Vec<ReadConfig>,
    mut attempt: impl FnMut(Vec<ReadConfig>) -> Result<Arc<Repository>, RepoError>,
) -> Result<Arc<Repository>, RepoError> {
    let others: Vec<ReadConfig> = configs
        .iter()
        .skip(1)
        .filter(|other| configs.first().is_some_and(|first| first.signed != other.signed))
        .cloned()
        .collect();
    match attempt(configs) {
        Err(error) if !others.is_empty() => attempt(others).map_err(|_| error),
        result => result,
    }
}

/// Opens a repository with a recovery sheet, which needs no slot.
///
/// # Errors
///
/// As [`open`], and [`RepoError::WrongKey`] for a sheet of another repository.
pub fn open_with_sheet(environment: Environment, sheet: RecoverySheet) -> Result<Arc<Repository>, RepoError> {
    let configs = read_configs(&environment)?;
    if sheet.repository != checked_id(&configs)? {
        return Err(RepoError::WrongKey { what: "recovery sheet: it is another repository's" });
    }
    finish(environment, configs, sheet.identity, Some(sheet.bundles), None)
}

/// Opens a repository to read it, with what the holder of a key lent ([`RecoverySheet::lend`]).
///
/// # Errors
///
/// As [`open_with_sheet`].
pub fn open_lent(environment: Environment, loan: &SecretBytes) -> Result<Arc<Repository>, RepoError> {
    let sheet = RecoverySheet::parse_loan(loan, &*environment.entropy)?;
    let configs = read_configs(&environment)?;
    if sheet.repository != checked_id(&configs)? {
        return Err(RepoError::WrongKey { what: "loan: it is another repository's" });
    }
    finish(environment, configs, sheet.identity, Some(sheet.bundles), Some(Role::Reader))
}

fn finish(
    environment: Environment,
    configs: Vec<ReadConfig>,
    identity: Identity,
    bundles: Option<Vec<Bundle>>,
    lent: Option<Role>,
) -> Result<Arc<Repository>, RepoError> {
    let repository = checked_id(&configs)?;
    let seen = Seen::load(environment.cache.as_deref(), &repository);
    let known = [(identity.known_sequence, identity.known)];
    let registry = Registry::load(&environment, &repository, identity.genesis, &known, &seen)?;
    let config = choose_config(&environment, configs, &registry, &seen)?;
    let now = Seen { registry: Some(registry.head()), revision: config.revision.max(seen.revision) };
    now.store(environment.cache.as_deref(), &repository);
    let key = SigningKey::from_seed(&identity.signing_seed).key_id();
    let mut granted = open_grants(&repository, &registry, &identity.exchange, &key)?;
    // A sheet holds the secrets themselves, for the day on which the grants are lost.
    for bundle in bundles.unwrap_or_default() {
        if !granted.iter().any(|held| held.epoch == bundle.epoch) {
            granted.push(bundle);
        }
    }
    let keyring = keyring(&registry, identity, granted, lent)?;
    keyring.learn_from(Later::new(&environment, repository, &registry));
    Ok(Arc::new(Repository::assemble(environment, config, registry, keyring)))
}
