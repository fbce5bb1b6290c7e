//! Replicas over one store: what only one of them does at a time is done once, and is taken up by another when who did it
//! has died.

#![allow(clippy::unwrap_used)] // the helpers of tests fail as tests do

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use deltaport_client as client;
use deltaport_oci::{Digest, RepositoryName};
use deltaport_registry::mirror::{Begin, Clock, Repositories, Request, Rule, Selection};
use deltaport_registry::tokens::{AccessTokens, RobotTokens};
use deltaport_registry::{Options, Registry, Replicas, Upstream};
use deltaport_store::{
    BucketOptions, ByteStore, ClaimLimits, Credentials, DeltaJob, Faults, LayerDelta, NamesOptions,
    PostgresOptions, Secrets, Store,
};
use deltaport_testkit::postgres::Database;
use deltaport_testkit::s3;
use deltaport_testkit::sample::{self, Content, Image};
use deltaport_testkit::upstream::{Gate, Reply, Rule as On, Upstream as Script};
use deltaport_trust::tokens::{Grant, SECRET_RANDOM_LEN, Scopes};
use deltaport_trust::{Access, Rules};
use jiff::Timestamp;
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

const HOST: &str = "registry.example";
const PATIENCE: Duration = Duration::from_secs(60);
/// For how long a replica that has died is believed to be at work here.
const LEASE: Duration = Duration::from_secs(2);

/// Where two replicas have their store.
#[derive(Clone, Copy, Debug)]
enum Over {
    /// One store in one process, with names in a directory.
    Directory,
    /// Two stores over PostgreSQL and a bucket.
    Services,
}

const BOTH: [Over; 2] = [Over::Directory, Over::Services];

/// Two replicas over one store.
struct Pair {
    replicas: [Registry; 2],
    stores: [Store; 2],
    stop: CancellationToken,
    // What the stores are in goes after them.
    _services: Option<(Database, s3::Server)>,
    _homes: [TempDir; 2],
}

impl Pair {
    async fn new(over: Over, options: Options) -> Self {
        let homes = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        let services = match over {
            Over::Directory => None,
            Over::Services => Some((Database::new(), s3::Server::start())),
        };
        let bucket = services.as_ref().map(|(_, server)| (server.endpoint(), server.bucket()));
        let open = |home: &TempDir| {
            let mut store = deltaport_store::Options {
                root: home.path().to_owned(),
                bytes: ByteStore::Directory,
                keep_free: 0,
                manifest_cache: 1 << 20,
                grace: Duration::ZERO,
                upload_expiry: Duration::from_secs(600),
                partial_expiry: Duration::from_secs(600),
                names: NamesOptions::Directory,
                faults: Faults::none(),
            };
            if let (Some((database, _)), Some((endpoint, bucket))) = (&services, &bucket) {
                let credentials =
                    Credentials::Key { id: s3::ACCESS_KEY.to_owned(), secret: s3::SECRET_KEY.to_owned() };
                store.names = NamesOptions::Postgres(PostgresOptions {
                    url: database.url(),
                    password: None,
                    tls: None,
                    connections: 4,
                });
                store.bytes = ByteStore::Bucket(Box::new(BucketOptions {
                    endpoint: Some(endpoint.clone()),
                    region: Some(s3::REGION.to_owned()),
                    path_style: true,
                    credentials,
                    ..BucketOptions::new(&**bucket)
                }));
            }
            Store::open(store)
        };
        let first = open(&homes[0]).await.unwrap();
        let second = match over {
            Over::Directory => first.clone(),
            Over::Services => open(&homes[1]).await.unwrap(),
        };
        let options = Options { replicas: Replicas { lease: LEASE }, ..options };
        let replica = |store: &Store| {
            Registry::new(options.clone(), store.clone(), Rules::new(Access::default()).unwrap())
        };
        let replicas = [replica(&first), replica(&second)];
        let stop = CancellationToken::new();
        Self { replicas, stores: [first, second], stop, _services: services, _homes: homes }
    }

    async fn push_blob(&self, repository: &RepositoryName, blob: &Content) -> Digest {
        let mut staging = self.stores[0].blobs().stage(blob.digest.algorithm()).await.unwrap();
        staging.write(blob.bytes.clone()).await.unwrap();
        self.stores[0].commit(staging, &blob.digest, repository).await.unwrap();
        blob.digest
    }

