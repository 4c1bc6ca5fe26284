//! JSON Web Tokens of one identity provider, checked against keys from the configuration.
//!
//! Its one invariant: nothing in a token chooses how it is checked. Issuer, audience, algorithms
//! and keys are pinned; a key serves only the algorithms of its own kind; nothing is fetched.
//! Signatures are *ring*'s; this file reads the envelope (RFC 7515, 7519) and the claims.

use crate::principal::{AccessScope, InvalidScope, Principal};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use ring::signature::{
    self, ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ED25519, RSA_PKCS1_2048_8192_SHA256,
    RSA_PKCS1_2048_8192_SHA384, RSA_PKCS1_2048_8192_SHA512, RsaPublicKeyComponents,
    UnparsedPublicKey,
};
use serde::Deserialize;
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// How far the provider's clock may be off, in seconds.
const SKEW_S: i64 = 60;
/// Longest token, in bytes.
const TOKEN_BYTES_MAX: usize = 16 << 10;
/// Longest name of a caller, in bytes.
const NAME_BYTES_MAX: usize = 256;

/// How JWTs are checked and what they grant.
#[derive(Clone, Debug)]
pub struct OidcOptions {
    /// What `iss` must be.
    pub issuer: String,
    /// What `aud` must be or contain.
    pub audience: String,
    /// Which of RS256, RS384, RS512, ES256, ES384 and EdDSA are accepted.
    pub algorithms: Vec<String>,
    /// The provider's keys: the text of a JWK set.
    pub jwks: String,
    /// The claim that names the caller. Default `sub`.
    pub principal_claim: String,
    /// The claim whose values grant scopes: a text of words, or an array. Default `scope`.
    pub scope_claim: String,
    /// What each value of it grants.
    pub grants: BTreeMap<String, Vec<AccessScope>>,
}

/// Why the configuration is of no use.
#[derive(Debug, thiserror::Error)]
pub enum OidcError {
    /// An algorithm that is not accepted, `none` and those with a shared secret among them.
    #[error("`{0}` must be one of RS256, RS384, RS512, ES256, ES384 and EdDSA")]
    Algorithm(String),
    /// No JWK set.
    #[error("the keys are not a JWK set")]
    Keys(#[source] serde_json::Error),
    /// A JWK set without a key that could be used.
    #[error("the JWK set has no RSA, P-256, P-384 or Ed25519 key for signatures")]
    NoKey,
    /// Nothing would ever be granted.
    #[error("no claim grants any scope")]
    NoGrants,
}

/// Why a JWT is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum JwtRefusal {
    #[error("not a signed JWT")]
    Form,
    #[error("the algorithm is not accepted")]
    Algorithm,
    #[error("no configured key matches")]
    Key,
    #[error("the signature is wrong")]
    Signature,
    #[error("the issuer does not match")]
    Issuer,
    #[error("the audience does not match")]
    Audience,
    #[error("it has expired, or never expires")]
    Ended,
    #[error("it is not valid yet")]
    NotYet,
    #[error("the claim that names the caller is missing")]
    Nameless,
}

/// The algorithms that can be configured: each with what RFC 7518 and 8037 call it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum JwtAlgorithm {
    Rs256,
    Rs384,
    Rs512,
    Es256,
    Es384,
    EdDsa,
}

const ALGORITHMS: [(&str, JwtAlgorithm); 6] = [
    ("RS256", JwtAlgorithm::Rs256),
    ("RS384", JwtAlgorithm::Rs384),
    ("RS512", JwtAlgorithm::Rs512),
    ("ES256", JwtAlgorithm::Es256),
    ("ES384", JwtAlgorithm::Es384),
    ("EdDSA", JwtAlgorithm::EdDsa),
];

impl JwtAlgorithm {
    fn parse(text: &str) -> Option<Self> {
        ALGORITHMS.iter().find(|(name, _)| *name == text).map(|(_, algorithm)| *algorithm)
    }
}

/// A key, and with it the algorithms that it can serve.
#[derive(Clone, Debug)]
enum KeyMaterial {
    Rsa { n: Vec<u8>, e: Vec<u8> },
    P256(Vec<u8>),
    P384(Vec<u8>),
    Ed25519(Vec<u8>),
}

#[derive(Clone, Debug)]
struct VerifyKey {
    id: Option<String>,
    /// The only algorithm it is for, where the set says so.
    algorithm: Option<String>,
    material: KeyMaterial,
}

/// Checks JWTs.
#[derive(Clone, Debug)]
pub struct OidcVerifier {
    options: OidcOptions,
    algorithms: Vec<JwtAlgorithm>,
    keys: Vec<VerifyKey>,
}

