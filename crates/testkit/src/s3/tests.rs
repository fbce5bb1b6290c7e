//! The server against a client that signs by its own code: curl.

use std::process::Command;

use super::*;

/// This curl does not say by itself that it leaves bodies out of the signature.
const UNSIGNED: &str = "x-amz-content-sha256: UNSIGNED-PAYLOAD";

/// Sends a request with curl, signed for `region`, and returns status and body; nothing when the connection broke.
fn try_ask(server: &Server, region: &str, arguments: &[&str], target: &str) -> Option<(u16, String)> {
    crate::clients::require("/usr/bin/curl");
    let mut curl = Command::new("/usr/bin/curl");
    curl.args(["--silent", "--max-time", "10", "--write-out", "\n%{http_code}", "--header", UNSIGNED]);
    curl.args([
        "--aws-sigv4",
        &format!("aws:amz:{region}:s3"),
        "--user",
        &format!("{ACCESS_KEY}:{SECRET_KEY}"),
    ]);
    let output = curl.args(arguments).arg(format!("{}{target}", server.endpoint())).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let (body, status) = text.rsplit_once('\n').unwrap();
    output.status.success().then(|| (status.parse().unwrap(), body.to_owned()))
}

fn ask(server: &Server, arguments: &[&str], target: &str) -> (u16, String) {
    try_ask(server, REGION, arguments, target).expect("an answer")
}

fn put(body: &str) -> [&str; 4] {
    ["--request", "PUT", "--data-raw", body]
}

#[test]
fn objects_are_written_once_and_read_in_ranges() {
    let server = Server::start();
    let bucket = server.bucket();
    let key = format!("/{bucket}/a/one");
    let once = ["--request", "PUT", "--header", "If-None-Match: *", "--data-raw", "0123456789"];
    assert_eq!(ask(&server, &once, &key).0, 200);
    let (status, text) = ask(&server, &once, &key);
    assert!(status == 412 && text.contains("PreconditionFailed"), "{status} {text}");
    assert_eq!(ask(&server, &["--header", "Range: bytes=2-4"], &key), (206, "234".to_owned()));
    assert_eq!(server.objects(&bucket), [("a/one".to_owned(), 10)]);
    assert_eq!(ask(&server, &["--request", "DELETE"], &key).0, 204);
    assert_eq!(ask(&server, &[], &key).0, 404);
    let counts = server.counts();
    let of = [Kind::Put, Kind::Get, Kind::Delete].map(|kind| counts.of(kind));
    assert_eq!((of, counts.total()), ([2, 2, 1], 5));
}

#[test]
fn parts_become_an_object_once() {
    let server = Server::start();
    server.take_small_parts();
    let bucket = server.bucket();
    let key = format!("/{bucket}/big");
    let (_, text) = ask(&server, &["--request", "POST"], &format!("{key}?uploads="));
    let id = text.split("<UploadId>").nth(1).and_then(|rest| rest.split('<').next()).unwrap();
    let part = |number: u32, body: &str| {
        let target = format!("{key}?partNumber={number}&uploadId={id}");
        assert_eq!(ask(&server, &put(body), &target).0, 200);
    };
    part(1, "hello ");
    part(2, "wrong");
    part(2, "world");
    let (_, listed) = ask(&server, &[], &format!("{key}?uploadId={id}"));
    let tags: Vec<_> = listed.split("<ETag>").skip(1).map(|rest| rest.split('<').next().unwrap()).collect();
    assert_eq!(tags.len(), 2, "{listed}");
    assert_eq!(server.unfinished(&bucket), 1);
    let parts: String = tags
        .iter()
        .zip(1..)
        .map(|(tag, number)| format!("<Part><PartNumber>{number}</PartNumber><ETag>{tag}</ETag></Part>"))
        .collect();
    let complete = format!("<CompleteMultipartUpload>{parts}</CompleteMultipartUpload>");
    let complete = ["--request", "POST", "--data-raw", &complete];
    let target = format!("{key}?uploadId={id}");
    server.breaks_times(1, Fault::LoseAnswer, |asked| asked.kind == Kind::Complete);
    assert_eq!(try_ask(&server, REGION, &complete, &target), None);
    assert_eq!(server.object(&bucket, "big").unwrap(), "hello world");
    let (status, text) = ask(&server, &complete, &target);
    assert!(status == 404 && text.contains("NoSuchUpload"), "{status} {text}");
    assert_eq!(server.unfinished(&bucket), 0);
}

