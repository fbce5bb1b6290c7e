//! A signed image on its way through hub and site to podman, with the signature that podman asks for; and what becomes of it
//! when one byte of the signature is changed.
//!
//! The podman and skopeo of Debian neither sign nor verify ("Debian-local change: sigstore disabled"). So one signature is what
//! a skopeo elsewhere has made, the other is made here, as they write it, and it is the site that verifies them. A podman
//! that can verifies them once more.

use std::net::SocketAddr;
use std::path::Path;

use deltaport_client::{Options, Upstream};
use deltaport_oci::{Reference, RepositoryName, media_type};
use deltaport_testkit::clients::{Run, Sandbox};
use deltaport_testkit::sample::{Content, Image, LAYER_GZIP};
use deltaport_testkit::signer::{Signature, Signer};
use futures_util::stream;
use serde_json::json;

use crate::podman::{assert_holds, mirror, podman};
use crate::registry::{Registry, at, wait};
use crate::skopeo;
use crate::through_site::{DEFAULT, REPOSITORY};

/// What the image is called where it comes from.
const NAME: &str = "hub.example/library/base:v1";

/// Pushes a signature, as podman does after the image.
async fn push(address: SocketAddr, signature: &Signature) {
    let upstream = Upstream::new(&Options::new(DEFAULT, format!("http://{address}"))).expect("an address");
    let name: RepositoryName = REPOSITORY.parse().expect("a name");
    for blob in signature.blobs() {
        let bytes = || stream::iter([Ok(blob.bytes.clone())]);
        let size = blob.bytes.len() as u64;
        upstream.push_blob(&name, &blob.digest, size, bytes).await.expect("the registry takes blobs");
    }
    let Content { media_type, bytes, .. } = &signature.manifest;
    let reference: Reference = signature.tag.parse().expect("a tag");
    upstream.push_manifest(&name, &reference, media_type, bytes.clone()).await.expect("it takes manifests");
}

/// A site of the hub with a policy.
fn site(hub: &Registry, policy: &Path) -> Registry {
    Registry::with_settings(&format!(
        "[[upstream]]\nhost = {DEFAULT:?}\nurl = \"http://{}\"\ndefault = true\n[trust]\npolicy = {policy:?}\n",
        hub.address()
    ))
}

/// A machine that verifies what it pulls by a policy, and is told that signatures lie beside the images: at the site, since
/// podman looks that up by where it really pulls from.
fn verifying(sandbox: &Sandbox, site: SocketAddr, policy: &Path) {
    sandbox.write(
        ".config/containers/registries.d/hub.yaml",
        format!("docker:\n  {site}:\n    use-sigstore-attachments: true\n"),
    );
    let text = std::fs::read(policy).expect("it was written");
    sandbox.write(".config/containers/policy.json", text);
}

/// A machine that takes what it gets.
fn careless(sandbox: &Sandbox) {
    let policy = json!({ "default": [{ "type": "insecureAcceptAnything" }] });
    sandbox.write(".config/containers/policy.json", policy.to_string());
}

fn pull<'a>(sandbox: &'a Sandbox, store: &str, reference: &str) -> Run<'a> {
    podman(sandbox, store)
        .line("pull --quiet --tls-verify=false --signature-policy")
        .arg(sandbox.path(".config/containers/policy.json"))
        .arg(reference)
}

/// What a registry answers to a request for the image: status and body.
fn answer(bench: &Sandbox, registry: &Registry, path: &str) -> String {
    let url = format!("http://{}/v2/{REPOSITORY}/{path}", registry.address());
    bench.run("/usr/bin/curl").line("--silent --show-error --write-out %{http_code}").arg(url).ok()
}

/// An image with its signature.
struct Signed {
    image: Image,
    signature: Signature,
    /// Whose signature it is, PEM.
    key: String,
}

#[test]
fn podman_has_a_signed_image_through_hub_and_site_and_none_of_which_the_signature_was_changed() {
    let (signer, image) = (Signer::new(), Image::small(77));
    let signature = signer.sign(&image.manifest.digest, NAME);
    enters_and_does_not_when_changed(&Signed { image, signature, key: signer.pem() });
}

