//! `[trust]`: which images are served, by their signatures.

use super::host;
use crate::settings::key::{Default, Key, Slot};
use crate::settings::{Pushes, Settings};

/// The keys of `[trust]`.
pub(super) const KEYS: &[Key<Settings>] = &[
    Key {
        name: "trust.policy",
        slot: Slot::Path(|s| &mut s.trust.policy),
        default: Default::Unset {
            example: "\"/etc/containers/policy.json\"",
            means: "signatures are not looked at",
        },
        about: "The policy, in the form that podman, CRI-O and skopeo read (docs/signatures.md). Images that it does not \
                accept are not served. It is read again, with the keys and certificates that it names, when anything in \
                them changes, without a restart; while it cannot be used, the last one counts.",
    },
    Key {
        name: "trust.accept_nameless",
        slot: Slot::Flag(|s| &mut s.trust.accept_nameless),
        default: Default::Value("false"),
        about: "Whether signatures count that do not say for which image they were made, as the bundles of cosign 3: each \
                image that the owner of the key has signed can then stand in for another.",
    },
    Key {
        name: "trust.name",
        slot: Slot::Text("a host name in small letters, with or without a port", |s, text| {
            s.trust.name = host(text)?;
            Ok(())
        }),
        default: Default::Value("\"localhost\""),
        about: "What this registry is called by those who push to it and sign that: the beginning of names such as \
                registry.example:5000/team/app, under which the policy judges what is pushed.",
    },
    Key {
        name: "trust.pushes",
        slot: Slot::Choice(&["judge", "accept"], |s, word| {
            s.trust.pushes = if word == "accept" { Pushes::Accept } else { Pushes::Judge };
        }),
        default: Default::Value("\"judge\""),
        about: "Whether the policy also judges what is pushed: with \"judge\", that waits here, visible to those who may \
                push there and so can sign it, until a signature comes that makes it accepted. With \"accept\", only what \
                comes from upstreams is judged.",
    },
];
