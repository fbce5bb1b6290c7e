//! `[[mirror]]`: what is to be here without being asked for.

use std::path::PathBuf;

use deltaport_oci::wire::is_rule;
use deltaport_registry::mirror::select::Range;
use deltaport_registry::mirror::timetable::Cron;
use deltaport_registry::mirror::{Cap, Repositories};

use super::{DAY, GIB, seconds};
use crate::settings::key::{Default, Key, Slot};
use crate::settings::read::read_mirrors;
use crate::settings::{Mirror, NewestBy, Settings, Size};

/// The list of rules.
pub(super) const KEYS: &[Key<Settings>] = &[Key {
    name: "mirror",
    slot: Slot::Tables(read_mirrors),
    default: Default::Value("[]"),
    about: "Rules for what is to be here without being asked for: tags of a repository of an upstream, kept where they \
            are pulled through. `deltaport mirror plan` shows what a run of a rule would do, `deltaport mirror run` does \
            it. Signatures, attestations and other referrers of an image and of its wanted platforms always come along, \
            and first; a tag moves here when everything behind it is here. Bytes come as for clients: by delta where \
            that is sooner, taken up where they were. Nothing is removed without `prune`.",
}];

/// The keys of `[[mirror]]`.
pub(in crate::settings) const MIRROR: &[Key<Mirror>] = &[
    Key {
        name: "name",
        slot: Slot::Text("a name of small letters, digits, hyphens and underscores", |m, text| {
            m.name = text.to_owned();
            if is_rule(text) { Ok(()) } else { Err("at most 64 of them".to_owned()) }
        }),
        default: Default::Required("\"nightly\""),
        about: "What commands and the log call it.",
    },
    Key {
        name: "source",
        slot: Slot::Text("a repository with its host, such as \"docker.io/library/debian\"", |m, text| {
            match layout(text) {
                Some(path) => drop(path?),
                None => drop(source(text).ok_or("it begins with the host of an [[upstream]]")?),
            }
            m.source = text.to_owned();
            Ok(())
        }),
        default: Default::Required("\"hub.example/team/app\""),
        about: "The repository, behind the `host` of an upstream. It is kept under the name by which it is pulled. With `*` \
                for anything within a component and `**` for anything, it is about every repository of the upstream's \
                catalog that fits, at most 1000. Or \"oci:\" and the absolute path of a directory with an OCI image \
                layout.",
    },
    Key {
        name: "repository",
        slot: Slot::Text("the name of a repository", |m, text| {
            m.repository = Some(text.parse().map_err(|error| format!("{error}"))?);
            Ok(())
        }),
        default: Default::Unset { example: "\"vendor/app\"", means: "where `source` is pulled" },
        about: "For a layout as the source: in which repository of this registry its images are kept.",
    },
    Key {
        name: "to",
        slot: Slot::Text("a repository with its host, or \"oci:\" and a directory", |m, text| {
            match layout(text) {
                Some(path) => drop(path?),
                None => {
                    match source(text).ok_or("it begins with the host of an [[upstream]], or with oci:")? {
                        (_, Repositories::One(_)) => {}
                        (_, Repositories::Matching(_)) => return Err("one repository, without *".to_owned()),
                    }
                }
            }
            m.to = Some(text.to_owned());
            Ok(())
        }),
        default: Default::Unset { example: "\"oci:/srv/images\"", means: "this registry only" },
        about: "Where it goes on to from here: a repository of another registry, behind the `host` of an [[upstream]] that \
                says where it is and how to log in, or \"oci:\" and the absolute path of a directory for an OCI image \
                layout. Only what is not there is sent. Of a rule for several repositories, each goes below, under its \
                name at the upstream.",
    },
    Key {
        name: "prune",
        slot: Slot::Flag(|m| &mut m.prune),
        default: Default::Value("false"),
        about: "Whether tags that this rule has brought, here or to its destination, are removed when the upstream has them no \
                more or the rule wants them no more. Tags that somebody else has set or moved stay.",
    },
    Key {
        name: "prune_cap",
        slot: Slot::Text("a number of tags such as \"20\", or a part such as \"25%\"", |m, text| {
            text.parse::<Cap>().map_err(|error| error.to_string())?;
            m.prune_cap = text.to_owned();
            Ok(())
        }),
        default: Default::Value("\"25%\""),
        about: "How many tags one run may remove from one place: a number, or a part of those that the rule has brought there, \
                rounded up. When there are more, nothing is removed and the run has failed.",
    },
    Key {
        name: "tags",
        slot: Slot::Texts("tags or patterns", |m, text| {
            m.tags.push(text.parse().map_err(|error| format!("{error}"))?);
            Ok(())
        }),
        default: Default::Required("[\"latest\", \"1.*\"]"),
        about: "Which tags; `*` stands for anything, and what stands behind \"regex:\" is a regular expression for the whole \
                tag. Where all are named in full, the upstream is not asked for its list.",
    },
    Key {
        name: "except",
        slot: Slot::Texts("tags or patterns", |m, text| {
            m.except.push(text.parse().map_err(|error| format!("{error}"))?);
            Ok(())
        }),
        default: Default::Unset { example: "[\"*-debug\", \"regex:.*-rc[0-9]+\"]", means: "none of them" },
        about: "Which of them are not wanted all the same.",
    },
    Key {
        name: "semver",
        slot: Slot::Text("a range of versions such as \">=1.2, <3\"", |m, text| {
            text.parse::<Range>().map_err(|error| error.to_string())?;
            m.semver = Some(text.to_owned());
            Ok(())
        }),
        default: Default::Unset { example: "\">=1.2, <3\"", means: "whatever fits tags" },
        about: "Of those, only versions in this range: bounds with >=, >, <=, <, =, ^ or ~ that all hold. A v in front does \
                not count, missing numbers are 0, and a pre-release is only meant by a bound that names one of its version.",
    },
    Key {
        name: "newest",
        slot: Slot::Count(|m| &mut m.newest, 0..=10_000),
        default: Default::Value("0"),
        about: "Of those, only so many, the newest. 0 is all.",
    },
    Key {
        name: "newest_by",
        slot: Slot::Choice(&["version", "created"], |m, word| {
            m.newest_by = if word == "created" { NewestBy::Created } else { NewestBy::Version };
        }),
        default: Default::Value("\"version\""),
        about: "Which are the newest: those with the highest versions (without semver, releases only), or those whose images \
                were made last. When that was, they say themselves, in the annotation org.opencontainers.image.created or \
                in their configuration; each is looked at once, which takes two or three requests, and then remembered.",
    },
    Key {
        name: "platforms",
        slot: Slot::Texts("platforms such as \"linux/arm64\"", |m, text| {
            m.platforms.push(text.parse().map_err(|error| format!("{error}"))?);
            Ok(())
        }),
        default: Default::Unset { example: "[\"linux/arm64\"]", means: "those of the upstream" },
        about: "For which platforms, as in [[upstream]]. An index that has none of them is an error.",
    },
    Key {
        name: "every",
        slot: Slot::Span(|m| &mut m.every, seconds(0)..=seconds(365 * DAY)),
        default: Default::Value("\"0s\""),
        about: "How long after the end of a run the next begins by itself; the first begins with the process. With 0s, and \
                without a schedule, it only runs when it is told to.",
    },
    Key {
        name: "schedule",
        slot: Slot::Text("a schedule as cron has them, such as \"30 2 * * mon-fri\"", |m, text| {
            text.parse::<Cron>().map_err(|error| error.to_string())?;
            m.schedule = Some(text.to_owned());
            Ok(())
        }),
        default: Default::Unset { example: "\"0 22 * * *\"", means: "by no clock" },
        about: "Instead of `every`, when runs begin by themselves, in `timezone`: minute, hour, day of the month, month, day \
                of the week, each with lists, ranges, steps and names; or @hourly, @daily, @weekly, @monthly, @yearly. A run \
                that is still going on when the next is due counts for both.",
    },
    Key {
        name: "windows",
        slot: Slot::Texts("hours such as \"mon-fri 22:00-05:00\"", |m, text| {
            m.windows.push(text.parse().map_err(|error| format!("{error}"))?);
            Ok(())
        }),
        default: Default::Unset {
            example: "[\"mon-fri 22:00-05:00\", \"sat,sun 00:00-24:00\"]",
            means: "at any hour",
        },
        about: "The hours in `timezone` in which runs may fetch and send; the days are those on which they begin. Outside them a run \
                rests, and goes on in the next window where it was: blobs are broken off and taken up again, uploads too, only deltas \
                are fetched to their ends. What a client pulls comes at any hour.",
    },
    Key {
        name: "bandwidth",
        slot: Slot::Size(|m| &mut m.bandwidth, Size(0)..=Size(1024 * GIB)),
        default: Default::Value("\"0B\""),
        about: "The most bytes of blobs a second that runs of this rule fetch, within fill.bandwidth, and as many that they \
                send to a destination. Whatever it is, clients come first: while something is fetched for one, runs take \
                next to nothing. 0B is no cap.",
    },
];

/// The directory of an OCI image layout, when a place is one.
pub(in crate::settings) fn layout(text: &str) -> Option<Result<PathBuf, &'static str>> {
    let path = PathBuf::from(text.strip_prefix("oci:")?);
    Some(if path.is_absolute() { Ok(path) } else { Err("behind oci: there is an absolute path") })
}

/// The host and the repositories of a source.
pub(in crate::settings) fn source(text: &str) -> Option<(&str, Repositories)> {
    let (host, name) = text.split_once('/')?;
    let repositories = match name.contains('*') {
        true => Repositories::Matching(name.parse().ok()?),
        false => Repositories::One(name.parse().ok()?),
    };
    Some((Some(host).filter(|host| !host.is_empty())?, repositories))
}
