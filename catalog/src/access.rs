//! Who is calling, and what of it is written down: API tokens, OAuth's access tokens, JWTs, audit.
//!
//! It knows scopes and namespaces and no routes; the routers ask it who the caller is and decide by
//! [`Principal`]. Its one invariant: what it does not know is refused. A token that was revoked, on
//! whichever process of the same metastore, works for at most [`REVOCATION_LAG`] more.

pub mod oidc;
mod recorder;
mod refusals;
mod token;

pub use crate::principal::{AccessScope, Action, InvalidScope, Principal, RowVisibility};
pub use recorder::{AuditRecorder, CallRecording};

use crate::{
    audit::{AuditEntry, AuditedCall, details},
    clock::NowMs,
    error::CatalogError,
    metastore::{
        Metastore,
        access::{FoundToken, NewAccessToken, NewToken},
    },
};
use http::{Extensions, header::AUTHORIZATION, request::Parts};
use oidc::OidcVerifier;
use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use token::TokenText;
pub(crate) use token::basic;
use tokio::time::Instant;

/// Longest that a token is taken from memory instead of the metastore; with the look-up itself,
/// revocation is well within a second.
pub const REVOCATION_LAG: Duration = Duration::from_millis(500);
/// How long an access token lives.
pub const ACCESS_TOKEN_TIME: Duration = Duration::from_secs(3600);
/// Most scopes of one token.
pub const SCOPES_MAX: usize = 64;
/// Longest name of a token, in bytes.
const NAME_BYTES_MAX: usize = 128;
/// Most tokens kept in memory.
const KNOWN_MAX: usize = 10_000;
/// A token's last use is written at most this often.
const USE_NOTED_EVERY: Duration = Duration::from_secs(60);

/// The address a request came from, as the server puts it into the request's extensions.
#[derive(Clone, Copy, Debug)]
pub struct PeerAddress(pub IpAddr);

impl PeerAddress {
    /// As text; empty where it is not known.
    #[must_use]
    pub fn text(extensions: &Extensions) -> String {
        extensions.get::<Self>().map_or_else(String::new, |Self(address)| address.to_string())
    }
}

/// What is recorded of any request that changes something; its action and object are the caller's to
/// add.
#[must_use]
pub fn request_entry(parts: &Parts, principal: &Principal, body: &[u8]) -> AuditEntry {
    let request = parts.headers.get("x-request-id").and_then(|id| id.to_str().ok());
    AuditEntry {
        principal: principal.id().to_owned(),
        address: PeerAddress::text(&parts.extensions),
        request: request.unwrap_or_default().to_owned(),
        details: details(parts.uri.path_and_query().map_or("", |path| path.as_str()), body),
        ..AuditEntry::default()
    }
}

/// Why nobody knows who is calling.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// There is no token.
    #[error("this server requires a token: send `Authorization: Bearer TOKEN`")]
    NoToken,
    /// The token is not known, has ended, was revoked, or is no token. Which of these is not said.
    #[error("the token is not valid here: it may have expired or been revoked")]
    BadToken,
    /// The metastore did not answer.
    #[error("look the token up")]
    Unavailable(#[source] CatalogError),
}

impl IdentityError {
    /// The challenge of a 401; none where the token may be good.
    #[must_use]
    pub fn challenge(&self) -> Option<&'static str> {
        match self {
            Self::NoToken => Some("Bearer"),
            Self::BadToken => Some("Bearer error=\"invalid_token\""),
            Self::Unavailable(_) => None,
        }
    }
}

/// An API token that somebody asks for.
#[derive(Clone, Debug)]
pub struct TokenRequest {
    /// What people call it.
    pub name: String,
    /// Where its events go that name no namespace.
    pub home: Option<String>,
    /// What it may do.
    pub scopes: Vec<AccessScope>,
    /// How long it lives; for ever when none.
    pub lifetime: Option<Duration>,
}

/// A token that was made. The text is nowhere else: it is shown once.
#[derive(Clone)]
pub struct IssuedToken {
    /// What finds it; also OAuth's client id.
    pub id: String,
    /// The token itself.
    pub text: String,
    /// When it ends, ms since 1970.
    pub expires_ms: Option<i64>,
}

impl std::fmt::Debug for IssuedToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("IssuedToken").field("id", &self.id).finish_non_exhaustive()
    }
}

