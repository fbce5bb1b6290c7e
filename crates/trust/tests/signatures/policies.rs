//! Policies: what is read, what is refused, and which scope counts.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use deltaport_trust::signatures::{
    CertificateError, Demand, Image, ImageName, JsonError, KeyError, MAX_POLICY_LEN, Policy, Problem, Scope,
    TrustedRootError, Verdict,
};
use serde_json::{Value, json};

use super::infrastructure::Keyless;
use super::support::*;

fn read(text: &str) -> Result<Policy, Problem> {
    let file =
        |path: &str| if path == "missing" { Err("there is no such file".into()) } else { Ok(fixture(path)) };
    Policy::read(text.as_bytes(), file).map_err(|error| error.problem)
}

fn requirement(value: &Value) -> Result<Policy, Problem> {
    read(&json!({"default": [value]}).to_string())
}

/// As administrators have it: what Fedora and RHEL install, and the examples of the manual.
#[test]
fn policies_of_others_are_read() {
    let policy = read(
        r#"{"default": [{"type": "insecureAcceptAnything"}],
            "transports": {
              "docker": {
                "registry.access.redhat.com": [{"type": "signedBy", "keyType": "GPGKeys", "keyPath": "/etc/pki/rpm-gpg/RPM-GPG-KEY-redhat-release"}],
                "registry.redhat.io": [{"type": "signedBy", "keyType": "GPGKeys", "keyPaths": ["/a", "/b"]}],
                "hostname:5000/myns/sigstore": [{"type": "sigstoreSigned", "keyPath": "p256.pub"}],
                "hostname:5000/myns/official": [{"type": "signedBy", "keyType": "GPGKeys", "keyPath": "/x",
                    "signedIdentity": {"type": "remapIdentity", "prefix": "hostname:5000/vendor", "signedPrefix": "vendor.example"}}],
                "docker.io/library/busybox": [{"type": "insecureAcceptAnything"}],
                "": [{"type": "reject"}]
              },
              "docker-daemon": {"": [{"type": "insecureAcceptAnything"}]},
              "oci": {"/images": [{"type": "sigstoreSigned", "keyPath": "missing", "signedIdentity": {"type": "exactReference", "dockerReference": "host/a:1"}}]},
              "dir": {"": [{"type": "sigstoreSigned", "pki": {"caRootsPath": "missing", "subjectEmail": "a@b"}}]}
            }}"#,
    )
    .unwrap();
    assert_eq!(policy.notes().len(), 3, "{:?}", policy.notes());
    assert!(policy.notes()[0].contains("signedBy (GPG) cannot be checked here"), "{:?}", policy.notes());
}

#[test]
fn the_most_specific_scope_counts() {
    let open = json!([{"type": "insecureAcceptAnything"}]);
    let digest = image_digest();
    let mut scopes = serde_json::Map::new();
    for scope in [
        "registry.example/team/app:1.0",
        &format!("registry.example/team/app@{digest}"),
        "registry.example/team/app",
        "registry.example/team",
        "registry.example",
        "host.example:5000",
        "*.deep.example",
        "*.example",
        "docker.io/library/busybox",
    ] {
        scopes.insert(scope.to_owned(), open.clone());
    }
    let text = json!({"default": [{"type": "reject"}], "transports": {"docker": scopes}}).to_string();
    let policy = read(&text).unwrap();
    for (name, scope) in [
        ("registry.example/team/app:1.0", Some("registry.example/team/app:1.0")),
        ("registry.example/team/app", Some(&*format!("registry.example/team/app@{digest}"))),
        ("registry.example/team/app:2.0", Some("registry.example/team/app")),
        ("registry.example/team/application:1.0", Some("registry.example/team")),
        ("registry.example/teams/app:1.0", Some("registry.example")),
        ("registry.example:5000/team/app:1.0", Some("*.example")),
        ("host.example:5000/a:1", Some("host.example:5000")),
        ("a.deep.example/a:1", Some("*.deep.example")),
        ("a.b.deep.example:77/a:1", Some("*.deep.example")),
        ("deep.example/a:1", Some("*.example")),
        ("example/a:1", None),
        ("busybox:1", Some("docker.io/library/busybox")),
        ("other.org/a:1", None),
    ] {
        let image = ImageName::parse(name).unwrap();
        let demand = policy.demand(Image { name: &image, digest, within: &[] });
        let found = match demand {
            Demand::Nothing(Verdict::Accepted(accepted)) => accepted.scope,
            Demand::Nothing(Verdict::Refused(refused)) => refused.scope,
            Demand::Signatures => panic!("{name}"),
        };
        assert_eq!(found, scope.map_or(Scope::Default, |scope| Scope::Docker(scope.into())), "{name}");
    }
}

