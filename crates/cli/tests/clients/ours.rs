//! Our own client, as a hub's or a CI job's `delta push` uses it: an image and an artifact about it are pushed to other
//! software and to deltaport, and found again.

use bytes::Bytes;
use deltaport_client::{CredentialSource, Credentials, Options, Pushed, Upstream};
use deltaport_oci::{Reference, RepositoryName};
use deltaport_testkit::sample::{self, Content, Image};
use futures_util::stream;

use crate::registry::{PASSWORD, Registry, USER, wait};

const KIND: &str = "application/vnd.deltaport.delta.v1";

/// Pushes a blob and returns what became of it.
async fn push(upstream: &Upstream, name: &RepositoryName, blob: &Content) -> Pushed {
    let pieces = || {
        let pieces: Vec<_> = blob.bytes.chunks(64 << 10).map(Bytes::copy_from_slice).map(Ok).collect();
        stream::iter(pieces)
    };
    let size = blob.bytes.len() as u64;
    upstream.push_blob(name, &blob.digest, size, pieces).await.expect("the registry takes blobs")
}

/// What every registry has to do, whether it keeps lists of referrers or not.
async fn exchange(upstream: &Upstream, keeps_lists: bool) {
    let name: RepositoryName = "team/app".parse().expect("a name");
    let image = Image::of("amd64", vec![sample::layer(61, 1_000_000)]);
    for blob in image.blobs() {
        assert_eq!(push(upstream, &name, blob).await, Pushed::Uploaded);
        assert_eq!(push(upstream, &name, blob).await, Pushed::Present);
    }
    let put = async |reference: Reference, manifest: &Content| {
        let pushed =
            upstream.push_manifest(&name, &reference, &manifest.media_type, manifest.bytes.clone()).await;
        pushed.expect("the registry takes manifests")
    };
    let tag: Reference = "1.0".parse().expect("a tag");
    assert_eq!(put(tag.clone(), &image.manifest).await, None);
    let found = upstream.manifest(&name, &tag).await.expect("it is there");
    assert_eq!((found.digest, found.bytes), (image.manifest.digest, image.manifest.bytes.clone()));

    let subject = image.manifest.digest;
    assert_eq!(upstream.referrers(&name, &subject, None).await.expect("an answer"), []);
    push(upstream, &name, &sample::empty_config()).await;
    for (seed, kind) in [(62, KIND), (63, KIND), (64, "application/spdx+json")] {
        let blob = sample::layer(seed, 10_000);
        push(upstream, &name, &blob).await;
        let artifact = sample::artifact(kind, Some(&image.manifest), &blob);
        let seen = put(Reference::Digest(artifact.digest), &artifact).await;
        assert_eq!(seen, keeps_lists.then_some(subject));
        if seen.is_none() {
            let mut listed = artifact.descriptor();
            listed["artifactType"] = kind.into();
            let listed = serde_json::from_value(listed).expect("a descriptor");
            upstream.list_referrer(&name, &subject, &listed).await.expect("a list under a tag");
        }
    }
    for (kind, expected) in [(Some(KIND), 2), (None, 3), (Some("application/none"), 0)] {
        let found = upstream.referrers(&name, &subject, kind).await.expect("an answer");
        assert_eq!(found.len(), expected, "{kind:?}");
    }
    let extensions = upstream.discover().await.expect("an answer");
    assert_eq!(extensions.layer_deltas, keeps_lists, "only deltaport has either");
}

#[test]
fn debians_registry_takes_what_we_push_and_lists_it_under_a_tag() {
    let registry = Registry::foreign();
    let options = Options::new("foreign.example", format!("http://{}", registry.address()));
    wait(exchange(&Upstream::new(&options).expect("an address"), false));
}

#[test]
fn a_locked_deltaport_takes_what_we_push_and_lists_it() {
    let registry = Registry::locked();
    let mut options = Options::new("hub.example", format!("https://{}", registry.address()));
    let authority = std::fs::read(registry.authority().join("ca.crt")).expect("its authority");
    options.ca = Some(authority);
    let credentials = Credentials { username: USER.to_owned(), password: PASSWORD.to_owned() };
    options.credentials = Some(CredentialSource::Given(credentials));
    let keeps_lists = std::env::var("DELTAPORT_CLIENTS_AGAINST").is_err();
    wait(exchange(&Upstream::new(&options).expect("an address"), keeps_lists));
}
