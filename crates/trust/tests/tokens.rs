//! Tokens, and the tricks that are known to have worked on others: each refused, and for the right reason.

use aws_lc_rs::hmac;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{KeyPair as RsaKeyPair, KeySize};
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair,
    KeyPair as _, RSA_PKCS1_SHA256,
};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use deltaport_trust::tokens::{
    ACCESS_TOKEN_LIFE, Grant, Issuer, JwksError, KEY_LIFE, KeySet, LEEWAY, MAX_ACCESS_TOKEN_LEN,
    MAX_JWKS_KEYS, MAX_RING_KEYS, Ring, Scopes, TokenError, unverified_issuer,
};
use serde_json::{Value, json};

const NOW: u64 = 1_800_000_000;
const SEED: [u8; 32] = [7; 32];
const SERVICE: &str = "registry.example";

fn encode(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

fn ring() -> Ring {
    Ring::default().rotated(SEED, NOW).expect("a ring")
}

fn grant() -> Grant {
    let asked = ["repository:team/app:pull,push repository:a:* registry:catalog:*"];
    Grant { user: Some("anna".into()), scopes: Scopes::requested(asked).expect("scopes") }
}

fn issued() -> String {
    ring().issue(&grant(), SERVICE, NOW).expect("a token")
}

/// A part of a token as JSON.
fn part(token: &str, index: usize) -> Value {
    let part = token.split('.').nth(index).expect("a part");
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).expect("base64url")).expect("JSON")
}

/// A token whose header and claims are these texts, signed by `sign`.
fn token(header: &str, claims: &str, sign: impl Fn(&[u8]) -> Vec<u8>) -> String {
    let input = format!("{}.{}", encode(header), encode(claims));
    format!("{input}.{}", encode(sign(input.as_bytes())))
}

/// Signs as the ring does.
fn ours(message: &[u8]) -> Vec<u8> {
    Ed25519KeyPair::from_seed_unchecked(&SEED).expect("a key").sign(message).as_ref().to_vec()
}

fn verify(token: &str) -> Result<Grant, TokenError> {
    ring().verify(token, SERVICE, NOW)
}

#[test]
fn what_was_issued_is_read_back() {
    let token = issued();
    assert_eq!(verify(&token), Ok(grant()));
    let anonymous = Grant { user: None, scopes: Scopes::default() };
    let token = ring().issue(&anonymous, SERVICE, NOW).expect("a token");
    assert_eq!(verify(&token), Ok(anonymous));
    let restored = Ring::read(&ring().to_bytes()).expect("a ring");
    assert_eq!(restored.verify(&issued(), SERVICE, NOW), Ok(grant()));
    assert_eq!(unverified_issuer(&issued(), 10_000).as_deref(), Some(SERVICE));
}

#[test]
fn a_token_is_for_one_service_and_a_short_time() {
    let token = issued();
    let at = |now| ring().verify(&token, SERVICE, now).err();
    assert_eq!(ring().verify(&token, "another.example", NOW), Err(TokenError::Issuer));
    assert_eq!(at(NOW - LEEWAY), None);
    assert_eq!(at(NOW - LEEWAY - 1), Some(TokenError::NotYet));
    assert_eq!(at(NOW + ACCESS_TOKEN_LIFE + LEEWAY - 1), None);
    assert_eq!(at(NOW + ACCESS_TOKEN_LIFE + LEEWAY), Some(TokenError::Expired));
    assert_eq!(at(u64::MAX), Some(TokenError::Expired));
}

