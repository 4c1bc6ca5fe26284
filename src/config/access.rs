//! Who is let in: the settings `auth`, `oidc.*`, and what they mean for `listen`.

use crate::config::{ConfigError, Texts};
use icecore_catalog::access::oidc::{Oidc, OidcOptions, parse_grants};
use std::net::SocketAddr;

/// Access control as it is set.
#[derive(Clone, Debug)]
pub enum AccessConfig {
    /// Whoever reaches the server may do everything.
    Off,
    /// Only who has a token, or a JWT of this kind.
    On(Option<Box<Oidc>>),
}

impl Texts {
    pub(super) fn access(&self) -> Result<AccessConfig, ConfigError> {
        match self.text("auth") {
            "off" => Ok(AccessConfig::Off),
            "on" => Ok(AccessConfig::On(self.oidc()?)),
            _ => Err(self.wrong("auth", "is neither on nor off")),
        }
    }

    /// Without access control the server must not be reachable from elsewhere.
    pub(super) fn listen(&self) -> Result<SocketAddr, ConfigError> {
        let listen: SocketAddr =
            self.parsed("listen", "is not an address such as 127.0.0.1:8181")?;
        match self.access()? {
            AccessConfig::Off if !listen.ip().is_loopback() => Err(self.wrong(
                "listen",
                "is not a loopback address, and with `auth = off` the server answers only there: set `auth = on` and make a token with `icecore token create --admin NAME`",
            )),
            AccessConfig::Off | AccessConfig::On(_) => Ok(listen),
        }
    }

    fn oidc(&self) -> Result<Option<Box<Oidc>>, ConfigError> {
        let Some(issuer) = self.optional("oidc.issuer") else { return Ok(None) };
        let Some(audience) = self.optional("oidc.audience") else {
            return Err(self.wrong("oidc.audience", "is empty; say what `aud` has to be"));
        };
        let keys = self.text("oidc.jwks");
        let jwks = if keys.trim_start().starts_with('{') {
            keys.to_owned()
        } else {
            std::fs::read_to_string(keys).map_err(|cause| {
                self.wrong("oidc.jwks", &format!("is no JWK set, and no file to read: {cause}"))
            })?
        };
        let grants = parse_grants(self.text("oidc.grants"))
            .map_err(|problem| self.wrong("oidc.grants", &format!("is not valid: {problem}")))?;
        let words = self.text("oidc.algorithms").split(',').map(str::trim);
        let options = OidcOptions {
            issuer,
            audience,
            algorithms: words.filter(|word| !word.is_empty()).map(str::to_owned).collect(),
            jwks,
            principal_claim: self.text("oidc.principal_claim").to_owned(),
            scope_claim: self.text("oidc.scope_claim").to_owned(),
            grants,
        };
        Oidc::new(options).map(|oidc| Some(Box::new(oidc))).map_err(|problem| {
            self.wrong("oidc.issuer", &format!("cannot be trusted as the rest is set: {problem}"))
        })
    }
}
