//! How the authority is asked: over HTTPS, with limits.

use std::pin::Pin;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt as _, Full};
use instant_acme::{BodyWrapper, BytesResponse, Error, HttpClient};
use reqwest::Certificate;

/// How long one answer may take.
const TIME_LIMIT: Duration = Duration::from_secs(30);
/// The longest answer, in bytes: a chain of certificates has some thousand.
const MAX_ANSWER: usize = 1 << 20;

/// Asks an authority.
pub(crate) struct Client(reqwest::Client);

impl Client {
    /// `ca` are PEM certificates to trust besides the system's.
    pub(crate) fn new(ca: Option<&[u8]>) -> Result<Self, reqwest::Error> {
        let authorities = ca.map_or(Ok(Vec::new()), Certificate::from_pem_bundle)?;
        let client = reqwest::Client::builder()
            .user_agent(concat!("deltaport/", env!("CARGO_PKG_VERSION")))
            .https_only(true)
            .redirect(reqwest::redirect::Policy::none())
            .timeout(TIME_LIMIT)
            .tls_certs_merge(authorities)
            .build()?;
        Ok(Self(client))
    }
}

impl HttpClient for Client {
    fn request(
        &self,
        request: http::Request<BodyWrapper<Bytes>>,
    ) -> Pin<Box<dyn Future<Output = Result<BytesResponse, Error>> + Send>> {
        let client = self.0.clone();
        Box::pin(async move { ask(client, request).await.map_err(Error::Other) })
    }
}

/// One request and its whole answer.
async fn ask(
    client: reqwest::Client,
    request: http::Request<BodyWrapper<Bytes>>,
) -> Result<BytesResponse, Box<dyn std::error::Error + Send + Sync>> {
    let (parts, body) = request.into_parts();
    let body = body.collect().await?.to_bytes();
    let request = http::Request::from_parts(parts, body);
    let mut answer = client.execute(request.try_into()?).await?;
    let mut head = http::Response::new(());
    *head.status_mut() = answer.status();
    *head.headers_mut() = std::mem::take(answer.headers_mut());
    let mut content = BytesMut::new();
    while let Some(chunk) = answer.chunk().await? {
        if content.len() + chunk.len() > MAX_ANSWER {
            return Err(format!("the answer has more than {MAX_ANSWER} bytes").into());
        }
        content.extend_from_slice(&chunk);
    }
    Ok(BytesResponse::from(head.map(|()| Full::new(content.freeze()))))
}