#[test]
fn podman_has_an_image_that_skopeo_signed_through_hub_and_site_and_none_of_which_the_signature_was_changed() {
    let file = |name: &str| {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../trust/tests/fixtures").join(name);
        std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    };
    let content = |media_type: &str, name: &str| Content::new(media_type, file(name));
    let image = Image {
        manifest: content(media_type::OCI_MANIFEST, "skopeo.image.json"),
        config: content(media_type::OCI_CONFIG, "skopeo.image.config"),
        layers: vec![content(LAYER_GZIP, "skopeo.image.layer")],
    };
    let digest = image.manifest.digest;
    let signature = Signature {
        manifest: content(media_type::OCI_MANIFEST, "skopeo.manifest.json"),
        config: content(media_type::OCI_CONFIG, "skopeo.config"),
        payload: content("application/vnd.dev.cosign.simplesigning.v1+json", "skopeo.payload"),
        tag: format!("{}-{}.sig", digest.algorithm(), digest.hex()),
    };
    let key = String::from_utf8(file("skopeo.pub")).expect("PEM is text");
    enters_and_does_not_when_changed(&Signed { image, signature, key });
}

fn enters_and_does_not_when_changed(signed: &Signed) {
    let Signed { image, signature, key } = signed;
    let (bench, digest) = (Sandbox::new(), image.manifest.digest);
    let key = bench.write("team.pub", key);
    let requirement = json!({ "type": "sigstoreSigned", "keyPath": key });
    let policy = json!({
        "default": [{ "type": "reject" }],
        "transports": { "docker": { (DEFAULT): [requirement] } },
    });
    let policy = bench.write("policy.json", policy.to_string());
    let hub = Registry::open();
    skopeo::push(&bench, hub.address(), &format!("{REPOSITORY}:v1"), image);

    // Not signed, it stops at the site.
    let unsigned = site(&hub, &policy);
    let told = answer(&bench, &unsigned, "manifests/v1");
    assert!(told.ends_with("403") && told.contains(r#""reason":"unsigned""#), "{told}");

    wait(push(hub.address(), signature));
    let good = site(&hub, &policy);
    let machine = Sandbox::new();
    mirror(&machine, DEFAULT, good.address());
    verifying(&machine, good.address(), &policy);
    let verified = pull(&machine, "verified", NAME).outcome();
    // Without one it would say that there is none.
    assert!(verified.success || verified.everything.contains("sigstore disabled"), "{}", verified.everything);
    careless(&machine);
    pull(&machine, "store", NAME).ok();
    assert_holds(&machine, "store", NAME, image);

    // One byte of the signature is changed at the upstream.
    wait(push(hub.address(), &signature.clone().tampered(&digest)));
    let changed = site(&hub, &policy);
    let trusting = Sandbox::new();
    mirror(&trusting, DEFAULT, changed.address());
    careless(&trusting);
    for reference in [NAME.to_owned(), format!("{DEFAULT}/{REPOSITORY}@{digest}")] {
        let why = pull(&trusting, "store", &reference).refused();
        assert!(why.contains("denied") || why.contains("not accepted here"), "{why}");
    }
    let told = answer(&bench, &changed, "manifests/v1");
    assert!(told.ends_with("403") && told.contains(r#""reason":"wrong-key""#), "{told}");
    for blob in image.blobs() {
        let told = answer(&bench, &changed, &format!("blobs/{}", blob.digest));
        assert!(told.ends_with("403"), "{told}");
    }
    // The hub has no policy: what podman gets from there it verifies itself.
    let direct = at(hub.address(), &format!("{REPOSITORY}:v1"));
    pull(&trusting, "store", &direct).ok();
    // A site that has verified the image serves what it verified, also when the hub is gone.
    drop(hub);
    let late = Sandbox::new();
    mirror(&late, DEFAULT, good.address());
    careless(&late);
    pull(&late, "store", NAME).ok();
    assert_holds(&late, "store", NAME, image);
}
