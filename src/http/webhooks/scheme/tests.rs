use super::*;
use axum::http::{HeaderName, HeaderValue};

fn headers(list: &[(&str, &str)]) -> HeaderMap {
    let parse = |(name, value): &(&str, &str)| {
        (name.parse::<HeaderName>().unwrap(), HeaderValue::from_str(value).unwrap())
    };
    list.iter().map(parse).collect()
}

/// A delivery as its provider documents it.
struct Example {
    scheme: SignatureScheme,
    secret: &'static str,
    headers: &'static [(&'static str, &'static str)],
    body: &'static str,
    now_ms: i64,
}

const EXAMPLES: &[Example] = &[
    // GitHub, "Validating webhook deliveries", "Testing the webhook payload validation".
    Example {
        scheme: SignatureScheme::GitHub,
        secret: "It's a Secret to Everybody",
        headers: &[(
            "x-hub-signature-256",
            "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17",
        )],
        body: "Hello, World!",
        now_ms: 0,
    },
    // Slack, "Verifying requests from Slack".
    Example {
        scheme: SignatureScheme::Slack,
        secret: "8f742231b10e8888abcd99yyyzzz85a5",
        headers: &[
            ("x-slack-request-timestamp", "1531420618"),
            (
                "x-slack-signature",
                "v0=a2114d57b48eac39b9ad189dd8316235a7b4a8d21a10bd27519666489c69b503",
            ),
        ],
        body: "token=xyzz0WbapA4vBCDEFasx0q6G&team_id=T1DC2JH3J&team_domain=testteamnow&channel_id=G8PSS9T3V&channel_name=foobar&user_id=U2CERLKJA&user_name=roadrunner&command=%2Fwebhook-collect&text=&response_url=https%3A%2F%2Fhooks.slack.com%2Fcommands%2FT1DC2JH3J%2F397700885554%2F96rGlfmibIGlgcZRskXaIFfN&trigger_id=398738663015.47445629121.803a0bc887a14d10d2c447fce8b6703c",
        now_ms: 1_531_420_618_000,
    },
    // Svix, "Verifying payloads", with its own headers.
    Example {
        scheme: SignatureScheme::Standard,
        secret: "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
        headers: &[
            ("svix-id", "msg_p5jXN8AQM9LWM0D4loKWxJek"),
            ("svix-timestamp", "1614265330"),
            ("svix-signature", "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="),
        ],
        body: r#"{"test": 2432232314}"#,
        now_ms: 1_614_265_330_000,
    },
    // The same as Standard Webhooks has it, between signatures of other keys and kinds.
    Example {
        scheme: SignatureScheme::Standard,
        secret: "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
        headers: &[
            ("webhook-id", "msg_p5jXN8AQM9LWM0D4loKWxJek"),
            ("webhook-timestamp", "1614265330"),
            (
                "webhook-signature",
                "v1,AAAA v1a,bm8= v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE= v2,bm8=",
            ),
        ],
        body: r#"{"test": 2432232314}"#,
        now_ms: 1_614_265_330_000,
    },
];

