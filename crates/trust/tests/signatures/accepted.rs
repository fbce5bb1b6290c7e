//! What is right is accepted: every kind of key, every format, every way to say whose signature counts.

use deltaport_oci::Digest;
use deltaport_trust::signatures::{
    Demand, Document, Ground, Image, ImageName, PublicKey, Reason, Scope, Signature, Signer, Time, Verdict,
    layers, signature_tag,
};
use serde_json::{Value, json};

use super::support::*;

/// The signature that a verdict stands on.
#[track_caller]
fn signature(verdict: Verdict) -> Signature {
    match verdict {
        Verdict::Accepted(accepted) => match accepted.grounds.into_iter().next() {
            Some(Ground::Signature(signature)) => *signature,
            other => panic!("{other:?}"),
        },
        Verdict::Refused(refused) => panic!("{refused}"),
    }
}

fn pki() -> Value {
    json!({"caRootsPath": "root.crt", "subjectEmail": "release@team.example"})
}

fn fulcio() -> Value {
    signed(json!({
        "fulcio": {
            "caPath": "fulcio-root.crt",
            "oidcIssuer": "https://login.team.example",
            "subjectEmail": "release@team.example",
        },
        "rekorPublicKeyPath": "rekor.pub",
        "signedIdentity": match_repository(),
    }))
}

#[test]
fn a_payload_signed_with_a_key_of_any_kind() {
    for kind in ["p256", "p384", "p521", "rsa", "ed25519"] {
        let key = format!("{kind}.pub");
        let policy = policy(signed(json!({"keyPath": key})));
        let verdict = judge(&policy, NAME, image_digest(), &[document(&format!("tagged-{kind}"))]);
        let id = PublicKey::from_pem(&fixture(&key)).unwrap().id();
        assert_eq!(
            signature(verdict),
            Signature {
                signer: Signer::Key { key: id },
                digest: image_digest(),
                name: Some(NAME.to_owned()),
                time: Time::Claimed(at(1_700_000_000)),
            },
            "{kind}"
        );
    }
}

/// What skopeo signed, with every way to say what it must be called; and with one byte changed, in the signature or in what
/// was signed.
#[test]
fn a_payload_that_skopeo_signed() {
    const NAME: &str = "hub.example/library/base:v1";
    let image = Digest::sha256(&fixture("skopeo.image.json"));
    let policy = |identity: &str| {
        policy(signed(json!({"keyPath": "skopeo.pub", "signedIdentity": {"type": identity}})))
    };
    for identity in ["matchExact", "matchRepoDigestOrExact", "matchRepository"] {
        let found = signature(judge(&policy(identity), NAME, image, &[document("skopeo")]));
        assert_eq!(found.name.as_deref(), Some(NAME), "{identity}");
    }
    let exact = policy("matchExact");
    assert!(!judge(&exact, "hub.example/library/base:v2", image, &[document("skopeo")]).is_accepted());
    assert!(!judge(&exact, NAME, image_digest(), &[document("skopeo")]).is_accepted());
    let (manifest, payload) = (fixture("skopeo.manifest.json"), fixture("skopeo.payload"));
    let manifest = String::from_utf8(manifest).unwrap();
    let at = manifest.find("cosign/signature\":\"").unwrap() + 40;
    let other = if manifest.as_bytes()[at] == b'A' { "B" } else { "A" };
    let mut changed = manifest.clone();
    changed.replace_range(at..=at, other);
    let layer = layers(changed.as_bytes()).unwrap().remove(0);
    assert!(!judge(&exact, NAME, image, &[layer.with(payload.clone()).unwrap()]).is_accepted());
    let mut payload = payload;
    *payload.last_mut().unwrap() = b' ';
    let layer = layers(manifest.as_bytes()).unwrap().remove(0);
    assert!(layer.with(payload).is_err(), "the payload is not the layer of the manifest");
}

#[test]
fn a_bundle_signed_with_a_key_of_any_kind_where_a_name_is_not_asked_for() {
    for kind in ["p256", "p384", "p521", "rsa", "ed25519"] {
        let policy = policy(signed(json!({"keyPath": format!("{kind}.pub")})));
        let bundle = [document(&format!("cosign3-{kind}"))];
        assert_eq!(reason(judge(&policy, NAME, image_digest(), &bundle)), Reason::Nameless, "{kind}");
        let found = signature(judge(&policy.accepting_nameless(true), NAME, image_digest(), &bundle));
        assert_eq!((found.name, found.time), (None, Time::Unknown), "{kind}");
    }
}

