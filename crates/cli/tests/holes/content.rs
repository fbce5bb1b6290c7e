//! What is sent: sizes without an end, manifests that are two things, digests that are paths, bombs, signatures of others.

use std::time::Instant;

use deltaport_testkit::http::Request;
use deltaport_testkit::process::Launch;
use deltaport_testkit::sample::{self, Content, Image};
use serde_json::json;

use crate::{is_refused, push, push_blob, push_manifest, send};

/// Bodies, numbers and depths without an end: CVE-2017-11468, CVE-2023-2253, CVE-2020-1702, CVE-2023-25153.
#[tokio::test]
async fn nothing_is_taken_without_an_end() {
    let server = Launch::new(env!("CARGO_BIN_EXE_deltaport")).start().await;
    let client = server.client();
    push(&client, "x", "latest", &Image::small(1)).await;
    let put = |body: Vec<u8>| {
        Request::put("/v2/x/manifests/big")
            .header("Content-Type", deltaport_oci::media_type::OCI_MANIFEST)
            .body(body)
    };
    is_refused(&client.send(put(vec![b' '; 9 << 20])).await, 413);
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    is_refused(&client.send(put(format!("{{\"schemaVersion\":2,\"x\":{deep}}}").into_bytes())).await, 400);
    let layers = vec![Image::small(1).layers[0].descriptor(); 200_000];
    let many = json!({ "schemaVersion": 2, "layers": layers }).to_string();
    let answer = client.send(put(many.into_bytes())).await;
    assert!(matches!(answer.status, 400 | 413), "{}", answer.status);
    for n in ["4294967296", "18446744073709551616", "-1", "1e9", "0x10"] {
        let answer = send(&client, "GET", &format!("/v2/x/tags/list?n={n}")).await;
        assert!(matches!(answer.status, 200 | 400), "{n}: {}", answer.status);
        let answer = send(&client, "GET", &format!("/v2/_catalog?n={n}")).await;
        assert!(matches!(answer.status, 200 | 400), "{n}: {}", answer.status);
    }
    let header = Request::get("/v2/").header("X-Long", "x".repeat(1 << 20));
    let answer = client.try_send(header).await;
    assert!(answer.is_err() || answer.is_ok_and(|answer| matches!(answer.status, 400 | 431)));
    let tags: String = (0..1000).map(|n| format!("&tag=t{n}")).collect();
    let manifest = Image::small(1).manifest;
    let path = format!("/v2/x/manifests/{}?{}", manifest.digest, &tags[1..]);
    let request =
        Request::put(&path).header("Content-Type", &manifest.media_type).body(manifest.bytes.clone());
    let answer = client.send(request).await;
    assert!(matches!(answer.status, 400 | 414), "{}", answer.status);
    assert_eq!(send(&client, "GET", "/v2/").await.status, 200, "it is still there");
}

/// Manifests that are an image to one and an index to another: CVE-2021-41190, GHSA-qq97-vm5h-rrhg, GHSA-77vh-xpmg-72qh.
#[tokio::test]
async fn a_manifest_is_one_thing() {
    let server = Launch::new(env!("CARGO_BIN_EXE_deltaport")).start().await;
    let client = server.client();
    let image = Image::small(1);
    push(&client, "x", "good", &image).await;
    let both =
        sample::manifest(&image.config, &image.layers, json!({ "manifests": [image.manifest.descriptor()] }));
    let mut other_type = image.manifest.clone();
    other_type.media_type = deltaport_oci::media_type::OCI_INDEX.to_owned();
    let mut untyped: serde_json::Value = serde_json::from_slice(&image.manifest.bytes).unwrap();
    untyped.as_object_mut().unwrap().remove("mediaType");
    untyped["manifests"] = json!([image.manifest.descriptor()]);
    let untyped = Content::new(deltaport_oci::media_type::OCI_INDEX, untyped.to_string());
    let twice = String::from_utf8(image.manifest.bytes.to_vec()).unwrap();
    let twice = twice.replacen('{', "{\"layers\":[],", 1);
    let twice = Content::new(&image.manifest.media_type, twice);
    for (what, manifest) in
        [("both", both), ("another type", other_type), ("untyped", untyped), ("twice", twice)]
    {
        let answer = push_manifest(&client, "x", "bad", &manifest).await;
        assert_eq!(answer.status, 400, "{what}: {}", answer.text());
        is_refused(&send(&client, "GET", "/v2/x/manifests/bad").await, 404);
    }
}

