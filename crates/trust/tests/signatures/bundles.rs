//! Bundles with one thing wrong with them, as in refused.rs.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use deltaport_oci::Digest;
use deltaport_trust::signatures::{BundleError, JsonError, PayloadError, Reason};
use serde_json::{Value, json};

use super::refused::{check, json_bundle, json_payload, unknown};
use super::support::*;

const BUNDLE: &str = "application/vnd.dev.sigstore.bundle.v0.3+json";

#[test]
fn bundles() {
    let key = Key::new();
    let policy = key.policy().accepting_nameless(true);
    let good = || key.bundle(statement(image_digest()).to_string().as_bytes());
    assert!(judge(&policy, NAME, image_digest(), &[bundled(&good())]).is_accepted());
    let mut spelled = good();
    spelled["mediaType"] = "application/vnd.dev.sigstore.bundle+json;version=0.3".into();
    assert!(judge(&policy, NAME, image_digest(), &[bundled(&spelled)]).is_accepted());
    let named = |name: &str| {
        let mut statement = statement(image_digest());
        statement["subject"][0]["name"] = name.into();
        bundled(&key.bundle(statement.to_string().as_bytes()))
    };
    assert!(judge(&policy, NAME, image_digest(), &[named("registry.example/team/app")]).is_accepted());

    let changed = |change: &dyn Fn(&mut Value)| {
        let mut bundle = good();
        change(&mut bundle);
        bundled(&bundle)
    };
    let stated = |change: &dyn Fn(&mut Value)| {
        let mut statement = statement(image_digest());
        change(&mut statement);
        bundled(&key.bundle(statement.to_string().as_bytes()))
    };
    let wrong = |found: &str, wanted| Reason::Payload(PayloadError::Type { found: found.into(), wanted });
    let another = Digest::sha256(b"another");
    let twice = good().to_string().replacen('{', r#"{"dsseEnvelope":{},"#, 1);
    let cut = &good().to_string()[..100];
    let cut_error = serde_json::from_str::<Value>(cut).unwrap_err().to_string();
    let too_many = |count: usize| json!(vec![json!({}); count]);
    let rows = vec![
        (
            "another manifest",
            stated(&|statement| statement["subject"][0]["digest"]["sha256"] = another.hex().into()),
            Reason::OtherManifest(another),
        ),
        (
            "another name",
            named("registry.example/team/other"),
            Reason::OtherName("registry.example/team/other".into()),
        ),
        (
            "how it was built, not that it is good",
            stated(&|statement| statement["predicateType"] = "https://slsa.dev/provenance/v1".into()),
            wrong("https://slsa.dev/provenance/v1", "https://sigstore.dev/cosign/sign/v1"),
        ),
        (
            "no statement",
            stated(&|statement| statement["_type"] = "https://in-toto.io/Link/v1".into()),
            wrong("https://in-toto.io/Link/v1", "https://in-toto.io/Statement/v1"),
        ),
        (
            "no subject",
            stated(&|statement| statement["subject"] = json!([])),
            Reason::Payload(PayloadError::Subjects),
        ),
        (
            "too many subjects",
            stated(&|statement| statement["subject"] = too_many(257)),
            Reason::Payload(PayloadError::Subjects),
        ),
        (
            "an unknown field of the statement",
            stated(&|statement| statement["until"] = 7.into()),
            json_payload(unknown("until")),
        ),
        (
            "the payload swapped",
            changed(&|bundle| {
                let mut other = statement(image_digest());
                other.as_object_mut().unwrap().remove("predicate");
                bundle["dsseEnvelope"]["payload"] = STANDARD.encode(other.to_string()).into();
            }),
            Reason::WrongKey,
        ),
        (
            "the payload signed without its type",
            changed(&|bundle| {
                let plain = key.sign(statement(image_digest()).to_string().as_bytes());
                bundle["dsseEnvelope"]["signatures"][0]["sig"] = STANDARD.encode(plain).into();
            }),
            Reason::WrongKey,
        ),
        (
            "another type of payload",
            changed(&|bundle| bundle["dsseEnvelope"]["payloadType"] = "text/plain".into()),
            Reason::Bundle(BundleError::PayloadType("text/plain".into())),
        ),
        (
            "two signatures",
            changed(&|bundle| {
                let first = bundle["dsseEnvelope"]["signatures"][0].clone();
                bundle["dsseEnvelope"]["signatures"].as_array_mut().unwrap().push(first);
            }),
            Reason::Bundle(BundleError::Signatures(2)),
        ),
        (
            "no signature",
            changed(&|bundle| bundle["dsseEnvelope"]["signatures"] = json!([])),
            Reason::Bundle(BundleError::Signatures(0)),
        ),
        (
            "a giant signature",
            changed(&|bundle| {
                bundle["dsseEnvelope"]["signatures"][0]["sig"] = STANDARD.encode([0; 4096]).into()
            }),
            Reason::Bundle(BundleError::LongSignature),
        ),
        (
            "an older version",
            changed(&|bundle| {
                bundle["mediaType"] = "application/vnd.dev.sigstore.bundle+json;version=0.1".into()
            }),
            Reason::Bundle(BundleError::Version(
                "application/vnd.dev.sigstore.bundle+json;version=0.1".into(),
            )),
        ),
        (
            "the signature of a file",
            changed(&|bundle| bundle["messageSignature"] = json!({})),
            Reason::Bundle(BundleError::Message),
        ),
        (
            "a key and a certificate",
            changed(&|bundle| bundle["verificationMaterial"]["certificate"] = json!({"rawBytes": ""})),
            Reason::Bundle(BundleError::Material),
        ),
        (
            "a certificate instead of the key",
            changed(&|bundle| bundle["verificationMaterial"] = json!({"certificate": {"rawBytes": "AA=="}})),
            Reason::NoKey,
        ),
        (
            "a field that is not known",
            changed(&|bundle| bundle["until"] = 7.into()),
            json_bundle(unknown("until")),
        ),
        (
            "too many entries of logs",
            changed(&|bundle| bundle["verificationMaterial"]["tlogEntries"] = too_many(17)),
            Reason::Bundle(BundleError::Entries),
        ),
        (
            "the envelope twice",
            one_layer(BUNDLE, twice.as_bytes(), json!({})),
            json_bundle(JsonError::Twice("dsseEnvelope".into())),
        ),
        ("cut off", one_layer(BUNDLE, cut.as_bytes(), json!({})), json_bundle(JsonError::Syntax(cut_error))),
        (
            "a simple payload that is called one",
            one_layer(BUNDLE, b"{}", json!({})),
            json_bundle(JsonError::Missing("mediaType")),
        ),
    ];
    check(&policy, rows);
}