#[test]
fn a_payload_that_names_the_repository_only() {
    let key = |identity| signed(json!({"keyPath": "p256.pub", "signedIdentity": identity}));
    let cosign = [document("cosign")];
    for identity in [
        match_repository(),
        json!({"type": "exactRepository", "dockerRepository": "registry.example/team/app"}),
    ] {
        signature(judge(&policy(key(identity)), NAME, image_digest(), &cosign));
    }
    // As with podman, a tag has to be signed when nothing else is said.
    let verdict = judge(&policy(signed(json!({"keyPath": "p256.pub"}))), NAME, image_digest(), &cosign);
    assert_eq!(reason(verdict), Reason::OtherName("registry.example/team/app".into()));
}

#[test]
fn a_mirrored_image_under_the_name_of_its_source() {
    let remap = json!({
        "type": "remapIdentity",
        "prefix": "mirror.example/r",
        "signedPrefix": "registry.example",
    });
    let policy = policy(signed(json!({"keyPath": "p256.pub", "signedIdentity": remap})));
    let documents = [document("tagged-p256")];
    signature(judge(&policy, "mirror.example/r/team/app:1.0", image_digest(), &documents));
    assert!(!judge(&policy, "mirror.example/s/team/app:1.0", image_digest(), &documents).is_accepted());
}

#[test]
fn one_of_several_keys_and_one_of_several_signatures() {
    let policy = policy(signed(json!({"keyPaths": ["rsa.pub", "p256.pub"]})));
    let documents = ["tagged-ed25519", "cosign3-p384", "cosign", "tagged-p256"].map(document);
    let found = signature(judge(&policy, NAME, image_digest(), &documents));
    assert_eq!(found.name.as_deref(), Some(NAME));
}

#[test]
fn a_signature_of_an_index_that_has_the_image() {
    let policy = policy(signed(json!({"keyPath": "p256.pub"})));
    let name = ImageName::parse(NAME).unwrap();
    let child = deltaport_oci::Digest::sha256(b"a child");
    let documents = [document("tagged-p256")];
    let within = [deltaport_oci::Digest::sha256(b"another index"), image_digest()];
    let image = Image { name: &name, digest: child, within: &within };
    assert_eq!(signature(policy.judge(image, &documents, now())).digest, image_digest());
    let verdict = policy.judge(Image { within: &[], ..image }, &documents, now());
    assert_eq!(reason(verdict), Reason::OtherManifest(image_digest()));
}

#[test]
fn a_certificate_of_one_s_own_infrastructure() {
    for subject in [
        json!({"subjectEmail": "release@team.example"}),
        json!({"subjectHostname": "build.team.example"}),
        json!({"subjectEmail": "release@team.example", "subjectHostname": "build.team.example"}),
    ] {
        let mut keys = subject.clone();
        keys["caRootsPath"] = "root.crt".into();
        let policy = policy(signed(json!({"pki": keys, "signedIdentity": match_repository()})));
        let found = signature(judge(&policy, NAME, image_digest(), &[document("pki")]));
        let Signer::Certificate { subject: found, .. } = found.signer else { panic!("{found:?}") };
        assert!(subject.as_object().unwrap().values().any(|value| value == &found), "{found}");
    }
}

/// The chain may come from the policy instead of with the signature.
#[test]
fn a_certificate_whose_intermediate_the_policy_has() {
    let mut keys = pki();
    keys["caIntermediatesPath"] = "intermediate.crt".into();
    let policy = policy(signed(json!({"pki": keys, "signedIdentity": match_repository()})));
    let layer: Value = serde_json::from_slice(&fixture("pki.manifest.json")).unwrap();
    let mut annotations = layer["layers"][0]["annotations"].clone();
    annotations.as_object_mut().unwrap().remove("dev.sigstore.cosign/chain").unwrap();
    let document = with_annotations(&fixture("pki.payload"), annotations);
    signature(judge(&policy, NAME, image_digest(), &[document]));
}

#[test]
fn a_short_lived_certificate_with_the_promise_of_a_log() {
    let policy = policy(fulcio());
    let found = signature(judge(&policy, NAME, image_digest(), &[document("fulcio")]));
    assert_eq!(found.time, Time::Logged(at(1_700_000_000)));
    let nameless = policy.accepting_nameless(true);
    let found = signature(judge(&nameless, NAME, image_digest(), &[document("fulcio3")]));
    assert_eq!(found.time, Time::Logged(at(1_700_000_000)));
}

