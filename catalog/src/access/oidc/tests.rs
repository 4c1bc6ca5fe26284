use super::*;
use ring::{
    hmac,
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair},
};
use serde_json::json;

const NOW_S: i64 = 1_800_000_000;

/// The public half of an RSA key, and a JWT that was signed with the other: `sub` is `ann`, `scope`
/// is `readers`, `exp` is 600 s after [`NOW_S`].
const RSA_N: &str = "rIS2Oqg7xQqTj0B1Sce4g807AXPWLxp41Al-o5xmA0jO0tkRdKBefoBC5AmSgqfIbYHNMz7zPNfn3HSZtEn6\
    DCRsrvQylKRYoCmi10JDIMTRveP2RIOrz7vPuEtWx6J27CoiwVEWIiFx5_cxmX31yxDVIzCaafZcRe5myeE2\
    E9EK9HK8Juy-fcj_lKJkatb95HCsima3hYfJlDd23VO7A6hMVCUQHQbpD7344UIBaKiftM3_8xBFUFD9bqjV\
    jxgGfAacv5I2969ARRdGtfbPjGCUYMkO6krzBOJ0n5V6Fzr6T-AkrTpYJgHBszSZmsZMq5zwII3ZTLrtZWkW\
    ao4VTw";
const RSA_JWT: &str = "eyJhbGciOiJSUzI1NiIsInR5cCI6IkpXVCIsImtpZCI6InJzYSJ9.eyJpc3MiOiJodHRwczovL2lkLmV4YW1\
    wbGUiLCJhdWQiOiJpY2Vjb3JlIiwic3ViIjoiYW5uIiwiZXhwIjoxODAwMDAwNjAwLCJzY29wZSI6InJlYWR\
    lcnMifQ.C7Jw7z3hESmF2_tQt3gPvvXhDeRCbZU7zwopY9l5VypLqf7sd94-pnBQInMazTJgut1rBOeo4uUt\
    KjI5nU9cI3HCLGIkSku-6VF7YOspo3HRJhJgoMKFteZKW_cap2_D0ieYyNvrGQGk6t-m-L0ytaV11wKV8imx\
    ey77dFdcS-b51WYNqZcCPvX5MkVzadJtyMT7I0JbsoMsQxMmtRbAmEVUB-nZJJBu3qIl_2Lvon7diuAIt6o7\
    q-m849aKqyskkWAG83Ktv1qwZ0E2vI9rlbT5wB7V47n3JZWyVy-y0dd9XNTm6wxWYgK5pYyPR6tdwvDCaBlP\
    vXaA3aM0liRjkw";

/// A provider with one key of each kind.
struct Provider {
    p256: EcdsaKeyPair,
    ed25519: Ed25519KeyPair,
}

impl Provider {
    fn new() -> Self {
        let random = SystemRandom::new();
        let way = &ECDSA_P256_SHA256_FIXED_SIGNING;
        let p256 = EcdsaKeyPair::generate_pkcs8(way, &random).unwrap();
        let ed25519 = Ed25519KeyPair::generate_pkcs8(&random).unwrap();
        Self {
            p256: EcdsaKeyPair::from_pkcs8(way, p256.as_ref(), &random).unwrap(),
            ed25519: Ed25519KeyPair::from_pkcs8(ed25519.as_ref()).unwrap(),
        }
    }

    fn jwks(&self) -> Value {
        let point = self.p256.public_key().as_ref();
        let encode = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        json!({"keys": [
            {"kty": "RSA", "kid": "rsa", "use": "sig", "n": RSA_N, "e": "AQAB"},
            {"kty": "EC", "kid": "ec", "crv": "P-256", "alg": "ES256",
             "x": encode(&point[1..33]), "y": encode(&point[33..])},
            {"kty": "OKP", "kid": "ed", "crv": "Ed25519",
             "x": encode(self.ed25519.public_key().as_ref())},
            {"kty": "oct", "kid": "shared", "k": "c2VjcmV0"},
            {"kty": "RSA", "kid": "sealed", "use": "enc", "n": RSA_N, "e": "AQAB"},
        ]})
    }

    fn checks(&self) -> OidcVerifier {
        OidcVerifier::new(self.options()).unwrap()
    }

    fn options(&self) -> OidcOptions {
        OidcOptions {
            issuer: "https://id.example".to_owned(),
            audience: "icecore".to_owned(),
            algorithms: ["RS256", "ES256", "EdDSA"].map(str::to_owned).to_vec(),
            jwks: self.jwks().to_string(),
            principal_claim: "sub".to_owned(),
            scope_claim: "scope".to_owned(),
            grants: parse_grants("readers=read:*; loaders=ingest:shop,read:shop").unwrap(),
        }
    }

    fn sign(&self, header: &Value, claims: &Value) -> String {
        let signed = signed(header, claims);
        let signature = match header["kid"].as_str() {
            Some("ed") => self.ed25519.sign(signed.as_bytes()).as_ref().to_vec(),
            _ => self.p256.sign(&SystemRandom::new(), signed.as_bytes()).unwrap().as_ref().to_vec(),
        };
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
    }
}

fn signed(header: &Value, claims: &Value) -> String {
    let encode = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    format!("{}.{}", encode(header), encode(claims))
}

fn claims() -> Value {
    json!({"iss": "https://id.example", "aud": ["other", "icecore"], "sub": "ann",
           "exp": NOW_S + 600, "scope": "openid loaders"})
}

fn es256() -> Value {
    json!({"alg": "ES256", "kid": "ec"})
}