#[test]
fn the_documented_examples_are_believed_and_nothing_else() {
    for example in EXAMPLES {
        let Example { scheme, secret, body, now_ms, .. } = example;
        let headers = headers(example.headers);
        let check = |headers: &HeaderMap, body: &str, secrets: &[&str], now_ms: i64| {
            let secrets = secrets.iter().copied();
            scheme.verify(headers, body.as_bytes(), secrets, now_ms).map(drop)
        };
        assert_eq!(check(&headers, body, &[secret], *now_ms), Ok(()), "{scheme:?}");
        // Two are valid while one replaces the other.
        for pair in [["another", *secret], [*secret, "another"]] {
            assert_eq!(check(&headers, body, &pair, *now_ms), Ok(()), "{scheme:?}");
        }
        let wrong = Err(SignatureFault::WrongSignature);
        assert_eq!(check(&headers, body, &["another"], *now_ms), wrong, "{scheme:?}");
        assert_eq!(check(&headers, &format!("{body} "), &[secret], *now_ms), wrong, "{scheme:?}");
        assert_eq!(check(&headers, "", &[secret], *now_ms), wrong, "{scheme:?}");
        assert_eq!(
            check(&HeaderMap::new(), body, &[secret], *now_ms),
            Err(SignatureFault::NoSignature)
        );
        if scheme.has_signed_time() {
            for (ms, expected) in [
                (TIME_MAX_MS, Ok(())),
                (-TIME_MAX_MS, Ok(())),
                (TIME_MAX_MS + 1, Err(SignatureFault::WrongTime)),
                (-TIME_MAX_MS - 1, Err(SignatureFault::WrongTime)),
            ] {
                assert_eq!(check(&headers, body, &[secret], now_ms + ms), expected, "{scheme:?}");
            }
        }
    }
}

/// Signs as the provider would, with code of its own.
fn sign(secret: &[u8], text: &str) -> ring::hmac::Tag {
    ring::hmac::sign(&Key::new(HMAC_SHA256, secret), text.as_bytes())
}

fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn providers_without_a_documented_example_are_believed_as_they_describe_it() {
    let body = r#"{"id":"evt_1","type":"invoice.paid","webhookTimestamp":1700000000000}"#;
    let now_ms = 1_700_000_000_000;
    let right = to_hex(sign(b"s", &format!("1700000000.{body}")).as_ref());
    let right_ms = to_hex(sign(b"s", &format!("1700000000000.{body}")).as_ref());
    let plain = to_hex(sign(b"s", body).as_ref());
    let base64 = STANDARD.encode(sign(b"s", body));
    let zero = "00".repeat(32);
    for (scheme, name, value) in [
        (SignatureScheme::Stripe, "stripe-signature", format!("t=1700000000,v1={right},v0={zero}")),
        (
            SignatureScheme::Stripe,
            "stripe-signature",
            format!("t=1700000000, v1={zero}, v1={right}"),
        ),
        (SignatureScheme::WorkOs, "workos-signature", format!("t=1700000000000, v1={right_ms}")),
        (SignatureScheme::Shopify, "x-shopify-hmac-sha256", base64.clone()),
        (SignatureScheme::Linear, "linear-signature", plain.clone()),
        (SignatureScheme::Generic, "x-signature", plain.clone()),
        (SignatureScheme::Generic, "x-signature", plain.to_ascii_uppercase()),
        (SignatureScheme::Generic, "x-webhook-signature", format!("sha256={plain}")),
        (SignatureScheme::Generic, "x-hub-signature-256", format!("sha256={base64}")),
    ] {
        let headers = headers(&[(name, &value)]);
        let check =
            |now_ms| scheme.verify(&headers, body.as_bytes(), ["s"].into_iter(), now_ms).map(drop);
        assert_eq!(check(now_ms), Ok(()), "{scheme:?} {value}");
        let late = check(now_ms + TIME_MAX_MS + 1);
        let is_timed = scheme.has_signed_time() || scheme == SignatureScheme::Linear;
        assert_eq!(late.is_err(), is_timed, "{scheme:?}");
    }
    for (scheme, name, value) in [
        (SignatureScheme::Stripe, "stripe-signature", format!("v1={right}")),
        (SignatureScheme::Stripe, "stripe-signature", "t=1700000000".to_owned()),
        (SignatureScheme::Stripe, "stripe-signature", format!("t=99999999999999999999,v1={right}")),
        (SignatureScheme::Stripe, "stripe-signature", String::new()),
        (SignatureScheme::WorkOs, "workos-signature", format!("t=1700000000,v1={right}")),
        (SignatureScheme::GitHub, "x-hub-signature-256", plain.clone()),
        (SignatureScheme::GitHub, "x-hub-signature-256", "sha256=xyz".to_owned()),
        (SignatureScheme::Shopify, "x-shopify-hmac-sha256", plain.clone()),
        (SignatureScheme::Linear, "linear-signature", "zz".to_owned()),
    ] {
        let headers = headers(&[(name, &value)]);
        let refused = scheme.verify(&headers, body.as_bytes(), ["s"].into_iter(), now_ms);
        assert!(refused.is_err(), "{scheme:?} {value}");
    }
    // Linear's time is in the body, and signed with it.
    for body in ["{}", "[]", "no", r#"{"webhookTimestamp":"1700000000000"}"#] {
        let plain = to_hex(sign(b"s", body).as_ref());
        let headers = headers(&[("linear-signature", &plain)]);
        let refused =
            SignatureScheme::Linear.verify(&headers, body.as_bytes(), ["s"].into_iter(), now_ms);
        assert_eq!(refused, Err(SignatureFault::WrongTime), "{body}");
    }
}

