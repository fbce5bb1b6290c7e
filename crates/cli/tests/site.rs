//! A site as its clients see it: `deltaport serve` in front of a registry that behaves like Docker Hub.

#![allow(clippy::unwrap_used)] // the helpers of tests fail as tests do

use deltaport_testkit::http::{Client, Request, Response};
use deltaport_testkit::process::{Launch, Server};
use deltaport_testkit::sample::{self, Content, Image};
use deltaport_testkit::upstream::{Reply, Rule, Upstream};

const TOKEN: &str = "an-opaque-token";

/// A registry of Docker Hub's shape: tokens from a service on another host, official images below `library/`, and blobs
/// that lie elsewhere.
struct Hub {
    registry: Upstream,
    token_service: Upstream,
    storage: Upstream,
    image: Image,
    index: Content,
}

impl Hub {
    async fn new() -> Self {
        let (image, other) = (Image::small(1), Image::of("arm64", vec![sample::layer(9, 5000)]));
        let index = sample::index(&[&image.manifest, &other.manifest], serde_json::json!({}));
        let storage = Upstream::start(vec![]).await;
        let token = format!("{{\"token\":\"{TOKEN}\"}}");
        let token_service =
            Upstream::start(vec![Rule::on("GET", "/token").reply(Reply::status(200).body(token))]).await;
        let hub = Self { registry: Upstream::start(vec![]).await, token_service, storage, image, index };
        for blob in hub.image.blobs() {
            let place = format!("/storage/{}", blob.digest);
            hub.storage.first(Rule::on("GET", &place).reply(Reply::content(blob)));
            let moved = Reply::status(307).header("Location", &format!("{}{place}", hub.storage.url()));
            hub.has("GET", &format!("blobs/{}", blob.digest), moved);
        }
        for method in ["HEAD", "GET"] {
            hub.has(method, "manifests/latest", Reply::content(&hub.index));
        }
        let child = format!("manifests/{}", hub.image.manifest.digest);
        hub.has("GET", &child, Reply::content(&hub.image.manifest));
        hub
    }

    /// Answers so to who has a token, and tells others where to get one.
    fn has(&self, method: &str, path: &str, reply: Reply) {
        let target = format!("/v2/library/alpine/{path}");
        // The token service is the same machine under another name.
        let realm = self.token_service.url().replace("127.0.0.1", "localhost");
        let challenge = format!(
            "Bearer realm=\"{realm}/token\",service=\"hub\",scope=\"repository:library/alpine:pull\""
        );
        self.registry.first(
            Rule::on(method, &target).reply(Reply::status(401).header("WWW-Authenticate", &challenge)),
        );
        let known = Rule::on(method, &target).with_header("authorization", &format!("Bearer {TOKEN}"));
        self.registry.first(known.reply(reply));
    }

    /// A site of this upstream, open to everybody: who calls it by another name than localhost is not local.
    fn site(&self) -> String {
        format!(
            "[[access.rule]]\n\
             repositories = [\"**\"]\n\
             allow = [\"pull\", \"push\"]\n\
             anonymous = true\n\
             [[upstream]]\n\
             host = \"docker.io\"\n\
             url = \"{}\"\n\
             hosts = [\"docker.mirror.example\"]\n\
             repositories = [\"library/**\"]\n\
             token_hosts = [\"localhost\"]\n",
            self.registry.url()
        )
    }

    /// The same after it has gone: nothing listens any more where it was.
    async fn gone(self) -> Self {
        let elsewhere = Self::new().await;
        Self { image: self.image, index: self.index, ..elsewhere }
    }

    /// How many manifests were fetched, not only looked at.
    fn manifests_fetched(&self) -> usize {
        let asked = self.registry.asked();
        let fetched = |asked: &&deltaport_testkit::upstream::Asked| {
            asked.method == "GET"
                && asked.target.contains("/manifests/")
                && asked.headers.first("authorization").is_some()
        };
        asked.iter().filter(fetched).count()
    }
}

async fn serve(config: &str) -> Server {
    Launch::new(env!("CARGO_BIN_EXE_deltaport")).config(config).start().await
}

async fn get(client: &Client, path: &str) -> Response {
    client.send(Request::get(path)).await
}

