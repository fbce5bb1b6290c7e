//! Signatures with certificates, and with entries of transparency logs, that have one thing wrong with them, as in
//! refused.rs.

use deltaport_trust::signatures::{CertificateError, LogError, Reason};
use rcgen::{ExtendedKeyUsagePurpose, SanType, date_time_ymd};
use serde_json::json;

use super::infrastructure::*;
use super::refused::check;
use super::support::*;

#[test]
fn certificates_of_one_s_own_infrastructure() {
    let root = Authority::new(authority("root"));
    let stranger = Authority::new(authority("root"));
    let between = root.below(authority("between"));
    let policy = root.policy();
    let good = root.issue(&signer());
    assert!(judge(&policy, NAME, image_digest(), &[with_certificate(&good, &[])]).is_accepted());
    let far = between.issue(&signer());
    let chain = [&between.certificate, &root.certificate];
    assert!(judge(&policy, NAME, image_digest(), &[with_certificate(&far, &chain)]).is_accepted());

    let issued = |change: &dyn Fn(&mut rcgen::CertificateParams)| {
        let mut params = signer();
        change(&mut params);
        with_certificate(&root.issue(&params), &[])
    };
    let long: Vec<_> = (0..7).fold(vec![root.below(authority("0"))], |mut chain, depth| {
        let next = chain.last().unwrap().below(authority(&format!("{}", depth + 1)));
        chain.push(next);
        chain
    });
    let too_long = with_certificate(
        &long.last().unwrap().issue(&signer()),
        &long.iter().map(|authority| &authority.certificate).collect::<Vec<_>>(),
    );
    let many: Vec<_> = (0..9).map(|_| &root.certificate).collect();
    let payload = payload(image_digest(), NAME);
    let annotated = |certificate: &str, key: &Key| {
        let mut annotations = key.annotation(&payload);
        annotations["dev.sigstore.cosign/certificate"] = certificate.into();
        with_annotations(&payload, annotations)
    };
    let now = "now";
    let rows = vec![
        (
            "expired",
            issued(&|params| {
                params.not_before = date_time_ymd(2025, 1, 1);
                params.not_after = date_time_ymd(2025, 12, 31);
            }),
            CertificateError::Expired { at: now }.into(),
        ),
        (
            "not valid yet",
            issued(&|params| params.not_before = date_time_ymd(2026, 2, 1)),
            CertificateError::NotYetValid { at: now }.into(),
        ),
        (
            "another authority of the same name",
            with_certificate(&stranger.issue(&signer()), &[&stranger.certificate]),
            CertificateError::UnknownIssuer.into(),
        ),
        ("the one between is missing", with_certificate(&far, &[]), CertificateError::UnknownIssuer.into()),
        ("the chain is too long", too_long, CertificateError::ChainTooLong.into()),
        (
            "more certificates than are read",
            with_certificate(&good, &many),
            CertificateError::ChainTooLong.into(),
        ),
        (
            "for servers",
            issued(&|params| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth]),
            CertificateError::Usage.into(),
        ),
        (
            "for somebody else",
            issued(&|params| {
                params.subject_alt_names = vec![SanType::Rfc822Name("else@team.example".try_into().unwrap())];
            }),
            CertificateError::Email(EMAIL.into()).into(),
        ),
        (
            "the address as a host",
            issued(&|params| {
                params.subject_alt_names = vec![SanType::DnsName("team.example".try_into().unwrap())]
            }),
            CertificateError::Email(EMAIL.into()).into(),
        ),
        (
            "an authority signs by itself",
            issued(&|params| *params = authority("signer")),
            CertificateError::Authority.into(),
        ),
        ("signed with another key", annotated(&good.0.pem(), &Key::new()), Reason::NotByCertificate),
        ("no certificate", good.1.simple(&payload), Reason::NoCertificate),
        (
            "two certificates",
            annotated(&(good.0.pem() + &root.certificate.pem()), &good.1),
            CertificateError::Count { found: 2, wanted: "a signature has exactly one of its signer" }.into(),
        ),
        (
            "no PEM",
            annotated("certificate", &good.1),
            CertificateError::Count { found: 0, wanted: "a signature has exactly one of its signer" }.into(),
        ),
        (
            "a damaged certificate",
            annotated(&pem("CERTIFICATE", &good.0.der()[..200]), &good.1),
            CertificateError::Damaged.into(),
        ),
    ];
    check(&policy, rows);
}

#[test]
fn an_authority_that_has_expired_vouches_for_nobody() {
    let mut params = authority("root");
    params.not_after = date_time_ymd(2025, 6, 1);
    let root = Authority::new(params);
    let document = with_certificate(&root.issue(&signer()), &[]);
    let verdict = judge(&root.policy(), NAME, image_digest(), &[document]);
    assert_eq!(reason(verdict), CertificateError::Expired { at: "now" }.into());
}

