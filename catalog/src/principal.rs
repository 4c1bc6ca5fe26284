//! Who may do what where: actions, scopes, and the principal that holds them. Pure.
//!
//! Its one invariant: a decision depends on names alone, never on what exists, so nobody can tell
//! from a refusal whether the object is there.

use crate::names::Levels;
use std::{fmt, str::FromStr, sync::Arc};

/// Longest text of a scope's namespace, in bytes.
const NAMESPACE_BYTES_MAX: usize = 512;
/// Separates the levels of a namespace in a scope's text.
const LEVEL_SEPARATOR: char = '/';
/// A scope's namespace that stands for all of them.
const EVERYWHERE: &str = "*";

/// Whose rows a reader may see beside public ones, where the service looks at that.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RowVisibility {
    /// Those of one user.
    User,
    /// Those of an organisation.
    Org,
    /// Those of a team.
    Team,
}

impl RowVisibility {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::User, Self::Org, Self::Team];

    /// The value that such rows have.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Org => "org",
            Self::Team => "team",
        }
    }
}

/// What a request does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Action {
    /// Sends rows to the service that the catalog is part of. It includes nothing else: a sender need
    /// not be able to read.
    Ingest,
    /// Lists, loads, queries.
    Read,
    /// The same, and rows of this visibility are among what is read. Includes [`Action::Read`].
    ReadRows(RowVisibility),
    /// Creates, commits, renames, drops. Includes [`Action::Read`].
    Write,
    /// Makes and revokes tokens. Includes every other action.
    Admin,
}

impl Action {
    /// Its name in scopes.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Ingest => "ingest",
            Self::Read => "read",
            Self::ReadRows(RowVisibility::User) => "read.user",
            Self::ReadRows(RowVisibility::Org) => "read.org",
            Self::ReadRows(RowVisibility::Team) => "read.team",
            Self::Write => "write",
            Self::Admin => "admin",
        }
    }

    fn includes(self, other: Self) -> bool {
        match self {
            Self::Admin => true,
            Self::Write => matches!(other, Self::Write | Self::Read),
            Self::ReadRows(_) => self == other || other == Self::Read,
            Self::Read | Self::Ingest => self == other,
        }
    }
}

/// Why a text is no scope.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("scope `{scope}` {problem}")]
pub struct InvalidScope {
    scope: String,
    problem: &'static str,
}

impl FromStr for Action {
    type Err = InvalidScope;

    fn from_str(text: &str) -> Result<Self, InvalidScope> {
        let all = [Self::Ingest, Self::Read, Self::Write, Self::Admin];
        let rows = RowVisibility::ALL.map(Self::ReadRows);
        all.into_iter().chain(rows).find(|action| action.name() == text).ok_or_else(|| {
            InvalidScope {
                scope: text.to_owned(),
                problem: "does not begin with ingest, read, read.user, read.org, read.team, write or admin",
            }
        })
    }
}

/// One action on one namespace and all below it, or on all namespaces.
///
/// Written `read:sales`, `read:sales/2026` (a namespace of two levels) or `read:*`. The name is
/// that of the catalog.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AccessScope {
    /// What is allowed.
    pub action: Action,
    /// Where; empty is everywhere.
    pub namespace: Levels,
}

impl AccessScope {
    /// This action everywhere.
    #[must_use]
    pub fn everywhere(action: Action) -> Self {
        Self { action, namespace: Levels::new() }
    }

    fn covers(&self, action: Action, namespace: &[String]) -> bool {
        self.action.includes(action) && namespace.starts_with(&self.namespace)
    }
}

impl fmt::Display for AccessScope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let levels = self.namespace.join(LEVEL_SEPARATOR.encode_utf8(&mut [0; 4]));
        let namespace = if self.namespace.is_empty() { EVERYWHERE } else { &levels };
        write!(f, "{}:{namespace}", self.action.name())
    }
}

impl FromStr for AccessScope {
    type Err = InvalidScope;