/// Access control, on or off, and the record of changes. Cheap to clone.
#[derive(Clone, Debug)]
pub struct AccessControl {
    control: Option<Arc<TokenControl>>,
    recorder: Option<Arc<AuditRecorder>>,
}

/// Access control that is on.
pub struct TokenControl {
    store: Metastore,
    now: NowMs,
    oidc: Option<OidcVerifier>,
    known: Mutex<HashMap<String, KnownToken>>,
    /// How many tokens were revoked here.
    revocations: AtomicU64,
    uses: Mutex<HashMap<String, TokenUse>>,
}

impl std::fmt::Debug for TokenControl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TokenControl").finish_non_exhaustive()
    }
}

/// A token as the metastore had it a moment ago.
#[derive(Clone)]
struct KnownToken {
    token: Arc<FoundToken>,
    principal: Principal,
    asked_at: Instant,
}

/// When an API token was used last, and when that was last written.
#[derive(Clone, Copy)]
struct TokenUse {
    at_ms: i64,
    noted_ms: Option<i64>,
}

impl AccessControl {
    /// Whoever calls may do everything, and nothing is recorded.
    #[must_use]
    pub fn off() -> Self {
        Self { control: None, recorder: None }
    }

    /// Whoever calls may do everything; changes are recorded in `store`.
    #[must_use]
    pub fn recorded(store: Metastore, now: NowMs) -> Self {
        Self { control: None, recorder: Some(Arc::new(AuditRecorder::new(store, now))) }
    }

    /// Only who shows a token of `store`, or a JWT that `oidc` accepts; changes are recorded there.
    #[must_use]
    pub fn on(store: Metastore, now: NowMs, oidc: Option<OidcVerifier>) -> Self {
        let control = TokenControl {
            store: store.clone(),
            now: Arc::clone(&now),
            oidc,
            known: Mutex::default(),
            revocations: AtomicU64::new(0),
            uses: Mutex::default(),
        };
        Self { control: Some(Arc::new(control)), ..Self::recorded(store, now) }
    }

    /// Access control, if it is on.
    #[must_use]
    pub fn control(&self) -> Option<&TokenControl> {
        self.control.as_deref()
    }

    /// Who sends the request; anybody while access control is off. Requests of who is not known are
    /// counted in the audit log.
    ///
    /// # Errors
    /// [`IdentityError`]
    pub async fn identify(&self, request: &Parts) -> Result<Principal, IdentityError> {
        let Some(control) = self.control() else { return Ok(Principal::anonymous()) };
        let header = request.headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
        let known = control.identify(header).await;
        if let (Err(unknown), Some(recorder)) = (&known, self.recorder())
            && unknown.challenge().is_some()
        {
            recorder.count_unknown(&PeerAddress::text(&request.extensions));
        }
        known
    }

    /// The way into the audit log, if there is one.
    #[must_use]
    pub fn recorder(&self) -> Option<&AuditRecorder> {
        self.recorder.as_deref()
    }

    /// One bounded step of what nobody waits for: audit records that are left, last uses of tokens,
    /// access tokens that have ended.
    ///
    /// # Errors
    /// [`CatalogError::Metastore`]; the next step tries again.
    pub async fn tick(&self) -> Result<(), CatalogError> {
        if let Some(recorder) = self.recorder() {
            recorder.tick().await?;
        }
        match self.control() {
            Some(control) => control.tick().await,
            None => Ok(()),
        }
    }

    /// The last step, after the last call.
    ///
    /// # Errors
    /// As [`AccessControl::tick`].
    pub async fn finish(&self) -> Result<(), CatalogError> {
        if let Some(recorder) = self.recorder() {
            recorder.finish().await?;
        }
        self.tick().await
    }
}