fn told(
    scheme: SignatureScheme,
    list: &[(&str, &str)],
    body: &str,
) -> (Option<String>, Option<String>) {
    let told = scheme.read(&headers(list), body.as_bytes());
    (told.id, told.event)
}

fn some(id: &str, event: &str) -> (Option<String>, Option<String>) {
    (Some(id.to_owned()), Some(event.to_owned()))
}

#[test]
fn each_provider_says_which_delivery_and_event_it_is() {
    let github = [("x-github-delivery", "72d3162e"), ("x-github-event", "pull_request")];
    assert_eq!(told(SignatureScheme::GitHub, &github, "{}"), some("72d3162e", "pull_request"));
    let stripe = r#"{"id":"evt_1","type":"invoice.paid"}"#;
    assert_eq!(told(SignatureScheme::Stripe, &[], stripe), some("evt_1", "invoice.paid"));
    let slack = r#"{"type":"event_callback","event_id":"Ev9","event":{"type":"app_mention"}}"#;
    assert_eq!(told(SignatureScheme::Slack, &[], slack), some("Ev9", "app_mention"));
    let form = [("content-type", "application/x-www-form-urlencoded")];
    let command = "command=%2Fdeploy&text=now";
    assert_eq!(told(SignatureScheme::Slack, &form, command), (None, Some("/deploy".to_owned())));
    let action = "payload=%7B%22type%22%3A%22block_actions%22%7D";
    assert_eq!(
        told(SignatureScheme::Slack, &form, action),
        (None, Some("block_actions".to_owned()))
    );
    let data = SignatureScheme::GitHub.read(&headers(&form), b"payload=%7B%22a%22%3A1%7D").data;
    assert_eq!(data.as_deref(), Some(r#"{"a":1}"#));
    let standard = r#"{"type":"user.created"}"#;
    let svix = [("svix-id", "m2"), ("svix-timestamp", "1"), ("svix-signature", "v1,bm8=")];
    let both = [
        ("webhook-id", "m1"),
        ("webhook-timestamp", "1"),
        ("webhook-signature", "v1,bm8="),
        ("svix-id", "m2"),
    ];
    assert_eq!(told(SignatureScheme::Standard, &both, standard), some("m1", "user.created"));
    assert_eq!(told(SignatureScheme::Standard, &svix, standard), some("m2", "user.created"));
    // An id beside the signed headers is anybody's.
    let forged = [svix[0], svix[1], svix[2], ("webhook-id", "other")];
    assert_eq!(told(SignatureScheme::Standard, &forged, standard), some("m2", "user.created"));
    let shopify = [
        ("x-shopify-topic", "orders/create"),
        ("x-shopify-webhook-id", "w1"),
        ("x-shopify-event-id", "e1"),
    ];
    assert_eq!(told(SignatureScheme::Shopify, &shopify, "{}"), some("w1", "orders/create"));
    let event = [shopify[0], shopify[2]];
    assert_eq!(
        told(SignatureScheme::Shopify, &event, "{}"),
        some("e1:orders/create", "orders/create")
    );
    let linear = [("linear-delivery", "d1"), ("linear-event", "Issue")];
    assert_eq!(told(SignatureScheme::Linear, &linear, "{}"), some("d1", "Issue"));
    let workos = r#"{"id":"event_1","event":"dsync.user.created"}"#;
    assert_eq!(told(SignatureScheme::WorkOs, &[], workos), some("event_1", "dsync.user.created"));
    let generic = [("x-webhook-id", "g1"), ("x-event-type", "done")];
    assert_eq!(told(SignatureScheme::Generic, &generic, "no json"), some("g1", "done"));
    assert_eq!(told(SignatureScheme::Generic, &[], "no json"), (None, None));
    let hello = r#"{"type":"url_verification","challenge":"3eZ"}"#;
    assert_eq!(
        SignatureScheme::Slack.read(&HeaderMap::new(), hello.as_bytes()).challenge.as_deref(),
        Some("3eZ")
    );
    assert_eq!(SignatureScheme::Generic.read(&HeaderMap::new(), hello.as_bytes()).challenge, None);
}

#[test]
fn nobody_signs_with_a_secret_that_has_no_key() {
    let signature = format!("v1,{}", STANDARD.encode(sign(b"", "m.0.{}")));
    let headers = headers(&[
        ("webhook-id", "m"),
        ("webhook-timestamp", "0"),
        ("webhook-signature", signature.as_str()),
    ]);
    let zeros = STANDARD.encode([0_u8; 32]);
    for secret in ["whsec_", "AAAA", "whsec_AAAA", &zeros, &format!("whsec_{zeros}"), "\0"] {
        let found = SignatureScheme::Standard.verify(&headers, b"{}", std::iter::once(secret), 0);
        assert_eq!(found.map(drop), Err(SignatureFault::WrongSignature), "{secret:?}");
    }
}

#[test]
fn a_secret_without_the_mark_is_believed_as_base64_and_as_it_stands() {
    let (secret, short) = ("hunter2hunter2hunter2abc", "hunter2hunter2ab");
    let decoded = |secret: &str| STANDARD.decode(secret).unwrap();
    let wrong = Err(SignatureFault::WrongSignature);
    for (secret, key, expected) in [
        (secret, secret.as_bytes(), Ok(())),
        (secret, &decoded(secret), Ok(())),
        (secret, b"another", wrong),
        // Of fewer than 16 bytes, a key is a word that happens to be base64.
        (short, short.as_bytes(), Ok(())),
        (short, &decoded(short), wrong),
    ] {
        let signature = format!("v1,{}", STANDARD.encode(sign(key, "m.0.{}")));
        let headers = headers(&[
            ("webhook-id", "m"),
            ("webhook-timestamp", "0"),
            ("webhook-signature", signature.as_str()),
        ]);
        let found = SignatureScheme::Standard.verify(&headers, b"{}", std::iter::once(secret), 0);
        assert_eq!(found.map(drop), expected);
    }
}

#[test]
fn a_scheme_is_stored_under_a_name_that_finds_it() {
    for (name, scheme) in NAMES {
        assert_eq!(SignatureScheme::named(name), Some(*scheme));
        assert_eq!(SignatureScheme::named(scheme.name()), Some(*scheme));
    }
    assert_eq!(SignatureScheme::of("acme"), SignatureScheme::Generic);
    for refused in ["", "whsec_!", "whsec_", "whsec_YQ=="] {
        assert!(SignatureScheme::Standard.check_secret(refused).is_err(), "{refused}");
    }
    for taken in
        ["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "plain-text", "YQ==", "hunter2hunter2ab"]
    {
        assert_eq!(SignatureScheme::Standard.check_secret(taken), Ok(()), "{taken}");
    }
    assert!(SignatureScheme::GitHub.check_secret("whsec_!").is_ok());
}