/// Pulls the image as docker does, by the name `name`.
async fn pull(client: &Client, name: &str, hub: &Hub) -> Response {
    let index = get(client, &format!("/v2/{name}/manifests/latest")).await;
    assert_eq!((index.status, &index.body), (200, &hub.index.bytes), "{}", index.text());
    let child = get(client, &format!("/v2/{name}/manifests/{}", hub.image.manifest.digest)).await;
    assert_eq!((child.status, &child.body), (200, &hub.image.manifest.bytes), "{}", child.text());
    assert_eq!(child.header("warning"), None, "a digest is never stale");
    for content in hub.image.blobs() {
        let blob = get(client, &format!("/v2/{name}/blobs/{}", content.digest)).await;
        assert_eq!((blob.status, &blob.body), (200, &content.bytes), "{}", blob.text());
    }
    index
}

fn code(response: &Response) -> String {
    response.json()["errors"][0]["code"].as_str().unwrap().to_owned()
}

/// What a metric of the upstream says.
async fn metric(client: &Client, name: &str) -> u64 {
    let text = String::from_utf8(get(client, "/metrics").await.body.to_vec()).unwrap();
    let line = format!("deltaport_upstream_{name}_total{{upstream=\"docker.io\"}} ");
    text.lines().find_map(|found| found.strip_prefix(&line)).map_or(0, |count| count.parse().unwrap())
}

#[tokio::test]
async fn one_pull_through_it_and_the_upstream_is_not_needed_any_more() {
    let hub = Hub::new().await;
    let server = serve(&hub.site()).await;
    let client = server.client();
    let index = pull(&client, "docker.io/library/alpine", &hub).await;
    assert_eq!(index.header("warning"), None);
    assert_eq!(hub.manifests_fetched(), 2, "the index and the child that is wanted");
    let strangers = hub.storage.asked();
    assert_eq!(strangers.len(), hub.image.blobs().count());
    assert!(strangers.iter().all(|asked| asked.headers.first("authorization").is_none()));
    assert!(hub.token_service.lines().iter().all(|line| line.contains("library%2Falpine")));

    // The other ways lead to the same repository, and nothing is fetched again.
    pull(&client, "docker.io/alpine", &hub).await;
    pull(&client, "index.docker.io/alpine", &hub).await;
    let latest = Request::get("/v2/library/alpine/manifests/latest");
    let by_namespace = client.send(latest.clone().query("ns", "docker.io")).await;
    assert_eq!((by_namespace.status, by_namespace.header("oci-namespace")), (200, Some("docker.io")));
    for name in ["alpine", "library/alpine"] {
        let path = format!("/v2/{name}/manifests/latest");
        let by_host = client.send(Request::get(&path).header("Host", "docker.mirror.example:5000")).await;
        assert_eq!((by_host.status, &by_host.body), (200, &hub.index.bytes));
        assert_eq!(by_host.header("oci-namespace"), None);
    }
    assert_eq!(hub.manifests_fetched(), 2);
    assert_eq!(hub.storage.asked().len(), strangers.len());

    let (received, served) = (metric(&client, "received_bytes").await, metric(&client, "served_bytes").await);
    assert!(received > 0 && served >= 3 * received, "{received} {served}");
    assert!(metric(&client, "cache_saved_bytes").await > received);

    let hub = hub.gone().await;
    for _ in 0..2 {
        let stale = pull(&client, "docker.io/library/alpine", &hub).await;
        let warning = stale.header("warning").unwrap();
        assert!(warning.starts_with("110 deltaport \""), "{warning}");
        let head = client.send(Request::head("/v2/docker.io/alpine/manifests/latest")).await;
        assert!(head.header("warning").is_some());
    }
    assert_eq!(metric(&client, "stale_answers").await, 4);
}

#[tokio::test]
async fn what_is_not_served_is_not_found_and_a_mirror_is_not_pushed_to() {
    let hub = Hub::new().await;
    let server = serve(&hub.site()).await;
    let client = server.client();
    let latest = |name: &str| Request::get(&format!("/v2/{name}/manifests/latest"));
    for request in [
        latest("library/alpine").query("ns", "quay.io"),
        latest("library/alpine").query("ns", "127.0.0.1:5000"),
        latest("library/alpine").query("ns", ""),
        latest("grafana/grafana").query("ns", "docker.io"),
        latest("docker.io/grafana/grafana"),
        latest("grafana/grafana").header("Host", "docker.mirror.example"),
    ] {
        let line = format!("{request:?}");
        let unknown = client.send(request).await;
        assert_eq!((unknown.status, code(&unknown).as_str()), (404, "NAME_UNKNOWN"), "{line}");
    }
    let unknown = client.send(latest("library/alpine")).await;
    assert_eq!((unknown.status, code(&unknown).as_str()), (404, "MANIFEST_UNKNOWN"), "a name of our own");
    assert!(hub.registry.lines().is_empty(), "{:?}", hub.registry.lines());

    let push = |name: &str| Request::post(&format!("/v2/{name}/blobs/uploads/"));
    for request in [push("docker.io/library/alpine"), push("alpine").header("Host", "docker.mirror.example")]
    {
        let refused = client.send(request).await;
        assert_eq!((refused.status, refused.header("allow")), (405, Some("GET, HEAD")), "{}", refused.text());
    }
    assert_eq!(client.send(push("library/alpine")).await.status, 202);
}

