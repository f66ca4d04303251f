//! Passwords, in whatever way a server asks for them.

use super::session::ANSWER_WITHIN;
use super::wire::{Fields, ReplicationError, Wire, said};
use crate::postgres::connection::Target;
use crate::postgres::tls::{Binding, TlsFailure};
use postgres_protocol::authentication::md5_hash;
use postgres_protocol::authentication::sasl::{
    ChannelBinding, SCRAM_SHA_256, SCRAM_SHA_256_PLUS, ScramSha256,
};

const ODD: ReplicationError = ReplicationError::Odd("a step of its own in the middle of the password");

/// Answers what a server asks, until it is satisfied.
pub(super) fn authenticate(wire: &mut Wire, target: &Target) -> Result<(), ReplicationError> {
    let is_required = target.encryption.binding == Binding::Require;
    let mut scram: Option<ScramSha256> = None;
    let (mut proven, mut bound) = (true, false);
    loop {
        let message = wire.expect(ANSWER_WITHIN)?;
        match message.kind {
            b'R' => {}
            b'E' => return Err(said(message.body)),
            b'N' | b'S' => continue,
            // Of protocols that begin with a version of their own.
            _ => return Err(ReplicationError::Odd("no question for a password")),
        }
        let mut fields = Fields(message.body);
        let step = fields.i32().ok_or(ODD)?;
        let data = fields.0.to_vec();
        if matches!(step, 0 | 3 | 5) && is_required && !bound {
            return Err(unbound());
        }
        if step == 0 {
            // A server that has not proven that it knows the password is not the one that was meant.
            return if proven { Ok(()) } else { Err(ODD) };
        }
        let password = target.password.as_ref().map(|password| password.expose().to_vec());
        let password = password.map(zeroize::Zeroizing::new).ok_or_else(|| ReplicationError::Refused {
            code: "28P01".to_owned(),
            text: "it asks for a password, and none is kept for it: put one into ~/.pgpass (database: replication)"
                .to_owned(),
        })?;
        match step {
            3 => wire.send_message(b'p', &[password.as_slice(), b"\0"].concat())?,
            5 => {
                let salt = data.first_chunk().copied().ok_or(ODD)?;
                let hash = md5_hash(target.user.as_bytes(), &password, salt);
                wire.send_message(b'p', &[hash.as_bytes(), b"\0"].concat())?;
            }
            10 if scram.is_none() => {
                let binding = wire.end_point().filter(|_| target.encryption.binding != Binding::Disable);
                let (mechanism, binding) = choose(&data, binding)?;
                bound = mechanism == SCRAM_SHA_256_PLUS;
                if is_required && !bound {
                    return Err(unbound());
                }
                let begun = ScramSha256::new(&password, binding);
                let first = begun.message();
                let length = i32::try_from(first.len()).map_err(|_| ODD)?.to_be_bytes();
                let body = [mechanism.as_bytes(), b"\0", &length, first].concat();
                wire.send_message(b'p', &body)?;
                (scram, proven) = (Some(begun), false);
            }
            11 => {
                let scram = scram.as_mut().ok_or(ODD)?;
                scram.update(&data).map_err(|_| ODD)?;
                wire.send_message(b'p', scram.message())?;
            }
            12 => {
                scram.as_mut().ok_or(ODD)?.finish(&data).map_err(|_| {
                    ReplicationError::Odd("the proof of somebody who does not know the password")
                })?;
                proven = true;
            }
            _ => return Err(ReplicationError::Odd("a question for a proof other than a password")),
        }
    }
}

/// Chooses of the ways that a server offers to prove a password the one that is bound to the connection, where
/// both can. A server that could and does not offer it, because somebody in between has taken it out, learns
/// from the proof that it could have been bound, and refuses it.
fn choose(
    offered: &[u8],
    end_point: Option<Vec<u8>>,
) -> Result<(&'static str, ChannelBinding), ReplicationError> {
    let has = |name: &str| offered.split(|byte| *byte == 0).any(|offered| offered == name.as_bytes());
    match end_point {
        Some(end_point) if has(SCRAM_SHA_256_PLUS) => {
            Ok((SCRAM_SHA_256_PLUS, ChannelBinding::tls_server_end_point(end_point)))
        }
        Some(_) if has(SCRAM_SHA_256) => Ok((SCRAM_SHA_256, ChannelBinding::unrequested())),
        None if has(SCRAM_SHA_256) => Ok((SCRAM_SHA_256, ChannelBinding::unsupported())),
        _ => Err(ReplicationError::Odd("a question for a password that this program cannot answer")),
    }
}

fn unbound() -> ReplicationError {
    ReplicationError::Unsafe(TlsFailure::new(
        "it does not bind the proof of a password to the connection, and channel_binding=require asks for that",
        "the role needs a password for scram-sha-256 and a hostssl line with that method; or leave channel_binding out",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_that_both_can() {
        let both = b"SCRAM-SHA-256-PLUS\0SCRAM-SHA-256\0\0";
        let mechanism =
            |offered: &[u8], end_point: Option<Vec<u8>>| choose(offered, end_point).map(|(name, _)| name);
        assert_eq!(mechanism(both, Some(vec![1])).unwrap(), "SCRAM-SHA-256-PLUS");
        assert_eq!(mechanism(both, None).unwrap(), "SCRAM-SHA-256");
        assert_eq!(mechanism(b"SCRAM-SHA-256\0\0", Some(vec![1])).unwrap(), "SCRAM-SHA-256");
        assert!(mechanism(b"SCRAM-SHA-256-PLUS\0\0", None).is_err());
        assert!(mechanism(b"OAUTHBEARER\0\0", None).is_err());
        // Without it the proof says why: `y` where the server offers none, `n` where this side has none.
        let first = |end_point: Option<Vec<u8>>| {
            let (_, binding) = choose(b"SCRAM-SHA-256\0\0", end_point).unwrap();
            ScramSha256::new(b"x", binding).message().first().copied()
        };
        assert_eq!((first(Some(vec![1])), first(None)), (Some(b'y'), Some(b'n')));
    }
}