#[test]
fn keys_are_replaced_and_old_ones_stay_until_their_tokens_have_ended() {
    let old = ring();
    assert!(!old.is_due(NOW) && !old.is_due(NOW + KEY_LIFE - 1) && old.is_due(NOW + KEY_LIFE));
    assert!(old.is_due(NOW - LEEWAY - 1), "a key from the future");
    let then = NOW + KEY_LIFE;
    let last = old.issue(&grant(), SERVICE, then - 1).expect("a token");
    let new = old.rotated([8; 32], then).expect("a ring");
    assert_eq!(new.verify(&last, SERVICE, then + ACCESS_TOKEN_LIFE), Ok(grant()));
    assert_ne!(part(&last, 0)["kid"], part(&new.issue(&grant(), SERVICE, then).expect("a token"), 0)["kid"]);
    // An hour later the old key is of no use, and goes when the next one comes.
    let newer = new.rotated([9; 32], then + 3600).expect("a ring");
    assert_eq!(newer.verify(&last, SERVICE, then), Err(TokenError::Key));
    let many = (0..50).fold(old, |ring, n| ring.rotated([n; 32], NOW + u64::from(n)).expect("a ring"));
    let stored: Value = serde_json::from_slice(&many.to_bytes()).expect("JSON");
    assert_eq!(stored["keys"].as_array().expect("keys").len(), MAX_RING_KEYS);
    assert!(Ring::read(&many.to_bytes()).is_ok());
    let twice =
        json!({ "keys": vec![json!({ "seed": STANDARD.encode(SEED), "since": 1 }); MAX_RING_KEYS + 1] });
    for damaged in ["", "{}", r#"{"keys":[{"seed":"AAAA","since":1}]}"#, &twice.to_string()] {
        assert!(Ring::read(damaged.as_bytes()).is_err(), "{damaged}");
    }
    assert_eq!(Ring::default().issue(&grant(), SERVICE, NOW), None);
}

#[test]
fn tricks_with_the_header() {
    let (header, claims) = (part(&issued(), 0), part(&issued(), 1).to_string());
    let kid = header["kid"].as_str().expect("a name").to_owned();
    let with = |name: &str, value: Value| {
        let mut header = header.clone();
        header[name] = value;
        header.to_string()
    };
    assert_eq!(
        verify(&token(&header.to_string(), &claims, ours)),
        Ok(grant()),
        "the test signs as the ring does"
    );

    // Algorithms: none at all, one with a shared secret that is our public key, others.
    for algorithm in ["none", "None", "NONE", "", "HS256", "RS256", "ES256", "eddsa", "Ed25519"] {
        let header = with("alg", algorithm.into());
        for signature in [vec![], ours(b"something else")] {
            assert_eq!(
                verify(&token(&header, &claims, |_| signature.clone())),
                Err(TokenError::Algorithm),
                "{header}"
            );
        }
        assert_eq!(verify(&token(&header, &claims, ours)), Err(TokenError::Algorithm), "{header}");
    }
    let public = Ed25519KeyPair::from_seed_unchecked(&SEED).expect("a key").public_key().as_ref().to_vec();
    let secret = hmac::Key::new(hmac::HMAC_SHA256, &public);
    let shared = token(&with("alg", "HS256".into()), &claims, |message| {
        hmac::sign(&secret, message).as_ref().to_vec()
    });
    assert_eq!(verify(&shared), Err(TokenError::Algorithm));

    // Keys that come along, or are to be fetched.
    let theirs = Ed25519KeyPair::from_seed_unchecked(&[66; 32]).expect("a key");
    let jwk = json!({ "kty": "OKP", "crv": "Ed25519", "x": encode(theirs.public_key()), "kid": kid });
    for (name, value) in [
        ("jwk", jwk),
        ("jku", json!("https://evil.example/keys")),
        ("x5u", json!("https://evil.example/certificate")),
        ("x5c", json!(["AAAA"])),
        ("crit", json!(["exp"])),
        ("b64", json!(false)),
        ("zip", json!("DEF")),
    ] {
        let header = with(name, value);
        assert!(matches!(verify(&token(&header, &claims, ours)), Err(TokenError::Form(_))), "{header}");
        let signed = token(&header, &claims, |message| theirs.sign(message).as_ref().to_vec());
        assert!(matches!(verify(&signed), Err(TokenError::Form(_))), "{header}");
    }
    for name in ["", "another", "../../dev/null", "' OR 1=1 --", "\u{0}", &kid.to_uppercase()] {
        assert_eq!(verify(&token(&with("kid", name.into()), &claims, ours)), Err(TokenError::Key), "{name}");
    }
    let nameless = json!({ "alg": "EdDSA", "typ": "at+jwt" }).to_string();
    assert_eq!(verify(&token(&nameless, &claims, ours)), Err(TokenError::Key));
    for kind in [json!("JWT"), json!("AT+JWT"), json!("")] {
        assert_eq!(verify(&token(&with("typ", kind), &claims, ours)), Err(TokenError::Algorithm));
    }
    let untyped = json!({ "alg": "EdDSA", "kid": kid }).to_string();
    assert_eq!(verify(&token(&untyped, &claims, ours)), Err(TokenError::Algorithm), "another kind of token");
    let stranger = token(&header.to_string(), &claims, |message| theirs.sign(message).as_ref().to_vec());
    assert_eq!(verify(&stranger), Err(TokenError::Signature));
}