#[derive(Deserialize)]
struct JwkSet {
    keys: Vec<Jwk>,
}

#[derive(Deserialize)]
struct Jwk {
    kty: String,
    kid: Option<String>,
    alg: Option<String>,
    r#use: Option<String>,
    crv: Option<String>,
    n: Option<String>,
    e: Option<String>,
    x: Option<String>,
    y: Option<String>,
}

#[derive(Deserialize)]
struct JwtHeader {
    alg: String,
    kid: Option<String>,
    crit: Option<Value>,
    b64: Option<Value>,
}

impl OidcVerifier {
    /// Checks the configuration.
    ///
    /// # Errors
    /// [`OidcError`]
    pub fn new(options: OidcOptions) -> Result<Self, OidcError> {
        let algorithm = |text: &String| {
            JwtAlgorithm::parse(text).ok_or_else(|| OidcError::Algorithm(text.clone()))
        };
        let algorithms = options.algorithms.iter().map(algorithm).collect::<Result<Vec<_>, _>>()?;
        let set: JwkSet = serde_json::from_str(&options.jwks).map_err(OidcError::Keys)?;
        let keys: Vec<VerifyKey> = set.keys.into_iter().filter_map(VerifyKey::of).collect();
        if keys.is_empty() {
            return Err(OidcError::NoKey);
        }
        if options.grants.values().all(Vec::is_empty) {
            return Err(OidcError::NoGrants);
        }
        Ok(Self { options, algorithms, keys })
    }

    /// Who has this JWT.
    pub(crate) fn principal(&self, token: &str, now_s: i64) -> Result<Principal, JwtRefusal> {
        let claims = self.claims(token)?;
        let Value::String(issuer) = &claims["iss"] else { return Err(JwtRefusal::Issuer) };
        if *issuer != self.options.issuer {
            return Err(JwtRefusal::Issuer);
        }
        let is_ours = |value: &Value| value.as_str() == Some(self.options.audience.as_str());
        let audience = &claims["aud"];
        if !is_ours(audience) && !audience.as_array().is_some_and(|all| all.iter().any(is_ours)) {
            return Err(JwtRefusal::Audience);
        }
        // A time that is no number is as good as none, and no end is no valid end.
        if claims["exp"].as_f64().is_none_or(|end| end + seconds(SKEW_S) <= seconds(now_s)) {
            return Err(JwtRefusal::Ended);
        }
        let begins = &claims["nbf"];
        if !begins.is_null()
            && begins.as_f64().is_none_or(|begin| seconds(now_s) + seconds(SKEW_S) < begin)
        {
            return Err(JwtRefusal::NotYet);
        }
        let name = claims[self.options.principal_claim.as_str()]
            .as_str()
            .filter(|name| !name.is_empty() && name.len() <= NAME_BYTES_MAX)
            .filter(|name| !name.contains(char::is_control))
            .ok_or(JwtRefusal::Nameless)?;
        let scopes = self.scopes(&claims[self.options.scope_claim.as_str()]);
        Ok(Principal::new(&format!("oidc:{name}"), scopes, None))
    }

    /// What a token says whose signature is right.
    fn claims(&self, token: &str) -> Result<Value, JwtRefusal> {
        if TOKEN_BYTES_MAX < token.len() {
            return Err(JwtRefusal::Form);
        }
        let (signed, signature) = token.rsplit_once('.').ok_or(JwtRefusal::Form)?;
        let (header, claims) = signed.split_once('.').ok_or(JwtRefusal::Form)?;
        let header: JwtHeader = decode_json(header).ok_or(JwtRefusal::Form)?;
        // Extensions that must be understood are not.
        if header.crit.is_some() || header.b64.is_some() {
            return Err(JwtRefusal::Form);
        }
        let algorithm = JwtAlgorithm::parse(&header.alg)
            .filter(|algorithm| self.algorithms.contains(algorithm))
            .ok_or(JwtRefusal::Algorithm)?;
        let key = self.key(&header)?;
        let signature = decode(signature).ok_or(JwtRefusal::Form)?;
        let is_right = key.material.verify(algorithm, signed.as_bytes(), &signature);
        if !is_right.ok_or(JwtRefusal::Algorithm)? {
            return Err(JwtRefusal::Signature);
        }
        let claims: Map<String, Value> = decode_json(claims).ok_or(JwtRefusal::Form)?;
        Ok(Value::Object(claims))
    }

