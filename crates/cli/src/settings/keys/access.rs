//! `[access]` and `[[access.rule]]`: who may do what.

use crate::settings::key::{Default, Key, Slot};
use crate::settings::read::read_rules;
use crate::settings::{Rule, Settings};

/// The keys of `[access]`.
pub(super) const KEYS: &[Key<Settings>] = &[
    Key {
        name: "access.htpasswd",
        slot: Slot::Path(|s| &mut s.access.htpasswd),
        default: Default::Unset { example: "\"/etc/deltaport/htpasswd\"", means: "nobody can log in" },
        about: "Password file: a line user:hash for each user, as `deltaport passwd USER` and `htpasswd -nB USER` write \
                them (argon2id or bcrypt). It is read again when it changes, without a restart.",
    },
    Key {
        name: "access.trust_loopback",
        slot: Slot::OptionalFlag(|s| &mut s.access.trust_loopback),
        default: Default::Unset {
            example: "true",
            means: "true as long as there is neither a password file nor a rule, false otherwise",
        },
        about: "Whether callers on this machine may do everything without logging in. Requests that a proxy on this \
                machine passes on, or a web page in a browser sends, do not count as local.",
    },
    Key {
        name: "access.groups",
        slot: Slot::Sets("user names", |s| &mut s.access.groups),
        default: Default::Unset { example: "{ dev = [\"anna\", \"bert\"] }", means: "no groups" },
        about: "Groups of users, for the rules: a name and its members.",
    },
    Key {
        name: "access.rule",
        slot: Slot::Tables(read_rules),
        default: Default::Value("[]"),
        about: "A grant. A caller may do what at least one rule grants; there are no exceptions, so the order does not \
                matter. Without any rule, every user that has logged in may do everything, and nobody else anything \
                (but see trust_loopback). With rules, only they count.",
    },
];

/// The keys of `[[access.rule]]`.
pub(in crate::settings) const RULE: &[Key<Rule>] = &[
    Key {
        name: "repositories",
        slot: Slot::Texts("repository names or patterns", |r, text| {
            r.repositories.push(text.parse().map_err(|error| format!("{error}"))?);
            Ok(())
        }),
        default: Default::Required("[\"team/**\", \"library/debian\"]"),
        about: "Which repositories it is about. In a pattern, `*` stands for anything within one component and `**` for anything: \
                `team/*` is team/app but not team/app/debug, `team/**` is both, `**` is every repository.",
    },
    Key {
        name: "allow",
        slot: Slot::Texts("\"pull\", \"push\" and \"delete\"", |r, text| {
            r.allow.push(text.parse().map_err(|error| format!("{error}"))?);
            Ok(())
        }),
        default: Default::Required("[\"pull\", \"push\"]"),
        about: "What may be done with them.",
    },
    Key {
        name: "users",
        slot: Slot::Texts("user names", |r, text| {
            r.users.insert(text.to_owned());
            Ok(())
        }),
        default: Default::Unset { example: "[\"carol\"]", means: "to nobody in particular" },
        about: "It is granted to these users,",
    },
    Key {
        name: "groups",
        slot: Slot::Texts("names of groups", |r, text| {
            r.groups.insert(text.to_owned());
            Ok(())
        }),
        default: Default::Unset { example: "[\"dev\"]", means: "to no group" },
        about: "and to the members of these groups,",
    },
    Key {
        name: "logged_in",
        slot: Slot::Flag(|r| &mut r.logged_in),
        default: Default::Value("false"),
        about: "and, if true, to every user that has logged in,",
    },
    Key {
        name: "anonymous",
        slot: Slot::Flag(|r| &mut r.anonymous),
        default: Default::Value("false"),
        about: "and, if true, to everyone, logged in or not,",
    },
    Key {
        name: "local",
        slot: Slot::Flag(|r| &mut r.local),
        default: Default::Value("false"),
        about: "and, if true, to callers on this machine.",
    },
];
