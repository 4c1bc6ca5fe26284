//! Who is let in: the settings `auth`, `oidc.*`, and what they mean for `listen`.

use crate::config::{ConfigError, SettingTexts};
use icecore_catalog::access::oidc::{OidcOptions, OidcVerifier, parse_grants};
use std::net::{SocketAddr, ToSocketAddrs};

/// Access control as it is set.
#[derive(Clone, Debug)]
pub enum AccessConfig {
    /// Whoever reaches the server may do everything.
    Off,
    /// Only who has a token, or a JWT of this kind.
    On(Option<Box<OidcVerifier>>),
}

impl SettingTexts {
    pub(super) fn access(&self) -> Result<AccessConfig, ConfigError> {
        match self.text("auth") {
            "off" => Ok(AccessConfig::Off),
            "on" => Ok(AccessConfig::On(self.oidc()?)),
            _ => Err(self.wrong("auth", "must be on or off")),
        }
    }

    /// Without access control the server must not be reachable from elsewhere.
    pub(super) fn listen(&self) -> Result<SocketAddr, ConfigError> {
        let listen = self.address()?;
        match self.access()? {
            AccessConfig::Off if !listen.ip().is_loopback() => Err(self.wrong(
                "listen",
                "is not a loopback address, and with `auth = off` the server listens on loopback only: set `auth = on` and create a token with `icecore token create --admin NAME`",
            )),
            AccessConfig::Off | AccessConfig::On(_) => Ok(listen),
        }
    }

    /// An address, a name that the machine knows, or a port alone, which is on 127.0.0.1 as the
    /// default is. Of a name's addresses the first of IPv4 counts.
    fn address(&self) -> Result<SocketAddr, ConfigError> {
        const FORM: &str = "is not HOST:PORT such as 127.0.0.1:8181, localhost:8181 or :8181";
        let text = self.text("listen");
        if let Ok(address) = text.parse() {
            return Ok(address);
        }
        let (host, port) = text
            .rsplit_once(':')
            .filter(|(host, _)| !host.contains('@'))
            .ok_or_else(|| self.wrong("listen", FORM))?;
        let port: u16 = port.parse().map_err(|_| self.wrong("listen", FORM))?;
        let host = if host.is_empty() { "127.0.0.1" } else { host };
        let mut found = (host, port).to_socket_addrs().map_err(|cause| {
            self.wrong("listen", &format!("names a host that does not resolve: {cause}"))
        })?;
        let mut all: Vec<SocketAddr> = found.by_ref().collect();
        all.sort_by_key(SocketAddr::is_ipv6);
        all.first().copied().ok_or_else(|| self.wrong("listen", FORM))
    }

    fn oidc(&self) -> Result<Option<Box<OidcVerifier>>, ConfigError> {
        let Some(issuer) = self.optional("oidc.issuer") else { return Ok(None) };
        let Some(audience) = self.optional("oidc.audience") else {
            return Err(self.wrong("oidc.audience", "is empty; set the value that `aud` must have"));
        };
        let keys = self.text("oidc.jwks");
        let jwks = if keys.trim_start().starts_with('{') {
            keys.to_owned()
        } else {
            std::fs::read_to_string(keys).map_err(|cause| {
                self.wrong(
                    "oidc.jwks",
                    &format!("is neither a JWK set nor a readable file: {cause}"),
                )
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
        OidcVerifier::new(options).map(|oidc| Some(Box::new(oidc))).map_err(|problem| {
            self.wrong(
                "oidc.issuer",
                &format!("does not work with the other oidc settings: {problem}"),
            )
        })
    }
}
