//! Lists of referrers, in pages and under tags, and what an upstream says that it can do.

use deltaport_client::{ErrorKind, Extensions, MAX_REFERRERS, Upstream};
use deltaport_oci::delta_artifact::LayerDelta;
use deltaport_oci::{Descriptor, Digest, media_type};
use deltaport_testkit::sample::Content;
use deltaport_testkit::upstream::{Reply, Rule, Upstream as Script};
use serde_json::{Value, json};

use crate::harness::{repository, upstream};

const DELTA: &str = "application/vnd.deltaport.delta.v1";

fn subject() -> Digest {
    Digest::sha256(b"subject")
}

fn path() -> String {
    format!("/v2/library/app/referrers/{}", subject())
}

fn tag_path() -> String {
    format!("/v2/library/app/manifests/sha256-{}", subject().hex())
}

fn referrer(number: usize, artifact_type: &str) -> Value {
    json!({
        "mediaType": media_type::OCI_MANIFEST,
        "digest": Digest::sha256(number.to_string().as_bytes()).to_string(),
        "size": 7,
        "artifactType": artifact_type,
        "annotations": { "n": number.to_string() },
    })
}

fn list(referrers: &[Value]) -> Reply {
    let index = json!({ "schemaVersion": 2, "mediaType": media_type::OCI_INDEX, "manifests": referrers });
    Reply::content(&Content::new(media_type::OCI_INDEX, index.to_string()))
}

async fn ask(
    upstream: &Upstream,
    artifact_type: Option<&str>,
) -> Result<Vec<Descriptor>, deltaport_client::Error> {
    upstream.referrers(&repository(), &subject(), artifact_type).await
}

fn numbers(found: &[Descriptor]) -> Vec<&str> {
    found.iter().map(|referrer| referrer.annotations["n"].as_str()).collect()
}

#[tokio::test]
async fn pages_are_followed_and_types_filtered_whether_or_not_the_registry_does() {
    let second = format!("{}?artifactType=application%2Fvnd.deltaport.delta.v1&last=x", path());
    let script = Script::start(vec![
        Rule::on("GET", &second).reply(list(&[referrer(3, DELTA)])),
        Rule::on("GET", &path()).reply(
            list(&[referrer(1, DELTA), referrer(2, "application/spdx+json")])
                .header("Link", &format!("<{second}>; rel=\"next\"")),
        ),
    ])
    .await;
    let found = ask(&upstream(&script), Some(DELTA)).await.unwrap();
    assert_eq!(numbers(&found), ["1", "3"]);
    let first = format!("GET {}?artifactType=application%2Fvnd.deltaport.delta.v1", path());
    assert_eq!(script.lines(), [first, format!("GET {second}")]);
}

#[tokio::test]
async fn a_list_has_an_end() {
    let script = Script::start(vec![]).await;
    let many: Vec<Value> = (0..700).map(|number| referrer(number, DELTA)).collect();
    let next = |page: usize| format!("<{}?last={page}>; rel=\"next\"", path());
    script.first(Rule::on("GET", &path()).reply(list(&many).header("Link", &next(1))));
    script.first(Rule::on("GET", &format!("{}?last=1", path())).reply(list(&many).header("Link", &next(2))));
    assert_eq!(ask(&upstream(&script), None).await.unwrap().len(), MAX_REFERRERS);
    assert_eq!(script.asked().len(), 2, "nothing is asked for that would be thrown away");

    let endless = Script::start(vec![]).await;
    for page in 0..40 {
        let rule = Rule::on("GET", &format!("{}?last={page}", path()));
        endless.first(rule.reply(list(&[]).header("Link", &next(page + 1))));
    }
    endless.first(Rule::on("GET", &path()).times(1).reply(list(&[]).header("Link", &next(0))));
    assert_eq!(ask(&upstream(&endless), None).await.unwrap(), []);
    assert_eq!(endless.asked().len(), 16);
}

#[tokio::test]
async fn a_list_goes_on_in_itself_only() {
    let thief = Script::start(vec![]).await;
    let script = Script::start(vec![]).await;
    let other = format!("/v2/library/app/referrers/{}", Digest::sha256(b"other"));
    for target in [
        format!("{}{}", thief.url(), path()),
        "http://169.254.169.254/".to_owned(),
        other,
        path().replace("library/app", "library/private"),
        "/v2/_catalog".to_owned(),
        path(),
    ] {
        script.first(
            Rule::on("GET", &path()).reply(list(&[]).header("Link", &format!("<{target}>; rel=next"))),
        );
        let refused = ask(&upstream(&script), None).await.unwrap_err();
        assert!(matches!(refused.kind(), ErrorKind::Protocol(_)), "{target}: {refused}");
    }
    assert!(thief.asked().is_empty());
    assert!(script.lines().iter().all(|line| *line == format!("GET {}", path())));
}