#[test]
fn each_kind_of_key_serves_its_algorithm() {
    let provider = Provider::new();
    let oidc = provider.checks();
    let ann = oidc.principal(RSA_JWT, NOW_S).unwrap();
    assert_eq!((ann.id(), ann.may_everywhere(crate::access::Action::Read)), ("oidc:ann", true));
    for header in [es256(), json!({"alg": "EdDSA", "kid": "ed"})] {
        let ann = oidc.principal(&provider.sign(&header, &claims()), NOW_S).unwrap();
        let scopes = parse_grants("x=ingest:shop,read:shop").unwrap().remove("x").unwrap();
        assert_eq!(ann, Principal::new("oidc:ann", scopes, None));
    }
}

#[test]
fn nothing_in_a_token_chooses_how_it_is_checked() {
    let provider = Provider::new();
    let oidc = provider.checks();
    let refused = |token: &str| oidc.principal(token, NOW_S).unwrap_err();

    for none in ["none", "None", "NONE", ""] {
        let unsigned = signed(&json!({"alg": none, "kid": "ec"}), &claims());
        assert_eq!(refused(&format!("{unsigned}.")), JwtRefusal::Algorithm);
    }
    // The public key as a shared secret, under each name of the algorithm and each key.
    let public = provider.jwks()["keys"][0]["n"].as_str().unwrap().to_owned();
    for kid in ["rsa", "ec", "shared"] {
        let text = signed(&json!({"alg": "HS256", "kid": kid}), &claims());
        let mac =
            hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, public.as_bytes()), text.as_bytes());
        let token = format!("{text}.{}", URL_SAFE_NO_PAD.encode(mac.as_ref()));
        assert_eq!(refused(&token), JwtRefusal::Algorithm);
    }
    let sign = |header: Value| provider.sign(&header, &claims());
    assert_eq!(refused(&sign(json!({"alg": "ES256", "kid": "rsa"}))), JwtRefusal::Algorithm);
    assert_eq!(refused(&sign(json!({"alg": "RS256", "kid": "ec"}))), JwtRefusal::Algorithm);
    assert_eq!(refused(&sign(json!({"alg": "ES384", "kid": "ec"}))), JwtRefusal::Algorithm);
    for kid in [json!("unknown"), json!("sealed"), json!("shared"), Value::Null] {
        assert_eq!(refused(&sign(json!({"alg": "ES256", "kid": kid}))), JwtRefusal::Key);
    }
    // A key of the token's own, or one that it tells where to fetch, is not looked at.
    let own = Provider::new();
    let jwk = own.jwks()["keys"][1].clone();
    let header = json!({"alg": "ES256", "kid": "ec", "jwk": jwk, "jku": "http://127.0.0.1:1/"});
    assert_eq!(refused(&own.sign(&header, &claims())), JwtRefusal::Signature);
    let critical = json!({"alg": "ES256", "kid": "ec", "crit": ["exp"]});
    assert_eq!(refused(&sign(critical)), JwtRefusal::Form);

    let good = sign(es256());
    let (text, signature) = good.rsplit_once('.').unwrap();
    let other = signed(&es256(), &json!({"sub": "bob"}));
    assert_eq!(refused(&format!("{other}.{signature}")), JwtRefusal::Signature);
    for broken in [text, "", "..", "a.b.c", &format!("{good}="), &good.repeat(100)] {
        assert_eq!(refused(broken), JwtRefusal::Form);
    }
}

#[test]
fn the_claims_must_be_for_us_and_for_now() {
    let provider = Provider::new();
    let oidc = provider.checks();
    let check = |change: Value, expected: Result<(), JwtRefusal>| {
        let mut claims = claims();
        for (name, value) in change.as_object().unwrap() {
            claims[name] = value.clone();
        }
        let answer = oidc.principal(&provider.sign(&es256(), &claims), NOW_S).map(|_| ());
        assert_eq!(answer, expected, "{change}");
    };
    check(json!({}), Ok(()));
    check(json!({"aud": "icecore"}), Ok(()));
    for issuer in [json!("https://id.example/"), Value::Null, json!(["https://id.example"])] {
        check(json!({"iss": issuer}), Err(JwtRefusal::Issuer));
    }
    for audience in [json!("icecore2"), json!([]), Value::Null, json!({"icecore": 1})] {
        check(json!({"aud": audience}), Err(JwtRefusal::Audience));
    }
    check(json!({"exp": NOW_S - 59}), Ok(()));
    for end in [json!(NOW_S - 60), Value::Null, json!("4000000000"), json!([4_000_000_000_i64])] {
        check(json!({"exp": end}), Err(JwtRefusal::Ended));
    }
    check(json!({"nbf": NOW_S + 60}), Ok(()));
    for begin in [json!(NOW_S + 61), json!("1")] {
        check(json!({"nbf": begin}), Err(JwtRefusal::NotYet));
    }
    for name in [Value::Null, json!(""), json!(7), json!("a\nb"), json!("x".repeat(257))] {
        check(json!({"sub": name}), Err(JwtRefusal::Nameless));
    }
}

#[test]
fn a_configuration_of_no_use_is_refused() {
    let provider = Provider::new();
    let check = |change: fn(&mut OidcOptions), expected: &str| {
        let mut options = provider.options();
        change(&mut options);
        assert_eq!(OidcVerifier::new(options).unwrap_err().to_string(), expected);
    };
    let algorithm = "`HS256` must be one of RS256, RS384, RS512, ES256, ES384 and EdDSA";
    check(|options| options.algorithms.push("HS256".to_owned()), algorithm);
    check(|options| options.jwks = "{}".to_owned(), "the keys are not a JWK set");
    let no_key = "the JWK set has no RSA, P-256, P-384 or Ed25519 key for signatures";
    check(|options| options.jwks = r#"{"keys":[{"kty":"oct","k":"AA"}]}"#.to_owned(), no_key);
    check(|options| options.grants.clear(), "no claim grants any scope");
}
