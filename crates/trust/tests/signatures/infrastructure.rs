//! Public key infrastructures made for a test, with whatever is to be wrong with them.

use std::time::SystemTime;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use deltaport_trust::signatures::{Document, Image, ImageName, Policy, Verdict};
use rcgen::{
    BasicConstraints, Certificate, CertificateParams, CustomExtension, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, SanType, date_time_ymd,
};
use serde_json::{Value, json};

use super::support::*;

/// Whom certificates are issued to.
pub(crate) const EMAIL: &str = "release@team.example";

/// The parameters of a signer that is right, valid during 2026.
pub(crate) fn signer() -> CertificateParams {
    let mut params = CertificateParams::new(Vec::new()).expect("no names");
    params.distinguished_name.push(DnType::CommonName, "signer");
    params.subject_alt_names = vec![SanType::Rfc822Name(EMAIL.try_into().expect("an address"))];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::CodeSigning];
    params.not_before = date_time_ymd(2026, 1, 1);
    params.not_after = date_time_ymd(2026, 12, 31);
    params
}

/// The parameters of an authority that is right, valid for decades.
pub(crate) fn authority(name: &str) -> CertificateParams {
    let mut params = CertificateParams::new(Vec::new()).expect("no names");
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params.not_before = date_time_ymd(2020, 1, 1);
    params.not_after = date_time_ymd(2040, 1, 1);
    params
}

/// An authority, or one below it, that can issue.
pub(crate) struct Authority {
    pub(crate) certificate: Certificate,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    pub(crate) fn new(params: CertificateParams) -> Self {
        let key = KeyPair::generate().expect("a key");
        let certificate = params.self_signed(&key).expect("a certificate");
        Self { certificate, issuer: Issuer::new(params, key) }
    }

    pub(crate) fn below(&self, params: CertificateParams) -> Self {
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        Self { certificate, issuer: Issuer::new(params, key) }
    }

    /// A certificate and its key.
    pub(crate) fn issue(&self, params: &CertificateParams) -> (Certificate, Key) {
        let key = KeyPair::generate().expect("a key");
        (params.signed_by(&key, &self.issuer).expect("a certificate"), Key::of(&key))
    }

    /// A policy that wants signatures of [`EMAIL`] by this authority.
    pub(crate) fn policy(&self) -> Policy {
        let roots = STANDARD.encode(self.certificate.pem());
        let pki = json!({"caRootsData": roots, "subjectEmail": EMAIL});
        policy(signed(json!({"pki": pki, "signedIdentity": match_repository()})))
    }
}

/// The signature of the image with the key of a certificate.
pub(crate) fn with_certificate((certificate, key): &(Certificate, Key), chain: &[&Certificate]) -> Document {
    let payload = payload(image_digest(), NAME);
    let mut annotations = key.annotation(&payload);
    annotations["dev.sigstore.cosign/certificate"] = certificate.pem().into();
    if !chain.is_empty() {
        let chain: String = chain.iter().map(|certificate| certificate.pem()).collect();
        annotations["dev.sigstore.cosign/chain"] = chain.into();
    }
    with_annotations(&payload, annotations)
}

/// Fulcio and Rekor of a test.
pub(crate) struct Keyless {
    pub(crate) root: Authority,
    pub(crate) log: Key,
}

/// What a log says that it took.
pub(crate) struct Entry {
    pub(crate) payload: Vec<u8>,
    pub(crate) signature: Vec<u8>,
    pub(crate) certificate: String,
    pub(crate) time: u64,
}

impl Keyless {
    pub(crate) const ISSUER: &'static str = "https://login.team.example";
    /// 2026-06-01 and ten minutes.
    pub(crate) const SIGNED_AT: u64 = 1_780_272_600;

    pub(crate) fn new() -> Self {
        Self { root: Authority::new(authority("fulcio")), log: Key::new() }
    }

    pub(crate) fn policy(&self) -> Policy {
        policy(signed(json!({
            "fulcio": {
                "caData": STANDARD.encode(self.root.certificate.pem()),
                "oidcIssuer": Self::ISSUER,
                "subjectEmail": EMAIL,
            },
            "rekorPublicKeyData": STANDARD.encode(self.log.pem()),
            "signedIdentity": match_repository(),
        })))
    }

