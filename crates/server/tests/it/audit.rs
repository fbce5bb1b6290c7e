//! The audit log: what is in it, and what is not.

use deltaport_testkit::http::Request;
use deltaport_testkit::sample::Image;
use deltaport_trust::Action;

use crate::harness::{PASSWORD, Setup, grant, push_image, push_manifest};

#[tokio::test]
async fn changes_and_refusals_are_written_and_reading_is_not() {
    let everything = [Action::Pull, Action::Push, Action::Delete];
    let rules = vec![grant("anna", &everything, "team/**"), grant("bert", &[Action::Pull], "team/**")];
    let running = Setup { tokens: true, ..Setup::rules(&["anna", "bert"], rules) }.start().await;
    let (anna, bert) =
        (running.client.logged_in("anna", PASSWORD), running.client.logged_in("bert", PASSWORD));
    let image = Image::small(1);

    running.send(Request::get("/v2/")).await;
    push_image(&anna, "team/app", "latest", &image).await;
    bert.send(Request::get("/v2/team/app/manifests/latest")).await;
    bert.send(Request::get("/v2/team/app/manifests/none")).await;
    push_manifest(&bert, "team/app", "latest", &image.manifest).await;
    bert.send(Request::get("/v2/other/manifests/x")).await;
    let wrong = deltaport_testkit::sample::Content::new("application/json", b"{".to_vec());
    push_manifest(&anna, "team/app", "broken", &wrong).await;
    running.client.logged_in("anna", "guess").send(Request::get("/v2/team/app/tags/list")).await;
    running.client.with_token("guess").send(Request::get("/v2/team/app/tags/list")).await;
    let form = "grant_type=password&username=carol&password=x&service=registry.test";
    let form = Request::post("/token").header("Content-Type", "application/x-www-form-urlencoded").body(form);
    running.send(form).await;
    anna.send(Request::delete("/v2/team/app/manifests/latest")).await;

    let blobs = image.blobs().count();
    let lines = running.audited(blobs + 8).await;
    let told: Vec<_> = lines[blobs..]
        .iter()
        .map(|line| {
            let who = line["user"].as_str().or(line["claimed"].as_str()).expect("somebody");
            (line["event"].as_str().expect("an event"), who, line["status"].as_u64().expect("a status"))
        })
        .collect();
    assert!(
        lines[..blobs].iter().all(|line| line["event"] == "push" && line["user"] == "anna"),
        "{lines:#?}"
    );
    assert_eq!(
        told,
        [
            ("push", "anna", 201),
            ("denied", "bert", 403),
            ("denied", "bert", 403),
            ("refused", "anna", 400),
            ("login_failed", "anna", 401),
            ("login_failed", "(a token)", 401),
            ("login_failed", "carol", 401),
            ("delete", "anna", 202),
        ]
    );
    let push = &lines[blobs];
    assert_eq!(push["digest"], image.manifest.digest.to_string());
    assert_eq!((&push["method"], &push["path"]), (&"PUT".into(), &"/v2/team/app/manifests/latest".into()));
    assert!(push["peer"].as_str().expect("an address").starts_with("127.0.0.1:"));
    assert!(push["time"].as_str().expect("a time").ends_with('Z'));
    assert_eq!(lines[blobs + 3]["code"], "MANIFEST_INVALID");
    let text = std::fs::read_to_string(running.file("audit")).expect("the log");
    assert!(!text.contains(PASSWORD) && !text.contains("guess"), "{text}");
}
