//! Several ranges of a blob that is still on its way, in one request.

#![allow(clippy::unwrap_used)] // the helpers of tests fail as tests do

use deltaport_testkit::http::{Request, Response};
use deltaport_testkit::process::{Launch, Server};
use deltaport_testkit::sample::{Content, bytes};
use deltaport_testkit::upstream::{Gate, Reply, Rule, Upstream};

const SIZE: usize = 400_000;

/// An upstream that sends the first half of `sent` and the rest when the gate opens, and a site of it.
async fn site(content: &Content, sent: &Content, gate: &Gate) -> (Upstream, Server) {
    let reply = Reply::status(200).body(sent.bytes.clone()).held_after(SIZE / 2, gate);
    let upstream =
        Upstream::start(vec![Rule::on("GET", &format!("/v2/app/blobs/{}", content.digest)).reply(reply)])
            .await;
    let config = format!("[[upstream]]\nhost = \"hub.example\"\nurl = \"{}\"\n", upstream.url());
    let server = Launch::new(env!("CARGO_BIN_EXE_deltaport")).config(&config).start().await;
    (upstream, server)
}

fn request(content: &Content, ranges: &str) -> Request {
    Request::get(&format!("/v2/hub.example/app/blobs/{}", content.digest)).header("Range", ranges)
}

/// The parts of a multipart answer, with the ranges that it says they are.
fn parts(answer: &Response) -> Vec<(String, Vec<u8>)> {
    let media_type = answer.header("content-type").unwrap();
    let boundary = media_type.strip_prefix("multipart/byteranges; boundary=").unwrap();
    let mark = format!("--{boundary}");
    let mut rest = &answer.body[..];
    let mut parts = Vec::new();
    while let Some(behind) = rest.strip_prefix(mark.as_bytes()).filter(|behind| !behind.starts_with(b"--")) {
        let head_end = behind.windows(4).position(|window| window == b"\r\n\r\n").unwrap();
        let head = std::str::from_utf8(&behind[..head_end]).unwrap();
        let range = head.lines().find_map(|line| line.strip_prefix("Content-Range: ")).unwrap();
        let body = &behind[head_end + 4..];
        let next = format!("\r\n{mark}");
        let end = body.windows(next.len()).position(|window| window == next.as_bytes()).unwrap();
        parts.push((range.to_owned(), body[..end].to_vec()));
        rest = &body[end + 2..];
    }
    assert_eq!(rest, format!("{mark}--\r\n").as_bytes());
    parts
}

#[tokio::test]
async fn several_ranges_of_a_blob_on_its_way_are_its_bytes_and_end_when_it_is_proven() {
    let (content, gate) = (Content::new("", bytes(1, SIZE)), Gate::new());
    let (upstream, server) = site(&content, &content, &gate).await;
    let client = server.client();
    // What has come, what has not, and what is kept back until the end is proven.
    let ranges = [(10, 20), (150_000, 250_000), (SIZE - 5, SIZE)];
    let asked = "bytes=150000-249999,10-19,-5";
    let request = || request(&content, asked);
    let answers = [(); 3].map(|()| {
        let (client, request) = (client.clone(), request());
        tokio::spawn(async move { client.send(request).await })
    });
    while upstream.sent() < SIZE as u64 / 2 {
        tokio::time::sleep(std::time::Duration::from_millis(2)).await;
    }
    assert!(answers.iter().all(|answer| !answer.is_finished()));
    gate.open();
    for answer in answers {
        let answer = answer.await.unwrap();
        assert_eq!(answer.status, 206);
        assert_eq!(answer.header("content-length"), Some(answer.body.len().to_string().as_str()));
        let expected = ranges.map(|(start, end)| {
            (format!("bytes {start}-{}/{SIZE}", end - 1), content.bytes[start..end].to_vec())
        });
        assert!(parts(&answer) == expected);
    }
    assert_eq!(upstream.asked().len(), 1, "{:?}", upstream.lines());
}

#[tokio::test]
async fn several_ranges_of_a_blob_that_turns_out_wrong_are_never_a_whole_answer() {
    let (content, gate) = (Content::new("", bytes(1, SIZE)), Gate::new());
    let mut wrong = content.bytes.to_vec();
    wrong[300_000] ^= 1;
    let sent = Content { bytes: wrong.into(), ..content.clone() };
    let (_upstream, server) = site(&content, &sent, &gate).await;
    let client = server.client();
    let cut_off = tokio::spawn(async move { client.try_send(request(&content, "bytes=0-9,-5")).await });
    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    gate.open();
    let answer = cut_off.await.unwrap();
    assert!(
        answer.as_ref().is_err() || answer.as_ref().is_ok_and(|answer| answer.status >= 500),
        "{answer:?}"
    );
}
