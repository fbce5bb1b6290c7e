//! curl, as scripts use a registry: an upload in parts that outlives the server, and parts of a download.

use std::fs;
use std::path::Path;

use deltaport_oci::Digest;
use deltaport_testkit::clients::{Run, Sandbox};
use deltaport_testkit::sample;

use crate::registry::{PASSWORD, Registry, USER};

fn curl(sandbox: &Sandbox) -> Run<'_> {
    sandbox.run("/usr/bin/curl").line("--silent --show-error --dump-header -")
}

/// The value of a header in what curl printed; the last one after a redirect.
fn header<'a>(answer: &'a str, name: &str) -> &'a str {
    let of = |line: &'a str| {
        let (key, value) = line.split_once(':')?;
        key.eq_ignore_ascii_case(name).then(|| value.trim())
    };
    answer.lines().filter_map(of).next_back().unwrap_or_else(|| panic!("no {name} in\n{answer}"))
}

/// The status of the last answer: curl sends large bodies only after a 100.
fn status(answer: &str) -> &str {
    let status =
        answer.lines().rfind(|line| line.starts_with("HTTP/")).and_then(|line| line.split(' ').nth(1));
    status.unwrap_or_else(|| panic!("no status in {answer:?}"))
}

fn digest(file: &Path) -> Digest {
    Digest::sha256(&fs::read(file).expect("curl wrote it"))
}

#[test]
fn an_upload_continues_after_the_server_was_killed() {
    let (mut registry, sandbox) = (Registry::open(), Sandbox::new());
    let root = format!("http://{}", registry.address());
    let content = sample::bytes(51, 3_000_000);
    let parts = [&content[..1_000_000], &content[1_000_000..2_500_000], &content[2_500_000..]];
    let absolute = |location: &str| {
        if location.starts_with('/') { format!("{root}{location}") } else { location.to_owned() }
    };
    let part = |bytes: &[u8]| format!("@{}", sandbox.write("part", bytes).display());

    let begun = curl(&sandbox).args(["-X", "POST", &format!("{root}/v2/up/load/blobs/uploads/")]).ok();
    assert_eq!(status(&begun), "202", "{begun}");
    let mut location = absolute(header(&begun, "location"));
    let mut sent = 0;
    for bytes in &parts[..2] {
        let range = format!("Content-Range: {sent}-{}", sent + bytes.len() - 1);
        let answer = curl(&sandbox)
            .args(["-X", "PATCH", "-H", &range, "-H", "Content-Type: application/octet-stream"])
            .args(["--data-binary", &part(bytes), &location])
            .ok();
        assert_eq!(status(&answer), "202", "{answer}");
        sent += bytes.len();
        assert_eq!(header(&answer, "range"), format!("0-{}", sent - 1));
        location = absolute(header(&answer, "location"));

        registry.kill();
        curl(&sandbox).arg(&location).refused();
        registry.start_again();
        let answer = curl(&sandbox).arg(&location).ok();
        assert_eq!((status(&answer), header(&answer, "range")), ("204", &*format!("0-{}", sent - 1)));
        location = absolute(header(&answer, "location"));
    }
    let joint = if location.contains('?') { '&' } else { '?' };
    let name = Digest::sha256(&content);
    let answer = curl(&sandbox)
        .args(["-X", "PUT", "-H", "Content-Type: application/octet-stream"])
        .args(["--data-binary", &part(parts[2]), &format!("{location}{joint}digest={name}")])
        .ok();
    assert_eq!(status(&answer), "201", "{answer}");
    assert_eq!(header(&answer, "docker-content-digest"), name.to_string());

    registry.kill();
    registry.start_again();
    let answer = curl(&sandbox)
        .arg("-o")
        .arg(sandbox.path("whole"))
        .arg(format!("{root}/v2/up/load/blobs/{name}"))
        .ok();
    assert_eq!(status(&answer), "200", "{answer}");
    assert_eq!(digest(&sandbox.path("whole")), name);
}

#[test]
fn a_download_continues_where_it_stopped() {
    let (registry, sandbox) = (Registry::open(), Sandbox::new());
    let root = format!("http://{}/v2/down/load/blobs", registry.address());
    let content = sample::bytes(52, 1_000_000);
    let name = Digest::sha256(&content);
    let begun = curl(&sandbox).args(["-X", "POST", &format!("{root}/uploads/")]).ok();
    let location = header(&begun, "location");
    let location = if location.starts_with('/') {
        format!("http://{}{location}", registry.address())
    } else {
        location.into()
    };
    let joint = if location.contains('?') { '&' } else { '?' };
    let file = sandbox.write("content", &content);
    curl(&sandbox)
        .line("--fail --header Content-Type:application/octet-stream --upload-file")
        .arg(file)
        .arg(format!("{location}{joint}digest={name}"))
        .ok();

    let partial = sandbox.write("partial", &content[..400_000]);
    let answer = curl(&sandbox).line("--continue-at - -o").arg(&partial).arg(format!("{root}/{name}")).ok();
    assert_eq!(status(&answer), "206", "{answer}");
    assert_eq!(header(&answer, "content-range"), "bytes 400000-999999/1000000");
    assert_eq!(digest(&partial), name);
}

#[test]
fn logs_in_over_tls() {
    let (registry, sandbox) = (Registry::locked(), Sandbox::new());
    let url = format!("https://{}/v2/", registry.address());
    let curl = || curl(&sandbox).arg("--cacert").arg(registry.authority().join("ca.crt")).arg(&url);
    sandbox.run("/usr/bin/curl").arg(&url).refused();
    let answer = curl().ok();
    assert_eq!(status(&answer), "401", "{answer}");
    assert!(header(&answer, "www-authenticate").starts_with("Basic "));
    assert_eq!(status(&curl().args(["-u", &format!("{USER}:wrong")]).ok()), "401");
    assert_eq!(status(&curl().args(["-u", &format!("{USER}:{PASSWORD}")]).ok()), "200");
}
