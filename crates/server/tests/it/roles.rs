//! Every route, asked by everybody.

use deltaport_oci::wire::Route;
use deltaport_oci::{Digest, Reference, RepositoryName};
use deltaport_testkit::http::{Client, Request};
use deltaport_testkit::sample::Image;
use deltaport_testkit::tls::{CLIENT_NAME, Certificates};
use deltaport_trust::Action;
use deltaport_trust::certificates::{Identity, Name};

use crate::harness::{PASSWORD, Running, Setup, code, grant, push_image};

/// What each role is told, in the order of `ROLES`.
type Row = (&'static str, [u16; 6]);

/// `anonymous` comes through a proxy, `local` directly; the others log in. `stranger` has every right, but elsewhere.
const ROLES: [&str; 6] = ["anonymous", "local", "puller", "pusher", "deleter", "stranger"];

/// What the methods of a route answer for something that does not exist in a repository that does. The match has no
/// wildcard, so that nobody adds a route without saying here who may use it.
fn rows(route: &Route) -> Vec<Row> {
    let pull = |method, found| (method, [401, 401, found, 403, 403, 403]);
    let push = |method, found| (method, [401, 401, 403, found, 403, 403]);
    let delete = |method, found| (method, [401, 401, 403, 403, found, 403]);
    let anybody = |method| (method, [401, 401, 200, 200, 200, 200]);
    let nobody = |method| (method, [405; 6]);
    match route {
        Route::Base | Route::Catalog | Route::Extensions | Route::Mirrors => {
            vec![anybody("GET"), anybody("HEAD"), nobody("PUT"), nobody("POST"), nobody("DELETE")]
        }
        Route::Blob(..) => {
            vec![pull("GET", 404), pull("HEAD", 404), delete("DELETE", 404), nobody("PUT"), nobody("POST")]
        }
        Route::Uploads(_) => vec![push("POST", 202), nobody("GET"), nobody("PUT"), nobody("DELETE")],
        Route::Upload(..) => {
            vec![push("GET", 404), push("PATCH", 404), push("PUT", 400), push("DELETE", 404), nobody("POST")]
        }
        Route::Manifest(..) => vec![
            pull("GET", 404),
            pull("HEAD", 404),
            push("PUT", 400),
            delete("DELETE", 404),
            nobody("POST"),
            nobody("PATCH"),
        ],
        Route::Tags(_) => vec![pull("GET", 200), pull("HEAD", 200), nobody("DELETE"), nobody("POST")],
        Route::Referrers(..) => vec![pull("GET", 200), pull("HEAD", 200), nobody("DELETE"), nobody("PUT")],
        Route::Image(..) => vec![
            pull("GET", 404),
            pull("HEAD", 404),
            // These answer with what there is, and so need the right to pull besides, which none of the roles has.
            push("POST", 403),
            delete("DELETE", 403),
            nobody("PUT"),
            nobody("PATCH"),
        ],
        // Running a rule is answered with what there is, likewise.
        Route::Mirror(..) => {
            vec![pull("GET", 404), pull("HEAD", 404), push("POST", 403), nobody("PUT"), nobody("DELETE")]
        }
        Route::LayerDelta(_) => vec![pull("GET", 400), pull("HEAD", 400), nobody("POST")],
    }
}

fn routes(repository: &str) -> Vec<Route> {
    let name: RepositoryName = repository.parse().expect("a name");
    let digest = Digest::sha256(b"not there");
    vec![
        Route::Base,
        Route::Catalog,
        Route::Extensions,
        Route::Blob(name.clone(), digest),
        Route::Uploads(name.clone()),
        Route::Upload(name.clone(), "0123456789abcdef0123456789abcdef".to_owned()),
        Route::Manifest(name.clone(), Reference::Digest(digest)),
        Route::Manifest(name.clone(), "nothing".parse().expect("a tag")),
        Route::Tags(name.clone()),
        Route::Referrers(name.clone(), digest),
        Route::LayerDelta(name.clone()),
        Route::Mirrors,
        Route::Mirror(name.clone(), "nothing".to_owned()),
        Route::Image(name, "nothing".parse().expect("a tag")),
    ]
}

fn setup() -> Setup {
    let everything = [Action::Pull, Action::Push, Action::Delete];
    let rules = vec![
        grant("puller", &[Action::Pull], "team/**"),
        grant("pusher", &[Action::Push], "team/**"),
        grant("deleter", &[Action::Delete], "team/**"),
        grant("stranger", &everything, "other/**"),
        grant("owner", &everything, "**"),
    ];
    let users = ["puller", "pusher", "deleter", "stranger", "owner"];
    Setup::rules(&users, rules)
}

async fn server() -> Running {
    start(setup()).await
}

async fn start(setup: Setup) -> Running {
    let running = setup.start().await;
    push_image(&running.client.logged_in("owner", PASSWORD), "team/app", "latest", &Image::small(1)).await;
    running
}

/// The same request as it comes from each role.
fn ask(client: &Client, role: &str, method: &str, path: &str) -> (Client, Request) {
    let request = Request::new(method, path);
    match role {
        "anonymous" => (client.clone(), request.header("X-Forwarded-For", "203.0.113.9")),
        "local" => (client.clone(), request),
        user => (client.logged_in(user, PASSWORD), request),
    }
}

#[tokio::test]
async fn every_route_answers_every_role_as_it_should() {
    let running = server().await;
    let mut wrong = Vec::new();
    for route in routes("team/app") {
        for (method, expected) in rows(&route) {
            for (role, expected) in ROLES.iter().zip(expected) {
                let (client, request) = ask(&running.client, role, method, &route.to_string());
                let got = client.send(request).await.status;
                if got != expected {
                    wrong.push(format!("{method} {route} by {role}: {got}, not {expected}"));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Asserts that `client` is told what `role` is told.
async fn assert_told_as(client: &Client, role: &str, called: &str) {
    let column = ROLES.iter().position(|known| *known == role).expect("a role");
    let mut wrong = Vec::new();
    for route in routes("team/app") {
        for (method, expected) in rows(&route) {
            let got = client.send(Request::new(method, &route.to_string())).await.status;
            if got != expected[column] {
                wrong.push(format!("{method} {route} by {called}: {got}, not {}", expected[column]));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Robots with the rights of the roles, and the rules.
fn with_tokens() -> Setup {
    let robots = vec![
        ("puller", "repository:team/**:pull"),
        ("pusher", "repository:team/**:push"),
        ("deleter", "repository:team/**:delete"),
        ("stranger", "repository:other/**:*"),
    ];
    Setup { tokens: true, robots, ..setup() }
}

#[tokio::test]
async fn a_robot_is_told_what_its_scopes_say() {
    let running = start(with_tokens()).await;
    for role in &ROLES[2..] {
        let secret = running.secret(role);
        assert_told_as(&running.client.logged_in(role, secret), role, "a robot with a password").await;
        assert_told_as(&running.client.with_token(secret), role, "a robot with a token").await;
    }
}

#[tokio::test]
async fn an_access_token_tells_as_much_as_a_password_where_it_is_for_that() {
    let running = start(with_tokens()).await;
    let scope = "repository:team/app:*";
    for role in &ROLES[2..] {
        let user = running.client.logged_in(role, PASSWORD);
        let token = crate::harness::token(&user, scope).await;
        assert_told_as(&running.client.with_token(&token), role, "a user's access token").await;
        let robot = running.client.logged_in(role, running.secret(role));
        let token = crate::harness::token(&robot, scope).await;
        assert_told_as(&running.client.with_token(&token), role, "a robot's access token").await;
    }
}

#[tokio::test]
async fn an_access_token_for_less_is_refused_as_if_nobody_had_logged_in() {
    let running = start(with_tokens()).await;
    let owner = running.client.logged_in("owner", PASSWORD);
    for (scope, role) in [
        ("repository:team/app:pull", "puller"),
        ("repository:team/app:push", "pusher"),
        ("repository:team/app:delete", "deleter"),
        ("repository:other/app:*", "stranger"),
        ("repository:team/ap:*", "stranger"),
        ("repository:team/**:*", "stranger"),
        ("repository:**:*", "stranger"),
        ("registry:catalog:*", "stranger"),
        ("", "stranger"),
    ] {
        let client = running.client.with_token(&crate::harness::token(&owner, scope).await);
        let column = ROLES.iter().position(|known| *known == role).expect("a role");
        for route in routes("team/app") {
            for (method, expected) in rows(&route) {
                let answer = client.send(Request::new(method, &route.to_string())).await;
                // The owner may, so that another token would do. What needs two rights is refused for the second one.
                let both = matches!(route, Route::Image(..) | Route::Mirror(..)) && answer.status == 403;
                let expected = if expected[column] == 403 && !both { 401 } else { expected[column] };
                assert_eq!(answer.status, expected, "{method} {route} with a token for {scope:?}");
                let challenge = answer.header("www-authenticate").unwrap_or_default();
                assert_eq!(
                    challenge.contains("error=\"insufficient_scope\""),
                    expected == 401,
                    "{challenge}"
                );
            }
        }
    }
}

#[tokio::test]
async fn a_certificate_is_told_what_its_user_may() {
    let certificates = Certificates::new();
    for role in &ROLES[2..] {
        let name = Name::Common(CLIENT_NAME.to_owned());
        let identities = vec![Identity { name, user: (*role).into() }];
        let setup = Setup { certificates: Some(certificates.clone()), identities, ..setup() };
        let running = start(setup).await;
        let client = Client::tls(running.client.address(), certificates.client_with_certificate());
        assert_told_as(&client, role, "a certificate").await;
    }
}

/// What is not of the specification is open to everybody, or, like taking a token, to whoever can log in; with every
/// method but its own it is nothing.
#[tokio::test]
async fn our_own_paths_answer_everybody_alike() {
    let running = start(with_tokens()).await;
    for role in ROLES {
        for (path, methods) in [
            ("/healthz", &["GET", "HEAD"][..]),
            ("/readyz", &["GET", "HEAD"]),
            ("/metrics", &["GET", "HEAD"]),
            ("/token", &["GET"]),
        ] {
            for method in ["GET", "HEAD", "PUT", "PATCH", "DELETE"] {
                let (client, request) = ask(&running.client, role, method, path);
                let expected = if methods.contains(&method) { 200 } else { 405 };
                assert_eq!(client.send(request).await.status, expected, "{method} {path} by {role}");
            }
        }
    }
}

#[tokio::test]
async fn a_refusal_does_not_tell_what_exists() {
    let running = server().await;
    for (there, missing) in routes("team/app").iter().zip(routes("team/none")) {
        for (method, _) in rows(there) {
            for role in ["anonymous", "stranger"] {
                let mut answers = Vec::new();
                for route in [there, &missing] {
                    let (client, request) = ask(&running.client, role, method, &route.to_string());
                    let answer = client.send(request).await;
                    let text = answer.text().replace("team/none", "team/app");
                    answers.push((answer.status, text, answer.header("www-authenticate").map(str::to_owned)));
                }
                assert_eq!(answers[0], answers[1], "{method} {there} by {role}");
            }
        }
    }
}

#[tokio::test]
async fn who_may_not_see_a_blob_cannot_mount_it() {
    let running = server().await;
    let layer = &Image::small(1).layers[0];
    let stranger = running.client.logged_in("stranger", PASSWORD);
    for from in ["&from=team/app", "&from=team/none", "&from=UPPER", ""] {
        let path = format!("/v2/other/app/blobs/uploads/?mount={}{from}", layer.digest);
        let answer = stranger.send(Request::post(&path)).await;
        assert_eq!(answer.status, 202, "{from}: {}", answer.text());
    }
    let owner = running.client.logged_in("owner", PASSWORD);
    for (target, from) in [("other/a", "&from=team/app"), ("other/b", "")] {
        let path = format!("/v2/{target}/blobs/uploads/?mount={}{from}", layer.digest);
        let answer = owner.send(Request::post(&path)).await;
        assert_eq!(answer.status, 201, "{}", answer.text());
        let location = answer.header("location").expect("a location");
        let pulled = stranger.send(Request::get(location)).await;
        assert_eq!((pulled.status, &pulled.body), (200, &layer.bytes));
    }
}

#[tokio::test]
async fn the_catalog_shows_what_the_caller_may_pull() {
    let running = server().await;
    let owner = running.client.logged_in("owner", PASSWORD);
    for repository in ["other/a", "other/b", "zoo", "team/b"] {
        push_image(&owner, repository, "latest", &Image::small(1)).await;
    }
    let list = async |user: &str, query: &str| {
        let client = running.client.logged_in(user, PASSWORD);
        let answer = client.send(Request::get(&format!("/v2/_catalog{query}"))).await;
        (answer.json()["repositories"].to_string(), answer.header("link").map(str::to_owned))
    };
    assert_eq!(list("owner", "").await.0, r#"["other/a","other/b","team/app","team/b","zoo"]"#);
    assert_eq!(list("puller", "").await.0, r#"["team/app","team/b"]"#);
    assert_eq!(list("pusher", "").await.0, "[]");
    let (first, link) = list("puller", "?n=1").await;
    assert_eq!(first, r#"["team/app"]"#);
    assert_eq!(link.as_deref(), Some(r#"</v2/_catalog?n=1&last=team%2Fapp>; rel="next""#));
    // What follows the last one that the caller may see is nobody's business: there is no link to it.
    assert_eq!(list("puller", "?n=1&last=team/app").await, (r#"["team/b"]"#.to_owned(), None));
}

#[tokio::test]
async fn an_upload_belongs_to_who_began_it() {
    let rules = vec![
        grant("a", &[Action::Push], "x"),
        grant("b", &[Action::Push], "x"),
        grant("b", &[Action::Push], "y"),
    ];
    let running = Setup::rules(&["a", "b"], rules).start().await;
    let (a, b) = (running.client.logged_in("a", PASSWORD), running.client.logged_in("b", PASSWORD));
    let location = crate::harness::begin_upload(&a, "x").await;
    for method in ["GET", "PATCH", "DELETE"] {
        for path in [location.clone(), location.replace("/v2/x/", "/v2/y/")] {
            let answer = b.send(Request::new(method, &path)).await;
            assert_eq!(
                (answer.status, code(&answer).as_str()),
                (404, "BLOB_UPLOAD_UNKNOWN"),
                "{method} {path}"
            );
        }
    }
    assert_eq!(a.send(Request::get(&location)).await.status, 204);
}