    /// The key that the header names; the only one there is when it names none.
    fn key(&self, header: &JwtHeader) -> Result<&VerifyKey, JwtRefusal> {
        let mut named = self.keys.iter().filter(|key| header.kid.is_none() || key.id == header.kid);
        let (Some(key), None) = (named.next(), named.next()) else { return Err(JwtRefusal::Key) };
        match &key.algorithm {
            Some(only) if *only != header.alg => Err(JwtRefusal::Algorithm),
            _ => Ok(key),
        }
    }

    fn scopes(&self, claim: &Value) -> Vec<AccessScope> {
        let words: Vec<&str> = match claim {
            Value::String(text) => text.split_whitespace().collect(),
            Value::Array(items) => items.iter().filter_map(Value::as_str).collect(),
            _ => Vec::new(),
        };
        let grants = words.into_iter().filter_map(|word| self.options.grants.get(word));
        grants.flatten().cloned().collect()
    }
}

impl VerifyKey {
    /// None for a key that is not for signatures or of no kind that is known.
    fn of(jwk: Jwk) -> Option<Self> {
        if jwk.r#use.as_deref().is_some_and(|purpose| purpose != "sig") {
            return None;
        }
        let part = |text: &Option<String>| text.as_deref().and_then(decode);
        // The uncompressed form of a point, as *ring* reads it.
        let point = || Some([vec![4], part(&jwk.x)?, part(&jwk.y)?].concat());
        let material = match (jwk.kty.as_str(), jwk.crv.as_deref()) {
            ("RSA", _) => KeyMaterial::Rsa { n: part(&jwk.n)?, e: part(&jwk.e)? },
            ("EC", Some("P-256")) => KeyMaterial::P256(point()?),
            ("EC", Some("P-384")) => KeyMaterial::P384(point()?),
            ("OKP", Some("Ed25519")) => KeyMaterial::Ed25519(part(&jwk.x)?),
            _ => return None,
        };
        Some(Self { id: jwk.kid, algorithm: jwk.alg, material })
    }
}

impl KeyMaterial {
    /// Whether the signature is right; none when the algorithm is not one of this kind of key.
    fn verify(&self, algorithm: JwtAlgorithm, signed: &[u8], signature: &[u8]) -> Option<bool> {
        let plain = |way: &'static dyn signature::VerificationAlgorithm, key: &Vec<u8>| {
            UnparsedPublicKey::new(way, key).verify(signed, signature)
        };
        let verified = match (self, algorithm) {
            (
                Self::Rsa { n, e },
                JwtAlgorithm::Rs256 | JwtAlgorithm::Rs384 | JwtAlgorithm::Rs512,
            ) => {
                let way = match algorithm {
                    JwtAlgorithm::Rs384 => &RSA_PKCS1_2048_8192_SHA384,
                    JwtAlgorithm::Rs512 => &RSA_PKCS1_2048_8192_SHA512,
                    _ => &RSA_PKCS1_2048_8192_SHA256,
                };
                RsaPublicKeyComponents { n, e }.verify(way, signed, signature)
            }
            (Self::P256(key), JwtAlgorithm::Es256) => plain(&ECDSA_P256_SHA256_FIXED, key),
            (Self::P384(key), JwtAlgorithm::Es384) => plain(&ECDSA_P384_SHA384_FIXED, key),
            (Self::Ed25519(key), JwtAlgorithm::EdDsa) => plain(&ED25519, key),
            _ => return None,
        };
        Some(verified.is_ok())
    }
}

/// What each value of the scope claim grants, from `value=scope,scope; value=scope`.
///
/// # Errors
/// [`InvalidScope`].
pub fn parse_grants(text: &str) -> Result<BTreeMap<String, Vec<AccessScope>>, InvalidScope> {
    let mut grants = BTreeMap::new();
    for entry in text.split(';').map(str::trim).filter(|entry| !entry.is_empty()) {
        let (value, scopes) = entry.split_once('=').unwrap_or((entry, ""));
        let scopes = scopes.split(',').map(str::trim).map(str::parse).collect::<Result<_, _>>()?;
        grants.insert(value.trim().to_owned(), scopes);
    }
    Ok(grants)
}

fn decode(text: &str) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(text).ok()
}

fn decode_json<T: serde::de::DeserializeOwned>(text: &str) -> Option<T> {
    serde_json::from_slice(&decode(text)?).ok()
}

#[expect(clippy::cast_precision_loss, reason = "seconds since 1970 are far below 2^52")]
fn seconds(whole: i64) -> f64 {
    whole as f64
}

#[cfg(test)]
mod tests;
