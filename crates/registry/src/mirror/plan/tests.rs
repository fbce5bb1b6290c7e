//! Which steps are planned, and that they are those which are taken.

use deltaport_testkit::sample::Random;

use super::*;

fn digest(text: &str) -> Digest {
    Digest::sha256(text.as_bytes())
}

fn found(name: &str, blobs: &[&str], tag: Option<&str>) -> Found {
    Found {
        digest: digest(name),
        size: 1,
        platform: None,
        blobs: blobs.iter().map(|blob| (digest(blob), 10)).collect(),
        subject: None,
        tag: tag.map(|tag| tag.parse().unwrap()),
    }
}

fn seen(tag: &str) -> Seen {
    Seen {
        tag: tag.parse().unwrap(),
        signatures: vec![found("signature", &["payload"], Some("sha256-x.sig"))],
        image: vec![found("index", &[], None), found("image", &["config", "layer"], None)],
        absent: Vec::new(),
    }
}

/// A step as a word and the name of what it is about.
fn words(steps: &[Step]) -> Vec<String> {
    let names = ["signature", "payload", "index", "image", "config", "layer", "gone"];
    let name = |of: &Digest| names.into_iter().find(|name| digest(name) == *of).unwrap_or("?");
    let word = |step: &Step| match step {
        Step::Manifest { digest, .. } => format!("manifest {}", name(digest)),
        Step::Blob { digest, .. } => format!("blob {}", name(digest)),
        Step::Absent { digest, .. } => format!("absent {}", name(digest)),
        Step::Tag { tag, digest, was } => {
            format!("tag {tag} {}{}", name(digest), if was.is_some() { " moved" } else { "" })
        }
        Step::SendBlob { digest, .. } => format!("send blob {}", name(digest)),
        Step::SendManifest { digest, .. } => format!("send manifest {}", name(digest)),
        Step::SendTag { tag, digest, was, .. } => {
            format!("send tag {tag} {}{}", name(digest), if was.is_some() { " moved" } else { "" })
        }
    };
    steps.iter().map(word).collect()
}

#[test]
fn signatures_come_first_and_the_tag_last() {
    let steps = Planner::default().plan(&seen("v1"), &Here::default());
    let expected = [
        "manifest signature",
        "blob payload",
        "tag sha256-x.sig signature",
        "manifest index",
        "manifest image",
        "blob config",
        "blob layer",
        "tag v1 index",
    ];
    assert_eq!(words(&steps), expected);
    assert_eq!(steps.iter().map(Step::bytes).sum::<u64>(), 33);
}

#[test]
fn what_is_here_or_planned_is_not_done_again() {
    let mut here = Here::default();
    here.content.extend(["signature", "payload", "index", "image", "config"].map(digest));
    here.tags.insert("sha256-x.sig".parse().unwrap(), digest("signature"));
    here.tags.insert("v1".parse().unwrap(), digest("old"));
    let mut planner = Planner::default();
    assert_eq!(words(&planner.plan(&seen("v1"), &here)), ["blob layer", "tag v1 index moved"]);
    assert_eq!(words(&planner.plan(&seen("v2"), &here)), ["tag v2 index"]);
    let layer = Step::Blob { digest: digest("layer"), size: 10 };
    planner.forget(&layer);
    assert_eq!(words(&planner.plan(&seen("v2"), &here)), ["blob layer"], "it did not come with v1");
}

#[test]
fn a_destination_gets_blobs_before_manifests_children_before_their_index_and_the_tag_last() {
    let mut planner = Planner::default();
    let expected = [
        "send blob payload",
        "send tag sha256-x.sig signature",
        "send blob config",
        "send blob layer",
        "send manifest image",
        "send tag v1 index",
    ];
    assert_eq!(words(&planner.plan_there(&seen("v1"), &Here::default())), expected);
    assert_eq!(words(&planner.plan_there(&seen("v2"), &Here::default())), ["send tag v2 index"]);
    let mut there = Here::default();
    there.content.extend(["signature", "index", "image"].map(digest));
    there.tags.insert("sha256-x.sig".parse().unwrap(), digest("signature"));
    there.tags.insert("v1".parse().unwrap(), digest("old"));
    let again = |there: &Here| words(&Planner::default().plan_there(&seen("v1"), there));
    assert_eq!(again(&there), ["send tag v1 index moved"]);
    there.tags.insert("v1".parse().unwrap(), digest("index"));
    assert!(again(&there).is_empty());
    let mut asked = seen("v1");
    asked.absent.push(Absent { digest: digest("gone"), platform: None, asked: true });
    let steps = words(&Planner::default().plan_there(&asked, &Here::default()));
    assert_eq!(steps.last().map(String::as_str), Some("send manifest index"), "the tag stays");
}

#[test]
fn a_list_of_referrers_of_the_destination_is_not_overwritten() {
    let list = format!("sha256-{}", "ab".repeat(32));
    let mut seen = seen("v1");
    seen.signatures = vec![found("signature", &[], Some(&list))];
    let first = words(&Planner::default().plan_there(&seen, &Here::default()));
    assert_eq!(first[0], format!("send tag {list} signature"));
    let there = Here { tags: [(list.parse().unwrap(), digest("other"))].into(), ..Here::default() };
    let steps = words(&Planner::default().plan_there(&seen, &there));
    assert!(!steps.iter().any(|step| step.contains(&list)), "{steps:?}");
}

