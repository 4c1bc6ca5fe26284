//! Which names say that a value is a credential.

/// Parts of a header's name that make its value one.
const HEADER_PARTS: [&str; 10] = [
    "auth",
    "cookie",
    "key",
    "secret",
    "token",
    "passw",
    "credential",
    "signature",
    "session",
    "assertion",
];

/// Names of members that are credentials wherever they stand, in lower case without separators.
const MEMBERS: [&str; 46] = [
    "authorization",
    "proxyauthorization",
    "cookie",
    "cookies",
    "setcookie",
    "setcookies",
    "setcookie2",
    "apikey",
    "apitoken",
    "apisecret",
    "xapikey",
    "xapitoken",
    "xauthtoken",
    "xauthkey",
    "xaccesstoken",
    "xcsrftoken",
    "xxsrftoken",
    "xamzsecuritytoken",
    "xamzsignature",
    "xgoogapikey",
    "xgoogsignature",
    "cfaccessclientsecret",
    "cfaccessjwtassertion",
    "cfaccesstoken",
    "cfauthorization",
    "authtoken",
    "accesstoken",
    "refreshtoken",
    "idtoken",
    "clientsecret",
    "password",
    "passwd",
    "privatekey",
    "bearertoken",
    "token",
    "pwd",
    "pass",
    "jwt",
    "secret",
    "secretkey",
    "secretaccesskey",
    "awssecretaccesskey",
    "awssessiontoken",
    "credentials",
    "passphrase",
    "sessiontoken",
];

/// Query parameters that are credentials, in lower case without separators.
const PARAMETERS: [&str; 28] = [
    "token",
    "auth",
    "authorization",
    "apikey",
    "key",
    "secret",
    "signature",
    "sig",
    "hmac",
    "password",
    "passwd",
    "pwd",
    "pass",
    "passphrase",
    "code",
    "otp",
    "jwt",
    "ticket",
    "session",
    "sessionid",
    "sid",
    "credential",
    "credentials",
    "assertion",
    "samlresponse",
    "privatekey",
    "accesskey",
    "xamzcredential",
];
/// Ends of further parameters' names.
const PARAMETER_ENDS: [&str; 8] = [
    "token",
    "secret",
    "signature",
    "password",
    "apikey",
    "credential",
    "subscriptionkey",
    "authkey",
];

/// Longest name that is looked at.
pub(super) const NAME_BYTES_MAX: usize = 128;

pub(super) fn is_secret_header(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    // The host of HTTP/2, which has `auth` in its name.
    let is_host = name.trim_start_matches(':') == "authority";
    !is_host && name.len() <= NAME_BYTES_MAX && HEADER_PARTS.iter().any(|part| name.contains(part))
}

pub(super) fn is_secret_member(name: &str) -> bool {
    name.len() <= NAME_BYTES_MAX && MEMBERS.contains(&letters(name).as_str())
}

/// Whether a credential's name is that of a count as well, as tests have it: `pass=12 fail=3`.
pub(super) fn is_count(name: &str) -> bool {
    letters(name) == "pass"
}

/// Whether a name before a colon in a text is that of a header with a credential.
pub(super) fn is_secret_line(name: &str) -> bool {
    let headers = ["authorization", "proxyauthorization", "cookie", "setcookie", "xapikey"];
    headers.contains(&letters(name).as_str())
}

pub(super) fn is_secret_parameter(name: &str) -> bool {
    let name = letters(name);
    PARAMETERS.contains(&name.as_str()) || PARAMETER_ENDS.iter().any(|end| name.ends_with(end))
}

/// What the members of a member with this name are.
pub(super) fn meaning(name: &str) -> NameMeaning {
    let name = letters(name);
    if name.ends_with("headers") || name == "headerlist" {
        NameMeaning::Headers
    } else if ["query", "params", "parameters", "searchparams", "queryparams", "queryparameters"]
        .contains(&name.as_str())
        || name.ends_with("querystring")
    {
        NameMeaning::Parameters
    } else {
        NameMeaning::Other
    }
}

/// What names inside a value mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NameMeaning {
    Headers,
    Parameters,
    Other,
}

impl NameMeaning {
    /// Whether a value of this name is a credential.
    pub(super) fn is_secret(self, name: &str) -> bool {
        match self {
            Self::Headers => is_secret_header(name),
            Self::Parameters => is_secret_parameter(name) || is_secret_member(name),
            Self::Other => is_secret_member(name),
        }
    }
}

/// Lower case, without what separates words.
fn letters(name: &str) -> String {
    let kept = name.chars().filter(|c| !matches!(c, '-' | '_' | '.' | ' ' | '[' | ']'));
    kept.map(|c| c.to_ascii_lowercase()).collect()
}
