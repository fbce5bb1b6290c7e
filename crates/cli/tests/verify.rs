//! `deltaport verify`, as the real binary runs it, on layouts with the signatures that the crate `trust` is tested with.

#![allow(clippy::unwrap_used)] // the helpers of tests fail as tests do

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use deltaport_oci::Digest;
use serde_json::{Value, json};
use tempfile::TempDir;

const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const NAME: &str = "registry.example/team/app:1.0";

fn fixture_path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../trust/tests/fixtures").join(name)
}

fn fixture(name: &str) -> Vec<u8> {
    std::fs::read(fixture_path(name)).unwrap()
}

/// A layout, and a policy beside it.
struct Layout {
    directory: TempDir,
    entries: Vec<Value>,
}

impl Layout {
    /// One with the image that everything signs, under the tag 1.0.
    fn new() -> Self {
        let mut layout = Self { directory: tempfile::tempdir().unwrap(), entries: Vec::new() };
        std::fs::create_dir_all(layout.path().join("blobs/sha256")).unwrap();
        let image = fixture("image.json");
        layout.add(&image, "1.0");
        layout
    }

    fn path(&self) -> &Path {
        self.directory.path()
    }

    fn blob(&self, content: &[u8]) -> Digest {
        let digest = Digest::sha256(content);
        std::fs::write(self.path().join("blobs/sha256").join(digest.hex()), content).unwrap();
        digest
    }

    /// Adds a manifest under a name.
    fn add(&mut self, manifest: &[u8], name: &str) -> Digest {
        let digest = self.blob(manifest);
        let media_type = serde_json::from_slice::<Value>(manifest).unwrap()["mediaType"].clone();
        let mut entry =
            json!({"mediaType": media_type, "digest": digest.to_string(), "size": manifest.len()});
        if !name.is_empty() {
            entry["annotations"] = json!({"org.opencontainers.image.ref.name": name});
        }
        self.entries.push(entry);
        self.write_index();
        digest
    }

    fn write_index(&self) {
        let index = json!({"schemaVersion": 2, "manifests": self.entries});
        std::fs::write(self.path().join("index.json"), index.to_string()).unwrap();
    }

    /// Adds a fixture under the tag of the signatures of `digest`.
    fn sign(&mut self, fixture_name: &str, digest: Digest) {
        self.blob(&fixture(&format!("{fixture_name}.payload")));
        self.add(&fixture(&format!("{fixture_name}.manifest.json")), &format!("sha256-{}.sig", digest.hex()));
    }

    /// Writes a policy that wants this of everything.
    fn policy(&self, requirement: Value) -> String {
        let path = self.path().join("policy.json");
        std::fs::write(&path, json!({"default": [requirement]}).to_string()).unwrap();
        path.to_str().unwrap().to_owned()
    }

    fn verify(&self, tag: &str, policy: &str, more: &[&str]) -> Output {
        let image = format!("oci:{}:{tag}", self.path().display());
        let mut command = Command::new(env!("CARGO_BIN_EXE_deltaport"));
        command.args(["verify", &image, "--policy", policy]).args(more).output().unwrap()
    }
}

fn image_digest() -> Digest {
    Digest::sha256(&fixture("image.json"))
}

fn key(name: &str) -> Value {
    json!({"type": "sigstoreSigned", "keyPath": fixture_path(name).to_str().unwrap()})
}

#[track_caller]
fn json_of(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{output:?}"))
}

#[test]
fn an_image_with_its_signature_under_a_tag() {
    let mut layout = Layout::new();
    layout.sign("tagged-p256", image_digest());
    let policy = layout.policy(key("p256.pub"));

    // The tag of the signatures is no image, so that no tag has to be said.
    for tag in ["1.0", ""] {
        let output = layout.verify(tag, &policy, &["--name", NAME]);
        assert!(output.status.success(), "{output:?}");
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(
            text.starts_with(&format!("accepted {}, by default of the policy", image_digest())),
            "{text}"
        );
        assert!(text.contains(&format!("signed as {NAME} by key sha256:")), "{text}");
        assert!(text.contains("by its own account Tue, 14 Nov 2023 22:13:20 GMT"), "{text}");
    }

    let output = layout.verify("1.0", &policy, &["--name", "registry.example/team/app:2.0", "--json"]);
    assert_eq!(output.status.code(), Some(1));
    let said = json_of(&output);
    assert_eq!(said["accepted"], false);
    assert_eq!(said["manifests"][0]["reason"]["code"], "other-name");

    let output = layout.verify("1.0", &layout.policy(key("rsa.pub")), &["--name", NAME, "--json"]);
    assert_eq!(json_of(&output)["manifests"][0]["reason"]["code"], "wrong-key");
}

#[test]
fn one_byte_of_the_signature_changed() {
    let mut layout = Layout::new();
    layout.sign("tagged-p256", image_digest());
    let policy = layout.policy(key("p256.pub"));
    let payload = fixture("tagged-p256.payload");
    let path = layout.path().join("blobs/sha256").join(Digest::sha256(&payload).hex());
    let reason = |layout: &Layout| {
        let output = layout.verify("1.0", &policy, &["--name", NAME, "--json"]);
        assert_eq!(output.status.code(), Some(1));
        json_of(&output)["manifests"][0]["reason"]["code"].clone()
    };
    let mut changed = payload.clone();
    changed[100] ^= 1;
    std::fs::write(&path, changed).unwrap();
    assert_eq!(reason(&layout), "document");
    std::fs::remove_file(&path).unwrap();
    assert_eq!(reason(&layout), "document");

    // In its manifest, which then has another digest.
    std::fs::write(&path, payload).unwrap();
    let manifest = String::from_utf8(fixture("tagged-p256.manifest.json")).unwrap();
    let at = manifest.find("cosign/signature").unwrap() + 40;
    let mut manifest = manifest.into_bytes();
    manifest[at] = if manifest[at] == b'A' { b'B' } else { b'A' };
    layout.entries.pop();
    layout.add(&manifest, &format!("sha256-{}.sig", image_digest().hex()));
    assert_eq!(reason(&layout), "wrong-key");
}