#[test]
fn a_child_that_is_absent_is_written_down_and_keeps_the_tag_when_it_was_asked_for() {
    let mut sparse = seen("v1");
    sparse.absent.push(Absent { digest: digest("gone"), platform: None, asked: false });
    let steps = words(&Planner::default().plan(&sparse, &Here::default()));
    assert!(steps.contains(&"absent gone".to_owned()) && steps.contains(&"tag v1 index".to_owned()));
    sparse.absent[0].asked = true;
    let steps = words(&Planner::default().plan(&sparse, &Here::default()));
    assert!(!steps.contains(&"tag v1 index".to_owned()), "{steps:?}");
    let here = Here { absent: [digest("gone")].into(), ..Here::default() };
    assert!(!words(&Planner::default().plan(&sparse, &here)).contains(&"absent gone".to_owned()));
}

/// Some of `all`.
fn some<T: Clone>(random: &mut Random, all: &[T]) -> Vec<T> {
    all.iter().filter(|_| random.below(2) == 0).cloned().collect()
}

/// What an upstream has under some tags, which share much of it, as real ones do.
fn upstream(random: &mut Random) -> Vec<Seen> {
    let blobs: Vec<(Digest, u64)> =
        (0..6).map(|n| (digest(&format!("blob {n}")), random.below(100))).collect();
    let manifest = |random: &mut Random, kind: &str, n: u64, tag: Option<Tag>| Found {
        digest: digest(&format!("{kind} {n}")),
        size: 1 + n,
        platform: None,
        blobs: some(random, &blobs),
        subject: (kind == "bill").then(|| digest("subject")),
        tag,
    };
    let images: Vec<Found> = (0..4).map(|n| manifest(random, "image", n, None)).collect();
    let tag = |n| Some(format!("sha256-{}.sig", digest(&format!("of {n}")).hex()).parse().unwrap());
    let list = format!("sha256-{}", digest("list").hex());
    let mut signatures: Vec<Found> = (0..2).map(|n| manifest(random, "signature", n, tag(n))).collect();
    signatures.push(manifest(random, "list", 0, Some(list.parse().unwrap())));
    signatures.extend((0..2).map(|n| manifest(random, "bill", n, None)));
    let gone: Vec<Digest> = (0..3).map(|n| digest(&format!("gone {n}"))).collect();
    (0..1 + random.below(5))
        .map(|n| {
            let index = Found { blobs: Vec::new(), ..manifest(random, "index", n % 3, None) };
            let asked = random.below(5) == 0;
            let absent = some(random, &gone);
            Seen {
                tag: format!("v{n}").parse().unwrap(),
                signatures: some(random, &signatures),
                image: std::iter::once(index).chain(some(random, &images)).collect(),
                absent: absent.into_iter().map(|digest| Absent { digest, platform: None, asked }).collect(),
            }
        })
        .collect()
}

/// What is in a place that has some of it, as an earlier run may have left it: whoever has a manifest has its blobs.
fn left(random: &mut Random, seen: &[Seen]) -> Here {
    let mut here = Here::default();
    for one in seen {
        let all: Vec<&Found> = one.signatures.iter().chain(&one.image).collect();
        for found in some(random, &all) {
            here.content.extend(found.blobs.iter().map(|(digest, _)| *digest));
            if random.below(2) == 0 {
                here.content.insert(found.digest);
                here.tags.extend(found.tag.iter().map(|tag| (tag.clone(), found.digest)));
            }
        }
        if random.below(3) == 0 {
            here.tags.insert(one.tag.clone(), digest("older"));
        }
    }
    here
}

/// Takes steps, as a run does.
fn take(steps: &[Step], here: &mut Here, there: &mut Here) {
    for step in steps {
        match step {
            Step::Manifest { digest, .. } | Step::Blob { digest, .. } => drop(here.content.insert(*digest)),
            Step::Absent { digest, .. } => drop(here.absent.insert(*digest)),
            Step::Tag { tag, digest, .. } => drop(here.tags.insert(tag.clone(), *digest)),
            Step::SendManifest { digest, .. } | Step::SendBlob { digest, .. } => {
                assert!(here.content.contains(digest), "what is sent is here");
                there.content.insert(*digest);
            }
            Step::SendTag { tag, digest, .. } => {
                assert!(here.content.contains(digest), "what is sent is here");
                there.content.insert(*digest);
                there.tags.insert(tag.clone(), *digest);
            }
        }
    }
}

/// To plan looks at what there is before anything is done; a run looks again before each tag. The steps are the same, and
/// when they are taken there is nothing left to do. Replay one with its number.
#[test]
fn the_steps_of_a_plan_are_those_of_a_run_whatever_the_upstream_has() {
    for seed in 0..2000 {
        let mut random = Random::new(seed);
        let seen = upstream(&mut random);
        let (mut here, mut there) = (left(&mut random, &seen), left(&mut random, &seen));
        let go = |one: &Seen, here: &Here, there: &Here, planners: &mut [Planner; 2]| {
            let mut steps = planners[0].plan(one, here);
            steps.extend(planners[1].plan_there(one, there));
            steps
        };
        let mut planners = [Planner::default(), Planner::default()];
        let plan: Vec<Vec<Step>> = seen.iter().map(|one| go(one, &here, &there, &mut planners)).collect();
        let mut planners = [Planner::default(), Planner::default()];
        for (one, planned) in seen.iter().zip(&plan) {
            let steps = go(one, &here, &there, &mut planners);
            assert_eq!(*planned, steps, "seed {seed}, {}", one.tag);
            take(&steps, &mut here, &mut there);
        }
        let mut planners = [Planner::default(), Planner::default()];
        for one in &seen {
            // Two tags that share a signature's tag never disagree on it here, so everything stays as it is.
            assert_eq!(go(one, &here, &there, &mut planners), [], "seed {seed}, {}", one.tag);
        }
    }
}
