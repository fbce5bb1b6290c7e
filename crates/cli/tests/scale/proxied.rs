//! Clients behind nginx are told apart by their own addresses, and those who are sent to the bucket find the blob there.

use std::net::SocketAddr;
use std::process::Command;

use deltaport_testkit::clients::require;
use deltaport_testkit::postgres::Database;
use deltaport_testkit::process::Server;

use crate::balancer::Balancer;
use crate::hub::{launch, push};
use crate::objects::Objects;

const CURL: &str = "/usr/bin/curl";

/// The status of the answer to a GET that is sent from an address of this machine, and where the answer leads.
fn get(from: &str, to: SocketAddr, path: &str, headers: &[&str]) -> (String, String) {
    let mut curl = Command::new(CURL);
    curl.args(["--silent", "--show-error", "--output", "/dev/null", "--interface", from]);
    curl.args(["--write-out", "%{http_code} %{redirect_url}"]);
    curl.args(headers.iter().flat_map(|header| ["--header", header]));
    let output = curl.arg(format!("http://{to}{path}")).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let (status, leads) = text.split_once(' ').unwrap();
    assert!(status != "000", "{}", String::from_utf8_lossy(&output.stderr));
    (status.to_owned(), leads.to_owned())
}

#[tokio::test]
async fn clients_are_sent_to_the_bucket_by_their_own_network() {
    require(CURL);
    let (objects, database) = (Objects::start(), Database::new());
    let mut replicas: Vec<Server> = Vec::new();
    for _ in 0..3 {
        let replica = launch(&objects, &database.url(), "");
        let usual = std::fs::read_to_string(replica.home().join("config.toml")).unwrap();
        let sent = "[storage.s3]\nredirect = [\"127.1.0.0/16\"]";
        let told = format!("trusted_proxies = [\"127.0.0.1\"]\n{}", usual.replace("[storage.s3]", sent));
        replicas.push(replica.config(&told).start().await);
    }
    let addresses: Vec<SocketAddr> = replicas.iter().map(Server::address).collect();
    let balancer = Balancer::before(addresses.try_into().unwrap());
    let pushed = push(&[balancer.client()], "team/app", "latest", 5, 1 << 20).await;
    let path = format!("/v2/team/app/blobs/{}", pushed.layer_digest);

    let (near, far) = ("127.1.2.3", "127.2.3.4");
    let made_up = ["X-Forwarded-For: 127.1.2.3", "Forwarded: for=127.1.2.3", "X-Real-IP: 127.1.2.3"];
    // Once through each replica.
    for _ in 0..3 {
        let (status, leads) = get(near, balancer.address(), &path, &[]);
        assert!(status == "307" && leads.starts_with(&objects.endpoint), "{status} {leads}");
        assert_eq!(get(far, balancer.address(), &path, &[]).0, "200");
        assert_eq!(get(far, balancer.address(), &path, &made_up).0, "200");
        assert_eq!(get(near, balancer.address(), &path, &["X-Forwarded-For: 127.2.3.4"]).0, "307");
    }
    // The address is the bucket's own: whoever has it reads the blob there, whole or in part.
    let (_, leads) = get(near, balancer.address(), &path, &[]);
    let whole = Command::new(CURL).args(["--silent", "--fail", &leads]).output().unwrap();
    assert!(whole.stdout == pushed.layer, "{}", whole.stdout.len());
    let part =
        Command::new(CURL).args(["--silent", "--fail", "--range", "1000-1999", &leads]).output().unwrap();
    assert!(part.stdout == pushed.layer[1000..2000], "{}", part.stdout.len());
    // Who comes past nginx is who he is.
    assert_eq!(get(near, replicas[0].address(), &path, &["X-Forwarded-For: 127.2.3.4"]).0, "307");
    assert_eq!(get(far, replicas[0].address(), &path, &made_up).0, "200");

    let log = replicas.iter().map(Server::log).collect::<String>();
    assert!(log.contains("127.1.2.3") && log.contains("127.2.3.4"), "{log}");
}
