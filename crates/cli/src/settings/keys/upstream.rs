//! `[[upstream]]`: where missing things come from.

use deltaport_oci::RepositoryName;

use super::{DAY, seconds};
use crate::settings::key::{Default, Key, Slot};
use crate::settings::read::{read_tag_rules, read_upstreams};
use crate::settings::{Deltas, Settings, Span, Stale, TagRule, Upstream};

/// The list of upstreams.
pub(super) const KEYS: &[Key<Settings>] = &[Key {
    name: "upstream",
    slot: Slot::Tables(read_upstreams),
    default: Default::Value("[]"),
    about: "Another registry that things come from which are not here. Without any, those are the public ones (see \
            public_upstreams). Clients reach its repositories in four ways: with its host before the name \
            (127.0.0.1:5000/hub.example/debian), with ?ns=hub.example, as containerd sends it, under a name of its own \
            (see hosts), or under the plain name (see default).",
}];

/// The keys of `[[upstream]]`.
pub(in crate::settings) const UPSTREAM: &[Key<Upstream>] = &[
    Key {
        name: "host",
        slot: Slot::Text("a host name, such as \"docker.io\"", |u, text| {
            u.host = host(text)?;
            Ok(())
        }),
        default: Default::Required("\"hub.example\""),
        about: "What clients call it: the first component of the repositories that come from it \
                (127.0.0.1:5000/hub.example/debian; a port's colon becomes an underscore there), and the ns that \
                containerd sends.",
    },
    Key {
        name: "url",
        slot: Slot::Text("an address such as \"https://registry-1.docker.io\"", |u, text| {
            u.url = url(text)?;
            Ok(())
        }),
        default: Default::Required("\"https://hub.example:5000\""),
        about: "Where it is. No other address is ever asked, but for redirects of blobs.",
    },
    Key {
        name: "default",
        slot: Slot::Flag(|u| &mut u.default),
        default: Default::Value("false"),
        about: "Whether repositories that name no upstream come from this one. At most one can be the default.",
    },
    Key {
        name: "hosts",
        slot: Slot::Texts("host names without ports", |u, text| {
            u.hosts.insert(own_host(text)?);
            Ok(())
        }),
        default: Default::Value("[]"),
        about: "Names under which this registry stands for that upstream alone: with [\"docker.mirror.example\"], \
                docker.mirror.example/library/debian is its library/debian. The names have to lead here, and the \
                certificate has to be valid for them. Who uses them does not count as local (see access.trust_loopback).",
    },
    Key {
        name: "repositories",
        slot: Slot::Texts("repository names or patterns", |u, text| {
            u.repositories.push(text.parse().map_err(|error| format!("{error}"))?);
            Ok(())
        }),
        default: Default::Unset { example: "[\"library/**\"]", means: "all of them" },
        about: "Which of its repositories are served, by their names there, with patterns as in [[access.rule]]. Others \
                are not found; names that a default upstream does not serve are this registry's own.",
    },
    Key {
        name: "platforms",
        slot: Slot::Texts("platforms such as \"linux/arm64\"", |u, text| {
            u.platforms.push(text.parse().map_err(|error| format!("{error}"))?);
            Ok(())
        }),
        default: Default::Unset { example: "[\"linux/amd64\", \"linux/arm64\"]", means: "all of them" },
        about: "For which platforms images are fetched from it. The index is always there, byte for byte; of its images, \
                others are not found unless `deltaport image complete` has brought them. Attestations come with their \
                image. In linux/amd64, linux/arm/v7, linux/* or windows(10.0.20348)/amd64, `*` stands for anything, no \
                variant for every variant, and a version of the system for its updates too. An image that no index \
                here names is fetched whatever it is for.",
    },
    Key {
        name: "platformless",
        slot: Slot::Flag(|u| &mut u.platformless),
        default: Default::Value("true"),
        about: "With platforms: whether those entries of an index are fetched too that are for no platform.",
    },
    Key {
        name: "max_age",
        slot: Slot::Span(|u| &mut u.max_age, seconds(0)..=seconds(3650 * DAY)),
        default: Default::Value("\"0s\""),
        about: "How long a tag is served without asking whether it moved, since the upstream last said where it is. With \
                0s it is asked each time, which costs a round trip but no content. After a restart every tag is asked \
                for once.",
    },
    Key {
        name: "stale",
        slot: Slot::Text("\"forever\" or a time such as \"30d\"", |u, text| {
            u.stale = stale(text)?;
            Ok(())
        }),
        default: Default::Value("\"forever\""),
        about: "How long a tag that is here is served, with a Warning header, while the upstream is down, slow, over its \
                quota, or refuses; counted from when it last said where the tag is, or from the start of the process. \
                What is pulled by digest is always served.",
    },
    Key {
        name: "negative_age",
        slot: Slot::Span(|u| &mut u.negative_age, seconds(0)..=seconds(DAY)),
        default: Default::Value("\"30s\""),
        about: "How long it is believed without asking again that the upstream does not have something, or refuses it.",
    },
    Key {
        name: "tags",
        slot: Slot::Tables(read_tag_rules),
        default: Default::Value("[]"),
        about: "Tags of the upstream above that are not as the others. The first of these tables that has a fitting \
                pattern counts.",
    },
    Key {
        name: "username",
        slot: Slot::Text("a user name", |u, text| {
            u.username = Some(text.to_owned());
            Ok(())
        }),
        default: Default::Unset { example: "\"site7\"", means: "not to log in" },
        about: "The user to log in as.",
    },
    Key {
        name: "password_file",
        slot: Slot::Path(|u| &mut u.password_file),
        default: Default::Unset { example: "\"/etc/deltaport/hub.password\"", means: "not to log in" },
        about: "The file that holds the password, in its first line. It is read again whenever the password is needed.",
    },
    Key {
        name: "password_env",
        slot: Slot::Text("the name of an environment variable", |u, text| {
            u.password_env = Some(variable(text)?);
            Ok(())
        }),
        default: Default::Unset { example: "\"HUB_PASSWORD\"", means: "not to log in" },
        about: "The environment variable that holds the password, in place of password_file.",
    },
    Key {
        name: "credentials_file",
        slot: Slot::Path(|u| &mut u.credentials_file),
        default: Default::Unset { example: "\"/etc/deltaport/docker/config.json\"", means: "not to log in" },
        about: "The file that docker login or podman login has written (config.json, auth.json), in place of username and \
                password. What it says about the host of url counts; if that is nothing, nobody logs in. Credential \
                helpers that it names are run. It is read again whenever it is needed.",
    },
    Key {
        name: "credential_helper",
        slot: Slot::Text("the name of a credential helper", |u, text| {
            u.credential_helper = Some(helper(text)?);
            Ok(())
        }),
        default: Default::Unset { example: "\"ecr-login\"", means: "not to log in" },
        about: "What stands behind docker-credential- in the name of a program that knows the credentials, in place of \
                username and password. It is looked for in PATH, asked for the host of url when that wants to know who we \
                are, and stopped after 30 seconds.",
    },
    Key {
        name: "client_certificate",
        slot: Slot::Path(|u| &mut u.client_certificate),
        default: Default::Unset { example: "\"/etc/deltaport/site7.pem\"", means: "to show none" },
        about: "PEM file with the certificate, and those between it and its authority, to show to this upstream and its \
                token service. Nobody that they redirect to sees it. It is read again when it changes.",
    },
    Key {
        name: "client_key",
        slot: Slot::Path(|u| &mut u.client_key),
        default: Default::Unset { example: "\"/etc/deltaport/site7.key\"", means: "to show none" },
        about: "PEM file with the private key of client_certificate.",
    },
    Key {
        name: "ca",
        slot: Slot::Path(|u| &mut u.ca),
        default: Default::Unset {
            example: "\"/etc/deltaport/hub-ca.pem\"",
            means: "only the usual authorities",
        },
        about: "PEM file with certificates of authorities to trust for this upstream besides the usual ones.",
    },
    Key {
        name: "token_hosts",
        slot: Slot::Texts("host names", |u, text| {
            u.token_hosts.insert(host(text)?);
            Ok(())
        }),
        default: Default::Value("[]"),
        about: "Hosts besides its own whose token service may be asked for a token, and be given the password.",
    },
    Key {
        name: "redirect_hosts",
        slot: Slot::Texts("host names", |u, text| {
            u.redirect_hosts.insert(host(text)?);
            Ok(())
        }),
        default: Default::Value("[]"),
        about: "Hosts that it may redirect a download to although their address is private. Public addresses need not be \
                listed; the password is never sent along.",
    },
    Key {
        name: "deltas",
        slot: Slot::Choice(&["auto", "always", "never"], |u, word| {
            u.deltas = match word {
                "always" => Deltas::Always,
                "never" => Deltas::Never,
                _ => Deltas::Auto,
            };
        }),
        default: Default::Value("\"auto\""),
        about: "Whether to take layers as deltas from it: \"auto\" where that is likely to be sooner, by the speed of the \
                link and of this machine as they are measured, \"always\" whenever there is a delta, \"never\" not at \
                all. Below 256 KiB nobody asks. Whatever goes wrong with a delta, the whole layer is fetched instead.",
    },
    Key {
        name: "metered",
        slot: Slot::Flag(|u| &mut u.metered),
        default: Default::Value("false"),
        about: "Whether bytes from it are paid for: \"auto\" then takes a delta however fast the link is.",
    },
];

