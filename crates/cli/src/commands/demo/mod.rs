//! `deltaport demo`: an update of an image over a bad link, with and without deltas, on this machine alone.
//!
//! A hub and two sites run in this process, each site behind a [`link`] of its own. Both sites hold the first version
//! before the links turn bad; then each is asked for the second one, and what crosses its link is counted.

mod image;
mod link;
mod party;
mod pull;
mod sample;

use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use deltaport_oci::{Digest, RepositoryName, Tag};
use serde_json::{Value, json};

use self::image::Image;
use self::link::{Link, Terms, Traffic};
use self::party::Party;
use crate::args::{Demo, Layers};
use crate::commands::progress::Line;
use crate::logging;
use crate::output::{Output, rounded};

pub(crate) fn run(args: &Demo, output: &mut Output) -> anyhow::Result<ExitCode> {
    logging::start_for_command();
    let line = Line::on_terminal();
    line.begin("getting the images ready");
    let (old, new) = images(args)?;
    let place = tempfile::Builder::new().prefix("deltaport-demo").tempdir();
    let place = place.context("cannot make a temporary directory; TMPDIR says where it should be")?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_name("deltaport")
        .build()
        .context("cannot start threads")?;
    let terms = Terms {
        rate: args.rate.bytes_per_second(),
        round_trip: args.rtt.0,
        reset_every: args.reset_every.map(|size| size.0),
    };
    let shown = runtime.block_on(show(&old, &new, terms, place.path(), &line));
    line.clear();
    let [without, with] = shown?;
    if args.json {
        output.json(&as_json(args, &new, without, with))?;
    } else {
        output.text(&as_table(args, &new, without, with))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// The two versions.
fn images(args: &Demo) -> anyhow::Result<(Image, Image)> {
    match (&args.from, &args.to) {
        (None, None) => Ok((sample::image(1), sample::image(2))),
        (Some(from), Some(to)) => Ok((layout(from)?, layout(to)?)),
        _ => bail!("give both --from and --to, or neither for a sample"),
    }
}

fn layout(layers: &Layers) -> anyhow::Result<Image> {
    match layers {
        Layers::Image { layout, tag } => image::from_layout(layout, tag.as_deref()),
        Layers::File(path) => bail!("{} is no image; give oci:DIR or oci:DIR:TAG", path.display()),
    }
}

/// What an update took.
#[derive(Clone, Copy, Debug)]
struct Update {
    traffic: Traffic,
    time: Duration,
}

/// Updates a site without deltas and one with them.
async fn show(
    old: &Image,
    new: &Image,
    terms: Terms,
    place: &Path,
    line: &Line,
) -> anyhow::Result<[Update; 2]> {
    let (repository, tag): (RepositoryName, Tag) = ("demo/app".parse()?, "latest".parse()?);
    let hub = Party::start(&place.join("hub"), "").await.context("cannot start the hub")?;
    hub.push(&repository, &tag, old).await.context("cannot push the first version")?;
    let mut sites = Vec::new();
    for deltas in ["never", "always"] {
        line.begin("the sites pull the first version");
        let link = Link::to(hub.address, terms).await.context("cannot listen on loopback")?;
        let config = format!(
            "[[upstream]]\nhost = \"hub\"\nurl = \"http://{}\"\ndefault = true\ndeltas = \"{deltas}\"\n",
            link.address()
        );
        let site = Party::start(&place.join(deltas), &config).await.context("cannot start a site")?;
        let (_, held) = pull::pull(site.address, &repository, &tag, &[]).await?;
        sites.push((site, link, held));
    }
    line.begin("the second version is pushed, and the hub makes deltas");
    hub.push(&repository, &tag, new).await.context("cannot push the second version")?;
    let digests = |image: &Image| image.blobs.iter().map(image::Blob::digest).collect::<Vec<Digest>>();
    hub.deltas_made(&repository, &digests(old), &digests(new)).await?;
    let mut updates = Vec::new();
    for (site, link, held) in sites {
        updates
            .push(update(site, &link, &repository, &tag, &held, Digest::sha256(&new.manifest), line).await?);
    }
    hub.stop().await?;
    updates.try_into().ok().context("there are two sites")
}

/// Pulls the second version through a site whose link has turned bad.
async fn update(
    site: Party,
    link: &Link,
    repository: &RepositoryName,
    tag: &Tag,
    held: &[Digest],
    expected: Digest,
    line: &Line,
) -> anyhow::Result<Update> {
    link.shape();
    let (before, begin) = (link.traffic(), Instant::now());
    let pulling = pull::pull(site.address, repository, tag, held);
    tokio::pin!(pulling);
    let (digest, _) = loop {
        tokio::select! {
            pulled = &mut pulling => break pulled?,
            () = tokio::time::sleep(Duration::from_millis(200)) => {
                let crossed = (link.traffic() - before).total();
                line.show(&format!("a site pulls the update: {} in {} s", rounded(crossed), begin.elapsed().as_secs()));
            }
        }
    };
    if digest != expected {
        bail!("the site serves {digest} instead of {expected}");
    }
    let update = Update { traffic: link.traffic() - before, time: begin.elapsed() };
    site.stop().await?;
    Ok(update)
}

fn as_json(args: &Demo, new: &Image, without: Update, with: Update) -> Value {
    let told = |update: Update| {
        json!({
            "sent": update.traffic.sent,
            "received": update.traffic.received,
            "resets": update.traffic.resets,
            "seconds": update.time.as_secs_f64(),
        })
    };
    json!({
        "link": { "rate": args.rate.to_string(), "rtt": args.rtt.to_string() },
        "image": { "name": new.name, "size": size(new) },
        "without_deltas": told(without),
        "with_deltas": told(with),
    })
}

fn as_table(args: &Demo, new: &Image, without: Update, with: Update) -> String {
    let row = |name: &str, update: Update| {
        format!("{name:<16}{:>20}{:>16.1}\n", grouped(update.traffic.total()), update.time.as_secs_f64())
    };
    let less = without.traffic.total() as f64 / with.traffic.total().max(1) as f64;
    let faster = without.time.as_secs_f64() / with.time.as_secs_f64().max(0.001);
    format!(
        "An update to {} ({}) over a link of {} with a round trip of {}, through a site:\n\n\
         {:<16}{:>20}{:>16}\n{}{}{:<16}{:>20}{:>16}\n\n\
         The client got the same bytes both times: those whose digests the manifest names.\n",
        new.name,
        rounded(size(new)),
        args.rate,
        args.rtt,
        "",
        "bytes on the link",
        "seconds",
        row("without deltas", without),
        row("with deltas", with),
        "",
        format!("{less:.1} x less"),
        format!("{faster:.1} x sooner"),
    )
}

/// All blobs of an image, in bytes.
fn size(image: &Image) -> u64 {
    image.blobs.iter().map(image::Blob::size).sum()
}

/// A number with commas between its thousands.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut grouped = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_stand_apart() {
        for (number, text) in [(0, "0"), (999, "999"), (1000, "1,000"), (1_234_567, "1,234,567")] {
            assert_eq!(grouped(number), text);
        }
    }
}