#[test]
fn scopes_that_match_nothing_are_told() {
    let text = |scope: &str| {
        json!({"default": [{"type": "reject"}], "transports": {"docker": {scope: [{"type": "reject"}]}}})
            .to_string()
    };
    for (scope, told) in [
        ("busybox", true),
        ("library/busybox", true),
        ("*", true),
        ("reg*.example", true),
        ("*.example:5000", true),
        ("docker.io/library/busybox", false),
        ("localhost", false),
        ("host:5000", false),
        ("*.example", false),
        ("", false),
    ] {
        assert_eq!(read(&text(scope)).unwrap().notes().len(), usize::from(told), "{scope}");
    }
}

#[test]
fn what_is_not_understood_is_refused() {
    let json = |text: &str| match read(text) {
        Err(Problem::Json(error)) => error,
        other => panic!("{text}: {other:?}"),
    };
    assert!(matches!(json(""), JsonError::Syntax(_)));
    assert_eq!(json("{}"), JsonError::Missing("default"));
    assert_eq!(json(r#"{"default":[],"default":[]}"#), JsonError::Twice("default".into()));
    assert_eq!(json(r#"{"default":[{"type":"reject"}],"defualt":1}"#), JsonError::Unknown("defualt".into()));
    assert_eq!(
        json(r#"{"default":[{"type":"insecureAcceptAnything","type":"reject"}]}"#),
        JsonError::Twice("type".into())
    );
    assert_eq!(json(r#"{"default":[{"type":"reject","why":1}]}"#), JsonError::Unknown("why".into()));
    assert!(matches!(json(r#"{"default":{}}"#), JsonError::Kind { .. }));
    let long = format!(r#"{{"default":[{}]}}"#, " ".repeat(MAX_POLICY_LEN));
    assert!(matches!(json(&long), JsonError::TooLong { .. }));

    assert_eq!(read(r#"{"default":[]}"#).unwrap_err(), Problem::Empty);
    // Another transport's mistakes are mistakes of the file.
    let text = r#"{"default":[{"type":"reject"}],"transports":{"dir":{"":[{"type":"x"}]}}}"#;
    assert_eq!(read(text).unwrap_err(), Problem::UnknownRequirement("x".into()));

    let key = |more: Value| {
        let mut value = signed(more);
        value["keyPath"] = "p256.pub".into();
        value
    };
    for (value, problem) in [
        (json!({"type": "accept"}), Problem::UnknownRequirement("accept".into())),
        (signed(json!({})), Problem::NotOne("keyPath, keyPaths, keyData, keyDatas, fulcio and pki")),
        (
            key(json!({"keyData": "AA=="})),
            Problem::NotAtMostOne("keyPath, keyPaths, keyData, keyDatas, fulcio and pki"),
        ),
        (
            key(json!({"pki": {"caRootsPath": "root.crt", "subjectEmail": "a@b"}})),
            Problem::NotOne("keyPath, keyPaths, keyData, keyDatas, fulcio and pki"),
        ),
        (key(json!({"signedIdentity": {"type": "matchAny"}})), Problem::UnknownIdentity("matchAny".into())),
        (
            key(json!({"signedIdentity": {"type": "exactReference", "dockerReference": "a.io/b"}})),
            Problem::NoTag("a.io/b".into()),
        ),
        (
            key(
                json!({"signedIdentity": {"type": "remapIdentity", "prefix": "a.io/B", "signedPrefix": "c.io"}}),
            ),
            Problem::Name("a.io/B".into()),
        ),
        (signed(json!({"keyData": "?"})), Problem::Base64("keyData".into())),
        (signed(json!({"keyDatas": []})), Problem::TooMany { what: "keys (or none at all)", limit: 64 }),
        (
            signed(json!({"keyPath": "missing"})),
            Problem::File { path: "missing".into(), reason: "there is no such file".into() },
        ),
        (
            signed(json!({"keyPath": "image.json"})),
            Problem::Key { what: "image.json".into(), error: KeyError::Count },
        ),
        (
            signed(json!({"fulcio": {"caPath": "root.crt", "oidcIssuer": "i", "subjectEmail": "e"}})),
            Problem::NotOne(
                "rekorPublicKeyPath, rekorPublicKeyPaths, rekorPublicKeyData and rekorPublicKeyDatas",
            ),
        ),
        (
            signed(
                json!({"pki": {"caRootsPath": "root.crt", "subjectEmail": "e"}, "rekorPublicKeyPath": "rekor.pub"}),
            ),
            Problem::Together("pki", "the key of a transparency log"),
        ),
        (
            signed(json!({"pki": {"caRootsPath": "root.crt"}})),
            Problem::NotOne("subjectEmail and subjectHostname, or both"),
        ),
        (key(json!({"rekorPublicKeyPath": "ed25519.pub"})), Problem::LogKey("ed25519.pub".into())),
        (json!({"type": "signedBy", "keyType": "PGP", "keyPath": "/x"}), Problem::KeyType("PGP".into())),
        (json!({"type": "signedBy", "keyType": "GPGKeys"}), Problem::NotOne("keyPath, keyPaths and keyData")),
    ] {
        assert_eq!(requirement(&value).unwrap_err(), problem, "{value}");
    }
    let many: Vec<_> = (0..17).map(|_| json!({"type": "reject"})).collect();
    let many = read(&json!({"default": many}).to_string()).unwrap_err();
    assert_eq!(many, Problem::TooMany { what: "requirements", limit: 16 });
}

#[test]
fn an_error_says_where_it_is() {
    let text = r#"{"default":[{"type":"reject"}],"transports":{"docker":{"a.io":[{"type":"reject"},{"type":"x"}]}}}"#;
    let error = Policy::read(text.as_bytes(), |_| Err(String::new())).unwrap_err();
    assert_eq!(
        error.to_string(),
        r#"transports.docker["a.io"], requirement 2: there is no requirement of type "x""#
    );
}

#[test]
fn trusted_roots_that_are_not_understood() {
    let good = Keyless::new().trusted_root(json!({}), json!({}));
    let read = |root: &Value| {
        let root = STANDARD.encode(root.to_string());
        let fulcio = json!({"caData": root, "oidcIssuer": "i", "subjectEmail": "a@b"});
        requirement(&signed(json!({"fulcio": fulcio, "rekorPublicKeyData": root})))
    };
    assert!(read(&good).is_ok());
    let changed = |change: &dyn Fn(&mut Value)| {
        let mut root = good.clone();
        change(&mut root);
        match read(&root) {
            Err(problem) => problem,
            Ok(_) => panic!("{root}"),
        }
    };
    let wrong = |what: &str, error| Problem::TrustedRoot { what: what.into(), error };
    assert_eq!(
        changed(&|root| root["mediaType"] = "x".into()),
        wrong("caData", TrustedRootError::Version("x".into()))
    );
    assert_eq!(
        changed(&|root| root["more"] = "x".into()),
        wrong("caData", TrustedRootError::Json(JsonError::Unknown("more".into())))
    );
    assert_eq!(
        changed(&|root| root["tlogs"][0]["publicKey"]["validFor"] = json!({"start": "yesterday"})),
        wrong("caData", TrustedRootError::Time("yesterday".into()))
    );
    assert_eq!(
        changed(&|root| root["certificateAuthorities"] = json!(vec![json!({}); 65])),
        wrong("caData", TrustedRootError::TooMany)
    );
    assert!(matches!(
        changed(&|root| root["certificateAuthorities"] = json!([])),
        Problem::Certificate { error: CertificateError::Count { found: 0, .. }, .. }
    ));
    assert_eq!(changed(&|root| root["tlogs"] = json!([])), Problem::LogKey("rekorPublicKeyData".into()));
    // One's own infrastructure is no instance of Sigstore.
    let pki = json!({"caRootsData": STANDARD.encode(good.to_string()), "subjectEmail": "a@b"});
    assert!(matches!(requirement(&signed(json!({"pki": pki}))), Err(Problem::Certificate { .. })));
}