/// The keys of `[[upstream.tags]]`.
pub(in crate::settings) const TAG_RULE: &[Key<TagRule>] = &[
    Key {
        name: "tags",
        slot: Slot::Texts("tags or patterns", |r, text| {
            r.tags.push(text.parse().map_err(|error| format!("{error}"))?);
            Ok(())
        }),
        default: Default::Required("[\"v*\", \"*-rc*\"]"),
        about: "Which tags it is about; `*` stands for anything.",
    },
    Key {
        name: "max_age",
        slot: Slot::Text("a time such as \"1h\"", |r, text| {
            r.max_age = Some(age(text)?);
            Ok(())
        }),
        default: Default::Unset { example: "\"1h\"", means: "they must be immutable" },
        about: "As for the upstream, for these tags.",
    },
    Key {
        name: "immutable",
        slot: Slot::Flag(|r| &mut r.immutable),
        default: Default::Value("false"),
        about: "Whether these tags never move: once they are here, the upstream is not asked about them again.",
    },
];

/// A name of this registry, without a port.
fn own_host(text: &str) -> Result<String, String> {
    match text.contains(':') {
        true => Err("no port belongs here: the name counts on every port".to_owned()),
        false => host(text),
    }
}

fn stale(text: &str) -> Result<Stale, String> {
    if text == "forever" { Ok(Stale::Forever) } else { age(text).map(Stale::For) }
}

