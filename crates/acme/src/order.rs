//! One order: an account, a proof for each name, a certificate.

use std::io;
use std::time::Duration;

use instant_acme::{
    Account, AuthorizationStatus, ChallengeType, Identifier, KeyAuthorization, NewAccount, NewOrder, Order,
    OrderStatus, RetryPolicy,
};
use rcgen::{CertificateParams, CustomExtension, KeyPair};

use crate::files::Files;
use crate::http::Client;
use crate::{Challenge, Options, Proofs};

/// How long an order may take from its first question to the certificate.
const TIME_LIMIT: Duration = Duration::from_secs(10 * 60);
/// How the authority is asked whether it has looked at the proofs, or issued the certificate.
const PATIENCE: RetryPolicy = RetryPolicy::new()
    .initial_delay(Duration::from_millis(500))
    .backoff(1.5)
    .timeout(Duration::from_secs(180));

/// Why no certificate was issued.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The authority says no, or does not answer.
    #[error("{what}: {source}")]
    Authority {
        /// What was asked of it.
        what: &'static str,
        /// What it says.
        source: instant_acme::Error,
    },
    /// The certificates to trust cannot be used.
    #[error("the authority cannot be asked: {0}")]
    Client(#[from] reqwest::Error),
    /// The authority does not offer this kind of proof.
    #[error("the authority does not let {name} be proven by {challenge}")]
    Challenge {
        /// For which name.
        name: String,
        /// The kind of proof.
        challenge: &'static str,
    },
    /// The authority has looked, and is not convinced.
    #[error("the authority could not verify that the names lead to this machine: {0}")]
    Unproven(String),
    /// A certificate that proves something could not be made, or not be shown.
    #[error("the proof for {name} cannot be shown: {reason}")]
    Proof {
        /// For which name.
        name: String,
        /// Why.
        reason: String,
    },
    /// What was issued, or the account, could not be written.
    #[error("it cannot be kept: {0}")]
    Keep(#[from] io::Error),
    /// It took too long.
    #[error("the authority took more than {} minutes", TIME_LIMIT.as_secs() / 60)]
    Late,
}

/// Gets a certificate and keeps it.
pub(crate) async fn order(options: &Options, files: &Files, proofs: &dyn Proofs) -> Result<(), Error> {
    let ordered = tokio::time::timeout(TIME_LIMIT, in_time(options, files, proofs)).await;
    proofs.clear();
    ordered.map_err(|_| Error::Late)?
}

async fn in_time(options: &Options, files: &Files, proofs: &dyn Proofs) -> Result<(), Error> {
    let account = account(options, files).await?;
    let names: Vec<Identifier> = options.names.iter().map(|name| Identifier::Dns(name.clone())).collect();
    let order = account.new_order(&NewOrder::new(&names)).await;
    let mut order = order.map_err(asked("it takes no order"))?;
    prove(&mut order, options.challenge, proofs).await?;
    let ready = order.poll_ready(&PATIENCE).await;
    if ready.map_err(asked("the names cannot be verified"))? != OrderStatus::Ready {
        return Err(Error::Unproven(reasons(&mut order).await));
    }
    let key = order.finalize().await.map_err(asked("it issues no certificate"))?;
    let chain = order.poll_certificate(&PATIENCE).await.map_err(asked("it issues no certificate"))?;
    files.keep_certificate(&chain, &key)?;
    Ok(())
}

fn asked(what: &'static str) -> impl FnOnce(instant_acme::Error) -> Error {
    move |source| Error::Authority { what, source }
}

/// The account that is kept, or a new one.
async fn account(options: &Options, files: &Files) -> Result<Account, Error> {
    let builder =
        || Ok::<_, Error>(Account::builder_with_http(Box::new(Client::new(options.ca.as_deref())?)));
    if let Some(credentials) = files.account(&options.directory) {
        let account = builder()?.from_credentials(credentials).await;
        return account.map_err(asked("it cannot be asked with the account that we have"));
    }
    let contact: Vec<&str> = options.contact.iter().map(String::as_str).collect();
    let new = NewAccount { contact: &contact, terms_of_service_agreed: true, only_return_existing: false };
    let made = builder()?.create(&new, options.directory.clone(), None).await;
    let (account, credentials) = made.map_err(asked("it gives us no account"))?;
    files.keep_account(&options.directory, &credentials)?;
    Ok(account)
}

/// Shows a proof for each name that has none yet, and says so to the authority.
async fn prove(order: &mut Order, kind: Challenge, proofs: &dyn Proofs) -> Result<(), Error> {
    let (asked_for, word) = match kind {
        Challenge::TlsAlpn01 => (ChallengeType::TlsAlpn01, "tls-alpn-01"),
        Challenge::Http01 => (ChallengeType::Http01, "http-01"),
    };
    let mut authorizations = order.authorizations();
    while let Some(authorization) = authorizations.next().await {
        let mut authorization = authorization.map_err(asked("it does not say what to prove"))?;
        if authorization.status == AuthorizationStatus::Valid {
            continue;
        }
        let name = authorization.identifier().to_string();
        let challenge = authorization.challenge(asked_for.clone());
        let mut challenge =
            challenge.ok_or_else(|| Error::Challenge { name: name.clone(), challenge: word })?;
        let proof = challenge.key_authorization();
        match kind {
            Challenge::TlsAlpn01 => show_certificate(&name, &proof, proofs)
                .map_err(|reason| Error::Proof { name: name.clone(), reason })?,
            Challenge::Http01 => proofs.show_token(&challenge.token, proof.as_str()),
        }
        challenge.set_ready().await.map_err(asked("it does not look at the proof"))?;
    }
    Ok(())
}

/// Shows the certificate that only who has our account's key can make (RFC 8737, section 3).
fn show_certificate(name: &str, proof: &KeyAuthorization, proofs: &dyn Proofs) -> Result<(), String> {
    let words = |error: rcgen::Error| error.to_string();
    let mut params = CertificateParams::new([name.to_owned()]).map_err(words)?;
    let digest = proof.digest();
    params.custom_extensions = vec![CustomExtension::new_acme_identifier(digest.as_ref())];
    let key = KeyPair::generate().map_err(words)?;
    let certificate = params.self_signed(&key).map_err(words)?;
    proofs.show_certificate(name, certificate.der().to_vec(), key.serialize_der())
}

/// What the authority has against each name.
async fn reasons(order: &mut Order) -> String {
    let mut reasons = Vec::new();
    let mut authorizations = order.authorizations();
    while let Some(Ok(mut authorization)) = authorizations.next().await {
        let name = authorization.identifier().to_string();
        // What was known before the authority looked has no reasons.
        let Ok(state) = authorization.refresh().await else { continue };
        for problem in state.challenges.iter().filter_map(|challenge| challenge.error.as_ref()) {
            reasons.push(format!("{name}: {}", problem.detail.as_deref().unwrap_or("it says no more")));
        }
    }
    match reasons.is_empty() {
        true => "it says no more".to_owned(),
        false => reasons.join("; "),
    }
}