#[test]
fn all_requirements_have_to_be_met() {
    let two = json!([signed(json!({"keyPath": "p256.pub"})), signed(json!({"keyPath": "rsa.pub"}))]);
    let text = json!({"default": two}).to_string();
    let policy =
        deltaport_trust::signatures::Policy::read(text.as_bytes(), |path| Ok(fixture(path))).unwrap();
    let both = ["tagged-p256", "tagged-rsa"].map(document);
    let Verdict::Accepted(accepted) = judge(&policy, NAME, image_digest(), &both) else { panic!() };
    assert_eq!(accepted.grounds.len(), 2);
    assert_eq!(reason(judge(&policy, NAME, image_digest(), &both[..1])), Reason::WrongKey);
}

#[test]
fn signatures_are_asked_for_only_where_they_decide() {
    let image = |name: &str| ImageName::parse(name).unwrap();
    let text = json!({
        "default": [{"type": "reject"}],
        "transports": {"docker": {
            "open.example": [{"type": "insecureAcceptAnything"}],
            "gpg.example": [{"type": "signedBy", "keyType": "GPGKeys", "keyPath": "/gpg"}],
            "signed.example": [{"type": "insecureAcceptAnything"}, signed(json!({"keyPath": "p256.pub"}))],
            "never.example": [signed(json!({"keyPath": "p256.pub"})), {"type": "reject"}],
        }},
    });
    let policy =
        deltaport_trust::signatures::Policy::read(text.to_string().as_bytes(), |path| Ok(fixture(path)))
            .unwrap();
    let demand = |name: &str| {
        let name = image(name);
        policy.demand(Image { name: &name, digest: image_digest(), within: &[] })
    };
    let refusal = |name: &str| match demand(name) {
        Demand::Nothing(verdict) => reason(verdict),
        Demand::Signatures => panic!("{name}"),
    };
    assert_eq!(demand("signed.example/a"), Demand::Signatures);
    assert_eq!(refusal("never.example/a"), Reason::Rejected);
    assert_eq!(refusal("else.example/a"), Reason::Rejected);
    assert_eq!(refusal("gpg.example/a"), Reason::Unsupported("signedBy (GPG)"));
    let Demand::Nothing(Verdict::Accepted(accepted)) = demand("open.example/a:1") else { panic!() };
    assert_eq!(accepted.scope, Scope::Docker("open.example".into()));
    assert_eq!(accepted.grounds, [Ground::Anything]);
}

#[test]
fn signatures_lie_where_cosign_puts_them() {
    let digest = image_digest();
    let tag = signature_tag(&digest).unwrap();
    assert_eq!(tag.as_str(), format!("sha256-{}.sig", digest.hex()));
    // Manifests of other artifacts have no signatures, and are no error.
    for other in [json!({"layers": []}), json!({}), json!({"layers": [{"mediaType": "text/spdx+json"}]})] {
        assert!(layers(other.to_string().as_bytes()).unwrap().is_empty(), "{other}");
    }
}

/// What the command line shows and a registry keeps.
#[test]
fn verdicts_are_written_in_one_way() {
    let written = |requirement: Value, documents: &[Document]| {
        serde_json::to_value(judge(&policy(requirement), NAME, image_digest(), documents)).unwrap()
    };
    let key = signed(json!({"keyPath": "p256.pub"}));
    assert_eq!(
        written(key.clone(), &[document("tagged-p256")]),
        json!({
            "accepted": true,
            "scope": "default",
            "grounds": [{
                "type": "signature",
                "signer": {"key": PublicKey::from_pem(&fixture("p256.pub")).unwrap().id()},
                "digest": image_digest(),
                "name": NAME,
                "time": {"claimed": 1_700_000_000},
            }],
        })
    );
    let logged = &written(fulcio(), &[document("fulcio")])["grounds"][0];
    assert_eq!(logged["time"], json!({"logged": 1_700_000_000}));
    assert_eq!(logged["signer"]["subject"], "release@team.example");
    assert!(logged["signer"]["certificate"].as_str().unwrap().starts_with("sha256:"));
    let anything = written(json!({"type": "insecureAcceptAnything"}), &[]);
    assert_eq!(anything["grounds"], json!([{"type": "anything"}]));
    assert_eq!(
        written(key, &[]),
        json!({
            "accepted": false,
            "scope": "default",
            "reason": {"code": "unsigned", "message": "a signature is needed, and there is none"},
            "others": [],
        })
    );
}