/// A time that a tag may be old.
fn age(text: &str) -> Result<Span, String> {
    let span: Span = text.parse().map_err(|error| format!("{error}"))?;
    if span <= seconds(3650 * DAY) { Ok(span) } else { Err("at most 3650d".to_owned()) }
}

/// A host name or IPv4 address with or without a port, in small letters. It is also the beginning of names of
/// repositories, with an underscore for the colon, and has to be possible there.
pub(crate) fn host(text: &str) -> Result<String, String> {
    let component = text.replacen(':', "_", 1);
    if text.contains(['/', '_']) || component.parse::<RepositoryName>().is_err() {
        return Err("not a host name in small letters, with or without a port".to_owned());
    }
    Ok(text.to_owned())
}

/// The name of an environment variable.
fn variable(text: &str) -> Result<String, String> {
    match !text.is_empty() && !text.contains(['=', '\0']) {
        true => Ok(text.to_owned()),
        false => Err("not the name of an environment variable".to_owned()),
    }
}

/// The name of a program behind `docker-credential-`.
fn helper(text: &str) -> Result<String, String> {
    let source = deltaport_client::CredentialSource::Helper(text.to_owned());
    source.check().map(|()| text.to_owned())
}

/// `http` or `https`, a host, maybe a port, and nothing else.
pub(crate) fn url(text: &str) -> Result<String, String> {
    let rest = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
    let rest = rest.ok_or("it must begin with https:// or http://")?;
    let authority = rest.strip_suffix('/').unwrap_or(rest);
    if authority.contains('@') {
        return Err("a user and a password do not belong here; use username and password_file".to_owned());
    }
    if authority.contains(['/', '?', '#']) {
        return Err("only a host and a port may follow; repositories are not under a path".to_owned());
    }
    match authority.parse::<http::uri::Authority>() {
        Ok(_) => Ok(text.trim_end_matches('/').to_owned()),
        Err(_) => Err("what follows is not a host".to_owned()),
    }
}
