//! OCI image layouts, as a destination and as a source.

use std::path::Path;

use deltaport_testkit::clients::read_image;
use deltaport_testkit::process::Server;
use deltaport_testkit::sample::{Content, Image};
use serde_json::{Value, json};

use crate::harness::*;

/// A site with the rules of `rules`, and the hub as an upstream.
async fn site_of(hub: &Party, rules: &str) -> Server {
    launch(&format!("{}{rules}", upstream(HUB, &hub.url()))).start().await
}

fn index_of(layout: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(layout.join("index.json")).unwrap()).unwrap()
}

fn holds(layout: &Path, content: &Content) -> bool {
    let file = layout.join("blobs/sha256").join(content.digest.hex());
    std::fs::read(file).is_ok_and(|bytes| bytes == content.bytes)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_layout_gets_images_with_what_is_about_them_and_keeps_what_others_put_there() {
    let hub = Party::start("").await;
    let release = Release::new(1, 50_000);
    hub.release("app", "v1", &release).await;
    let plain = Image::small(9);
    hub.image("app", "v2", &plain).await;
    let directory = tempfile::tempdir().unwrap();
    let out = directory.path().join("out");
    std::fs::create_dir(&out).unwrap();
    let foreign =
        json!({ "mediaType": "a/b", "digest": Image::small(8).manifest.digest, "size": 1, "x": [1] });
    let index = json!({ "schemaVersion": 2, "manifests": [foreign], "annotations": { "kept": "yes" } });
    std::fs::write(out.join("index.json"), index.to_string()).unwrap();
    let rule = format!(
        "[[mirror]]\nname = \"disk\"\nsource = \"{HUB}/app\"\nto = \"oci:{}\"\ntags = [\"v1\", \"v2\"]\n\
         platforms = [\"linux/arm64\"]\n",
        out.display()
    );
    let site = site_of(&hub, &rule).await;
    let (status, plan) = report(&site, "plan", "disk");
    assert_eq!((status, out.join("blobs").exists()), (Some(0), false), "{plan:#}");
    let (status, run) = report(&site, "run", "disk");
    assert_eq!(status, Some(0), "{run:#}\n{}", site.log());
    assert_eq!(steps(&plan), steps(&run));

    let index = index_of(&out);
    let entries = index["manifests"].as_array().unwrap();
    assert_eq!((&entries[0], &index["annotations"]["kept"]), (&foreign, &json!("yes")));
    let named = |name: &str| {
        let name = json!(name);
        let is_named = |entry: &&Value| entry["annotations"]["org.opencontainers.image.ref.name"] == name;
        entries.iter().find(is_named).map(|entry| entry["digest"].clone())
    };
    assert_eq!(named("v1"), Some(json!(release.index.digest)));
    assert_eq!(named(&release.signature_tag()), Some(json!(release.signature.digest)));
    assert!(entries.iter().any(|entry| entry["digest"] == json!(release.bills[1].digest)));
    assert_eq!(read_image(&out, "v2").manifest.bytes, plain.manifest.bytes);
    let image = &release.images[1];
    for content in
        image.blobs().chain([&image.manifest, &release.index, &release.signature, &release.bills[1]])
    {
        assert!(holds(&out, content), "{}", content.digest);
    }
    assert!(!holds(&out, &release.images[0].manifest), "nobody asked for that platform");
    assert!(out.join("oci-layout").is_file());
    let before = index_of(&out);
    let (status, warm) = report(&site, "run", "disk");
    assert_eq!((status, &warm["tags"][0]["outcome"], index_of(&out)), (Some(0), &json!("unchanged"), before));

    // An entry that is gone is written again, and files that are gone with it.
    std::fs::remove_file(out.join("blobs/sha256").join(plain.layers[0].digest.hex())).unwrap();
    let mut index = index_of(&out);
    index["manifests"]
        .as_array_mut()
        .unwrap()
        .retain(|entry| entry["digest"] != json!(plain.manifest.digest));
    std::fs::write(out.join("index.json"), index.to_string()).unwrap();
    let (status, again) = report(&site, "run", "disk");
    assert_eq!(status, Some(0), "{again:#}");
    assert!(holds(&out, &plain.layers[0]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sparse_layout_is_a_source_like_a_registry() {
    let (hub, lan) = (Party::start("").await, Party::start("validate = \"none\"").await);
    let release = Release::new(2, 50_000);
    hub.release("app", "v1", &release).await;
    let directory = tempfile::tempdir().unwrap();
    let out = directory.path().join("out");
    let rule = format!(
        "[[mirror]]\nname = \"disk\"\nsource = \"{HUB}/app\"\nto = \"oci:{}\"\ntags = [\"v1\"]\nplatforms = [\"linux/arm64\"]\n",
        out.display()
    );
    let first = site_of(&hub, &rule).await;
    assert_eq!(mirror(&first, "run", &[]).0, Some(0));

    let back = |platforms: &str| {
        format!(
            "{}[[mirror]]\nname = \"back\"\nsource = \"oci:{}\"\nrepository = \"vendor/app\"\nto = \"{LAN}/team/app\"\n\
             tags = [\"*\"]\nplatforms = {platforms}\n",
            upstream(LAN, &lan.url()),
            out.display()
        )
    };
    let site = launch(&back("[]")).start().await;
    let (status, plan) = report(&site, "plan", "back");
    assert_eq!(status, Some(0), "{plan:#}");
    let (status, run) = report(&site, "run", "back");
    assert_eq!(status, Some(0), "{run:#}\n{}", site.log());
    assert_eq!(steps(&plan), steps(&run));
    let missing = run["tags"][0]["missing"].as_array().unwrap();
    assert_eq!(missing.len(), 2, "two platforms are not in the layout: {run:#}");
    let image = &release.images[1];
    for reference in ["v1".to_owned(), release.index.digest.to_string()] {
        assert_eq!(lan.get("team/app", &reference).await.unwrap(), release.index.bytes);
    }
    assert_eq!(lan.get("team/app", &release.signature_tag()).await.unwrap(), release.signature.bytes);
    assert_eq!(lan.referrers("team/app", &image.manifest.digest).await.len(), 1);
    assert!(lan.has_blob("team/app", &image.layers[0].digest).await);
    let show = format!("{}/vendor/app:v1", site.address());
    let (_, text) = site.launch().run(&["image", "show", &show]);
    assert!(text.contains("absent upstream"), "{text}");

    // Of a platform that was asked for, it is a failure.
    let asked = launch(&back("[\"linux/amd64\", \"linux/arm64\"]")).start().await;
    let (status, run) = report(&asked, "run", "back");
    assert_eq!((status, &run["tags"][0]["outcome"]), (Some(1), &json!("failed")), "{run:#}");

    // What is damaged is not taken.
    let file = out.join("blobs/sha256").join(image.layers[0].digest.hex());
    let mut bytes = std::fs::read(&file).unwrap();
    bytes[100] ^= 1;
    std::fs::write(&file, bytes).unwrap();
    let fresh = launch(&back("[]")).start().await;
    let (status, text) = mirror(&fresh, "run", &[]);
    assert_eq!(status, Some(1), "{text}");
    assert!(text.contains("oci") || text.contains(&file.display().to_string()), "{text}");
    let none = launch(&back("[]").replace(&out.display().to_string(), "/nowhere/at/all")).start().await;
    let (status, text) = mirror(&none, "run", &[]);
    assert!(status == Some(1) && text.contains("no OCI image layout in /nowhere/at/all"), "{text}");
}
