//! `[access]`, `[[access.rule]]` and `[[access.certificate]]`: who is who, and who may do what.

use super::{DAY, HOUR, seconds, url};
use crate::settings::key::{Default, Key, Slot};
use crate::settings::read::{read_certificates, read_issuers, read_rules};
use crate::settings::{Certificate, Issuer, Rule, Settings};

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
        name: "access.tokens",
        slot: Slot::Flag(|s| &mut s.access.tokens),
        default: Default::Value("false"),
        about: "Whether clients are asked to exchange their password for a token, at /token, which lasts for five minutes \
                and is for the repositories that it was asked for. Passwords are still taken where clients send them by \
                themselves. With it, docker pulls anonymously what rules let everyone pull.",
    },
    Key {
        name: "access.url",
        slot: Slot::Text("an address such as \"https://registry.example\"", |s, text| {
            s.access.url = Some(url(text)?);
            Ok(())
        }),
        default: Default::Unset {
            example: "\"https://registry.example\"",
            means: "the address that the client itself has used, over TLS or on this machine",
        },
        about: "Where clients reach this registry. They send their password there for a token, so it must be given behind a \
                proxy that ends TLS.",
    },
    Key {
        name: "access.counted_users",
        slot: Slot::Texts("user names", |s, text| {
            s.access.counted_users.insert(text.to_owned());
            Ok(())
        }),
        default: Default::Value("[]"),
        about: "Users whose requests and bytes /metrics counts by name, such as the sites of a hub. Everybody who can reach \
                /metrics sees these names; at most 1000.",
    },
    Key {
        name: "access.trust_loopback",
        slot: Slot::OptionalFlag(|s| &mut s.access.trust_loopback),
        default: Default::Unset {
            example: "true",
            means: "true as long as nobody can log in (by password, token or certificate) and there is no rule, false otherwise",
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
    Key {
        name: "access.certificate",
        slot: Slot::Tables(read_certificates),
        default: Default::Value("[]"),
        about: "Who comes with which client certificate, by one of its names. Certificates are taken from the authorities in \
                tls.client_ca; whoever shows none, or one that is not listed here, has to log in otherwise. The first of \
                these tables that fits counts.",
    },
    Key {
        name: "access.oidc",
        slot: Slot::Tables(read_issuers),
        default: Default::Value("[]"),
        about: "CI systems whose identity tokens (OpenID Connect) let their jobs in: as a bearer token, or as the password of the \
                user oidc. There can be several for one issuer; the first whose claims fit counts.",
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

/// The keys of `[[access.certificate]]`.
pub(in crate::settings) const CERTIFICATE: &[Key<Certificate>] = &[
    Key {
        name: "user",
        slot: Slot::Text("a user name", |c, text| {
            c.user = user(text)?;
            Ok(())
        }),
        default: Default::Required("\"site7\""),
        about: "Who comes with such a certificate, as rules and logs call them.",
    },
    Key {
        name: "common_name",
        slot: Slot::Text("a name", |c, text| name(&mut c.common_name, text)),
        default: Default::Unset { example: "\"site7\"", means: "it is not looked at" },
        about: "The common name in the subject of the certificate.",
    },
    Key {
        name: "dns_name",
        slot: Slot::Text("a name", |c, text| name(&mut c.dns_name, text)),
        default: Default::Unset { example: "\"site7.example\"", means: "they are not looked at" },
        about: "A host among its subject alternative names.",
    },
    Key {
        name: "email",
        slot: Slot::Text("a name", |c, text| name(&mut c.email, text)),
        default: Default::Unset { example: "\"anna@example.org\"", means: "they are not looked at" },
        about: "An e-mail address among them.",
    },
    Key {
        name: "uri",
        slot: Slot::Text("a name", |c, text| name(&mut c.uri, text)),
        default: Default::Unset {
            example: "\"spiffe://example.org/site/7\"",
            means: "they are not looked at",
        },
        about: "A URI among them. Exactly one of these four must be given.",
    },
];

/// The keys of `[[access.oidc]]`.
pub(in crate::settings) const OIDC: &[Key<Issuer>] = &[
    Key {
        name: "issuer",
        slot: Slot::Text("an address such as \"https://gitlab.example\"", |i, text| {
            if !text.starts_with("https://") && !text.starts_with("http://") {
                return Err("it must begin with https:// or http://".to_owned());
            }
            i.issuer = text.to_owned();
            Ok(())
        }),
        default: Default::Required("\"https://token.actions.githubusercontent.com\""),
        about: "Who issues the tokens, to the letter as it stands in them (`iss`).",
    },
    Key {
        name: "audience",
        slot: Slot::Text("a text", |i, text| {
            if text.is_empty() {
                return Err("it is empty".to_owned());
            }
            i.audience = text.to_owned();
            Ok(())
        }),
        default: Default::Required("\"registry.example\""),
        about: "What the tokens have to be for (`aud`). Choose one that no other service accepts.",
    },
    Key {
        name: "claims",
        slot: Slot::Sets("texts", |i| &mut i.claims),
        default: Default::Unset {
            example: "{ repository = [\"team/app\"], ref = [\"refs/heads/main\", \"refs/tags/*\"] }",
            means: "every job of the issuer comes in",
        },
        about: "What else has to stand in them: for each claim the values of which it must have one. A value that ends in * \
                stands for everything that begins like it.",
    },
    Key {
        name: "user",
        slot: Slot::Text("a user name", |i, text| {
            i.user = user(text)?;
            Ok(())
        }),
        default: Default::Required("\"ci\""),
        about: "Who comes with such a token, as rules and logs call them.",
    },
    Key {
        name: "keys",
        slot: Slot::Path(|i| &mut i.keys),
        default: Default::Unset {
            example: "\"/etc/deltaport/ci-keys.json\"",
            means: "they are fetched from the issuer",
        },
        about: "File with the issuer's public keys (a JSON Web Key Set), for issuers that cannot be reached. It is read again \
                every minute.",
    },
    Key {
        name: "ca",
        slot: Slot::Path(|i| &mut i.ca),
        default: Default::Unset { example: "\"/etc/deltaport/gitlab-ca.pem\"", means: "the system's alone" },
        about: "PEM file with certificate authorities to trust besides the system's when keys are fetched.",
    },
    Key {
        name: "max_age",
        slot: Slot::Span(|i| &mut i.max_age, seconds(HOUR)..=seconds(365 * DAY)),
        default: Default::Value("\"7d\""),
        about: "How long fetched keys are believed while the issuer cannot be reached. They are kept over restarts, and fetched \
                every hour when it can.",
    },
];

/// A user's name, as a password file could have it.
pub(super) fn user(text: &str) -> Result<String, String> {
    let fine = (1..=255).contains(&text.len()) && !text.contains(|c: char| c == ':' || c.is_control());
    if fine { Ok(text.to_owned()) } else { Err("1 to 255 bytes, no colon, no control characters".to_owned()) }
}

fn name(into: &mut Option<String>, text: &str) -> Result<(), String> {
    if text.is_empty() {
        return Err("it is empty".to_owned());
    }
    *into = Some(text.to_owned());
    Ok(())
}