#[tokio::test]
async fn an_upstreams_quota_is_not_the_clients() {
    let hub = Hub::new().await;
    let server = serve(&hub.site()).await;
    let client = server.client();
    let limited = || Reply::status(429).header("Retry-After", "600");
    let blob = &hub.image.layers[0];
    hub.has("GET", "manifests/latest", limited());
    hub.has("GET", &format!("blobs/{}", blob.digest), limited());
    let before = hub.manifests_fetched();
    for _ in 0..3 {
        for path in ["manifests/latest".to_owned(), format!("blobs/{}", blob.digest)] {
            let refused = get(&client, &format!("/v2/docker.io/alpine/{path}")).await;
            assert_eq!((refused.status, code(&refused).as_str()), (503, "UNAVAILABLE"), "{path}");
            let seconds: u64 = refused.header("retry-after").unwrap().parse().unwrap();
            assert!((500..=600).contains(&seconds), "{seconds}");
        }
    }
    assert_eq!(hub.manifests_fetched(), before + 1);
}

#[tokio::test]
async fn links_are_in_the_words_of_the_request() {
    let hub = Hub::new().await;
    for method in ["HEAD", "GET"] {
        hub.has(method, "manifests/3.20", Reply::content(&hub.image.manifest));
    }
    let server = serve(&hub.site()).await;
    let client = server.client();
    for tag in ["latest", "3.20"] {
        assert_eq!(get(&client, &format!("/v2/docker.io/alpine/manifests/{tag}")).await.status, 200);
    }
    let next = |response: &Response| {
        let link = response.header("link").unwrap();
        link.strip_prefix('<').unwrap().split('>').next().unwrap().to_owned()
    };
    for (path, host, name) in [
        ("/v2/docker.io/alpine/tags/list?n=1", "site.example", "docker.io/alpine"),
        ("/v2/alpine/tags/list?ns=docker.io&n=1", "site.example", "alpine"),
        ("/v2/alpine/tags/list?n=1", "docker.mirror.example", "alpine"),
    ] {
        let ask = |path: &str| client.send(Request::get(path).header("Host", host));
        let first = ask(path).await;
        assert_eq!(first.json(), serde_json::json!({ "name": name, "tags": ["3.20"] }), "{path}");
        let second = ask(&next(&first)).await;
        assert_eq!(second.json(), serde_json::json!({ "name": name, "tags": ["latest"] }), "{path}");
    }
}

#[tokio::test]
async fn without_a_configuration_it_mirrors_the_public_registries_and_has_names_of_its_own() {
    let server = serve("").await;
    let client = server.client();
    let push = |name: &str| Request::post(&format!("/v2/{name}/blobs/uploads/"));
    for host in ["docker.io", "ghcr.io", "quay.io", "registry.k8s.io", "gcr.io", "public.ecr.aws"] {
        let refused = client.send(push(&format!("{host}/a/b"))).await;
        assert_eq!(refused.status, 405, "{host}: {}", refused.text());
        assert!(refused.text().contains(host));
    }
    assert_eq!(client.send(push("conformance/x")).await.status, 202);
    let unknown = get(&client, "/v2/conformance/x/manifests/latest").await;
    assert_eq!((unknown.status, code(&unknown).as_str()), (404, "MANIFEST_UNKNOWN"));
    let unknown = get(&client, "/v2/a/b/manifests/latest?ns=registry.example").await;
    assert_eq!((unknown.status, code(&unknown).as_str()), (404, "NAME_UNKNOWN"));

    let server = serve("public_upstreams = false").await;
    assert_eq!(server.client().send(push("docker.io/a/b")).await.status, 202);
}
