//! What comes from an upstream.

use deltaport_oci::{Reference, Tag};
use deltaport_registry::{Error, Kind};
use deltaport_testkit::sample::{self, Content, Image};
use deltaport_testkit::signer::Signer;
use deltaport_testkit::upstream::{Reply, Rule};
use serde_json::json;

use crate::support::*;

const SIGNED: &str = "registry.example/app:v1";

/// An image with a layer that says it has 1 GiB. Nobody is to ask for it.
fn large() -> Image {
    let config = Content::new(sample::CONFIG, "{}");
    let mut layer = Content::new(sample::LAYER_GZIP, "none of it").descriptor();
    layer["size"] = json!(1_u64 << 30);
    let manifest = sample::manifest(&config, &[], json!({ "layers": [layer] }));
    Image { manifest, config, layers: Vec::new() }
}

#[tokio::test]
async fn a_refused_image_of_a_gibibyte_costs_kilobytes() {
    let (script, signer) = (upstream().await, Signer::new());
    let image = large();
    has(&script, &image.manifest, Some("v1"));
    let site = Site::new(&script.url(), &signer.policy("matchRepository")).await;
    let refusal = Site::refusal(site.pull(&app(), "v1").await);
    assert_eq!((refusal.code.as_str(), refusal.name.as_str()), ("unsigned", SIGNED));
    assert_eq!((refusal.digest, refusal.blob, refusal.pushed), (image.manifest.digest, false, false));

    // Signed by somebody else, it costs the signature as well.
    has_signature(&script, &Signer::new().sign(&image.manifest.digest, SIGNED));
    assert_eq!(
        Site::refusal(site.pull(&app(), "v1").await).code,
        "unsigned",
        "which is remembered for a second"
    );
    tokio::time::sleep(std::time::Duration::from_millis(1100)).await;
    assert_eq!(Site::refusal(site.pull(&app(), "v1").await).code, "wrong-key");
    let payload = Signer::new().sign(&image.manifest.digest, SIGNED).payload.digest.to_string();
    assert!(blobs_asked(&script).iter().all(|blob| *blob == payload || blob.len() == payload.len()));
    assert_eq!(blobs_asked(&script).len(), 2, "payload and configuration of the signature");
    assert!(script.sent() < 5000, "{} bytes were sent", script.sent());

    // Nothing of the image has entered.
    let digest = Reference::Digest(image.manifest.digest);
    let names = site.store.names();
    assert!(names.manifest(&app(), &digest).await.unwrap().is_none());
    assert!(names.manifest(&app(), &Reference::Tag("v1".parse::<Tag>().unwrap())).await.unwrap().is_none());
    let error = site.pull(&app(), "v1").await.unwrap_err();
    assert_eq!(error.kind(), Kind::Refused);
    assert!(error.to_string().contains("deltaport verify registry.example/app:v1"), "{error}");
    assert_eq!(site.counts("verdicts_refused_total{reason=\"unsigned\"}"), 1);
    assert!(site.counts("verdicts_refused_total{reason=\"wrong-key\"}") >= 1);
    assert!(site.counts("verdicts_denied_total") >= 4);
}

