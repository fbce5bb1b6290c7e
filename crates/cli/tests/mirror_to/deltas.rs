//! What a plan says of deltas.

use deltaport_testkit::sample::{self, Image};
use serde_json::{Value, json};

use crate::harness::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plan_tells_the_bytes_with_deltas_that_a_run_then_takes() {
    let hub = Party::start("").await;
    let files = sample::files(1, 120, 20_000);
    let image = |files: &[sample::File]| Image::of("amd64", vec![sample::layer_of(files)]);
    let (old, new) = (image(&files), image(&sample::changed(&files, 2, 20)));
    hub.image("app", "v1", &old).await;
    let settings = format!(
        "{}deltas = \"always\"\n[[mirror]]\nname = \"all\"\nsource = \"{HUB}/app\"\ntags = [\"v1\", \"v2\"]\n",
        upstream(HUB, &hub.url())
    );
    let site = launch(&settings).start().await;
    let tag = |report: &Value, at: usize| report["tags"][at].clone();
    let (_, first) = report(&site, "plan", "all");
    assert_eq!(tag(&first, 0)["with_deltas"], json!(null), "there is nothing here to start from: {first:#}");
    let (_, run) = report(&site, "run", "all");
    assert_eq!(tag(&run, 0)["outcome"], "mirrored", "{run:#}");
    hub.image("app", "v2", &new).await;
    let (status, plan) = report(&site, "plan", "all");
    let planned = tag(&plan, 1);
    let (whole, less) = (planned["bytes"].as_u64().unwrap(), planned["with_deltas"].as_u64().unwrap());
    assert!(status == Some(0) && less < whole / 2, "{plan:#}");
    let (status, text) = mirror(&site, "plan", &[]);
    assert!(status == Some(0) && text.contains(" by delta"), "{text}");
    let (status, run) = report(&site, "run", "all");
    assert_eq!(status, Some(0), "{run:#}\n{}", site.log());
    assert_eq!(planned["steps"], tag(&run, 1)["steps"]);
    // Lists of referrers come besides, and which deltas there are.
    let received = run["received"].as_u64().unwrap();
    assert!(received < less + 5000, "{received} bytes came where {less} were told, of {whole}");
}