#[test]
fn tricks_with_the_claims() {
    let (header, claims) = (part(&issued(), 0).to_string(), part(&issued(), 1));
    let with = |name: &str, value: Value| {
        let mut claims = claims.clone();
        claims[name] = value;
        token(&header, &claims.to_string(), ours)
    };
    let claim = |name: &str| Err(TokenError::Claim(name.to_owned()));
    assert_eq!(verify(&with("iss", "another".into())), Err(TokenError::Issuer));
    assert_eq!(verify(&with("aud", "another".into())), Err(TokenError::Audience));
    assert_eq!(verify(&with("aud", json!([SERVICE]))), claim("aud"), "ours is a text");
    for (name, values) in [
        (
            "exp",
            vec![Value::Null, json!("1900000000"), json!(1.9e9), json!(-1), json!([NOW]), json!(u64::MAX)],
        ),
        ("nbf", vec![Value::Null, json!("0"), json!(-1)]),
        ("sub", vec![Value::Null, json!(7), json!(["anna"])]),
        (
            "access",
            vec![Value::Null, json!("repository:a:pull"), json!([7]), json!([{ "type": "repository" }])],
        ),
        ("access", vec![json!([{ "type": "repository", "name": "a", "actions": ["pull", "admin"] }])]),
        ("access", vec![json!([{ "type": "repository", "name": "A", "actions": ["pull"] }])]),
        ("access", vec![json!([{ "type": "registry", "name": "everything", "actions": ["*"] }])]),
        (
            "access",
            vec![json!([{ "type": "repository", "name": "a:pull,push repository:b", "actions": ["pull"] }])],
        ),
    ] {
        for value in values {
            let result = verify(&with(name, value.clone()));
            // A number as a text is what protobuf writes; ours are numbers.
            assert_eq!(result, claim(name), "{name}: {value}");
        }
    }
    for name in ["iss", "aud", "exp", "nbf", "sub", "access"] {
        let mut claims = claims.clone();
        claims.as_object_mut().expect("claims").remove(name);
        assert_eq!(verify(&token(&header, &claims.to_string(), ours)), claim(name), "without {name}");
    }
    let text = claims.to_string();
    let twice = text.replacen('{', r#"{"sub":"root","#, 1);
    assert!(matches!(verify(&token(&header, &twice, ours)), Err(TokenError::Form(_))), "a claim twice");
    assert!(matches!(verify(&token(&header, &format!("[{text}]"), ours)), Err(TokenError::Form(_))));
    assert!(matches!(verify(&token(&header, &format!("{text}x"), ours)), Err(TokenError::Form(_))));
}

#[test]
fn tricks_with_the_form() {
    let good = issued();
    let parts: Vec<&str> = good.split('.').collect();
    let forged = encode(part(&good, 1).to_string().replace("anna", "root"));
    assert_eq!(verify(&[parts[0], &forged, parts[2]].join(".")), Err(TokenError::Signature));
    assert_eq!(verify(&[parts[0], parts[1], ""].join(".")), Err(TokenError::Signature));
    assert_eq!(verify(&[parts[0], parts[1], &encode([0; 64])].join(".")), Err(TokenError::Signature));
    for bad in [
        String::new(),
        "..".to_owned(),
        parts[..2].join("."),
        format!("{good}."),
        format!("{good}.{}", parts[2]),
        format!("{good}="),
        format!(" {good}"),
        good.replace('.', "\u{ff0e}"),
        STANDARD.encode(&good),
        good.replacen('e', "\n", 1),
    ] {
        assert!(matches!(verify(&bad), Err(TokenError::Form(_))), "{bad}");
    }
    assert_eq!(verify(&"x".repeat(MAX_ACCESS_TOKEN_LEN + 1)), Err(TokenError::TooLong));
    // Every bit of it counts.
    for at in 0..good.len() {
        let mut bytes = good.clone().into_bytes();
        bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
        let changed = String::from_utf8(bytes).expect("ASCII");
        assert!(verify(&changed).is_err(), "byte {at}");
    }
}

/// The modulus and the exponent of a key of 2048 bits, from its DER (RFC 8017, appendix A.1.1): two headers of four bytes, a
/// zero and the modulus; the exponent 65537 is at the end.
fn parts(key: &RsaKeyPair) -> (Vec<u8>, Vec<u8>) {
    let der = key.public_key().as_ref();
    (der[9..9 + 256].to_vec(), der[der.len() - 3..].to_vec())
}

/// An identity provider with a key of each kind.
struct Provider {
    rsa: RsaKeyPair,
    p256: EcdsaKeyPair,
    ed25519: Ed25519KeyPair,
}

const ISSUER: &str = "https://ci.example/realm";

impl Provider {
    fn new() -> Self {
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new())
            .expect("a key");
        Self {
            rsa: RsaKeyPair::generate(KeySize::Rsa2048).expect("a key"),
            p256: EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8.as_ref()).expect("a key"),
            ed25519: Ed25519KeyPair::from_seed_unchecked(&[3; 32]).expect("a key"),
        }
    }

    fn rsa_jwk(&self) -> Value {
        let (n, e) = parts(&self.rsa);
        json!({ "kty": "RSA", "kid": "rsa", "use": "sig", "alg": "RS256", "n": encode(n), "e": encode(e) })
    }

    fn p256_jwk(&self) -> Value {
        let point = self.p256.public_key().as_ref();
        json!({ "kty": "EC", "crv": "P-256", "kid": "p256", "x": encode(&point[1..33]), "y": encode(&point[33..]) })
    }

    fn ed25519_jwk(&self) -> Value {
        json!({ "kty": "OKP", "crv": "Ed25519", "kid": "ed", "x": encode(self.ed25519.public_key()) })
    }

    fn jwks(&self) -> Value {
        let symmetric = json!({ "kty": "oct", "kid": "oct", "k": encode("secret"), "alg": "HS256" });
        json!({ "keys": [symmetric, self.rsa_jwk(), self.p256_jwk(), self.ed25519_jwk()] })
    }

    fn keys(&self) -> KeySet {
        KeySet::read(self.jwks().to_string().as_bytes()).expect("keys")
    }

    fn sign(&self, algorithm: &str, message: &[u8]) -> Vec<u8> {
        let random = SystemRandom::new();
        match algorithm {
            "RS256" => {
                let mut signature = vec![0; self.rsa.public_modulus_len()];
                self.rsa.sign(&RSA_PKCS1_SHA256, &random, message, &mut signature).expect("signed");
                signature
            }
            "ES256" => self.p256.sign(&random, message).expect("signed").as_ref().to_vec(),
            _ => self.ed25519.sign(message).as_ref().to_vec(),
        }
    }

    fn token(&self, algorithm: &str, kid: &str, claims: &Value) -> String {
        let header = json!({ "alg": algorithm, "kid": kid, "typ": "JWT", "x5t": "AAAA" });
        token(&header.to_string(), &claims.to_string(), |message| self.sign(algorithm, message))
    }
}