    /// What both have counted together.
    fn count(&self, name: &str) -> u64 {
        let count = |replica: &Registry| {
            let mut prometheus = prometheus_client::registry::Registry::default();
            replica.metrics().register(&mut prometheus);
            let mut text = String::new();
            prometheus_client::encoding::text::encode(&mut text, &prometheus).unwrap();
            let line =
                text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ').map(str::to_owned));
            line.unwrap().parse::<u64>().unwrap()
        };
        self.replicas.iter().map(count).sum()
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// Waits until something is so.
async fn until(what: &str, mut so: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !so().await {
        assert!(Instant::now() < deadline, "{what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_delta_is_made_once_and_one_whose_maker_died_by_another() {
    for over in BOTH {
        deltas(over).await;
    }
}

async fn deltas(over: Over) {
    let pair = Pair::new(over, Options::default()).await;
    let app: RepositoryName = "app".parse().unwrap();
    let files = sample::files(1, 30, 4000);
    let target = pair.push_blob(&app, &sample::layer_of(&files)).await;
    let mut jobs = Vec::new();
    for version in 1..7 {
        let base = pair.push_blob(&app, &sample::layer_of(&sample::changed(&files, version, 20))).await;
        jobs.push(DeltaJob { repository: app.clone(), base, target, waited: false });
    }
    let names = pair.stores[0].names();
    assert_eq!(names.put_delta_jobs(jobs.clone(), 100).await.unwrap(), [true; 6]);
    // A replica takes one up and is never heard of again.
    let limits = ClaimLimits { kept: 100, attempts: 3 };
    let (_, lease) = names.claim_delta_job(limits, LEASE).await.unwrap().unwrap();
    std::mem::forget(lease);
    for replica in &pair.replicas {
        let (replica, stop) = (replica.clone(), pair.stop.clone());
        tokio::spawn(async move { replica.make_deltas(stop).await });
    }
    until("all deltas are there", async || !names.has_delta_jobs().await.unwrap()).await;
    until("all are counted", async || pair.count("deltas_made_total") >= 6).await;
    assert_eq!(pair.count("deltas_made_total"), 6);
    for job in &jobs {
        let known = names.layer_delta(&app, &job.base, &target).await.unwrap();
        assert!(matches!(known, Some(LayerDelta::Blob(_))), "{known:?}");
    }
}

/// An upstream with one image as `app:v1`, about which nobody says anything.
async fn upstream(image: &Image) -> Script {
    let digest = image.manifest.digest;
    let mut rules = vec![On::no_hub()];
    for method in ["HEAD", "GET"] {
        for reference in ["v1".to_owned(), digest.to_string()] {
            let path = format!("/v2/app/manifests/{reference}");
            rules.push(On::on(method, &path).reply(Reply::content(&image.manifest)));
        }
        for blob in image.blobs() {
            let path = format!("/v2/app/blobs/{}", blob.digest);
            rules.push(On::on(method, &path).reply(Reply::content(blob).ranged()));
        }
    }
    let nothing = sample::index(&[], serde_json::json!({}));
    rules.push(On::on("GET", &format!("/v2/app/referrers/{digest}")).reply(Reply::content(&nothing)));
    for ending in [".sig", ".att", ".sbom", ""] {
        let path = format!("/v2/app/manifests/{}{ending}", digest.to_string().replace(':', "-"));
        rules.push(On::on("HEAD", &path).reply(Reply::status(404)));
    }
    Script::start(rules).await
}

/// How often it was looked where the tag leads, which every run does once.
fn runs(script: &Script) -> usize {
    script.asked().iter().filter(|asked| asked.target.ends_with("manifests/v1")).count()
}

fn seconds(text: &str) -> i64 {
    text.parse::<Timestamp>().unwrap().as_second()
}

/// A rule that is run as `begin` says.
async fn with_rule(over: Over, script: &Script, begin: Begin, clock: Clock) -> Pair {
    let tags = Selection { patterns: vec!["v1".parse().unwrap()], ..Selection::default() };
    let rule = Rule { begin, ..Rule::new("all", HOST, Repositories::One("app".parse().unwrap()), tags) };
    let upstream = client::Upstream::new(&client::Options::new(HOST, script.url())).unwrap();
    let upstreams = vec![Upstream::new(upstream)];
    Pair::new(over, Options { upstreams, mirrors: vec![rule], clock, ..Options::default() }).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rule_is_run_once_for_each_time_of_its_schedule_and_again_when_its_runner_died() {
    for over in BOTH {
        schedule(over).await;
    }
}

async fn schedule(over: Over) {
    static NOW: AtomicI64 = AtomicI64::new(0);
    NOW.store(seconds("2026-01-01 22:29:59Z"), Ordering::SeqCst);
    let script = upstream(&Image::small(1)).await;
    let clock = Clock(|| Timestamp::from_second(NOW.load(Ordering::SeqCst)).unwrap());
    let pair = with_rule(over, &script, Begin::At("30 22 * * *".parse().unwrap()), clock).await;
    for replica in &pair.replicas {
        let (replica, stop) = (replica.clone(), pair.stop.clone());
        tokio::spawn(async move { replica.mirror_by_schedule(stop).await });
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(runs(&script), 0, "it is not the hour");
    NOW.store(seconds("2026-01-01 22:30:01Z"), Ordering::SeqCst);
    until("the first night's run", async || runs(&script) > 0).await;
    tokio::time::sleep(LEASE).await;
    assert_eq!(runs(&script), 1);

    // The next night another replica is the first, and dies in the middle of the run.
    let names = pair.stores[0].names();
    let due = seconds("2026-01-02 22:30:00Z") * 1000;
    let lease = names.lease("mirror all", LEASE * 3).await.unwrap().unwrap();
    assert!(names.begin_slot("mirror all", due).await.unwrap());
    std::mem::forget(lease);
    let died = Instant::now();
    NOW.store(seconds("2026-01-02 22:30:01Z"), Ordering::SeqCst);
    until("the second night's run", async || runs(&script) > 1).await;
    assert!(died.elapsed() >= LEASE * 3, "it was believed to be at work: {:?}", died.elapsed());
    tokio::time::sleep(LEASE).await;
    assert_eq!(runs(&script), 2);
    assert!(names.slot("mirror all").await.unwrap().unwrap().done.is_some());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rule_without_a_schedule_is_run_so_long_after_its_last_run_wherever_that_was() {
    for over in BOTH {
        interval(over).await;
    }
}

async fn interval(over: Over) {
    let script = upstream(&Image::small(2)).await;
    let pause = Duration::from_secs(3);
    let pair = with_rule(over, &script, Begin::Every(pause), Clock::default()).await;
    let began = Instant::now();
    for replica in &pair.replicas {
        let (replica, stop) = (replica.clone(), pair.stop.clone());
        tokio::spawn(async move { replica.mirror_by_schedule(stop).await });
    }
    until("the first run", async || runs(&script) > 0).await;
    assert!(began.elapsed() < pause, "at once");
    until("the third run", async || runs(&script) > 2).await;
    assert!(began.elapsed() >= pause * 2, "{:?}", began.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_is_followed_at_whichever_replica_and_joined_there() {
    let image = Image::small(3);
    let script = upstream(&image).await;
    let held = Gate::new();
    let layer = &image.layers[0];
    script.first(
        On::on("GET", &format!("/v2/app/blobs/{}", layer.digest))
            .reply(Reply::content(layer).ranged().held_after(10, &held)),
    );
    let pair = with_rule(Over::Services, &script, Begin::Never, Clock::default()).await;
    let repository: RepositoryName = format!("{HOST}/app").parse().unwrap();
    let ask = async |replica: usize, request, number, patience| {
        let registry = pair.replicas[replica].clone();
        Box::pin(registry.mirror(&repository, "all", request, number, patience)).await
    };
    let moment = Duration::from_millis(100);
    let begun = ask(0, Request::Run, None, moment).await.unwrap();
    assert!(!begun.done && begun.run < 1 << 53, "{begun:?}");
    // Who asks the other one for the same run, or for a run, is told of it as soon as the first has said that there is one.
    until("the other replica knows of it", async || {
        ask(1, Request::Run, Some(begun.run), moment).await.is_ok()
    })
    .await;
    let joined = ask(1, Request::Run, None, moment).await.unwrap();
    assert_eq!((joined.run, joined.done), (begun.run, false));
    let unknown = ask(1, Request::Run, Some(begun.run + 1), moment).await;
    assert!(unknown.is_err(), "{unknown:?}");
    held.open();
    let ended = ask(1, Request::Run, Some(begun.run), PATIENCE).await.unwrap();
    assert!(ended.is_good() && !ended.tags[0].steps.is_empty(), "{ended:#?}");
    assert_eq!(runs(&script), 1);
    // One that is over is not joined.
    let next = ask(1, Request::Run, None, PATIENCE).await.unwrap();
    assert!(next.is_good() && next.run != begun.run);

    // Of one that its replica does not speak of any more, it is said that it has ended.
    let report = serde_json::json!({
        "rule": "all", "repository": repository, "source": "x", "run": 77, "planned": false, "done": false,
        "wanted": 1, "received": 0, "tags": [],
    });
    let topic = format!("mirror run all {repository}");
    pair.stores[0].names().tell(&topic, 77, report.to_string()).await.unwrap();
    let lives = ask(1, Request::Run, Some(77), Duration::ZERO).await.unwrap();
    assert!(!lives.done);
    let died = ask(1, Request::Run, Some(77), PATIENCE).await.unwrap();
    assert!(died.done && died.failed.unwrap().contains("is gone; run it again"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn room_is_taken_back_by_one_replica_at_a_time() {
    for over in BOTH {
        room(over).await;
    }
}

async fn room(over: Over) {
    let pair = Pair::new(over, Options::default()).await;
    let app: RepositoryName = "app".parse().unwrap();
    pair.push_blob(&app, &sample::layer(1, 1000)).await;
    let names = pair.stores[0].names();
    std::mem::forget(names.lease("collect", LEASE).await.unwrap().unwrap());
    let died = Instant::now();
    let later = SystemTime::now() + Duration::from_secs(3600);
    let (first, second) = tokio::join!(pair.replicas[0].take_back(later), pair.replicas[1].take_back(later));
    assert!(died.elapsed() >= LEASE, "{:?}", died.elapsed());
    // The link goes with one run, and the bytes with the next.
    let (first, second) = (first.unwrap().collected, second.unwrap().collected);
    assert_eq!((first.links + second.links, first.blobs + second.blobs), (1, 1), "{first:?} {second:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_of_one_replica_is_good_at_the_other_and_a_robot_is_known_to_both() {
    let pair = Pair::new(Over::Services, Options::default()).await;
    let secrets = [pair.stores[0].secrets(), pair.stores[1].secrets()];
    // Both begin at the same time, when there are no keys yet.
    let open = |secrets: &Secrets| {
        let secrets = secrets.clone();
        tokio::task::spawn_blocking(move || AccessTokens::open(&secrets, "hub"))
    };
    let (one, other) = tokio::join!(open(&secrets[0]), open(&secrets[1]));
    let (one, other) = (one.unwrap(), other.unwrap());
    let grant =
        Grant { user: Some("anna".into()), scopes: Scopes::requested(["repository:a:pull"]).unwrap() };
    for (issues, takes) in [(&one, &other), (&other, &one)] {
        assert_eq!(takes.verify(&issues.issue(&grant).unwrap()), Ok(grant.clone()));
    }

    let robots = secrets.clone().map(|secrets| RobotTokens::new(&secrets));
    for robots in &robots {
        tokio::spawn(robots.clone().watch(pair.stop.clone()));
    }
    // A command has no store.
    let database = pair._services.as_ref().unwrap().0.url();
    let command = move |revoke: bool| {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let options = PostgresOptions { url: database.clone(), password: None, tls: None, connections: 2 };
        let robots = RobotTokens::new(&Secrets::in_postgres(&options, runtime.handle().clone()).unwrap());
        let scopes = Scopes::parse(["repository:a:pull"]).unwrap();
        robots.change(|robots| match revoke {
            true => robots.revoke("ci").map(|()| String::new()),
            false => robots.create("ci", scopes.clone(), None, 0, [7; SECRET_RANDOM_LEN]),
        })
    };
    let create = command.clone();
    let secret = std::thread::spawn(move || create(false)).join().unwrap().unwrap();
    let known = || robots.iter().filter(|robots| robots.with_secret(&secret).is_some()).count();
    until("both know the robot", async || known() == 2).await;
    std::thread::spawn(move || command(true)).join().unwrap().unwrap();
    until("neither knows it any more", async || known() == 0).await;
}
