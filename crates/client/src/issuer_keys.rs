//! The public keys of an identity provider, found as OpenID Connect Discovery says: a document at the issuer's own address
//! names the key set, which has to be on the issuer's own host.

use std::sync::Arc;

use bytes::Bytes;
use http::header::ACCEPT;
use http::{HeaderValue, Method};
use reqwest::Url;
use serde::Deserialize;

use crate::error::{Error, ErrorKind, Result};
use crate::options::Options;
use crate::transport::{Request, Transport};

/// Where the document is, below the issuer (OpenID Connect Discovery 1.0, section 4).
const DOCUMENT: &str = "/.well-known/openid-configuration";
/// The largest document, in bytes.
const MAX_DOCUMENT: u64 = 64 << 10;
/// The largest key set, in bytes.
const MAX_KEYS: u64 = 256 << 10;

/// What asks one identity provider for its keys.
#[derive(Debug)]
pub struct IssuerKeys {
    issuer: String,
    host: Arc<str>,
    document: Url,
    transport: Transport,
}

#[derive(Deserialize)]
struct Document {
    issuer: String,
    jwks_uri: String,
}

impl IssuerKeys {
    /// Prepares to ask; nothing is dialled. `ca` are certificate authorities to trust besides the system's, as PEM.
    ///
    /// Fails when the issuer is no address, or the authorities are no PEM.
    pub fn new(issuer: &str, ca: Option<Vec<u8>>) -> Result<Self> {
        let fail = |kind| Error::new(issuer.into(), kind);
        let wrong = || fail(ErrorKind::protocol("is no address of an issuer; it begins with https://"));
        // The issuer by itself: with a path behind it, that could be taken for a missing host.
        let home = Url::parse(issuer).map_err(|_| wrong())?;
        let host: Arc<str> = home.host_str().ok_or_else(wrong)?.into();
        let plain = home.query().is_none() && home.fragment().is_none();
        if !matches!(home.scheme(), "https" | "http") || !plain {
            return Err(wrong());
        }
        let document = format!("{}{DOCUMENT}", issuer.trim_end_matches('/'));
        let document = Url::parse(&document).map_err(|_| wrong())?;
        let options = Options { ca, ..Options::new(&*host, issuer) };
        let transport = Transport::new(&options, document.clone()).map_err(fail)?;
        Ok(Self { issuer: issuer.to_owned(), host, document, transport })
    }

    /// Fetches the key set, as it is. Redirects are not followed.
    pub async fn fetch(&self) -> Result<Bytes> {
        self.try_fetch().await.map_err(|kind| Error::new(Arc::clone(&self.host), kind))
    }

    async fn try_fetch(&self) -> std::result::Result<Bytes, ErrorKind> {
        let document = self.get(self.document.clone(), "the issuer's document", MAX_DOCUMENT).await?;
        let document: Document = serde_json::from_slice(&document)
            .map_err(|_| ErrorKind::protocol("the issuer's document is not what it should be"))?;
        if document.issuer != self.issuer {
            return Err(ErrorKind::protocol("the document is that of another issuer"));
        }
        let keys = Url::parse(&document.jwks_uri)
            .map_err(|_| ErrorKind::protocol("the address of the keys is no address"))?;
        let own = keys.host_str() == self.document.host_str() && keys.scheme() == self.document.scheme();
        if !own || !keys.username().is_empty() || keys.password().is_some() {
            let why = "keeps its keys on another host; save them into a file and name that instead";
            return Err(ErrorKind::Denied(why.to_owned()));
        }
        self.get(keys, "the issuer's keys", MAX_KEYS).await
    }

    async fn get(&self, url: Url, what: &'static str, limit: u64) -> std::result::Result<Bytes, ErrorKind> {
        let mut request = Request::new(Method::GET, url);
        request.headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        let mut answer = self.transport.send(&request).await?;
        if !answer.status().is_success() {
            return Err(answer.into_error().await);
        }
        answer.read(what, limit).await
    }
}
