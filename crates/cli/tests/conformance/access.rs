//! Who is let in (end-1, and what every route does for those who are not).

use deltaport_testkit::http::{Request, Response};
use deltaport_testkit::sample::{Content, Image, bytes};

use crate::harness::{BOB, Registry, Setup, requirements};
use crate::steps::{expect_error, strings};

/// Every kind of request about a repository, with `tag`, `manifest` and `blob` as its content.
fn requests(registry: &Registry, tag: &str, manifest: &Content, blob: &Content) -> Vec<Request> {
    let path = |rest: String| registry.path(rest);
    let by_digest = path(format!("manifests/{}", manifest.digest));
    let by_tag = path(format!("manifests/{tag}"));
    let blob = path(format!("blobs/{}", blob.digest));
    let upload = path("blobs/uploads/0123456789abcdef0123456789abcdef".to_owned());
    vec![
        Request::get(&by_tag),
        Request::head(&by_tag),
        Request::get(&by_digest),
        Request::get(&blob),
        Request::head(&blob),
        Request::get(&path("tags/list".to_owned())),
        Request::get(&path(format!("referrers/{}", manifest.digest))),
        Request::post(&path("blobs/uploads/".to_owned())),
        Request::get(&upload),
        Request::patch(&upload).body("x"),
        Request::put(&upload).body("x"),
        Request::delete(&upload),
        Request::put(&by_tag).header("Content-Type", &manifest.media_type).body(manifest.bytes.clone()),
        Request::delete(&by_tag),
        Request::delete(&by_digest),
        Request::delete(&blob),
    ]
}

/// What somebody can tell from an answer about whether something exists.
fn seen(response: &Response) -> (u16, Vec<u8>, Option<String>) {
    (response.status, response.body.to_vec(), response.header("www-authenticate").map(str::to_owned))
}

