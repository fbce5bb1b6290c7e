//! Payloads and signatures with one thing wrong with them: each is refused, for that reason and no other. Everything else about
//! them is right, and the same without the change is accepted, so that no row passes by accident.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use deltaport_oci::Digest;
use deltaport_trust::signatures::{
    BundleError, Document, DocumentError, JsonError, MAX_PAYLOAD_LEN, PayloadError, Policy, Reason, layers,
};
use serde_json::{Value, json};

use super::support::*;

const SIMPLE: &str = "application/vnd.dev.cosign.simplesigning.v1+json";

/// Checks a table: a name, what was signed, and why it is refused.
#[track_caller]
pub(crate) fn check(policy: &Policy, rows: Vec<(&str, Document, Reason)>) {
    for (name, document, expected) in rows {
        let found = reason(judge(policy, NAME, image_digest(), &[document]));
        assert_eq!(found, expected, "{name}");
    }
}

pub(crate) fn json_payload(error: JsonError) -> Reason {
    Reason::Payload(PayloadError::Json(error))
}

pub(crate) fn json_bundle(error: JsonError) -> Reason {
    Reason::Bundle(BundleError::Json(error))
}

pub(crate) fn unknown(key: &str) -> JsonError {
    JsonError::Unknown(key.into())
}

/// A payload that is right but for one change of its JSON.
fn changed(change: impl FnOnce(&mut Value)) -> Vec<u8> {
    let mut value = payload_value(image_digest(), NAME);
    change(&mut value);
    value.to_string().into_bytes()
}