#[tokio::test]
async fn where_there_is_no_list_the_one_under_the_tag_is_read() {
    let web_page = Reply::status(200).header("Content-Type", "text/html").body("<html>");
    for unknown in [Reply::status(404), Reply::status(405), Reply::status(501), web_page] {
        let script = Script::start(vec![
            Rule::on("GET", &path()).reply(unknown),
            Rule::on("GET", &tag_path()).times(1).reply(list(&[referrer(1, DELTA), referrer(2, "x")])),
            Rule::on("GET", &tag_path()).times(1).reply(Reply::content(&Content::new(
                media_type::OCI_MANIFEST,
                json!({ "schemaVersion": 2 }).to_string(),
            ))),
            Rule::on("GET", &tag_path()).reply(Reply::status(404)),
        ])
        .await;
        let upstream = upstream(&script);
        assert_eq!(numbers(&ask(&upstream, Some(DELTA)).await.unwrap()), ["1"]);
        assert_eq!(ask(&upstream, None).await.unwrap(), [], "the tag is something else");
        assert_eq!(ask(&upstream, None).await.unwrap(), [], "there is no such tag");
    }
}

#[tokio::test]
async fn a_list_that_cannot_be_had_is_an_error_and_not_an_empty_one() {
    let index =
        |text: &str| Reply::status(200).header("Content-Type", media_type::OCI_INDEX).body(text.to_owned());
    let script = Script::start(vec![]).await;
    let upstream = upstream(&script);
    for (reply, expected) in [
        (Reply::status(503), "unavailable"),
        (Reply::status(403), "refused"),
        (index("{}"), "broken list"),
        (index("<html>"), "broken list"),
        (index(&" ".repeat(9 << 20)), "larger than"),
    ] {
        script.first(Rule::on("GET", &path()).reply(reply));
        let error = ask(&upstream, None).await.unwrap_err();
        assert!(error.to_string().contains(expected), "{expected}: {error}");
    }
}

#[tokio::test]
async fn what_an_upstream_offers_is_asked_once() {
    let path = "/v2/_oci/ext/discover";
    let hub = Script::start(vec![Rule::on("GET", path).reply(Reply::status(200).body(
        r#"{"extensions":[{"name":"_x"},{"name":"_deltaport","endpoints":["_deltaport/delta/layer"]}]}"#,
    ))])
    .await;
    let client = upstream(&hub);
    let (one, two) = tokio::join!(client.discover(), client.discover());
    assert_eq!(
        (one.unwrap(), two.unwrap()),
        (Extensions { layer_deltas: true, images: false }, Extensions { layer_deltas: true, images: false })
    );
    assert_eq!(hub.lines(), [format!("GET {path}")]);

    for reply in [
        Reply::status(404),
        Reply::status(401),
        Reply::status(501),
        Reply::status(200).body("<html>"),
        Reply::status(200).body(r#"{"extensions":[]}"#),
        Reply::status(200).body(vec![b' '; 1 << 20]),
    ] {
        let other = Script::start(vec![Rule::on("GET", path).reply(reply)]).await;
        let client = upstream(&other);
        assert_eq!(client.discover().await.unwrap(), Extensions::default());
        assert_eq!(client.discover().await.unwrap(), Extensions::default());
        assert_eq!(other.asked().len(), 1);
    }

    let down = Script::start(vec![Rule::on("GET", path).reply(Reply::status(503))]).await;
    let client = upstream(&down);
    assert!(matches!(client.discover().await.unwrap_err().kind(), ErrorKind::Unavailable { .. }));
    assert!(client.discover().await.is_err());
    assert_eq!(down.asked().len(), 2, "that nothing was said is not remembered");
}

#[tokio::test]
async fn a_hub_is_asked_which_deltas_it_has_made() {
    let (to, base, delta) = (Digest::sha256(b"to"), Digest::sha256(b"base"), Digest::sha256(b"delta"));
    let path = "/v2/library/app/_deltaport/delta/layer";
    let hub = Script::start(vec![Rule::hub()]).await;
    let client = upstream(&hub);
    let ask = async |reply: Reply| {
        hub.first(Rule::on("GET", path).reply(reply));
        client.layer_deltas(&repository(), &to).await
    };
    let list = format!(r#"{{"deltas":[{{"base":"{base}","digest":"{delta}","size":7,"new":1}}]}}"#);
    let made = LayerDelta { base, target: to, delta, size: 7 };
    assert_eq!(ask(Reply::status(200).body(list)).await.unwrap(), [made]);
    assert_eq!(hub.lines().last().unwrap(), &format!("GET {path}?to={}", to.to_string().replace(':', "%3A")));
    assert_eq!(ask(Reply::status(404)).await.unwrap(), []);
    for (reply, expected) in [
        (Reply::status(503), "unavailable"),
        (Reply::status(202), "202"),
        (Reply::status(200).body("<html>"), "broken list"),
        (Reply::status(200).body(vec![b' '; 1 << 20]), "larger than"),
    ] {
        let error = ask(reply).await.unwrap_err();
        assert!(error.to_string().contains(expected), "{expected}: {error}");
    }
    // Others are not asked what they cannot know.
    let other = Script::start(vec![Rule::no_hub()]).await;
    assert_eq!(upstream(&other).layer_deltas(&repository(), &to).await.unwrap(), []);
    assert_eq!(other.asked().len(), 1);
}
