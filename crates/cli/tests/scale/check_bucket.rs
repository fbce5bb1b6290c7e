//! What `deltaport config check` says about buckets.

use deltaport_testkit::s3::{ACCESS_KEY, Fault, Kind, REGION, SECRET_KEY, Server};
use deltaport_testkit::tls::Certificates;

use crate::config_check::{refused, said};
use crate::objects::Objects;

const KEYS: [(&str, &str); 2] = [("AWS_ACCESS_KEY_ID", ACCESS_KEY), ("AWS_SECRET_ACCESS_KEY", SECRET_KEY)];

fn in_bucket(endpoint: &str, bucket: &str, region: &str) -> String {
    format!(
        "[storage]\nblobs = \"s3://{bucket}/hub\"\n[storage.s3]\nendpoint = \"{endpoint}\"\nregion = \"{region}\"\n"
    )
}

#[test]
fn a_bucket_that_can_be_used_is_left_as_it_was() {
    let server = Server::start();
    let bucket = server.bucket();
    let text = said(&in_bucket(&server.endpoint(), &bucket, REGION), &KEYS).unwrap();
    assert!(text.contains("good") && text.contains(&format!("s3://{bucket}/hub")), "{text}");
    assert_eq!((server.objects(&bucket).len(), server.unfinished(&bucket)), (0, 0));
}

#[test]
fn credentials_that_a_service_refuses_are_told_apart() {
    let objects = Objects::start();
    let settings = in_bucket(&objects.endpoint, &objects.bucket, objects.region);
    let [key, secret] = objects.variables();
    assert!(said(&settings, &[key, secret]).unwrap().contains("good"));
    let (wrong_key, wrong_secret) = (format!("{}0", key.1), format!("{}0", secret.1));
    refused(&settings, &[(key.0, &wrong_key), secret], &["does not know the access key"]);
    refused(&settings, &[key, (secret.0, &wrong_secret)], &["the secret of the access key is another"]);
    let elsewhere = in_bucket(&objects.endpoint, &objects.bucket, "elsewhere-1");
    refused(&elsewhere, &[key, secret], &[&format!("in region {}", objects.region), "not in elsewhere-1"]);
    let nowhere = in_bucket(&objects.endpoint, "nowhere", objects.region);
    refused(&nowhere, &[key, secret], &["there is no bucket nowhere"]);
}

#[test]
fn what_is_wrong_with_a_bucket_is_said_in_a_sentence() {
    let server = Server::start();
    let bucket = server.bucket();
    let good = in_bucket(&server.endpoint(), &bucket, REGION);
    let wrong_region = in_bucket(&server.endpoint(), &bucket, "elsewhere-1");
    refused(&wrong_region, &KEYS, &["region test-1", "not in elsewhere-1"]);
    refused(&in_bucket(&server.endpoint(), "nowhere", REGION), &KEYS, &["there is no bucket nowhere"]);
    let wrong_secret = [KEYS[0], ("AWS_SECRET_ACCESS_KEY", "wrong secret")];
    refused(&good, &wrong_secret, &["the secret of the access key is another"]);
    let wrong_key = [("AWS_ACCESS_KEY_ID", "NOBODY"), KEYS[1]];
    refused(&good, &wrong_key, &["does not know the access key"]);
    server.breaks(Fault::Skewed, |_| true);
    refused(&good, &KEYS, &["the clock of this machine"]);
    server.mends();
    for (kind, what) in [
        (Kind::Put, "may not write objects"),
        (Kind::Get, "may not read objects"),
        (Kind::List, "may not list objects"),
        (Kind::Delete, "may not delete objects"),
        (Kind::Create, "may not write objects in parts"),
    ] {
        server.breaks(Fault::Denied, move |asked| asked.kind == kind);
        refused(&good, &KEYS, &[what, &bucket]);
        server.mends();
    }
    server.stop();
    refused(&good, &KEYS, &["cannot be reached"]);
}

#[test]
fn tls_with_a_bucket_needs_an_authority_that_is_trusted() {
    let certificates = Certificates::new();
    let server = Server::start_tls(&certificates);
    let bucket = server.bucket();
    let unknown = in_bucket(&server.endpoint(), &bucket, REGION);
    refused(&unknown, &KEYS, &["ertificate"]);
    let directory = tempfile::tempdir().unwrap();
    certificates.write(directory.path());
    let trusted = format!("{unknown}ca = \"{}\"\n", directory.path().join("ca.crt").display());
    said(&trusted, &KEYS).unwrap();
}