/// Digests that are not looked at, or are paths: CVE-2024-3727, GHSA-qv35-3gw6-8q4j, CVE-2025-59354.
#[tokio::test]
async fn a_digest_is_a_digest_of_the_content() {
    let server = Launch::new(env!("CARGO_BIN_EXE_deltaport")).start().await;
    let client = server.client();
    let blob = sample::layer(1, 1000);
    let hex = blob.digest.to_string().split_off("sha256:".len());
    for digest in [
        "sha256:../../../../etc/passwd".to_owned(),
        format!("sha256:{}", hex.to_uppercase()),
        format!("sha256:{}", &hex[1..]),
        format!("sha256:{hex}0"),
        "md5:d41d8cd98f00b204e9800998ecf8427e".to_owned(),
        "sha1:da39a3ee5e6b4b0d3255bfef95601890afd80709".to_owned(),
        format!("sha256+b64:{hex}"),
        "sha256:".to_owned(),
    ] {
        let request = Request::post("/v2/x/blobs/uploads/").query("digest", &digest).body(blob.bytes.clone());
        is_refused(&client.send(request).await, 400);
        for path in [format!("/v2/x/blobs/{digest}"), format!("/v2/x/manifests/{digest}")] {
            let answer = send(&client, "GET", &path).await;
            assert!(matches!(answer.status, 400 | 404), "{path}: {}", answer.status);
        }
    }
    let another = sample::layer(2, 1000);
    let request =
        Request::post("/v2/x/blobs/uploads/").query("digest", another.digest).body(blob.bytes.clone());
    is_refused(&client.send(request).await, 400);
    let image = Image::small(1);
    push(&client, "x", "latest", &image).await;
    let path = format!("/v2/x/manifests/{}", another.digest);
    let request = Request::put(&path)
        .header("Content-Type", &image.manifest.media_type)
        .body(image.manifest.bytes.clone());
    is_refused(&client.send(request).await, 400);
}

/// Names that are paths: CVE-2022-47747, CVE-2025-59352, CVE-2026-50162, CVE-2021-3762.
#[tokio::test]
async fn no_name_leads_out_of_the_data() {
    let launch = Launch::new(env!("CARGO_BIN_EXE_deltaport"));
    launch.file("secret", "do not read me");
    let server = launch.start().await;
    let client = server.client();
    for name in [
        "..%2f..%2fsecret",
        "../../secret",
        "a/../../secret",
        "%2e%2e/secret",
        "a//b",
        "a/./b",
        "/etc/passwd",
    ] {
        for path in [
            format!("/v2/{name}/tags/list"),
            format!("/v2/x/manifests/{name}"),
            format!("/v2/x/blobs/uploads/{name}"),
            format!("/v2/x/blobs/sha256:{name}"),
            format!("/{name}"),
        ] {
            let answer = send(&client, "GET", &path).await;
            assert!(matches!(answer.status, 400 | 404), "{path}: {} {}", answer.status, answer.text());
            assert!(!answer.text().contains("do not read me"));
        }
        let answer = send(&client, "POST", &format!("/v2/{name}/blobs/uploads/")).await;
        assert!(matches!(answer.status, 400 | 404), "{name}: {}", answer.status);
    }
    // A layer whose archive has such names is bytes like others: it is never unpacked, also not to make a delta of it.
    let evil = [sample::File::new("../../../evil", *b"out"), sample::File::new("/abs/evil", *b"out")];
    for n in 0..2_u8 {
        let mut files = evil.to_vec();
        files.push(sample::File::new("usr/bin/app", vec![n; 200_000]));
        push(&client, "x", "latest", &Image::of("amd64", vec![sample::layer_of(&files)])).await;
    }
    assert!(!server.launch().home().join("evil").exists() && !std::path::Path::new("/abs/evil").exists());
}