#[test]
fn payloads_that_the_right_key_signed() {
    let key = Key::new();
    let policy = key.policy();
    let good = payload(image_digest(), NAME);
    assert!(judge(&policy, NAME, image_digest(), &[key.simple(&good)]).is_accepted());
    // What others may add to.
    let more =
        changed(|value| value["optional"] = json!({"creator": "x", "timestamp": 7, "any": {"thing": []}}));
    assert!(judge(&policy, NAME, image_digest(), &[key.simple(&more)]).is_accepted());

    let text = String::from_utf8(good.clone()).unwrap();
    let twice = text.replacen(r#""critical":"#, r#""critical":{},"critical":"#, 1);
    let digest_twice = text.replacen(
        r#"{"docker-manifest-digest":"#,
        &format!(r#"{{"docker-manifest-digest":"{}","docker-manifest-digest":"#, Digest::sha256(b"other")),
        1,
    );
    let earlier = Digest::sha256(b"what the tag was before");
    let syntax = |text: &[u8]| match serde_json::from_slice::<Value>(text) {
        Err(error) => json_payload(JsonError::Syntax(error.to_string())),
        Ok(_) => panic!("good JSON"),
    };
    let trailing = [good.as_slice(), b"{}"].concat();
    let rows = vec![
        (
            "rollback: what the tag was before",
            key.simple(&payload(earlier, NAME)),
            Reason::OtherManifest(earlier),
        ),
        (
            "another repository",
            key.simple(&payload(image_digest(), "registry.example/team/other:1.0")),
            Reason::OtherName("registry.example/team/other:1.0".into()),
        ),
        (
            "another registry",
            key.simple(&payload(image_digest(), "registry.example.org/team/app:1.0")),
            Reason::OtherName("registry.example.org/team/app:1.0".into()),
        ),
        (
            "no name of an image",
            key.simple(&payload(image_digest(), "Registry.Example/TEAM/app")),
            Reason::OtherName("Registry.Example/TEAM/app".into()),
        ),
        ("an empty name", key.simple(&payload(image_digest(), "")), Reason::OtherName(String::new())),
        (
            "another type",
            key.simple(&changed(|value| value["critical"]["type"] = "atomic container signature".into())),
            Reason::Payload(PayloadError::Type {
                found: "atomic container signature".into(),
                wanted: "cosign container image signature",
            }),
        ),
        (
            "an unknown critical field",
            key.simple(&changed(|value| value["critical"]["until"] = 7.into())),
            json_payload(unknown("until")),
        ),
        (
            "an unknown field of the image",
            key.simple(&changed(|value| value["critical"]["image"]["also"] = "x".into())),
            json_payload(unknown("also")),
        ),
        (
            "an unknown field of the identity",
            key.simple(&changed(|value| value["critical"]["identity"]["also"] = "x".into())),
            json_payload(unknown("also")),
        ),
        (
            "an unknown field outside",
            key.simple(&changed(|value| value["signatures"] = json!([]))),
            json_payload(unknown("signatures")),
        ),
        (
            "optional is missing",
            key.simple(&changed(|value| drop(value.as_object_mut().unwrap().remove("optional")))),
            json_payload(JsonError::Missing("optional")),
        ),
        (
            "a timestamp with a fraction",
            key.simple(&changed(|value| value["optional"] = json!({"timestamp": 1.5}))),
            json_payload(JsonError::Kind { key: "timestamp".into(), wanted: "an integer" }),
        ),
        (
            "no digest",
            key.simple(&changed(|value| {
                value["critical"]["image"]["docker-manifest-digest"] = "latest".into()
            })),
            Reason::Payload(PayloadError::Digest("latest".into())),
        ),
        ("critical twice", key.simple(twice.as_bytes()), json_payload(JsonError::Twice("critical".into()))),
        (
            "the digest twice",
            key.simple(digest_twice.as_bytes()),
            json_payload(JsonError::Twice("docker-manifest-digest".into())),
        ),
        ("something behind it", key.simple(&trailing), syntax(&trailing)),
        ("cut off", key.simple(&good[..good.len() - 1]), syntax(&good[..good.len() - 1])),
        ("nothing", key.simple(b""), syntax(b"")),
        (
            "a hundred levels",
            key.simple(&changed(|value| {
                value["optional"] = serde_json::from_str(&("[".repeat(100) + &"]".repeat(100))).unwrap();
            })),
            json_payload(JsonError::TooMuch),
        ),
    ];
    check(&policy, rows);
}

#[test]
fn payloads_with_another_signature() {
    let (key, other) = (Key::new(), Key::new());
    let good = payload(image_digest(), NAME);
    let sign = |bytes: &[u8]| STANDARD.encode(key.sign(bytes));
    let with =
        |signature: Value| with_annotations(&good, json!({"dev.cosignproject.cosign/signature": signature}));
    let mut flipped = key.sign(&good);
    *flipped.last_mut().unwrap() ^= 1;
    let mut with_payload = payload_value(image_digest(), NAME);
    with_payload["optional"] = json!({"creator": "somebody else"});
    let rows = vec![
        ("another key", other.simple(&good), Reason::WrongKey),
        ("one bit of the signature", with(STANDARD.encode(flipped).into()), Reason::WrongKey),
        ("half of it", with(STANDARD.encode(&key.sign(&good)[..36]).into()), Reason::WrongKey),
        ("none of it", with("".into()), Reason::WrongKey),
        ("the signature of another payload", with(sign(b"another payload").into()), Reason::WrongKey),
        (
            "the payload swapped",
            with_annotations(with_payload.to_string().as_bytes(), key.annotation(&good)),
            Reason::WrongKey,
        ),
        ("a giant", with(STANDARD.encode(vec![0; 1 << 16]).into()), Reason::WrongKey),
        ("no base64", with("!".into()), Reason::NoSignature),
        ("no annotation", with_annotations(&good, json!({})), Reason::NoSignature),
    ];
    check(&key.policy(), rows);
}

#[test]
fn every_byte_of_payload_and_signature_counts() {
    let policy = policy(signed(json!({"keyPath": "p256.pub"})));
    let payload = fixture("tagged-p256.payload");
    let manifest: Value = serde_json::from_slice(&fixture("tagged-p256.manifest.json")).unwrap();
    let annotations = manifest["layers"][0]["annotations"].clone();
    let text = annotations["dev.cosignproject.cosign/signature"].as_str().unwrap();
    let signature = STANDARD.decode(text).unwrap();
    let accepted = |payload: &[u8], signature: &[u8]| {
        let annotations = json!({"dev.cosignproject.cosign/signature": STANDARD.encode(signature)});
        judge(&policy, NAME, image_digest(), &[with_annotations(payload, annotations)]).is_accepted()
    };
    assert!(accepted(&payload, &signature));
    for at in 0..payload.len() + signature.len() {
        let (mut payload, mut signature) = (payload.clone(), signature.clone());
        match at.checked_sub(payload.len()) {
            None => payload[at] ^= 1,
            Some(at) => signature[at] ^= 1,
        }
        assert!(!accepted(&payload, &signature), "byte {at}");
    }
}

/// The policy's key says what kind of signature counts, whatever a signature looks like.
#[test]
fn signatures_of_another_kind_than_the_key() {
    for (key, document_of) in [
        ("p256", "tagged-rsa"),
        ("rsa", "tagged-p256"),
        ("ed25519", "tagged-p256"),
        ("p384", "tagged-p521"),
        ("p256", "tagged-ed25519"),
    ] {
        let policy = policy(signed(json!({"keyPath": format!("{key}.pub")})));
        let verdict = judge(&policy, NAME, image_digest(), &[document(document_of)]);
        assert_eq!(reason(verdict), Reason::WrongKey, "{key} {document_of}");
    }
    // The public key as the secret of a message authentication code, or in place of the signature.
    let policy = policy(signed(json!({"keyPath": "p256.pub"})));
    let payload = fixture("tagged-p256.payload");
    for secret in [fixture("p256.pub"), Digest::sha256(&payload).hash().to_vec()] {
        let document = with_annotations(
            &payload,
            json!({"dev.cosignproject.cosign/signature": STANDARD.encode(secret)}),
        );
        assert_eq!(reason(judge(&policy, NAME, image_digest(), &[document])), Reason::WrongKey);
    }
}

#[test]
fn tags_that_were_not_signed() {
    let policy = policy(signed(json!({"keyPath": "p256.pub"})));
    for name in
        ["registry.example/team/app:2.0", "registry.example/team/other:1.0", "mirror.example/team/app:1.0"]
    {
        let verdict = judge(&policy, name, image_digest(), &[document("tagged-p256")]);
        assert_eq!(reason(verdict), Reason::OtherName(NAME.into()), "{name}");
    }
}

/// The blobs of a manifest of signatures are those that it names, and small.
#[test]
fn what_a_registry_sends() {
    let good = b"payload";
    let layer = || layers(&manifest(SIMPLE, good, json!({}))).unwrap().remove(0);
    assert!(layer().with(good.to_vec()).is_ok());
    for other in [&b"payloae"[..], b"payloa", b"payload ", b""] {
        assert_eq!(layer().with(other.to_vec()).unwrap_err(), DocumentError::Content, "{other:?}");
    }

    let mut lying: Value = serde_json::from_slice(&manifest(SIMPLE, good, json!({}))).unwrap();
    lying["layers"][0]["size"] = 6.into();
    let lying = layers(lying.to_string().as_bytes()).unwrap().remove(0);
    assert_eq!(lying.with(good.to_vec()).unwrap_err(), DocumentError::Content);

    // What could not be had is told, and does not stand in the way of what could.
    let key = Key::new();
    let missing = DocumentError::Missing(image_digest());
    let verdict = judge(&key.policy(), NAME, image_digest(), &[missing.clone().into()]);
    assert_eq!(reason(verdict), Reason::Document(missing.clone()));
    let both = [missing.into(), key.simple(&payload(image_digest(), NAME))];
    assert!(judge(&key.policy(), NAME, image_digest(), &both).is_accepted());

    let limit = MAX_PAYLOAD_LEN;
    let large = layers(&manifest(SIMPLE, &vec![b' '; limit + 1], json!({})));
    assert_eq!(large.unwrap_err(), DocumentError::TooLong { size: limit as u64 + 1, limit });
    let bomb =
        json!({"layers": [{"mediaType": SIMPLE, "digest": image_digest().to_string(), "size": 1_u64 << 30}]});
    let refused = layers(bomb.to_string().as_bytes()).unwrap_err();
    assert_eq!(refused, DocumentError::TooLong { size: 1 << 30, limit });

    let one: Value = serde_json::from_slice(&manifest(SIMPLE, good, json!({}))).unwrap();
    let many = json!({"layers": vec![one["layers"][0].clone(); 65]});
    assert_eq!(layers(many.to_string().as_bytes()).unwrap_err(), DocumentError::TooMany);
    let twice = br#"{"layers":[],"layers":[]}"#;
    assert_eq!(layers(twice).unwrap_err(), DocumentError::Manifest(JsonError::Twice("layers".into())));
}

#[test]
fn too_much_of_everything() {
    let key = Key::new();
    let good = key.simple(&payload(image_digest(), NAME));
    let verdict = judge(&key.policy(), NAME, image_digest(), &vec![good.clone(); 65]);
    assert_eq!(reason(verdict), Reason::TooMany(65));

    // Sixty signatures of a stranger, each tried with sixty keys.
    let keys: Vec<_> = (0..60).map(|_| STANDARD.encode(Key::new().pem())).collect();
    let policy = policy(signed(json!({"keyDatas": keys})));
    let verdict = judge(&policy, NAME, image_digest(), &vec![good; 60]);
    let deltaport_trust::signatures::Verdict::Refused(refused) = verdict else { panic!() };
    assert_eq!(refused.reason, Reason::WrongKey);
    assert!(refused.others.contains(&Reason::TooMuchWork));
}

#[test]
fn no_signature_at_all_and_the_one_that_came_nearest() {
    let key = Key::new();
    let policy = key.policy();
    assert_eq!(reason(judge(&policy, NAME, image_digest(), &[])), Reason::Unsigned);
    let documents = [
        key.simple(b"{"),
        key.simple(&payload(Digest::sha256(b"other"), NAME)),
        key.simple(&payload(image_digest(), "registry.example/team/other:1")),
        Key::new().simple(&payload(image_digest(), NAME)),
    ];
    let deltaport_trust::signatures::Verdict::Refused(refused) =
        judge(&policy, NAME, image_digest(), &documents)
    else {
        panic!()
    };
    assert_eq!(refused.reason, Reason::OtherName("registry.example/team/other:1".into()));
    assert_eq!(refused.others.len(), 3);
    assert!(
        refused.to_string().starts_with("default of the policy refuses it: the signature is for"),
        "{refused}"
    );
}