fn claims() -> Value {
    json!({
        "iss": ISSUER, "aud": "deltaport", "sub": "repo:team/app:ref:refs/heads/main", "repository": "team/app",
        "ref_protected": true, "project": 42, "groups": ["dev", "ops"], "iat": NOW, "exp": NOW + 600,
    })
}

fn issuer(wanted: &[(&str, &[&str])]) -> Issuer {
    let texts = |values: &[&str]| values.iter().map(|value| (*value).to_owned()).collect();
    Issuer {
        issuer: ISSUER.to_owned(),
        audience: "deltaport".to_owned(),
        claims: wanted.iter().map(|(name, values)| ((*name).to_owned(), texts(values))).collect(),
        user: "ci".into(),
    }
}

#[test]
fn jobs_come_with_the_tokens_of_their_system() {
    let provider = Provider::new();
    let (keys, issuer) = (provider.keys(), issuer(&[("repository", &["team/app"])]));
    for (algorithm, kid) in [("RS256", "rsa"), ("ES256", "p256"), ("EdDSA", "ed")] {
        let token = provider.token(algorithm, kid, &claims());
        assert_eq!(issuer.verify(&keys, &token, NOW), Ok("ci".into()), "{algorithm}");
        assert_eq!(issuer.verify(&keys, &token, NOW + 700), Err(TokenError::Expired));
        assert_eq!(issuer.verify(&keys, &token, NOW - 100), Err(TokenError::NotYet));
    }
    let mut list = claims();
    list["aud"] = json!(["another", "deltaport"]);
    assert!(issuer.verify(&keys, &provider.token("EdDSA", "ed", &list), NOW).is_ok());
    assert!(keys.has("rsa") && !keys.has("oct"));
}