requirements! {
    /// end-1: this is a registry; those who have to log in are told how.
    async fn the_base_path_says_whether_to_log_in(registry: &Registry) {
        assert_eq!(registry.send(Request::get("/v2/")).await.status, 200);
        let stranger = registry.as_stranger().send(Request::get("/v2/")).await;
        if registry.setup != Setup::PasswordsAndTls {
            assert_eq!(stranger.status, 200);
            return;
        }
        expect_error(&stranger, 401, "UNAUTHORIZED");
        let challenge = stranger.header("www-authenticate").expect("a challenge");
        assert!(challenge.starts_with("Basic realm=\""), "{challenge}");
        assert_eq!(registry.as_user(BOB).send(Request::get("/v2/")).await.status, 200);
    }

    /// A wrong password is refused everywhere, also where nobody has to log in.
    async fn a_wrong_password_is_refused(registry: &Registry) {
        for (user, password) in [("alice", "wrong"), ("alice", ""), ("nobody", "opensesame")] {
            let response = registry.as_user((user, password)).send(Request::get("/v2/")).await;
            expect_error(&response, 401, "UNAUTHORIZED");
        }
        let broken = registry.as_stranger();
        for credentials in ["Basic !!!", "Basic", "Bearer token"] {
            let request = Request::get("/v2/").header("Authorization", credentials);
            let status = broken.send(request).await.status;
            assert!(status == 401 || (status == 200 && registry.setup != Setup::PasswordsAndTls), "{credentials}");
        }
    }

    /// Strangers get the same answer whether something exists or not, for every kind of request.
    async fn strangers_learn_nothing(registry: &Registry) {
        if registry.setup != Setup::PasswordsAndTls {
            // Here loopback may do everything: a stranger is no stranger.
            assert!(!registry.as_stranger().begin_upload().await.is_empty());
            return;
        }
        let image = Image::small(1);
        registry.push_image("latest", &image).await;
        let stranger = registry.as_stranger();
        let missing = stranger.other("missing");
        let here = requests(&stranger, "latest", &image.manifest, &image.config);
        let nowhere = requests(&missing, "latest", &image.manifest, &image.config);
        for (here, nowhere) in here.into_iter().zip(nowhere) {
            let line = format!("{} {}", here.method, here.target);
            let (here, nowhere) = (stranger.send(here).await, missing.send(nowhere).await);
            assert_eq!(here.status, 401, "{line}");
            assert_eq!(seen(&here), seen(&nowhere), "{line}");
        }
        registry.expect_manifest("latest", &image.manifest).await;
    }

    /// So do users in repositories that they may not see.
    async fn users_learn_nothing_about_what_they_may_not_see(registry: &Registry) {
        if registry.setup != Setup::PasswordsAndTls {
            return expect_error(&registry.get("tags/list").await, 404, "NAME_UNKNOWN");
        }
        let image = Image::small(2);
        registry.push_image("latest", &image).await;
        let bob = registry.as_user(BOB);
        let missing = bob.other("missing");
        let here = requests(&bob, "latest", &image.manifest, &image.config);
        let nowhere = requests(&missing, "latest", &image.manifest, &image.config);
        for (here, nowhere) in here.into_iter().zip(nowhere) {
            let line = format!("{} {}", here.method, here.target);
            let (here, nowhere) = (bob.send(here).await, missing.send(nowhere).await);
            assert_eq!(here.status, 403, "{line}");
            assert_eq!(seen(&here), seen(&nowhere), "{line}");
        }
        registry.expect_manifest("latest", &image.manifest).await;
    }

    /// A right to read is no right to write.
    async fn readers_only_read(registry: &Registry) {
        let image = Image::small(3);
        let public = registry.in_repository("public/readers-only-read");
        public.push_image("latest", &image).await;
        let reader = if registry.setup == Setup::PasswordsAndTls { public.as_user(BOB) } else { public.as_stranger() };
        reader.expect_manifest("latest", &image.manifest).await;
        for blob in image.blobs() {
            reader.expect_blob(blob).await;
        }
        assert_eq!(reader.tags().await, ["latest"]);
        if registry.setup == Setup::PasswordsAndTls {
            let writes = requests(&reader, "latest", &image.manifest, &image.config).split_off(7);
            for request in writes {
                let line = format!("{} {}", request.method, request.target);
                let response = reader.send(request).await;
                assert_eq!(response.status, 403, "{line}");
                expect_error(&response, 403, "DENIED");
            }
            public.expect_manifest("latest", &image.manifest).await;
        }
    }

    /// The list of repositories has those that the caller may pull from, and no others.
    async fn the_list_of_repositories_is_filtered(registry: &Registry) {
        let public = registry.in_repository("public/listed");
        for registry in [registry, &public] {
            registry.push_image("latest", &Image::small(4)).await;
        }
        let names = async |registry: &Registry| {
            strings(&registry.send(Request::get("/v2/_catalog?n=1000")).await.json()["repositories"])
        };
        assert!(names(registry).await.contains(&registry.repository));
        if registry.setup == Setup::PasswordsAndTls {
            let listed = names(&registry.as_user(BOB)).await;
            assert!(listed.contains(&public.repository), "{listed:?}");
            let may = |name: &String| name.starts_with("public/") || name.starts_with("bob/");
            assert!(listed.iter().all(may), "{listed:?}");
            assert_eq!(registry.as_stranger().send(Request::get("/v2/_catalog")).await.status, 401);
        }
    }

    /// A mount needs the right to read at its source, also when the source is not named (CVE-2024-39897).
    async fn a_mount_needs_the_right_to_read(registry: &Registry) {
        let blob = Content::new("a/b", bytes(5, 800));
        registry.push_blob(&blob).await;
        let target = registry.in_repository("bob/mounts");
        if registry.setup != Setup::PasswordsAndTls {
            let request = Request::post(&target.path("blobs/uploads/")).query("mount", blob.digest);
            assert_eq!(target.send(request).await.status, 201);
            return;
        }
        let bob = target.as_user(BOB);
        let anywhere = Request::post(&bob.path("blobs/uploads/")).query("mount", blob.digest);
        let named = anywhere.clone().query("from", &registry.repository);
        for request in [anywhere, named] {
            assert_eq!(bob.send(request).await.status, 202);
            bob.expect_no_blob(&blob.digest).await;
        }
    }

    /// An upload belongs to who began it (CVE-2026-32589).
    async fn an_upload_of_another_user_is_unknown(registry: &Registry) {
        let target = registry.in_repository("bob/uploads");
        let upload = target.begin_upload().await;
        if registry.setup != Setup::PasswordsAndTls {
            assert_eq!(registry.send(Request::get(&upload)).await.status, 204);
            return;
        }
        let bob = target.as_user(BOB);
        let blob = Content::new("a/b", bytes(6, 10));
        for request in [
            Request::get(&upload),
            Request::patch(&upload).body(blob.bytes.clone()),
            Request::put(&upload).query("digest", blob.digest).body(blob.bytes.clone()),
            Request::delete(&upload),
        ] {
            expect_error(&bob.send(request).await, 404, "BLOB_UPLOAD_UNKNOWN");
        }
        assert_eq!(target.send(Request::get(&upload)).await.status, 204, "it is untouched");
    }

    /// Paths and methods that mean nothing.
    async fn what_has_no_meaning_is_refused(registry: &Registry) {
        for path in ["/", "/v1/", "/v2/name", "/v2/name/unknown/x", "/v2/../etc/passwd", "/v2/%ff/tags/list"] {
            let status = registry.send(Request::get(path)).await.status;
            assert!(matches!(status, 400 | 404), "{path}: {status}");
        }
        for (method, rest) in [("POST", "tags/list"), ("PATCH", "manifests/x"), ("PUT", "tags/list"), ("BREW", "tags/list")] {
            let response = registry.send(Request::new(method, &registry.path(rest))).await;
            expect_error(&response, 405, "UNSUPPORTED");
            assert!(response.header("allow").is_some_and(|allow| allow.contains("GET")), "{method} {rest}");
        }
    }
}
