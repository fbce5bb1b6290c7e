//! A disk that is full, slow, or fails while a blob arrives.

use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use deltaport_registry::Kind;
use deltaport_store::Faults;
use deltaport_testkit::upstream::{Reply, Rule, Upstream as Script};

use crate::deltas::{Update, fallbacks};
use crate::site::*;

/// The system's numbers for a full disk and for one that cannot be read or written.
const ENOSPC: i32 = 28;
const EIO: i32 = 5;

/// Which step fails at the moment, after how many times, and with what.
type Failing = Arc<Mutex<Option<(&'static str, u32, i32)>>>;

fn faults(failing: &Failing) -> Faults {
    Faults::new(faults_of(failing))
}

fn faults_of(failing: &Failing) -> impl Fn(&'static str) -> io::Result<()> + Send + Sync + 'static {
    let failing = Arc::clone(failing);
    move |name| match &mut *failing.lock().unwrap() {
        Some((point, 0, error)) if *point == name => Err(io::Error::from_raw_os_error(*error)),
        Some((point, left, _)) if *point == name => {
            *left -= 1;
            Ok(())
        }
        _ => Ok(()),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_failure_is_told_and_costs_no_more_than_what_was_lost() {
    let content = some(9 << 20);
    for (point, after) in [
        ("stage-create", 0),
        ("stage-write", 0),
        ("stage-write", 3),
        ("partial-sync", 0),
        ("partial-record", 0),
        ("blob-sync", 0),
        ("blob-mark", 0),
        ("blob-rename", 0),
        ("before-commit", 0),
        ("journal-append", 0),
    ] {
        for error in [ENOSPC, EIO] {
            let failing = Failing::default();
            // What came as far as its place is linked when the upstream says that it has it too.
            let head = Rule::on("HEAD", &blob_path(&content)).reply(Reply::content(&content));
            let script = Script::start(vec![head, blob_rule(&content).reply(Reply::content(&content))]).await;
            let site = Site::with(&script, Setup { faults: faults(&failing), ..Setup::default() }).await;
            *failing.lock().unwrap() = Some((point, after, error));
            let got = site.get(&content).await;
            match &got {
                Ok((received, whole)) => {
                    assert!(*received == content.bytes[..received.len()], "{point}");
                    // A record that cannot be written is no loss while the process lives. And the sync of a transfer
                    // that ends before it is due is the blob's own.
                    let harmless = ["partial-record", "partial-sync"].contains(&point);
                    assert!(!whole || harmless, "{point}");
                }
                Err(refused) if error == ENOSPC => assert_eq!(refused.kind(), Kind::NoSpace, "{point}"),
                Err(refused) => assert_eq!(refused.kind(), Kind::Internal, "{point}"),
            }
            *failing.lock().unwrap() = None;
            site.gets(&content).await;
            let received = site.upstream.received();
            assert!(received <= 2 * (9 << 20), "{point}: {received} bytes");
            eventually("nothing is left", async || site.kept() == 0).await;
        }
    }
}

/// A disk that takes its time holds up nothing but itself.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_disk_slows_down_and_no_more() {
    let content = some(6 << 20);
    let slow = Faults::new(|name| {
        if name == "stage-write" || name.starts_with("partial") {
            std::thread::sleep(Duration::from_millis(30));
        }
        Ok(())
    });
    let script =
        Script::start(vec![blob_rule(&content).reply(Reply::content(&content).reset_after(1 << 20))]).await;
    let site = Site::with(&script, Setup { faults: slow, ..Setup::default() }).await;
    site.gets(&content).await;
    assert_eq!(site.upstream.received(), 6 << 20);
}

/// A disk that fails while a delta arrives or makes a layer: the layer comes whole, if there is a place for it again, and
/// in the same request.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_delta_that_cannot_be_written_ends_in_the_whole_layer() {
    let update = Update::new();
    let layer = update.layer();
    // The first file is that of the whole layer, which could not come without. Then the delta's, and what it makes.
    for (point, passes) in [
        ("stage-create", 1),
        ("stage-create", 2),
        ("stage-write", 0),
        ("stage-write", 1),
        ("blob-sync", 0),
        ("before-commit", 0),
    ] {
        for (error, once) in [(ENOSPC, true), (EIO, true), (ENOSPC, false)] {
            let failing = Failing::default();
            let delta = blob_rule(&update.delta).reply(Reply::content(&update.delta));
            let whole = blob_rule(layer).reply(Reply::content(layer));
            // What came as far as its place is linked.
            let head = Rule::on("HEAD", &blob_path(layer)).reply(Reply::content(layer));
            let script = update.upstream([delta, whole, head]).await;
            let faults = if once { once_only(&failing) } else { faults(&failing) };
            let setup = Setup { faults, in_memory: true, ..Setup::default() };
            let site = update.site(&script, setup).await;
            *failing.lock().unwrap() = Some((point, passes, error));
            let got = site.get(layer).await;
            let applied = || site.counted("upstream_deltas_applied");
            if once {
                let (received, whole) = got.unwrap_or_else(|refused| panic!("{point} {passes}: {refused}"));
                assert!(whole && received == layer.bytes, "{point}");
                assert!(failing.lock().unwrap().is_none(), "{point} was not met");
                assert_eq!((applied(), fallbacks(&site)), (0, 1), "{point}");
            } else {
                match got {
                    // What fails may be needed for the delta only.
                    Ok((received, whole)) => {
                        assert!(layer.bytes.starts_with(&received), "{point}");
                        assert_eq!(whole, received.len() == layer.bytes.len(), "{point}");
                    }
                    Err(refused) => assert_eq!(refused.kind(), Kind::NoSpace, "{point}"),
                }
                *failing.lock().unwrap() = None;
                site.gets(layer).await;
                assert!(fallbacks(&site) >= 1, "{point}");
            }
            eventually("nothing is left", async || site.kept() == 0).await;
        }
    }
}

/// What fails does so once.
fn once_only(failing: &Failing) -> Faults {
    let (failing, fails) = (Arc::clone(failing), faults_of(failing));
    Faults::new(move |name| {
        let met = fails(name);
        if met.is_err() {
            *failing.lock().unwrap() = None;
        }
        met
    })
}