#[test]
fn what_claims_have_to_be() {
    let provider = Provider::new();
    let (keys, token) = (provider.keys(), provider.token("EdDSA", "ed", &claims()));
    let fits = |wanted: &[(&str, &[&str])]| issuer(wanted).verify(&keys, &token, NOW).is_ok();
    for wanted in [
        &[][..],
        &[("repository", &["other/app", "team/*"][..])],
        &[("sub", &["repo:team/app:ref:refs/heads/*"])],
        &[("ref_protected", &["true"]), ("project", &["42"])],
        &[("groups", &["ops"])],
        &[("aud", &["deltaport"])],
    ] {
        assert!(fits(wanted), "{wanted:?}");
    }
    for wanted in [
        &[("repository", &["team/ap", "team/app/", "team/appl*", "*/app"][..])][..],
        &[("repository", &["team/app"]), ("environment", &["production"])],
        &[("groups", &["dev,ops", "de"])],
        &[("repository", &[])],
        &[("missing", &["*"])],
        &[("ref_protected", &["1"])],
    ] {
        assert!(!fits(wanted), "{wanted:?}");
    }
}

#[test]
fn tricks_with_the_keys_of_others() {
    let provider = Provider::new();
    let (keys, issuer) = (provider.keys(), issuer(&[]));
    let verify = |token: &str| issuer.verify(&keys, token, NOW).err();
    let sign = |algorithm: &str, kid: &str, by: &str| {
        let header = json!({ "alg": algorithm, "kid": kid }).to_string();
        token(&header, &claims().to_string(), |message| provider.sign(by, message))
    };
    // The algorithm is that of the key, whatever the token says and whoever signed it.
    for (algorithm, kid) in [
        ("ES256", "rsa"),
        ("EdDSA", "rsa"),
        ("RS256", "p256"),
        ("RS256", "ed"),
        ("none", "rsa"),
        ("PS256", "rsa"),
    ] {
        for by in ["RS256", "ES256", "EdDSA"] {
            assert_eq!(
                verify(&sign(algorithm, kid, by)),
                Some(TokenError::Algorithm),
                "{algorithm} {kid} {by}"
            );
        }
    }
    assert_eq!(verify(&sign("RS256", "rsa", "EdDSA")), Some(TokenError::Signature));
    let public = provider.rsa.public_key().as_ref().to_vec();
    for (kid, secret) in [("rsa", public), ("oct", b"secret".to_vec())] {
        let secret = hmac::Key::new(hmac::HMAC_SHA256, &secret);
        let header = json!({ "alg": "HS256", "kid": kid }).to_string();
        let shared =
            token(&header, &claims().to_string(), |message| hmac::sign(&secret, message).as_ref().to_vec());
        assert!(matches!(verify(&shared), Some(TokenError::Algorithm | TokenError::Key)), "{kid}");
    }
    // A signature in the form of certificates is none of tokens.
    let pkcs8 = provider.p256.to_pkcs8v1().expect("a key");
    let der = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, pkcs8.as_ref()).expect("a key");
    let header = json!({ "alg": "ES256", "kid": "p256" }).to_string();
    let asn1 = |message: &[u8]| der.sign(&SystemRandom::new(), message).expect("signed").as_ref().to_vec();
    assert_eq!(verify(&token(&header, &claims().to_string(), asn1)), Some(TokenError::Signature));
    assert_eq!(verify(&sign("EdDSA", "another", "EdDSA")), Some(TokenError::Key));
    let nameless = json!({ "alg": "EdDSA" }).to_string();
    let nameless = token(&nameless, &claims().to_string(), |message| provider.sign("EdDSA", message));
    assert_eq!(verify(&nameless), Some(TokenError::Key), "which of several is not guessed");
    let alone = json!({ "keys": [provider.ed25519_jwk()] }).to_string();
    assert!(issuer.verify(&KeySet::read(alone.as_bytes()).expect("keys"), &nameless, NOW).is_ok());

    for (name, value, error) in [
        ("iss", json!("https://ci.example/realm/"), TokenError::Issuer),
        ("iss", json!("https://ci.example"), TokenError::Issuer),
        ("iss", Value::Null, TokenError::Claim("iss".to_owned())),
        ("aud", json!("deltaport.example"), TokenError::Audience),
        ("aud", json!([]), TokenError::Audience),
        ("aud", Value::Null, TokenError::Audience),
        ("exp", Value::Null, TokenError::Claim("exp".to_owned())),
        ("exp", json!("never"), TokenError::Claim("exp".to_owned())),
        ("nbf", json!(NOW + 3600), TokenError::NotYet),
    ] {
        let mut claims = claims();
        claims[name] = value.clone();
        assert_eq!(verify(&provider.token("EdDSA", "ed", &claims)), Some(error), "{name}: {value}");
    }
    let mut long = claims();
    long["x"] = "x".repeat(20_000).into();
    assert_eq!(verify(&provider.token("EdDSA", "ed", &long)), Some(TokenError::TooLong));
}

