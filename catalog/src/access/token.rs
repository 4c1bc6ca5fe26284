//! API tokens as text: `ice_` + 16 hex digits to find it by + `_` + 64 hex digits of secret.
//!
//! The secret is 256 bits from the system's generator, so one SHA-256 of it is as good as any slow
//! hash; only that is stored. Its one invariant: no secret is ever formatted, logged or compared
//! in a time that depends on it.

use crate::digest::sha256;
use base64::{Engine, engine::general_purpose::STANDARD};
use subtle::ConstantTimeEq;

/// What every token begins with, so that scanners find one that leaked.
const PREFIX: &str = "ice_";
/// Hex digits of the id and of the secret.
const ID_DIGITS: usize = 16;
const SECRET_DIGITS: usize = 64;

/// A token as its holder has it.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct TokenText {
    pub(crate) id: String,
    secret: String,
}

impl std::fmt::Debug for TokenText {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TokenText").field("id", &self.id).finish_non_exhaustive()
    }
}

impl TokenText {
    /// A new one.
    pub(crate) fn mint() -> Self {
        Self {
            id: hex::encode(rand::random::<[u8; 8]>()),
            secret: hex::encode(rand::random::<[u8; 32]>()),
        }
    }

    /// From the holder's text; none when it cannot be one.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (id, secret) = text.strip_prefix(PREFIX)?.split_once('_')?;
        Self::of(id, secret)
    }

    /// From what OAuth calls client id and client secret: the two parts, or the whole token as the
    /// secret with no id or the same one.
    pub(crate) fn of_client(id: Option<&str>, secret: &str) -> Option<Self> {
        let id = id.filter(|id| !id.is_empty()).map(|id| id.strip_prefix(PREFIX).unwrap_or(id));
        match (Self::parse(secret), id) {
            (Some(token), None) => Some(token),
            (Some(token), Some(id)) => (token.id == id).then_some(token),
            (None, id) => Self::of(id?, secret),
        }
    }

    /// From Basic authorization: the whole token as user name or as password, or its two parts.
    pub(crate) fn of_basic(encoded: &str) -> Option<Self> {
        let (user, password) = basic(encoded)?;
        let whole = Self::parse(&user).or_else(|| Self::parse(&password));
        whole.or_else(|| Self::of_client(Some(&user), &password))
    }

    fn of(id: &str, secret: &str) -> Option<Self> {
        let is_hex = |text: &str, digits: usize| {
            text.len() == digits && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
        };
        (is_hex(id, ID_DIGITS) && is_hex(secret, SECRET_DIGITS))
            .then(|| Self { id: id.to_owned(), secret: secret.to_owned() })
    }

    /// The text that its holder keeps.
    pub(crate) fn text(&self) -> String {
        format!("{PREFIX}{}_{}", self.id, self.secret)
    }

    /// What is stored of the secret.
    pub(crate) fn hash(&self) -> String {
        sha256(self.secret.as_bytes())
    }

    /// Whether `hash` is that of this token's secret.
    pub(crate) fn has_hash(&self, hash: &str) -> bool {
        self.hash().as_bytes().ct_eq(hash.as_bytes()).into()
    }
}

/// User name and password of Basic authorization (RFC 7617).
pub(crate) fn basic(encoded: &str) -> Option<(String, String)> {
    let text = String::from_utf8(STANDARD.decode(encoded.trim()).ok()?).ok()?;
    let (user, password) = text.split_once(':')?;
    Some((user.to_owned(), password.to_owned()))
}