    fn from_str(text: &str) -> Result<Self, InvalidScope> {
        let wrong = |problem| InvalidScope { scope: text.to_owned(), problem };
        let (action, namespace) =
            text.split_once(':').map_or((text, None), |(action, rest)| (action, Some(rest)));
        let action = action.parse().map_err(|InvalidScope { problem, .. }| wrong(problem))?;
        let Some(namespace) = namespace else {
            return Err(wrong("names no namespace: write ACTION:NAMESPACE, or ACTION:* for all"));
        };
        if namespace == EVERYWHERE {
            return Ok(Self::everywhere(action));
        }
        // A dot would be read as one name by those who think of events, as two levels by those
        // who think of tables.
        if namespace.contains('.') {
            return Err(wrong(
                "has a dot: write the catalog's name (`shop_example` for `shop.example`), and `/` between levels",
            ));
        }
        let odd = |c: char| c.is_control() || c.is_whitespace() || matches!(c, ',' | ':' | '*');
        let levels: Levels = namespace.split(LEVEL_SEPARATOR).map(str::to_owned).collect();
        if namespace.contains(odd)
            || levels.iter().any(String::is_empty)
            || NAMESPACE_BYTES_MAX < namespace.len()
        {
            return Err(wrong("has no valid namespace after the colon"));
        }
        Ok(Self { action, namespace: levels })
    }
}

/// Whoever sent a request, and what they may do. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Principal {
    id: Arc<str>,
    scopes: Arc<[AccessScope]>,
    home: Option<Arc<str>>,
}

impl Principal {
    /// A principal with these scopes. `home` is where its events go that name no namespace.
    #[must_use]
    pub fn new(id: &str, scopes: Vec<AccessScope>, home: Option<&str>) -> Self {
        Self { id: id.into(), scopes: scopes.into(), home: home.map(Into::into) }
    }

    /// Whoever calls while access control is off: may do everything.
    #[must_use]
    pub fn anonymous() -> Self {
        Self::new("anonymous", vec![AccessScope::everywhere(Action::Admin)], None)
    }

    /// Who it is in the audit log and in events about changes: `token:…`, `oidc:…` or `anonymous`.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Where events go that name no namespace, as their sender writes it: what the token says,
    /// else the only namespace it may send events to.
    #[must_use]
    pub fn home(&self) -> Option<&str> {
        if let Some(home) = &self.home {
            return Some(home);
        }
        let mut targets = self.scopes.iter().filter(|scope| scope.action.includes(Action::Ingest));
        match (targets.next(), targets.next()) {
            (Some(AccessScope { namespace, .. }), None) if namespace.len() == 1 => {
                Some(&namespace[0])
            }
            _ => None,
        }
    }

    /// Whether it may do this in that namespace.
    #[must_use]
    pub fn may(&self, action: Action, namespace: &[String]) -> bool {
        self.scopes.iter().any(|scope| scope.covers(action, namespace))
    }

    /// Whether it may do this in every namespace.
    #[must_use]
    pub fn may_everywhere(&self, action: Action) -> bool {
        self.may(action, &[])
    }

    /// The namespaces in which, and below which, it may do this; the empty one is all of them.
    pub fn namespaces(&self, action: Action) -> impl Iterator<Item = &Levels> {
        let scopes = self.scopes.iter().filter(move |scope| scope.action.includes(action));
        scopes.map(|scope| &scope.namespace)
    }

    /// Whether it may do this in any namespace.
    #[must_use]
    pub fn may_somewhere(&self, action: Action) -> bool {
        self.scopes.iter().any(|scope| scope.action.includes(action))
    }

    /// Whether a list of namespaces shows it that one: it may read it, or something below it.
    #[must_use]
    pub fn sees(&self, namespace: &[String]) -> bool {
        let leads_to = |scope: &AccessScope| {
            scope.action.includes(Action::Read) && scope.namespace.starts_with(namespace)
        };
        self.may(Action::Read, namespace) || self.scopes.iter().any(leads_to)
    }

    /// Whether it may give and take all of these scopes: it has `admin` wherever they reach.
    #[must_use]
    pub fn governs(&self, scopes: &[AccessScope]) -> bool {
        let governed = |scope: &AccessScope| self.may(Action::Admin, &scope.namespace);
        // Whoever governs everything also governs tokens that lost their last scope.
        self.may_everywhere(Action::Admin) || !scopes.is_empty() && scopes.iter().all(governed)
    }
}
