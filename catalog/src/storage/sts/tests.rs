use super::*;
use axum::{Router, extract::State, http::HeaderMap, routing::post};
use std::sync::Arc;
use tokio::task::JoinSet;

#[test]
fn a_policy_opens_one_prefix_whatever_its_name() {
    let (store, role) = (elsewhere(), role("arn:aws:iam::1:role/x"));
    for (name, escaped) in [
        ("a/t", "a/t"),
        ("a/*", "a/${*}"),
        ("a/${aws:username}", "a/${$}{aws:username}"),
        ("a/\"], \"Resource\": [\"x", "a/\"], \"Resource\": [\"x"),
        ("a/t%2F*", "a/t%2F${*}"),
        ("ü'x", "ü'x"),
    ] {
        let own = Location::parse(&format!("s3://bucket/{name}")).unwrap();
        // Through its text, as the token service reads it.
        let policy: Value = serde_json::from_str(
            &policy(&store, &role, "bucket", &own, FileScope::Write).to_string(),
        )
        .unwrap();
        let statements = policy["Statement"].as_array().unwrap();
        assert_eq!(statements.len(), 2);
        assert_eq!(statements[0]["Resource"], json!([format!("arn:aws:s3:::bucket/{escaped}/*")]));
        assert_eq!(statements[1]["Resource"], json!(["arn:aws:s3:::bucket"]));
        assert_eq!(statements[1]["Action"], json!(["s3:ListBucket"]));
        assert_eq!(
            statements[1]["Condition"],
            json!({"StringLike": {"s3:prefix": [format!("{escaped}/*")]}})
        );
    }
    let own = Location::parse("s3://bucket/t").unwrap();
    let read = policy(&store, &role, "bucket", &own, FileScope::Read);
    assert_eq!(read["Statement"][0]["Action"], json!(["s3:GetObject"]));
}

#[test]
fn a_policy_is_for_the_partition_of_the_role() {
    let own = Location::parse("s3://bucket/t").unwrap();
    for (arn, partition) in [
        ("arn:aws:iam::1:role/x", "aws"),
        ("arn:aws-cn:iam::1:role/x", "aws-cn"),
        ("arn:aws-us-gov:iam::1:role/x", "aws-us-gov"),
        ("arn::iam::1:role/x", "aws"),
        ("writer", "aws"),
    ] {
        let policy = policy(&elsewhere(), &role(arn), "bucket", &own, FileScope::Write);
        let statements = &policy["Statement"];
        assert_eq!(statements[0]["Resource"], json!([format!("arn:{partition}:s3:::bucket/t/*")]));
        assert_eq!(statements[1]["Resource"], json!([format!("arn:{partition}:s3:::bucket")]));
    }
}

#[test]
fn keys_of_kms_are_used_on_aws_and_through_s3_only() {
    let own = Location::parse("s3://bucket/t").unwrap();
    let role = role("arn:aws:iam::1:role/x");
    let on_aws = policy(&S3Options::default(), &role, "bucket", &own, FileScope::Read);
    assert_eq!(
        on_aws["Statement"][2],
        json!({
            "Effect": "Allow",
            "Action": ["kms:Decrypt", "kms:GenerateDataKey"],
            "Resource": ["*"],
            "Condition": {"StringLike": {"kms:ViaService": ["s3.*"]}},
        })
    );
    let elsewhere = policy(&elsewhere(), &role, "bucket", &own, FileScope::Read);
    assert_eq!(elsewhere["Statement"].as_array().unwrap().len(), 2);
}

/// A store that is not AWS.
fn elsewhere() -> S3Options {
    S3Options { endpoint: Some("http://127.0.0.1:8333".to_owned()), ..S3Options::default() }
}

fn role(arn: &str) -> AssumedRole {
    AssumedRole { arn: arn.to_owned(), endpoint: None, lifetime: Duration::from_secs(900) }
}

/// A token service that counts and keeps what it is asked.
type Asked = Arc<Mutex<Vec<(HeaderMap, String)>>>;

async fn token_service(answer: &'static str) -> (String, Asked, JoinSet<std::io::Result<()>>) {
    let asked = Asked::default();
    let answer = move |State(asked): State<Asked>, headers: HeaderMap, body: String| async move {
        let mut asked = asked.lock().unwrap();
        asked.push((headers, body));
        answer.replace("{n}", &asked.len().to_string())
    };
    let router = Router::new().route("/", post(answer)).with_state(Arc::clone(&asked));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let mut server = JoinSet::new();
    server.spawn(async move { axum::serve(listener, router).await });
    (address, asked, server)
}

fn options() -> S3Options {
    S3Options {
        access_key_id: Some("id".to_owned()),
        secret_access_key: Some("secret".to_owned()),
        ..S3Options::default()
    }
}

#[tokio::test]
async fn a_roles_keys_are_asked_for_once_per_table_and_scope() {
    let answer = "<AssumeRoleResponse><AssumeRoleResult><Credentials><AccessKeyId>k{n}</AccessKeyId>\
        <SecretAccessKey>s{n}</SecretAccessKey><SessionToken>t{n}</SessionToken></Credentials>\
        </AssumeRoleResult></AssumeRoleResponse>";
    let (address, asked, _server) = token_service(answer).await;
    let role = AssumedRole {
        arn: "arn:aws:iam::1:role/x&y".to_owned(),
        endpoint: Some(address),
        lifetime: Duration::from_secs(900),
    };
    let sessions = KeyCache::default();
    let at = |name: &str| Location::parse(&format!("s3://bucket/{name}")).unwrap();
    let keys = async |name: &str, scope| {
        sessions.keys(&options(), &role, "bucket", &at(name), scope).await.unwrap().id.unwrap()
    };
    assert_eq!(keys("a", FileScope::Write).await, "k1");
    assert_eq!(keys("a", FileScope::Write).await, "k1");
    assert_eq!(keys("a", FileScope::Read).await, "k2");
    assert_eq!(keys("b", FileScope::Write).await, "k3");
    let asked = asked.lock().unwrap();
    let (headers, body) = &asked[0];
    let authorization = headers["authorization"].to_str().unwrap();
    assert!(authorization.contains("/us-east-1/sts/aws4_request"), "{authorization}");
    let form: HashMap<_, _> = url::form_urlencoded::parse(body.as_bytes()).into_owned().collect();
    assert_eq!(form["RoleArn"], role.arn);
    assert_eq!(form["DurationSeconds"], "900");
    let sent: Value = serde_json::from_str(&form["Policy"]).unwrap();
    assert_eq!(sent, policy(&options(), &role, "bucket", &at("a"), FileScope::Write));
}

#[tokio::test]
async fn a_token_service_that_gives_no_keys_is_an_error_that_may_pass() {
    let (address, _, _server) = token_service("<Error><Code>AccessDenied</Code></Error>").await;
    let role = AssumedRole {
        arn: "r".to_owned(),
        endpoint: Some(address),
        lifetime: Duration::from_secs(900),
    };
    let own = Location::parse("s3://bucket/a").unwrap();
    let refused =
        KeyCache::default().keys(&options(), &role, "bucket", &own, FileScope::Read).await;
    let Err(CatalogError::Storage { source, .. }) = refused else { panic!("keys from nowhere") };
    assert!(source.to_string().contains("AccessDenied"), "{source}");
}
