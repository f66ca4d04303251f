//! Making a repository.
//!
//! Write order, and what a crash after each step leaves:
//! 1. the registry's first version, twice: objects that nothing opens;
//! 2. the owner's slot, twice: the same;
//! 3. the configuration's copy, then the configuration: the repository exists.
//!
//! Until the last step `open` says that there is no repository, and init may be run again after
//! the remains are removed by hand; it never removes anything itself.

use super::environment::Environment;
use super::error::RepoError;
use super::frames::internal;
use super::sealed::sign_plain;
use super::slots::{NewSlot, make_slot, put_twice};
use crate::base::{RepositoryId, Secret, TrustId};
use crate::chunker::{CutParameters, PageCutter};
use crate::crypto::derive::grant_info;
use crate::crypto::{ContentSecretKey, PasswordParameters, SignedMessage, SigningKey, Suite, wrap};
use crate::format::cbor::Extra;
use crate::format::config::Config;
use crate::format::grant::Bundle;
use crate::format::kind::ObjectKind;
use crate::format::slot::Identity;
use crate::format::trust::{Epoch, Grant, KeyRecord, Role, Trust};

/// What a new repository is to be.
pub struct InitOptions {
    /// The cipher suite.
    pub suite: Suite,
    /// Lengths of content-defined chunks.
    pub cut: CutParameters,
    /// Length of chunks of database files.
    pub page_chunk_bytes: u32,
    /// What stretching a password costs in new slots.
    pub password: PasswordParameters,
    /// Name of the owner's key, for people.
    pub key_name: String,
}

impl InitOptions {
    /// Options that suit most repositories: chunks of around 128 KiB, for streams and database files
    /// alike (`docs/chunk-sizes.md`).
    ///
    /// # Errors
    ///
    /// Never for these lengths; the type of the lengths cannot know.
    pub fn recommended(suite: Suite, key_name: &str) -> Result<Self, RepoError> {
        Ok(Self {
            suite,
            cut: CutParameters::STREAM,
            page_chunk_bytes: PageCutter::STANDARD.chunk_bytes(),
            password: PasswordParameters::default(),
            key_name: key_name.to_owned(),
        })
    }
}

/// Draws a fresh identity; the registry still has to list it.
pub fn draw_identity(environment: &Environment, role: Role, genesis: TrustId) -> Identity {
    Identity {
        signing_seed: Secret::new(environment.entropy.draw()),
        exchange: ContentSecretKey::new(Secret::new(environment.entropy.draw())),
        genesis,
        role,
        known: genesis,
        known_sequence: 1,
        extra: Extra::new(),
    }
}

/// Wraps a bundle for a key, as far as its role is given it.
///
/// # Errors
///
/// When the key's exchange half is not usable.
pub(super) fn make_grant(
    environment: &Environment,
    repository: &RepositoryId,
    bundle: &Bundle,
    key: &KeyRecord,
) -> Result<Grant, RepoError> {
    let plain = bundle.for_role(key.role).encode();
    let info = grant_info(repository, bundle.epoch, &key.id);
    let wrapped = wrap(&key.exchange, environment.entropy.as_ref(), &info, plain.expose())
        .map_err(internal("granting an epoch"))?;
    Ok(Grant { key: key.id, wrapped, extra: Extra::new() })
}

/// Makes a repository in an empty place, with one owner and one way in.
///
/// # Errors
///
/// [`RepoError::NotEmpty`] when anything is there already, or what the store says.
pub fn init(
    environment: &Environment,
    options: &InitOptions,
    opener: &NewSlot<'_>,
) -> Result<RepositoryId, RepoError> {
    let store = &environment.store;
    if let Some(found) = store.list("")?.into_iter().next() {
        return Err(RepoError::NotEmpty { location: store.location(), found: found.name });
    }
    let entropy = environment.entropy.as_ref();
    let created = environment.clock.now();
    let repository = RepositoryId::new(entropy.draw());
    let mut identity = draw_identity(environment, Role::Owner, TrustId::new([0; 32]));
    let signing = SigningKey::from_seed(&identity.signing_seed);
    let content = ContentSecretKey::new(Secret::new(entropy.draw()));
    let content_public = content.public();
    let bundle = Bundle {
        epoch: 1,
        metadata: Secret::new(entropy.draw()),
        content: Some(content),
        content_ids: Some(Secret::new(entropy.draw())),
        metadata_ids: Secret::new(entropy.draw()),
        chunker_seed: Some(Secret::new(entropy.draw())),
        extra: Extra::new(),
    };
    let owner =
        KeyRecord::new(signing.public(), identity.exchange.public(), Role::Owner, &options.key_name, created);
    let grant = make_grant(environment, &repository, &bundle, &owner)?;
    let trust = Trust {
        sequence: 1,
        predecessor: None,
        created,
        least_revision: 1,
        keys: vec![owner],
        epochs: vec![Epoch {
            number: 1,
            content: content_public,
            created,
            suite: options.suite,
            grants: vec![grant],
            closed: false,
            extra: Extra::new(),
        }],
        extra: Extra::new(),
    };
    let trust = sign_plain(ObjectKind::Trust, &repository, &signing, &trust.encode());
    let genesis = TrustId::new(*blake3::hash(&trust).as_bytes());
    (identity.genesis, identity.known) = (genesis, genesis);
    let config = Config {
        repository,
        revision: 1,
        suite: options.suite,
        cut: options.cut,
        page_chunk_bytes: options.page_chunk_bytes,
        password: options.password,
        extra: Vec::new(),
        features: Vec::new(),
        signer: signing.key_id(),
    };
    let encoded = config.encode();
    let message = SignedMessage::new(&repository, ObjectKind::Configuration.number(), encoded.as_bytes());
    let config = Config::finish(encoded, &signing.sign(&message));
    // What no reader would accept is refused before anything is stored.
    Config::parse(&config)
        .map_err(|why| RepoError::Usage(format!("no repository can be like this: {why}")))?;
    let (slot_id, slot) = make_slot(&repository, &identity, opener, &options.key_name, created, entropy)?;
    put_twice(environment, &format!("trust/{genesis}"), &trust)?;
    put_twice(environment, &format!("keys/{slot_id}"), &slot)?;
    put_twice(environment, "chronolith", &config)?;
    store.keep_reserve();
    Ok(repository)
}