#[test]
fn lists_come_in_pages_with_each_group_once() {
    let server = Server::start();
    let bucket = server.bucket();
    for key in ["a/1", "a/2", "b", "c/1", "d"] {
        assert_eq!(ask(&server, &put("x"), &format!("/{bucket}/{key}")).0, 200);
    }
    server.page(2);
    let texts = |text: &str, name: &str| -> Vec<String> {
        let open = format!("<{name}>");
        let parts = text.split(&open).skip(1);
        parts.map(|rest| rest.split('<').next().unwrap().to_owned()).collect()
    };
    let (_, first) = ask(&server, &[], &format!("/{bucket}/?delimiter=%2F&list-type=2"));
    let token = texts(&first, "NextContinuationToken").remove(0);
    let next = format!("/{bucket}/?continuation-token={token}&delimiter=%2F&list-type=2");
    let (_, second) = ask(&server, &[], &next);
    assert_eq!((texts(&first, "Key"), texts(&second, "Key")), (vec!["b".to_owned()], vec!["d".to_owned()]));
    assert!(
        first.contains("<Prefix>a/</Prefix>") && second.contains("<Prefix>c/</Prefix>"),
        "{first}{second}"
    );
    assert!(second.contains("<IsTruncated>false"), "{second}");
}

#[test]
fn who_signs_wrongly_is_told_how() {
    let server = Server::start();
    let bucket = server.bucket();
    let key = format!("/{bucket}/a");
    let (status, text) = try_ask(&server, "elsewhere-1", &put("x"), &key).unwrap();
    assert!(status == 400 && text.contains("expecting 'test-1'"), "{status} {text}");
    let mut command = Command::new("/usr/bin/curl");
    command.args([
        "--silent",
        "--aws-sigv4",
        "aws:amz:test-1:s3",
        "--user",
        "AKTESTKIT:wrong",
        "--header",
        UNSIGNED,
    ]);
    let output = command.arg(format!("{}{key}", server.endpoint())).output().unwrap();
    assert!(String::from_utf8_lossy(&output.stdout).contains("SignatureDoesNotMatch"), "{output:?}");
    let (status, text) = ask(&server, &put("x"), "/no-such-bucket/a");
    assert!(status == 404 && text.contains("NoSuchBucket"), "{status} {text}");
    assert_eq!(server.objects(&bucket), []);
}

#[test]
fn it_breaks_what_it_is_told_and_comes_back() {
    let server = Server::start();
    let bucket = server.bucket();
    let key = format!("/{bucket}/a");
    let long = "x".repeat(100_000);
    server.breaks_times(1, Fault::Status(503), |_| true);
    server.breaks_times(1, Fault::Denied, |asked| asked.kind == Kind::Put);
    server.breaks_times(1, Fault::CutRequest(1000), |asked| asked.kind == Kind::Put);
    let (status, text) = ask(&server, &put(&long), &key);
    assert!(status == 503 && text.contains("SlowDown"), "{status} {text}");
    assert_eq!(ask(&server, &put(&long), &key).0, 403);
    assert_eq!(try_ask(&server, REGION, &put(&long), &key), None);
    assert_eq!(server.objects(&bucket), [], "nothing of that was done");
    assert_eq!(ask(&server, &put(&long), &key).0, 200);

    for fault in [Fault::CutAnswer(1000), Fault::Stall(50_000), Fault::LoseAnswer] {
        server.breaks(fault, |asked| asked.kind == Kind::Get);
        assert_eq!(try_ask(&server, REGION, &["--max-time", "1"], &key), None);
        server.mends();
    }
    server.breaks_times(1, Fault::Corrupt, |_| true);
    let spoiled = ask(&server, &[], &key).1;
    assert_eq!(spoiled.bytes().filter(|byte| *byte != b'x').count(), 1);

    server.stop();
    assert_eq!(try_ask(&server, REGION, &[], &key), None);
    server.start_again();
    assert_eq!(ask(&server, &[], &key).1, long);
    assert!(server.rot(&bucket, "a") && server.object(&bucket, "a").unwrap() != long);
    assert!(server.lose(&bucket, "a") && !server.lose(&bucket, "a"));
}
