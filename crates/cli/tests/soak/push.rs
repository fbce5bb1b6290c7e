//! Pushing and deleting as clients do, and the images that are pushed.

use deltaport_testkit::http::{Client, Request};
use deltaport_testkit::sample::{self, Content, File, Image, Random};
use serde_json::json;

/// How many layers there are that many images share.
const SHARED: u64 = 24;
/// How many versions there are of what becomes deltas.
const VERSIONS: u64 = 6;

/// An image or an index of two, with layers that others have, too, and such as nobody has.
pub(crate) struct Sample {
    pub(crate) images: Vec<Image>,
    /// The index, if it is one.
    pub(crate) index: Option<Content>,
}

impl Sample {
    pub(crate) fn any(random: &mut Random) -> Self {
        let images: Vec<Image> = match random.below(3) {
            0 => ["amd64", "arm64"].iter().map(|architecture| image(architecture, random)).collect(),
            _ => vec![image("amd64", random)],
        };
        let index = (images.len() > 1).then(|| {
            sample::index(&images.iter().map(|image| &image.manifest).collect::<Vec<_>>(), json!({}))
        });
        Self { images, index }
    }

    /// The manifest that tags are for.
    pub(crate) fn top(&self) -> &Content {
        self.index.as_ref().unwrap_or(&self.images[0].manifest)
    }
}

fn image(architecture: &str, random: &mut Random) -> Image {
    let mut layers = vec![
        sample::layer(random.below(SHARED), 3000),
        sample::layer_of(&[File::new("usr/bin/app", random.bytes(20_000))]),
    ];
    if random.below(4) == 0 {
        // Nearly the same as in other images: what a site asks for as deltas.
        let files = sample::files(7, 40, 4000);
        layers.push(sample::layer_of(&sample::changed(&files, random.below(VERSIONS), 20)));
    }
    Image::of(architecture, layers)
}

/// Pushes it, the tag last. `None` as soon as an answer does not come; the status when it is not the right one.
pub(crate) async fn push(client: &Client, repository: &str, tag: &str, sample: &Sample) -> Option<u16> {
    for image in &sample.images {
        for blob in image.blobs() {
            let held = client.try_send(Request::head(&format!("/v2/{repository}/blobs/{}", blob.digest)));
            if held.await.ok()?.status == 200 {
                continue;
            }
            let path = format!("/v2/{repository}/blobs/uploads/");
            let request = Request::post(&path).query("digest", blob.digest).body(blob.bytes.clone());
            let answer = client.try_send(request).await.ok()?;
            assert_eq!(answer.status, 201, "{}", answer.text());
        }
        if sample.index.is_some() {
            let reference = image.manifest.digest.to_string();
            let status = put(client, repository, &reference, &image.manifest).await?;
            if status != 201 {
                return Some(status);
            }
        }
    }
    put(client, repository, tag, sample.top()).await
}

async fn put(client: &Client, repository: &str, reference: &str, manifest: &Content) -> Option<u16> {
    let path = format!("/v2/{repository}/manifests/{reference}");
    let request =
        Request::put(&path).header("Content-Type", &manifest.media_type).body(manifest.bytes.clone());
    let answer = client.try_send(request).await.ok()?;
    // What was found to be there may have been collected since: a client begins again.
    let again = answer.status == 400 && answer.text().contains("MANIFEST_BLOB_UNKNOWN")
        || answer.status == 404 && answer.text().contains("MANIFEST_BLOB_UNKNOWN");
    assert!(answer.status == 201 || again, "{path}: {}", answer.text());
    Some(answer.status)
}

/// Deletes what is under this path. `None` when the answer does not come.
pub(crate) async fn delete(client: &Client, path: &str) -> Option<u16> {
    let answer = client.try_send(Request::new("DELETE", path)).await.ok()?;
    assert!(matches!(answer.status, 202 | 404), "{path}: {}", answer.text());
    Some(answer.status)
}