#[test]
fn a_bundle_as_a_referrer() {
    let mut layout = Layout::new();
    layout.blob(&fixture("cosign3-p256.bundle.json"));
    layout.add(&fixture("cosign3-p256.manifest.json"), "");
    let policy = layout.policy(key("p256.pub"));
    let output = layout.verify("1.0", &policy, &["--name", NAME, "--json"]);
    assert_eq!(json_of(&output)["manifests"][0]["reason"]["code"], "nameless");
    for tag in ["1.0", ""] {
        let output = layout.verify(tag, &policy, &["--name", NAME, "--accept-nameless", "--json"]);
        assert!(output.status.success(), "{output:?}");
        assert_eq!(json_of(&output)["manifests"][0]["grounds"][0]["name"], Value::Null);
    }

    // The same in the list that registries without an interface for referrers have under a tag.
    let mut layout = Layout::new();
    layout.blob(&fixture("cosign3-p256.bundle.json"));
    let manifest = fixture("cosign3-p256.manifest.json");
    let digest = layout.blob(&manifest);
    let list = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [{
            "mediaType": OCI_MANIFEST,
            "digest": digest.to_string(),
            "size": manifest.len(),
            "artifactType": "application/vnd.dev.sigstore.bundle.v0.3+json",
        }],
    });
    layout.add(list.to_string().as_bytes(), &format!("sha256-{}", image_digest().hex()));
    let policy = layout.policy(key("p256.pub"));
    let output = layout.verify("1.0", &policy, &["--name", NAME, "--accept-nameless"]);
    assert!(output.status.success(), "{output:?}");
}

/// `cosign save` gives nothing a name, and says of each entry what it is.
#[test]
fn a_layout_that_cosign_saved() {
    let mut layout = Layout::new();
    layout.sign("tagged-p256", image_digest());
    for (entry, kind) in layout.entries.iter_mut().zip(["image", "sigs"]) {
        entry["annotations"] = json!({"kind": format!("dev.cosignproject.cosign/{kind}")});
    }
    layout.write_index();
    let output = layout.verify("", &layout.policy(key("p256.pub")), &["--name", NAME, "--json"]);
    assert!(output.status.success(), "{output:?}");
    assert_eq!(json_of(&output)["manifests"].as_array().unwrap().len(), 1);
}

/// An index that nobody signed: its image is signed, it is not.
#[test]
fn an_index_is_judged_with_everything_in_it() {
    let mut layout = Layout::new();
    layout.sign("tagged-p256", image_digest());
    let absent = Digest::sha256(b"for a platform that is not here");
    let child = |digest: Digest| json!({"mediaType": OCI_MANIFEST, "digest": digest.to_string(), "size": 9});
    let index = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [child(image_digest()), child(absent)],
    });
    layout.add(index.to_string().as_bytes(), "index");
    let output = layout.verify("index", &layout.policy(key("p256.pub")), &["--name", NAME, "--json"]);
    assert_eq!(output.status.code(), Some(1));
    let said = json_of(&output);
    let accepted: Vec<_> = said["manifests"].as_array().unwrap().iter().map(|one| &one["accepted"]).collect();
    assert_eq!(accepted, [false, true, false]);
}

#[test]
fn what_cannot_be_said_is_no_refusal() {
    let layout = Layout::new();
    let said = |tag: &str, policy: &str, more: &[&str]| {
        let output = layout.verify(tag, policy, more);
        assert_eq!(output.status.code(), Some(3), "{output:?}");
        String::from_utf8(output.stderr).unwrap()
    };
    let missing = layout.policy(json!({"type": "sigstoreSigned", "keyPath": "no-such-file"}));
    let text = said("1.0", &missing, &["--name", NAME]);
    assert!(text.contains("default, requirement 1: no-such-file: No such file"), "{text}");
    let text = said("1.0", "no-such-policy", &["--name", NAME]);
    assert!(text.contains("cannot read no-such-policy"), "{text}");

    let policy = layout.policy(key("p256.pub"));
    let text = said("1.0", &policy, &[]);
    assert!(text.contains("add --name"), "{text}");
    let text = said("2.0", &policy, &["--name", NAME]);
    assert!(text.contains("there is no tag 2.0; the tags are: 1.0"), "{text}");
    assert_eq!(layout.verify("1.0", &policy, &["--name", "A"]).status.code(), Some(2));
}

#[test]
fn what_an_operator_should_know_is_told() {
    let layout = Layout::new();
    let policy = layout.policy(json!({"type": "signedBy", "keyType": "GPGKeys", "keyPath": "/gpg"}));
    let output = layout.verify("1.0", &policy, &["--name", NAME]);
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(
        text.starts_with("note: default, requirement 1: signedBy (GPG) cannot be checked here"),
        "{text}"
    );
}
