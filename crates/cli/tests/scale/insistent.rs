//! A client that asks again when something goes wrong, as clients of registries do: a bounded number of times, waiting
//! longer each time.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use deltaport_testkit::http::{Client, Request, Response};
use deltaport_testkit::sample::{Content, Random};

/// How often one thing is tried: for about a minute, four times as long as a dead replica is believed to be at work on an
/// upload, and twice as long as anything is away.
const TRIES: u64 = 36;
/// How long a client waits before it asks again the first time; each time twice as long.
const PAUSE: Duration = Duration::from_millis(50);
/// The longest that it waits.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// What it cost clients to have what they wanted.
#[derive(Debug, Default)]
pub(crate) struct Effort {
    /// Requests that were sent again.
    pub(crate) again: AtomicU64,
    /// The most often that one thing was tried.
    pub(crate) most: AtomicU64,
    /// Uploads that went on where they were broken off.
    pub(crate) resumed: AtomicU64,
}

/// How often something was tried.
pub(crate) struct Tries<'a> {
    effort: &'a Effort,
    count: u64,
    pause: Duration,
}

impl<'a> Tries<'a> {
    pub(crate) fn of(effort: &'a Effort) -> Self {
        Self { effort, count: 1, pause: PAUSE }
    }

    /// Waits before the next, if there may be one.
    pub(crate) async fn again(&mut self, what: &str, why: &str) {
        self.count += 1;
        assert!(self.count <= TRIES, "{what} failed {TRIES} times, at last: {why}");
        self.effort.again.fetch_add(1, Ordering::Relaxed);
        self.effort.most.fetch_max(self.count, Ordering::Relaxed);
        tokio::time::sleep(self.pause).await;
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
    }
}

/// How a blob is pushed.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Way {
    /// In one request.
    Whole,
    /// In chunks of at most so many bytes; whoever is cut off asks how far it is and goes on there.
    Chunks(usize),
}

impl Way {
    /// Another each time, for a blob of this length.
    pub(crate) fn any(random: &mut Random, length: usize) -> Self {
        match random.below(3) {
            0 => Self::Whole,
            parts => Self::Chunks(length.div_ceil(1 + usize::try_from(2 * parts).expect("small")).max(1)),
        }
    }
}

/// How an upload ended.
enum Ended {
    Stored,
    /// The answer to the last request was lost, and the upload is over.
    Vanished,
}

/// The client.
#[derive(Clone)]
pub(crate) struct Insistent {
    pub(crate) client: Client,
    pub(crate) effort: Arc<Effort>,
}

impl Insistent {
    /// Asks until the status is one of `wanted`. Panics when it is another that does not ask to come again.
    pub(crate) async fn insist(&self, wanted: &[u16], request: impl Fn() -> Request) -> Response {
        let mut tries = Tries::of(&self.effort);
        loop {
            match self.ask(wanted, request()).await {
                Ok(answer) => return answer,
                Err(why) => tries.again(&request().target, &why).await,
            }
        }
    }

    /// Asks once; why it is to be asked again. An upload is busy (409) while a dead replica is believed to be at it.
    async fn ask(&self, wanted: &[u16], request: Request) -> Result<Response, String> {
        let target = request.target.clone();
        match self.client.try_send(request).await {
            Ok(answer) if wanted.contains(&answer.status) => Ok(answer),
            Ok(answer) if answer.status < 500 && answer.status != 409 => {
                panic!("{target:?} was answered {}: {}", answer.status, answer.text())
            }
            Ok(answer) => Err(format!("{} {}", answer.status, answer.text())),
            Err(error) => Err(error.to_string()),
        }
    }

    /// Pushes a blob unless it is there.
    pub(crate) async fn push_blob(&self, repository: &str, blob: &Content, way: Way) {
        let there = format!("/v2/{repository}/blobs/{}", blob.digest);
        if self.insist(&[200, 404], || Request::head(&there)).await.status == 200 {
            return;
        }
        let uploads = format!("/v2/{repository}/blobs/uploads/");
        match way {
            Way::Whole => {
                let whole = || Request::post(&uploads).query("digest", blob.digest).body(blob.bytes.clone());
                self.insist(&[201], whole).await;
            }
            Way::Chunks(length) => {
                let begun = self.insist(&[202], || Request::post(&uploads)).await;
                if let Ended::Vanished = self.push_chunks(blob, length, location(&begun)).await {
                    let there = self.insist(&[200, 404], || Request::head(&there)).await;
                    assert_eq!(there.status, 200, "an upload of {} is over without its blob", blob.digest);
                }
            }
        }
    }

    /// Sends chunk after chunk to `place`; what was acknowledged is never asked for again. What a replica did just before it died
    /// may show a moment later than that it is dead: the database was still at it.
    async fn push_chunks(&self, blob: &Content, length: usize, mut place: String) -> Ended {
        let mut tries = Tries::of(&self.effort);
        let mut at = 0;
        while at < blob.bytes.len() {
            let end = (at + length).min(blob.bytes.len());
            let chunk = Request::patch(&place)
                .header("Content-Range", format!("{at}-{}", end - 1))
                .header("Content-Type", "application/octet-stream")
                .body(blob.bytes.slice(at..end));
            let wanted: &[u16] = if tries.count == 1 { &[202] } else { &[202, 416] };
            let why = match self.ask(wanted, chunk).await {
                Ok(sent) if sent.status == 202 => {
                    (at, place, tries) = (end, location(&sent), Tries::of(&self.effort));
                    continue;
                }
                Ok(refused) => refused.text(),
                Err(why) => why,
            };
            tries.again(&place, &why).await;
            let told = self.insist(&[204], || Request::get(&place)).await;
            let safe = offset(&told);
            assert!((at..=end).contains(&safe), "{place} had {at} bytes and has {safe}");
            (at, place) = (safe, location(&told));
            self.effort.resumed.fetch_add(1, Ordering::Relaxed);
        }
        let mut tries = Tries::of(&self.effort);
        loop {
            let wanted: &[u16] = if tries.count == 1 { &[201] } else { &[201, 404] };
            match self.ask(wanted, Request::put(&place).query("digest", blob.digest)).await {
                Ok(done) if done.status == 201 => return Ended::Stored,
                Ok(_) => return Ended::Vanished,
                Err(why) => tries.again(&place, &why).await,
            }
            if self.insist(&[204, 404], || Request::get(&place)).await.status == 404 {
                return Ended::Vanished;
            }
        }
    }
}

/// Where an upload goes on.
fn location(answer: &Response) -> String {
    answer.header("location").expect("an upload goes on somewhere").to_owned()
}

/// How many bytes of an upload are safe. One byte looks like none; nobody sends a single one here.
fn offset(answer: &Response) -> usize {
    let range = answer.header("range").expect("an upload says how far it is");
    let last: usize = range.strip_prefix("0-").and_then(|last| last.parse().ok()).expect("a range from 0");
    if last == 0 { 0 } else { last + 1 }
}