#[test]
fn key_sets_that_are_none() {
    let provider = Provider::new();
    let small = RsaKeyPair::generate(KeySize::Rsa2048).expect("a key");
    let (n, e) = parts(&small);
    for key in [
        json!({ "kty": "oct", "k": "AAAA" }),
        json!({ "kty": "EC", "crv": "secp256k1", "x": "AAAA", "y": "AAAA" }),
        json!({ "kty": "EC", "crv": "P-256", "x": "AAAA", "y": "AAAA" }),
        json!({ "kty": "RSA", "n": encode(&n), "e": encode(&e), "use": "enc" }),
        json!({ "kty": "RSA", "n": encode(&n), "e": encode(&e), "alg": "HS256" }),
        json!({ "kty": "RSA", "n": STANDARD.encode(&n), "e": "AQAB=" }),
        json!(7),
    ] {
        let set = json!({ "keys": [key] }).to_string();
        assert_eq!(KeySet::read(set.as_bytes()).err(), Some(JwksError::Nothing), "{set}");
    }
    // A short key is taken for what it is, and verifies nothing.
    let short = json!({ "keys": [{ "kty": "RSA", "kid": "rsa", "n": encode([0xff; 128]), "e": "AQAB" }] })
        .to_string();
    let short = KeySet::read(short.as_bytes()).expect("keys");
    let token = provider.token("RS256", "rsa", &claims());
    assert_eq!(issuer(&[]).verify(&short, &token, NOW), Err(TokenError::Signature));
    // Two keys of one name leave open which is meant.
    let twice = json!({ "keys": [provider.rsa_jwk(), provider.rsa_jwk()] }).to_string();
    assert_eq!(
        issuer(&[]).verify(&KeySet::read(twice.as_bytes()).expect("keys"), &token, NOW),
        Err(TokenError::Key)
    );
    let many = json!({ "keys": vec![provider.ed25519_jwk(); MAX_JWKS_KEYS + 1] }).to_string();
    assert_eq!(KeySet::read(many.as_bytes()).err(), Some(JwksError::TooMany));
    for text in ["", "[]", "{}", r#"{"keys":{}}"#, &format!(r#"{{"keys":[],"x":"{}"}}"#, "x".repeat(300_000))]
    {
        assert!(matches!(KeySet::read(text.as_bytes()), Err(JwksError::Form(_))), "{}", text.len());
    }
}