    /// A trusted root in which authority and log were in use for these periods.
    pub(crate) fn trusted_root(&self, authority: Value, log: Value) -> Value {
        json!({
            "mediaType": "application/vnd.dev.sigstore.trustedroot+json;version=0.1",
            "tlogs": [{
                "baseUrl": "https://log.team.example",
                "hashAlgorithm": "SHA2_256",
                "publicKey": {
                    "rawBytes": STANDARD.encode(self.log.spki()),
                    "keyDetails": "PKIX_ECDSA_P256_SHA_256",
                    "validFor": log,
                },
                "logId": {"keyId": "AP8="},
            }],
            "certificateAuthorities": [{
                "subject": {"organization": "team", "commonName": "fulcio"},
                "uri": "https://fulcio.team.example",
                "certChain": {"certificates": [{"rawBytes": STANDARD.encode(self.root.certificate.der())}]},
                "validFor": authority,
            }],
            "ctlogs": [],
            "timestampAuthorities": [],
        })
    }

    /// A policy that names a trusted root for authorities and logs.
    pub(crate) fn policy_of(root: &Value) -> Policy {
        let root = STANDARD.encode(root.to_string());
        policy(signed(json!({
            "fulcio": {"caData": root, "oidcIssuer": Self::ISSUER, "subjectEmail": EMAIL},
            "rekorPublicKeyData": root,
            "signedIdentity": match_repository(),
        })))
    }

    /// A certificate of one day, for which `issuer` vouched.
    pub(crate) fn issue(&self, issuer: &str) -> (Certificate, Key) {
        self.issue_with(Some(issuer), None)
    }

    /// The same with the provider in the extension of the first version, or in that of the second, or in both.
    pub(crate) fn issue_with(&self, first: Option<&str>, second: Option<&str>) -> (Certificate, Key) {
        let mut params = signer();
        params.not_before = date_time_ymd(2026, 6, 1);
        params.not_after = date_time_ymd(2026, 6, 2);
        let extension = |last, value: Vec<u8>| {
            CustomExtension::from_oid_content(&[1, 3, 6, 1, 4, 1, 57264, 1, last], value)
        };
        let utf8_string =
            |text: &str| [&[0x0c, u8::try_from(text.len()).expect("short")], text.as_bytes()].concat();
        params.custom_extensions.extend(first.map(|issuer| extension(1, issuer.into())));
        params.custom_extensions.extend(second.map(|issuer| extension(8, utf8_string(issuer))));
        self.root.issue(&params)
    }

    /// A signature with everything that belongs to it; `change` may alter what the log says before the log signs it.
    pub(crate) fn document(
        &self,
        (certificate, key): &(Certificate, Key),
        log: &Key,
        change: impl FnOnce(&mut Entry),
    ) -> Document {
        let payload = payload(image_digest(), NAME);
        let signature = key.sign(&payload);
        let mut entry = Entry {
            payload: payload.clone(),
            signature: signature.clone(),
            certificate: certificate.pem(),
            time: Self::SIGNED_AT,
        };
        change(&mut entry);
        let body = json!({
            "apiVersion": "0.0.1",
            "kind": "hashedrekord",
            "spec": {
                "data": {"hash": {"algorithm": "sha256", "value": deltaport_oci::Digest::sha256(&entry.payload).hex()}},
                "signature": {
                    "content": STANDARD.encode(&entry.signature),
                    "publicKey": {"content": STANDARD.encode(&entry.certificate)},
                },
            },
        });
        let body = STANDARD.encode(body.to_string());
        let taken =
            format!(r#"{{"body":"{body}","integratedTime":{},"logID":"00ff","logIndex":7}}"#, entry.time);
        let promise = STANDARD.encode(log.sign(taken.as_bytes()));
        let annotation = format!(r#"{{"SignedEntryTimestamp":"{promise}","Payload":{taken}}}"#);
        with_annotations(
            &payload,
            json!({
                "dev.cosignproject.cosign/signature": STANDARD.encode(signature),
                "dev.sigstore.cosign/certificate": certificate.pem(),
                "dev.sigstore.cosign/bundle": annotation,
            }),
        )
    }

    /// The verdict at a time.
    pub(crate) fn judge(policy: &Policy, document: Document, now: SystemTime) -> Verdict {
        let name = ImageName::parse(NAME).expect("a name");
        policy.judge(Image { name: &name, digest: image_digest(), within: &[] }, &[document], now)
    }
}