/// Little that becomes much: CVE-2024-29902, CVE-2023-46737, CVE-2023-30551, CVE-2024-45395.
#[tokio::test]
async fn a_bomb_is_stored_and_nothing_is_made_of_it() {
    let launch = Launch::new(env!("CARGO_BIN_EXE_deltaport"));
    let server = launch.start().await;
    let client = server.client();
    // 256 MiB of nothing in some 260 kB, in two versions, so that a hub makes a delta between them.
    let bombs: Vec<Image> = (0..2_u8)
        .map(|n| {
            let mut content = vec![0; 256 << 20];
            content[0] = n;
            Image::of("amd64", vec![bomb(&content)])
        })
        .collect();
    for image in &bombs {
        push(&client, "x", "latest", image).await;
    }
    let (old, new) = (bombs[0].layers[0].digest, bombs[1].layers[0].digest);
    let begun = Instant::now();
    let _any = send(&client, "GET", &format!("/v2/x/_deltaport/delta?from={old}&to={new}")).await;
    assert_eq!(send(&client, "GET", "/v2/").await.status, 200);
    let served = send(&client, "GET", &format!("/v2/x/blobs/{new}")).await;
    assert_eq!(served.body, bombs[1].layers[0].bytes, "what was pushed, bit for bit");
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.pid())).unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    let peak: u64 = peak.trim().trim_end_matches(" kB").parse().unwrap();
    assert!(peak < 1 << 20, "{peak} kB after {:?}", begun.elapsed());
}

fn bomb(content: &[u8]) -> Content {
    Content::new(sample::LAYER_GZIP, sample::gzip(content))
}

/// Signatures of something else: CVE-2022-35929, CVE-2022-36056, CVE-2026-22703, zot #4202. The formats and tricks have
/// their tables in the crate that judges; here is that the command says no.
#[tokio::test]
async fn a_policy_that_wants_a_signature_is_not_content_with_none_or_with_nonsense() {
    let launch = Launch::new(env!("CARGO_BIN_EXE_deltaport"));
    let key = rcgen::KeyPair::generate().unwrap().public_key_pem();
    launch.file("key.pub", key);
    let path = launch.home().join("key.pub");
    let demand = json!([{ "type": "sigstoreSigned", "keyPath": path, "signedIdentity": { "type": "matchRepository" } }]);
    launch.file("policy.json", json!({ "default": demand }).to_string());
    let layout = launch.home().join("layout");
    let image = Image::small(1);
    let nonsense = Content::new("application/vnd.dev.cosign.simplesigning.v1+json", "{}");
    let signature = sample::manifest(
        &sample::empty_config(),
        std::slice::from_ref(&nonsense),
        json!({ "subject": image.manifest.descriptor() }),
    );
    let tag = format!("{}.sig", image.manifest.digest.to_string().replace(':', "-"));
    let unsigned = deltaport_testkit::clients::Layout::new(layout.clone()).image("1.0", &image);
    drop(unsigned);
    let verify = || {
        let (layout, policy) = (format!("oci:{}:1.0", layout.display()), launch.home().join("policy.json"));
        launch.run(&[
            "verify",
            &layout,
            "--policy",
            policy.to_str().unwrap(),
            "--name",
            "registry.example/x:1.0",
        ])
    };
    let (status, text) = verify();
    assert_eq!(status.code(), Some(1), "{text}");
    let signed = Image { manifest: signature, config: sample::empty_config(), layers: vec![nonsense] };
    drop(deltaport_testkit::clients::Layout::new(layout.clone()).image("1.0", &image).image(&tag, &signed));
    let (status, text) = verify();
    assert_eq!(status.code(), Some(1), "{text}");
}

/// Empty answers for content that is gone: distribution #4872. Length and digest are looked at before anything is said.
#[tokio::test]
async fn content_that_was_lost_is_never_served_as_nothing() {
    let server = Launch::new(env!("CARGO_BIN_EXE_deltaport")).start().await;
    let client = server.client();
    let blob = sample::layer(3, 5000);
    push_blob(&client, "x", &blob).await;
    let hex = blob.digest.to_string().split_off("sha256:".len());
    let file = find(&server.launch().data(), &hex).expect("the blob is a file");
    for damage in ["empty", "gone"] {
        match damage {
            "empty" => std::fs::OpenOptions::new().write(true).truncate(true).open(&file).map(drop).unwrap(),
            _ => std::fs::remove_file(&file).unwrap(),
        }
        let answer = client.try_send(Request::get(&format!("/v2/x/blobs/{}", blob.digest))).await;
        let lied = answer.as_ref().is_ok_and(|answer| answer.status == 200);
        assert!(!lied, "{damage}: {answer:?}");
    }
}

/// The file of this name, with whatever before and behind it.
fn find(directory: &std::path::Path, name: &str) -> Option<std::path::PathBuf> {
    for entry in std::fs::read_dir(directory).ok()?.flatten() {
        let path = entry.path();
        match path.is_dir() {
            true => {
                if let Some(found) = find(&path, name) {
                    return Some(found);
                }
            }
            false if path.file_name()?.to_str()?.contains(name) => return Some(path),
            false => {}
        }
    }
    None
}