#[tokio::test]
async fn a_signed_image_enters_and_one_that_was_changed_does_not() {
    let (script, signer) = (upstream().await, Signer::new());
    let images = [1, 2].map(Image::small);
    for (image, tag) in images.iter().zip(["v1", "v2"]) {
        has_image(&script, image, tag);
        has_signature(&script, &signer.sign(&image.manifest.digest, &format!("registry.example/app:{tag}")));
    }
    let site = Site::new(&script.url(), &signer.policy("matchRepoDigestOrExact")).await;
    assert_eq!(site.pull(&app(), "v1").await.unwrap().digest, images[0].manifest.digest);
    for blob in images[0].blobs() {
        assert!(site.serves(&app(), blob).await);
    }
    let digest = images[0].manifest.digest;
    assert!(site.pull(&app(), digest).await.is_ok(), "clients go on by digest");
    assert_eq!(
        site.kept(&app(), &digest).await,
        [(None, true, true), (Some("v1".to_owned()), true, true)],
        "and the verdict stays with it"
    );
    let verdict = site.registry.verdicts(&app(), &digest).await.unwrap().pop().unwrap();
    assert!(verdict.verdict["grounds"][0]["signer"]["key"].as_str().unwrap().starts_with("sha256:"));
    assert_eq!(verdict.verdict["scope"], "default");

    // What clients verify for themselves is served as well.
    let signature = signer.sign(&digest, SIGNED);
    let served = site.pull(&app(), &signature.tag).await.unwrap();
    let view: serde_json::Value = serde_json::from_slice(&served.bytes).unwrap();
    let payload: deltaport_oci::Digest = view["layers"][0]["digest"].as_str().unwrap().parse().unwrap();
    assert!(site.registry.blob(&app(), &payload).await.is_ok());

    // One byte of the other's signature is changed.
    let changed = signer
        .sign(&images[1].manifest.digest, "registry.example/app:v2")
        .tampered(&images[1].manifest.digest);
    has_signature(&script, &changed);
    let before = blobs_asked(&script).len();
    assert_eq!(Site::refusal(site.pull(&app(), "v2").await).code, "wrong-key");
    assert_eq!(Site::refusal(site.pull(&app(), images[1].manifest.digest).await).code, "wrong-key");
    for blob in images[1].blobs() {
        assert!(!site.serves(&app(), blob).await, "nor any of its blobs");
    }
    assert_eq!(blobs_asked(&script).len() - before, 2, "of the signature, and none of the image");
}

#[tokio::test]
async fn a_tag_that_moves_to_what_is_not_signed_is_refused_and_stays_where_it_was() {
    let (script, signer) = (upstream().await, Signer::new());
    let (old, new) = (Image::small(3), Image::small(4));
    has_image(&script, &old, "v1");
    has_signature(&script, &signer.sign(&old.manifest.digest, SIGNED));
    let site = Site::new(&script.url(), &signer.policy("matchRepoDigestOrExact")).await;
    assert!(site.pull(&app(), "v1").await.is_ok());
    has_image(&script, &new, "v1");
    assert_eq!(Site::refusal(site.pull(&app(), "v1").await).code, "unsigned");
    // A signature of what the tag was before is about another manifest; here it is one under the wrong tag.
    let mut moved = signer.sign(&old.manifest.digest, SIGNED);
    moved.tag = signer.sign(&new.manifest.digest, SIGNED).tag;
    has_signature(&script, &moved);
    tokio::time::sleep(std::time::Duration::from_millis(1100)).await;
    assert_eq!(Site::refusal(site.pull(&app(), "v1").await).code, "other-manifest");
    assert!(site.pull(&app(), old.manifest.digest).await.is_ok(), "which is as good as before");
}

#[tokio::test]
async fn a_signature_of_an_index_counts_for_its_images_and_one_of_all_its_images_for_the_index() {
    let (script, signer) = (upstream().await, Signer::new());
    let images = [5, 6].map(Image::small);
    let [one, other] = [&images[0].manifest, &images[1].manifest];
    let index = sample::index(&[one, other], json!({}));
    has(&script, &index, Some("v1"));
    for image in &images {
        has(&script, &image.manifest, None);
        has_blobs(&script, image.blobs());
    }
    has_signature(&script, &signer.sign(&index.digest, SIGNED));
    let site = Site::new(&script.url(), &signer.policy("matchExact")).await;
    assert!(site.pull(&app(), "v1").await.is_ok());
    assert!(site.pull(&app(), index.digest).await.is_ok(), "the tag leads there");
    for image in &images {
        assert!(site.pull(&app(), image.manifest.digest).await.is_ok());
        assert!(site.serves(&app(), &image.layers[0]).await);
    }

    // Another index of which the images are signed, and not the index; its name is looked at.
    let whole = sample::index(&[other, one], json!({}));
    for tag in ["v2", "v3"] {
        has(&script, &whole, Some(tag));
    }
    has_signature(&script, &signer.sign(&one.digest, "registry.example/app:v2"));
    let parts = Site::new(&script.url(), &signer.policy("matchRepoDigestOrExact")).await;
    assert_eq!(Site::refusal(parts.pull(&app(), "v2").await).code, "unsigned", "only one is signed");
    has_signature(&script, &signer.sign(&other.digest, "registry.example/app:v2"));
    tokio::time::sleep(std::time::Duration::from_millis(1100)).await;
    assert!(parts.pull(&app(), "v2").await.is_ok());
    assert!(parts.pull(&app(), one.digest).await.is_ok());
    assert_eq!(Site::refusal(parts.pull(&app(), "v3").await).code, "unsigned");
    let exact = Site::new(&script.url(), &signer.policy("matchExact")).await;
    assert!(exact.pull(&app(), "v2").await.is_ok());
    assert!(exact.pull(&app(), other.digest).await.is_ok(), "it is signed under the tag that led here");
}

