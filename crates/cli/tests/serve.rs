//! `deltaport serve` as a process: how it starts, how it refuses to, and how it ends.

#![allow(clippy::unwrap_used)] // the helpers of tests fail as tests do

use std::io::{BufRead as _, BufReader};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use deltaport_testkit::http::{Client, Request};
use deltaport_testkit::process::{Launch, Server};
use deltaport_testkit::tls::Certificates;
use rustix::process::Signal;

/// Longer than a start or an end takes on the slowest machine, and shorter than the default grace.
const SOON: Duration = Duration::from_secs(15);

fn launch() -> Launch {
    Launch::new(env!("CARGO_BIN_EXE_deltaport"))
}

/// What it has written once its greeting is complete: it is ready a moment before that has been read.
async fn greeting(server: &Server) -> String {
    let begun = Instant::now();
    loop {
        let log = server.log();
        if log.contains("Ctrl-C stops it.") || begun.elapsed() > SOON {
            return log;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// What `serve` says with these arguments, which it must refuse.
fn refused(launch: &Launch, arguments: &[&str]) -> String {
    let data = launch.data();
    let (status, text) = launch.run(&[&["serve", "--data", data.to_str().unwrap()], arguments].concat());
    assert_eq!(status.code(), Some(1), "{text}");
    text
}

#[tokio::test]
async fn it_says_where_it_listens_where_the_data_are_and_how_to_push() {
    let mut server = launch().start().await;
    let (log, address) = (greeting(&server).await, server.address());
    for says in [
        &format!("is listening on http://{address}\n"),
        &format!("The data are in {}\n", server.launch().data().display()),
        &format!("docker pull {address}/docker.io/library/alpine\n"),
        &format!("docker push {address}/debian\n"),
        &format!("podman push --tls-verify=false debian:stable-slim {address}/debian\n"),
        &format!(
            "skopeo copy --dest-tls-verify=false docker://docker.io/library/debian:stable-slim docker://{address}"
        ),
    ] {
        assert!(log.contains(says), "{says}\n{log}");
    }
    assert_eq!(server.client().send(Request::get("/v2/")).await.status, 200);
    assert!(server.terminate().success());
}

#[tokio::test]
async fn an_open_connection_without_a_request_does_not_hold_it_up() {
    let mut server = launch().start().await;
    let _idle = TcpStream::connect(server.address()).unwrap();
    let begun = Instant::now();
    assert!(server.terminate().success(), "{}", server.log());
    assert!(begun.elapsed() < SOON, "{:?}", begun.elapsed());
    assert!(server.log().contains("stopped"), "{}", server.log());
}

#[tokio::test]
async fn a_request_that_does_not_end_is_cut_off_after_the_grace() {
    let mut server = launch().config("shutdown_grace = \"300ms\"").start().await;
    let mut connection = server.client().connect().await.unwrap();
    let begun = server.client().send(Request::post("/v2/a/blobs/uploads/")).await;
    let upload = Request::patch(begun.header("location").unwrap()).chunked([]);
    connection.send_head(&upload).await.unwrap();
    connection.write(b"b\r\na beginning\r\n").await.unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    let begun = Instant::now();
    assert!(server.terminate().success(), "{}", server.log());
    assert!(begun.elapsed() >= Duration::from_millis(250) && begun.elapsed() < SOON, "{:?}", begun.elapsed());
}

#[tokio::test]
async fn the_data_belong_to_one_process() {
    let server = launch().start().await;
    let text = refused(server.launch(), &["--listen", "127.0.0.1:0"]);
    let data = server.launch().data();
    assert!(text.contains(&format!("cannot keep data in {}", data.display())), "{text}");
}

#[test]
fn a_port_that_is_taken_is_told_with_a_way_out() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let text = refused(&launch(), &["--listen", &format!("127.0.0.1:{port}")]);
    assert!(text.contains("something else listens there"), "{text}");
    assert!(text.contains(&format!("sport = :{port}")) && text.contains("--listen 127.0.0.1:"), "{text}");
}

#[test]
fn plain_http_for_other_machines_has_to_be_asked_for() {
    for listen in ["0.0.0.0:0", "[::]:0"] {
        let launch = launch();
        let text = refused(&launch, &["--listen", listen]);
        assert!(text.contains("without TLS passwords and images would cross the network readable"), "{text}");
        assert!(!launch.data().exists(), "it refused before it did anything");
    }
}

#[tokio::test]
async fn a_certificate_is_used() {
    let launch = launch();
    let config = "[tls]\ncertificate = \"server.crt\"\nkey = \"server.key\"";
    let mut server = launch.config(config).tls(Certificates::new()).start().await;
    assert!(server.log().contains("is listening on https://"), "{}", server.log());
    assert!(server.log().contains("podman push debian:stable-slim"), "{}", server.log());
    assert!(server.terminate().success());
}

#[test]
fn a_certificate_that_cannot_be_used_is_told() {
    let launch = launch();
    let config = launch.file("c.toml", "[tls]\ncertificate = \"absent.crt\"\nkey = \"absent.key\"");
    let text = refused(&launch, &["--config", config.to_str().unwrap(), "--listen", "127.0.0.1:0"]);
    assert!(text.contains("absent.crt"), "{text}");
}

#[tokio::test]
async fn logs_come_as_json_when_they_are_asked_for() {
    let mut server = launch().config("log = { format = \"json\", level = \"debug\" }").start().await;
    assert!(server.terminate().success());
    let log = server.log();
    let lines: Vec<serde_json::Value> = log
        .lines()
        .filter(|line| line.starts_with('{'))
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    for message in ["listening", "stopped"] {
        assert!(lines.iter().any(|line| line["message"] == message), "{message}\n{log}");
    }
}

#[tokio::test]
async fn users_log_in_and_new_ones_need_no_restart() {
    let launch = launch();
    let line = |user: &str| deltaport_trust::passwords::line(user, "hunter2", [1; 16]).unwrap() + "\n";
    let file = launch.file("htpasswd", line("anna"));
    let server = launch.config("[access]\nhtpasswd = \"htpasswd\"").start().await;
    let status =
        async |user: &str| server.client().send(Request::get("/v2/").basic(user, "hunter2")).await.status;
    assert_eq!(
        server.client().send(Request::get("/v2/")).await.status,
        401,
        "loopback is not trusted any more"
    );
    assert_eq!((status("anna").await, status("bert").await), (200, 401));
    std::fs::write(file, line("anna") + &line("bert")).unwrap();
    let deadline = Instant::now() + SOON;
    while status("bert").await != 200 {
        assert!(Instant::now() < deadline, "the password file is not read again\n{}", server.log());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn rules_are_read_again_on_request() {
    let config = |allow: &str| {
        format!("[[access.rule]]\nrepositories = [\"**\"]\nallow = [\"{allow}\"]\nanonymous = true")
    };
    let mut server = launch().config(&config("pull")).start().await;
    let begin = async || server.client().send(Request::post("/v2/a/blobs/uploads/")).await.status;
    let until = async |wanted: u16| {
        let deadline = Instant::now() + SOON;
        while begin().await != wanted {
            assert!(Instant::now() < deadline, "never {wanted}\n{}", server.log());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    assert_ne!(begin().await, 202);
    server.launch().file("config.toml", config("push"));
    server.signal(Signal::HUP);
    until(202).await;
    // A mistake changes nothing.
    server.launch().file("config.toml", config("pul"));
    server.signal(Signal::HUP);
    let deadline = Instant::now() + SOON;
    while !server.log().contains("the access rules stay as they were") {
        assert!(Instant::now() < deadline, "{}", server.log());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(begin().await, 202);
    assert!(server.terminate().success());
}

#[tokio::test]
async fn it_serves_on_when_nobody_reads_what_it_writes() {
    let launch = launch();
    let mut child = Command::new(env!("CARGO_BIN_EXE_deltaport"))
        .args(["serve", "--listen", "127.0.0.1:0", "--data", launch.data().to_str().unwrap()])
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    // The pipe is closed behind the first line, as `head -1` does; every request is a line more.
    BufReader::new(child.stderr.take().unwrap()).read_line(&mut line).unwrap();
    let address = line.split_once("address=").unwrap().1.split_whitespace().next().unwrap().parse().unwrap();
    let client = Client::plain(address);
    for _ in 0..20 {
        assert_eq!(client.send(Request::get("/v2/")).await.status, 200);
    }
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn a_greeting_that_nobody_reads_is_no_reason_to_stop() {
    let launch = launch();
    let mut child = Command::new(env!("CARGO_BIN_EXE_deltaport"))
        .args(["serve", "--listen", "127.0.0.1:0", "--data", launch.data().to_str().unwrap()])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let mut line = String::new();
    let mut log = BufReader::new(child.stderr.take().unwrap());
    log.read_line(&mut line).unwrap();
    assert!(line.contains("listening"), "{line}");
    std::thread::sleep(Duration::from_millis(300));
    assert!(child.try_wait().unwrap().is_none(), "it has stopped");
    child.kill().unwrap();
    child.wait().unwrap();
}