#[test]
fn short_lived_certificates_and_logs() {
    let keyless = Keyless::new();
    let (certificate, other) = (keyless.issue(Keyless::ISSUER), keyless.issue(Keyless::ISSUER));
    let (other_log, later) = (Key::new(), at(Keyless::SIGNED_AT + 1_000_000));
    let unchanged = |_: &mut Entry| ();
    let good = keyless.document(&certificate, &keyless.log, unchanged);
    let policy = keyless.policy();
    assert!(Keyless::judge(&policy, good, later).is_accepted());

    for (first, second) in [(None, Some(Keyless::ISSUER)), (Some(Keyless::ISSUER), Some(Keyless::ISSUER))] {
        let other = keyless.document(&keyless.issue_with(first, second), &keyless.log, unchanged);
        assert!(Keyless::judge(&policy, other, later).is_accepted());
    }

    let payload = payload(image_digest(), NAME);
    let mut annotations = certificate.1.annotation(&payload);
    annotations["dev.sigstore.cosign/certificate"] = certificate.0.pem().into();
    let logged = |change: &dyn Fn(&mut Entry)| keyless.document(&certificate, &keyless.log, change);
    let at_log = "when the transparency log took the signature";
    for (name, document, expected) in [
        ("no promise", with_annotations(&payload, annotations), Reason::Log(LogError::Missing)),
        (
            "another log",
            keyless.document(&certificate, &other_log, unchanged),
            Reason::Log(LogError::Signature),
        ),
        (
            "the entry of another signature",
            logged(&|entry| entry.signature = other.1.sign(&entry.payload)),
            Reason::Log(LogError::Other("signature")),
        ),
        (
            "the entry of another payload",
            logged(&|entry| entry.payload.push(b' ')),
            Reason::Log(LogError::Other("payload")),
        ),
        (
            "the entry of another signer",
            logged(&|entry| entry.certificate = other.0.pem()),
            Reason::Log(LogError::Other("signer")),
        ),
        (
            "taken after the certificate had expired",
            logged(&|entry| entry.time += 200_000),
            CertificateError::Expired { at: at_log }.into(),
        ),
        (
            "taken before it was valid",
            logged(&|entry| entry.time -= 200_000),
            CertificateError::NotYetValid { at: at_log }.into(),
        ),
        ("taken in the future", logged(&|entry| entry.time += 2_000_000), Reason::Log(LogError::Future)),
        (
            "another identity provider",
            keyless.document(&keyless.issue("https://login.example"), &keyless.log, unchanged),
            CertificateError::Issuer(Keyless::ISSUER.into()).into(),
        ),
        (
            "two identity providers",
            keyless.document(
                &keyless.issue_with(Some(Keyless::ISSUER), Some("https://login.example")),
                &keyless.log,
                unchanged,
            ),
            CertificateError::Issuer(Keyless::ISSUER.into()).into(),
        ),
        (
            "no identity provider",
            keyless.document(&keyless.root.issue(&within_june()), &keyless.log, unchanged),
            CertificateError::Issuer(Keyless::ISSUER.into()).into(),
        ),
        (
            "another authority",
            keyless.document(&Keyless::new().issue(Keyless::ISSUER), &keyless.log, unchanged),
            CertificateError::UnknownIssuer.into(),
        ),
    ] {
        assert_eq!(reason(Keyless::judge(&policy, document, later)), expected, "{name}");
    }
}

/// Authorities and logs of a trusted root count for the time in which they were in use.
#[test]
fn trusted_roots() {
    let keyless = Keyless::new();
    let certificate = keyless.issue(Keyless::ISSUER);
    let document = keyless.document(&certificate, &keyless.log, |_| ());
    let later = at(Keyless::SIGNED_AT + 100_000_000);
    let always = json!({"start": "2020-01-01T00:00:00.000Z"});
    let june = json!({"start": "2026-06-01T00:00:00Z", "end": "2026-07-01T00:00:00Z"});
    let before = json!({"start": "2020-01-01T00:00:00Z", "end": "2026-05-31T00:00:00Z"});
    let after = json!({"start": "2026-07-01T00:00:00Z"});
    let at_log = "when the transparency log took the signature";
    for (name, authority, log, expected) in [
        ("both", &always, &always, None),
        ("both, given up since", &june, &june, None),
        ("the authority before", &before, &always, Some(CertificateError::Expired { at: at_log }.into())),
        ("the authority after", &after, &always, Some(CertificateError::NotYetValid { at: at_log }.into())),
        ("the log before", &always, &before, Some(Reason::Log(LogError::NotInUse))),
        ("the log after", &always, &after, Some(Reason::Log(LogError::NotInUse))),
    ] {
        let policy = Keyless::policy_of(&keyless.trusted_root(authority.clone(), log.clone()));
        let verdict = Keyless::judge(&policy, document.clone(), later);
        match expected {
            None => assert!(verdict.is_accepted(), "{name}: {verdict:?}"),
            Some(expected) => assert_eq!(reason(verdict), expected, "{name}"),
        }
    }

    // An authority that is there twice counts for both periods.
    let mut root = keyless.trusted_root(before, always);
    let mut again = root["certificateAuthorities"][0].clone();
    again["validFor"] = june;
    root["certificateAuthorities"].as_array_mut().unwrap().push(again);
    assert!(Keyless::judge(&Keyless::policy_of(&root), document, later).is_accepted());
}

fn within_june() -> rcgen::CertificateParams {
    let mut params = signer();
    params.not_before = date_time_ymd(2026, 6, 1);
    params.not_after = date_time_ymd(2026, 6, 2);
    params
}

/// A key whose signatures a log has to have seen.
#[test]
fn a_key_without_the_log_that_the_policy_wants() {
    let keys = json!({
        "keyPath": "p256.pub",
        "rekorPublicKeyPath": "rekor.pub",
        "signedIdentity": match_repository(),
    });
    let policy = policy(signed(keys)).accepting_nameless(true);
    for name in ["cosign", "cosign3-p256"] {
        let verdict = judge(&policy, NAME, image_digest(), &[document(name)]);
        assert_eq!(reason(verdict), Reason::Log(LogError::Missing), "{name}");
    }
}
