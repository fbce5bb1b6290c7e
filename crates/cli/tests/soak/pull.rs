//! Pulling an image and everything below it, with an eye on every byte.

use deltaport_oci::manifest::{Limits, View};
use deltaport_oci::{Digest, media_type};
use deltaport_testkit::http::{Client, Request, Response};

/// How a pull ended that gave no wrong byte. One that does, fails the test.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Pulled {
    /// All of it came.
    Whole(Digest),
    /// There is no such manifest.
    Absent,
    /// Something of it did not come: the status of which path.
    Part(u16, String),
    /// Nobody answered: the server is being started again.
    Silence,
}

/// Pulls what is under `path`, `/v2/NAME/manifests/REFERENCE`, in full.
pub(crate) async fn pull(client: &Client, path: &str) -> Pulled {
    let Some(top) = get(client, path).await else { return Pulled::Silence };
    match top.status {
        200 => {}
        404 => return Pulled::Absent,
        status => return Pulled::Part(status, path.to_owned()),
    }
    let digest = Digest::sha256(&top.body);
    if let Some(said) = top.header("docker-content-digest") {
        assert_eq!(said, digest.to_string(), "{path}");
    }
    let repository = path.split("/manifests/").next().expect("a path of a manifest");
    let mut manifests = vec![top];
    while let Some(manifest) = manifests.pop() {
        let kind = manifest.header("content-type").unwrap_or(media_type::OCI_MANIFEST).to_owned();
        let view =
            View::parse(&kind, &manifest.body, Limits::DEFAULT).expect("a manifest that was made here");
        for child in &view.manifests {
            match get_exactly(client, &format!("{repository}/manifests/{}", child.digest), &child.digest)
                .await
            {
                Ok(answer) => manifests.push(answer),
                Err(other) => return other,
            }
        }
        for blob in view.blobs() {
            let path = format!("{repository}/blobs/{}", blob.digest);
            if let Err(other) = get_exactly(client, &path, &blob.digest).await {
                return other;
            }
        }
    }
    Pulled::Whole(digest)
}

/// Gets something by digest.
async fn get_exactly(client: &Client, path: &str, digest: &Digest) -> Result<Response, Pulled> {
    let answer = get(client, path).await.ok_or(Pulled::Silence)?;
    if answer.status != 200 {
        return Err(Pulled::Part(answer.status, path.to_owned()));
    }
    assert_eq!(Digest::sha256(&answer.body), *digest, "{path} has other bytes");
    Ok(answer)
}

/// `None` when the answer does not come, or not to its end: no client takes that for the content.
async fn get(client: &Client, path: &str) -> Option<Response> {
    let accept = format!("{}, {}", media_type::OCI_MANIFEST, media_type::OCI_INDEX);
    client.try_send(Request::get(path).header("Accept", accept)).await.ok()
}