impl TokenControl {
    /// Who sends the `Authorization` header `header`.
    ///
    /// # Errors
    /// [`IdentityError`]
    pub async fn identify(&self, header: Option<&str>) -> Result<Principal, IdentityError> {
        let (scheme, text) =
            header.and_then(|header| header.split_once(' ')).ok_or(IdentityError::NoToken)?;
        let text = text.trim();
        if scheme.eq_ignore_ascii_case("basic") {
            let token = TokenText::of_basic(text).ok_or(IdentityError::BadToken)?;
            return Ok(self.look_up(&token).await?.principal);
        }
        if !scheme.eq_ignore_ascii_case("bearer") {
            return Err(IdentityError::NoToken);
        }
        match (TokenText::parse(text), &self.oidc) {
            (Some(token), _) => Ok(self.look_up(&token).await?.principal),
            (None, Some(oidc)) => {
                let now_s = (self.now)() / 1000;
                oidc.principal(text, now_s).map_err(|cause| {
                    tracing::debug!(error = &cause as &dyn std::error::Error, "a JWT is refused");
                    IdentityError::BadToken
                })
            }
            (None, None) => Err(IdentityError::BadToken),
        }
    }

    /// OAuth's client credentials: an access token for who has this API token. It is recorded as
    /// `entry` says, which need not know whose token it is.
    ///
    /// # Errors
    /// [`IdentityError::BadToken`], [`IdentityError::Unavailable`].
    pub async fn log_in(
        &self,
        client_id: Option<&str>,
        client_secret: &str,
        entry: AuditEntry,
    ) -> Result<IssuedToken, IdentityError> {
        let token =
            TokenText::of_client(client_id, client_secret).ok_or(IdentityError::BadToken)?;
        self.make_access_token(&token, entry).await
    }

    /// OAuth's token exchange: a new access token for who has this token, recorded in the same way.
    ///
    /// # Errors
    /// As [`TokenControl::log_in`].
    pub async fn exchange(
        &self,
        token: &str,
        entry: AuditEntry,
    ) -> Result<IssuedToken, IdentityError> {
        let token = TokenText::parse(token).ok_or(IdentityError::BadToken)?;
        self.make_access_token(&token, entry).await
    }

    async fn make_access_token(
        &self,
        shown: &TokenText,
        entry: AuditEntry,
    ) -> Result<IssuedToken, IdentityError> {
        let known = self.look_up(shown).await?;
        let token = TokenText::mint();
        let created_ms = (self.now)();
        let end_ms = created_ms + millis(ACCESS_TOKEN_TIME);
        let new = NewAccessToken {
            id: token.id.clone(),
            parent: known.token.owner.clone(),
            hash: token.hash(),
            created_ms,
            expires_ms: known.token.owner_expires_ms.map_or(end_ms, |owner| owner.min(end_ms)),
        };
        let (principal, object) = (known.principal.id().to_owned(), token.id.clone());
        let call =
            AuditedCall::new(AuditEntry { principal, object, ..entry }, Arc::clone(&self.now));
        let store = self.store.for_call(&call);
        let added = store.add_access_token(&new).await.map_err(IdentityError::Unavailable)?;
        if !added {
            return Err(IdentityError::BadToken);
        }
        let expires_ms = Some(new.expires_ms);
        Ok(IssuedToken { id: token.id.clone(), text: token.text(), expires_ms })
    }

    /// Revokes an API token and all that was made from it; false when there is none. Here it ends
    /// at once, on other processes within [`REVOCATION_LAG`].
    ///
    /// # Errors
    /// [`CatalogError::Metastore`].
    pub async fn revoke_token(
        &self,
        id: &str,
        call: &Arc<AuditedCall>,
    ) -> Result<bool, CatalogError> {
        let revoked = self.store.for_call(call).revoke_token(id).await;
        let mut known = lock(&self.known);
        self.revocations.fetch_add(1, Ordering::SeqCst);
        known.retain(|_, known| known.token.owner != id);
        drop(known);
        revoked
    }

    /// Where tokens are.
    #[must_use]
    pub fn store(&self) -> &Metastore {
        &self.store
    }

    /// What time it is, ms since 1970.
    #[must_use]
    pub fn now_ms(&self) -> i64 {
        (self.now)()
    }

    async fn tick(&self) -> Result<(), CatalogError> {
        let now_ms = (self.now)();
        self.note_uses(now_ms).await?;
        self.store.forget_ended_tokens(now_ms).await
    }