#[tokio::test]
async fn signatures_may_be_referrers() {
    let (script, signer) = (upstream().await, Signer::new());
    let image = Image::small(7);
    has_image(&script, &image, "v1");
    let signature = signer.sign(&image.manifest.digest, SIGNED).as_referrer(&image.manifest);
    has_blobs(&script, signature.blobs());
    has(&script, &signature.manifest, None);
    referrers(&script, &image.manifest, &[&signature.manifest]);
    let site = Site::new(&script.url(), &signer.policy("matchRepository")).await;
    assert!(site.pull(&app(), "v1").await.is_ok());
    assert!(site.serves(&app(), &image.layers[0]).await);
}

#[tokio::test]
async fn nothing_that_is_in_the_way_lets_an_image_in() {
    let (script, signer) = (upstream().await, Signer::new());
    let image = Image::small(8);
    has_image(&script, &image, "v1");
    let site = Site::new(&script.url(), &signer.policy("matchRepository")).await;
    let tag = signer.sign(&image.manifest.digest, SIGNED).tag;
    let path = format!("/v2/app/manifests/{tag}");
    // An upstream that cannot say whether there are signatures.
    script.first(Rule::on("GET", &path).times(1).reply(Reply::status(503)));
    assert!(matches!(site.pull(&app(), "v1").await, Err(Error::Upstream { .. })));
    // The image itself in the place of its signature.
    script.first(Rule::on("GET", &path).times(1).reply(Reply::content(&image.manifest)));
    assert_eq!(Site::refusal(site.pull(&app(), "v1").await).code, "unsigned");
    tokio::time::sleep(std::time::Duration::from_millis(1100)).await;
    // A signature whose payload is not what it names.
    let signature = signer.sign(&image.manifest.digest, SIGNED);
    has_signature(&script, &signature);
    let payload = format!("/v2/app/blobs/{}", signature.payload.digest);
    let other = "x".repeat(signature.payload.bytes.len());
    script.first(Rule::on("GET", &payload).reply(Reply::status(200).body(other)));
    assert_eq!(Site::refusal(site.pull(&app(), "v1").await).code, "document");
    // An image that calls itself a signature is asked for by the name of one.
    script.first(Rule::on("GET", &path).reply(Reply::content(&image.manifest)));
    script.first(Rule::on("HEAD", &path).reply(Reply::content(&image.manifest)));
    assert!(matches!(site.pull(&app(), &tag).await, Err(Error::Refused(_))));
    assert!(!site.serves(&app(), &image.layers[0]).await);
}

#[tokio::test]
async fn what_the_policy_leaves_alone_is_as_without_one() {
    let script = upstream().await;
    let image = Image::small(9);
    has_image(&script, &image, "v1");
    let policy = json!({
        "default": [{ "type": "reject" }],
        "transports": { "docker": { "registry.example/app": [{ "type": "insecureAcceptAnything" }] } },
    });
    let site = Site::new(&script.url(), &policy).await;
    assert!(site.serves(&app(), &image.layers[0]).await, "even where nobody has asked for its manifest");
    assert!(site.pull(&app(), "v1").await.is_ok());
    assert!(!script.lines().iter().any(|line| line.contains(".sig") || line.contains("referrers")));
    let other = name(&format!("{HOST}/other"));
    let script_has = |path: &str| script.first(Rule::on("GET", path).reply(Reply::content(&image.manifest)));
    script_has("/v2/other/manifests/v1");
    script.first(Rule::on("HEAD", "/v2/other/manifests/v1").reply(Reply::content(&image.manifest)));
    let refusal = Site::refusal(site.pull(&other, "v1").await);
    assert_eq!(refusal.code, "rejected");
    assert!(refusal.to_string().ends_with("(trust.policy)"), "{refusal}");
}
