//! Rules with another registry as their destination.

use deltaport_testkit::sample::{self, Content, Image, bytes};
use serde_json::json;

use crate::harness::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sparse_image_goes_on_with_its_signatures_and_nothing_is_asked_twice() {
    let (hub, lan) = (Party::start("").await, Party::start("validate = \"none\"").await);
    let release = Release::new(1, 100_000);
    hub.release("app", "v1", &release).await;
    let site = site(&hub, &lan, "tags = [\"v1\"]\nplatforms = [\"linux/arm64\"]").await;

    let (status, plan) = report(&site, "plan", "all");
    assert_eq!(status, Some(0), "{plan:#}");
    assert!(lan.tags("team/app").await.is_empty(), "to plan changes nothing");
    assert_eq!(lan.asked("P", "/v2/team/app"), 0);
    let (status, run) = report(&site, "run", "all");
    assert_eq!(status, Some(0), "{run:#}\n{}", site.log());
    assert_eq!(steps(&plan), steps(&run));
    let last = steps(&run).pop().unwrap();
    assert_eq!((&last["step"], &last["tag"]), (&json!("send-tag"), &json!("v1")));
    assert!(run["sent"].as_u64().unwrap() > 100_000);

    // The same bytes, and nothing of the other platforms.
    let image = &release.images[1];
    assert_eq!(lan.get("team/app", "v1").await.unwrap(), release.index.bytes);
    assert_eq!(lan.get("team/app", &release.signature_tag()).await.unwrap(), release.signature.bytes);
    for manifest in [&image.manifest, &release.bills[1]] {
        assert_eq!(lan.get("team/app", &manifest.digest.to_string()).await.unwrap(), manifest.bytes);
    }
    for blob in image.blobs().chain([&release.blobs[0], &release.blobs[3]]) {
        assert!(lan.has_blob("team/app", &blob.digest).await);
    }
    assert_eq!(lan.referrers("team/app", &image.manifest.digest).await[0]["artifactType"], BILL);
    assert!(lan.get("team/app", &release.images[0].manifest.digest.to_string()).await.is_none());

    // Warm: one HEAD at the source and one at the destination.
    let before = (hub.relay.requests().len(), lan.relay.requests().len());
    let (status, warm) = report(&site, "run", "all");
    assert_eq!((status, &warm["tags"][0]["outcome"]), (Some(0), &json!("unchanged")), "{warm:#}");
    let new = |party: &Party, before| party.relay.requests()[before..].to_vec();
    let heads = [new(&hub, before.0), new(&lan, before.1)];
    assert!(
        heads.iter().all(|lines| lines.len() == 1 && lines[0].starts_with("HEAD")),
        "{heads:#?}\n{}",
        site.log()
    );

    // Somebody removes the tag there: the next run puts it back, and sends nothing else.
    let remove = deltaport_testkit::http::Request::delete("/v2/team/app/manifests/v1");
    assert_eq!(lan.server.client().send(remove).await.status, 202);
    let (status, again) = report(&site, "run", "all");
    assert_eq!(status, Some(0), "{again:#}");
    assert_eq!(again["tags"][0]["outcome"], "mirrored", "{again:#}");
    assert_eq!(lan.get("team/app", "v1").await.unwrap(), release.index.bytes);
    let (_, text) = mirror(&site, "run", &["all"]);
    assert!(text.contains(&format!("{HUB}/app to {HUB}/app and on to {LAN}/team/app")), "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_destination_that_refuses_sparse_indexes_is_told_apart() {
    let (hub, lan) = (Party::start("").await, Party::start("validate = \"all\"").await);
    let release = Release::new(2, 20_000);
    hub.release("app", "v1", &release).await;
    let rule = |more: &str| format!("tags = [\"v1\"]\n{more}");
    let sparse = site(&hub, &lan, &rule("platforms = [\"linux/arm64\"]")).await;
    let (status, text) = mirror(&sparse, "run", &[]);
    assert_eq!(status, Some(1), "{text}");
    for word in
        ["MANIFEST_BLOB_UNKNOWN", "Mirror all platforms", "indexes.platforms: none", "FEATURE_SPARSE_INDEX"]
    {
        assert!(text.contains(word), "{word}: {text}");
    }
    assert!(!lan.tags("team/app").await.contains(&"v1".to_owned()));
    let (_, run) = report(&sparse, "run", "all");
    assert_eq!(run["tags"][0]["outcome"], "failed", "a failure is not forgotten: {run:#}");
    let whole = site(&hub, &lan, &rule("")).await;
    let (status, text) = mirror(&whole, "run", &[]);
    assert_eq!(status, Some(0), "{text}");
    assert_eq!(lan.get("team/app", "v1").await.unwrap(), release.index.bytes);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_another_repository_of_the_destination_has_is_not_sent_again() {
    let (hub, lan) = (Party::start("").await, Party::start("").await);
    let shared = Content::new(sample::LAYER_TAR, bytes(7, 500_000));
    let image = |architecture| Image::of(architecture, vec![shared.clone()]);
    let (one, two) = (image("amd64"), image("arm64"));
    hub.image("app", "v1", &one).await;
    hub.image("other", "v1", &two).await;
    let rule = format!(
        "tags = [\"v1\"]\n[[mirror]]\nname = \"second\"\nsource = \"{HUB}/other\"\nto = \"{LAN}/team/other\"\ntags = [\"v1\"]"
    );
    let site = site(&hub, &lan, &rule).await;
    let (status, first) = report(&site, "run", "all");
    assert_eq!(status, Some(0), "{first:#}");
    let (status, second) = report(&site, "run", "second");
    assert_eq!(status, Some(0), "{second:#}");
    let sent = |report: &serde_json::Value| report["sent"].as_u64().unwrap();
    assert!(sent(&first) > 500_000 && sent(&second) < 10_000, "{} {}", sent(&first), sent(&second));
    assert!(lan.has_blob("team/other", &shared.digest).await);
    assert_eq!(lan.get("team/other", "v1").await.unwrap(), two.manifest.bytes);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_signature_made_with_a_key_is_still_good_behind_a_sparse_index() {
    let (hub, lan) = (Party::start("").await, Party::start("validate = \"none\"").await);
    let keys = tempfile::tempdir().unwrap();
    let mut release = Release::new(3, 5000);
    let name = format!("{HUB}/app");
    let (signature, payload) = sign(keys.path(), &name, &release.index.digest);
    release.signature = signature;
    release.blobs.push(payload);
    hub.release("app", "v1", &release).await;
    let out = keys.path().join("out");
    let rule = format!(
        "tags = [\"v1\"]\nplatforms = [\"linux/arm64\"]\n[[mirror]]\nname = \"disk\"\nsource = \"{HUB}/app\"\n\
         to = \"oci:{}\"\ntags = [\"v1\"]\nplatforms = [\"linux/arm64\"]",
        out.display()
    );
    let site = site(&hub, &lan, &rule).await;
    let (status, text) = mirror(&site, "run", &[]);
    assert_eq!(status, Some(0), "{text}");
    assert_eq!(lan.get("team/app", &release.signature_tag()).await.unwrap(), release.signature.bytes);
    let policy = keys.path().join("policy.json");
    let key = keys.path().join("key.pub");
    let wanted = json!({ "default": [{ "type": "sigstoreSigned", "keyPath": key, "signedIdentity": { "type": "matchRepository" } }] });
    std::fs::write(&policy, wanted.to_string()).unwrap();
    let verify = |image: &str| {
        let (policy, name) = (policy.display().to_string(), format!("{name}:v1"));
        site.launch().run(&["verify", image, "--policy", &policy, "--name", &name, "--json"])
    };
    let (status, text) = verify(&format!("oci:{}:v1", out.display()));
    assert!(status.success(), "{text}");
    // One byte of the payload, and it is not.
    let file = out.join("blobs/sha256").join(release.blobs.last().unwrap().digest.hex());
    let mut bytes = std::fs::read(&file).unwrap();
    bytes[10] ^= 1;
    std::fs::write(&file, bytes).unwrap();
    assert!(!verify(&format!("oci:{}:v1", out.display())).0.success());
}