    async fn look_up(&self, token: &TokenText) -> Result<KnownToken, IdentityError> {
        let held = lock(&self.known).get(&token.id).cloned();
        let known = match held.filter(|known| known.asked_at.elapsed() < REVOCATION_LAG) {
            Some(known) => known,
            None => self.ask(&token.id).await?,
        };
        let now_ms = (self.now)();
        let has_ended = known.token.expires_ms.is_some_and(|end| end <= now_ms);
        if has_ended || !token.has_hash(&known.token.hash) {
            return Err(IdentityError::BadToken);
        }
        let mut uses = lock(&self.uses);
        if uses.len() < KNOWN_MAX || uses.contains_key(&known.token.owner) {
            let owner = known.token.owner.clone();
            uses.entry(owner).or_insert(TokenUse { at_ms: now_ms, noted_ms: None }).at_ms = now_ms;
        }
        Ok(known)
    }

    async fn ask(&self, id: &str) -> Result<KnownToken, IdentityError> {
        // Taken before the question: what is revoked while it is answered is forgotten in time.
        let asked_at = Instant::now();
        let revocations = self.revocations.load(Ordering::SeqCst);
        let found = self.store.find_token(id).await.map_err(IdentityError::Unavailable)?;
        let Some(token) = found else {
            lock(&self.known).remove(id);
            return Err(IdentityError::BadToken);
        };
        let principal = Principal::new(
            &format!("token:{}", token.owner),
            token.scopes.clone(),
            token.home.as_deref(),
        );
        let known = KnownToken { token: Arc::new(token), principal, asked_at };
        let mut all = lock(&self.known);
        if KNOWN_MAX <= all.len() {
            all.retain(|_, known| known.asked_at.elapsed() < REVOCATION_LAG);
        }
        // What was revoked meanwhile is not kept.
        if all.len() < KNOWN_MAX && self.revocations.load(Ordering::SeqCst) == revocations {
            all.insert(id.to_owned(), known.clone());
        }
        Ok(known)
    }

    async fn note_uses(&self, now_ms: i64) -> Result<(), CatalogError> {
        let every = millis(USE_NOTED_EVERY);
        let is_due = |one: &TokenUse| match one.noted_ms {
            None => true,
            Some(noted_ms) => noted_ms < one.at_ms && noted_ms + every <= now_ms,
        };
        let due: Vec<(String, i64)> = lock(&self.uses)
            .iter()
            .filter(|(_, one)| is_due(one))
            .map(|(id, one)| (id.clone(), one.at_ms))
            .collect();
        if due.is_empty() {
            return Ok(());
        }
        self.store.note_token_use(&due).await?;
        let mut uses = lock(&self.uses);
        for (id, at_ms) in due {
            uses.entry(id).and_modify(|one| one.noted_ms = Some(at_ms));
        }
        uses.retain(|_, one| now_ms < one.at_ms + every);
        Ok(())
    }
}

/// Makes an API token in `store`; it works on return.
///
/// # Errors
/// [`CatalogError::Invalid`] for a request that cannot be met; [`CatalogError::Metastore`].
pub async fn make_token(
    store: &Metastore,
    request: TokenRequest,
    now_ms: i64,
) -> Result<IssuedToken, CatalogError> {
    let TokenRequest { name, home, scopes, lifetime } = request;
    let problem =
        if name.is_empty() || NAME_BYTES_MAX < name.len() || name.contains(char::is_control) {
            Some(format!(
                "a token's name must have 1 to {NAME_BYTES_MAX} bytes and no control characters"
            ))
        } else if scopes.is_empty() || SCOPES_MAX < scopes.len() {
            Some(format!("a token must have 1 to {SCOPES_MAX} scopes"))
        } else if lifetime.is_some_and(|lifetime| lifetime.is_zero()) {
            Some("a token's lifetime must be longer than zero".to_owned())
        } else {
            None
        };
    if let Some(problem) = problem {
        return Err(CatalogError::Invalid(problem));
    }
    let token = TokenText::mint();
    let expires_ms = lifetime.map(|lifetime| now_ms.saturating_add(millis(lifetime)));
    let new = NewToken {
        id: token.id.clone(),
        hash: token.hash(),
        name,
        home,
        scopes,
        created_ms: now_ms,
        expires_ms,
    };
    store.add_token(&new).await?;
    Ok(IssuedToken { id: token.id.clone(), text: token.text(), expires_ms })
}

fn millis(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
}

/// Whole entries go in and out of what these locks guard, so a panic elsewhere leaves nothing half
/// done.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
