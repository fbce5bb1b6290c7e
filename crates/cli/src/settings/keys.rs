//! The table of keys: every one with its type, bounds, default and meaning.
//!
//! A limit's upper bound is what the code has been thought through for, not a taste. A default suits a site with a few
//! dozen machines behind it and little memory.

use std::time::Duration;

use deltaport_oci::{Platform, RepositoryName};

use super::key::{Default, Key, Slot, Texts};
use super::read::{read_rules, read_upstreams};
use super::{Deltas, Level, LogFormat, Rule, Settings, Size, Span, Upstream, Validate};

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
const TIB: u64 = 1 << 40;

const fn seconds(count: u64) -> Span {
    Span(Duration::from_secs(count))
}

const MINUTE: u64 = 60;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;

/// The keys of the file itself and of its tables that can be there once.
pub(super) const SETTINGS: &[Key<Settings>] = &[
    Key {
        name: "listen",
        slot: Slot::Text(
            "an IP address and a port, such as \"127.0.0.1:5000\" or \"[::]:443\"",
            |s, text| {
                s.listen = text.parse().map_err(|_| "not an IP address and a port".to_owned())?;
                Ok(())
            },
        ),
        default: Default::Value("\"127.0.0.1:5000\""),
        about: "Where to listen. Port 0 takes any free port; the one taken is printed. An address that other machines \
                can reach needs [tls], or insecure_http.",
    },
    Key {
        name: "data",
        slot: Slot::Path(|s| &mut s.data),
        default: Default::Unset {
            example: "\"/var/lib/deltaport\"",
            means: "the platform's data directory, on Linux ~/.local/share/deltaport",
        },
        about: "The directory that holds everything. It belongs to one running deltaport alone and should be on a local \
                disk: network file systems do not keep the promises that SQLite and fsync need.",
    },
    Key {
        name: "insecure_http",
        slot: Slot::Flag(|s| &mut s.insecure_http),
        default: Default::Value("false"),
        about: "Allow plain HTTP on an address that other machines can reach. Passwords then cross the network readable; \
                only for a network that is trusted anyway, such as a VPN, or behind a proxy that ends TLS.",
    },
    Key {
        name: "shutdown_grace",
        slot: Slot::Span(|s| &mut s.shutdown_grace, seconds(0)..=seconds(HOUR)),
        default: Default::Value("\"30s\""),
        about: "How long requests may take to end after SIGTERM or SIGINT. What is still running then is cut off; nothing \
                that was acknowledged is lost, and uploads can be resumed.",
    },
    Key {
        name: "validate",
        slot: Slot::ChoiceOrTexts(
            "\"all\", \"none\" or a list of platforms such as [\"linux/amd64\", \"linux/arm64\"]",
            validate,
        ),
        default: Default::Value("\"none\""),
        about: "Which of the things that a pushed manifest refers to must be in the repository already: \"none\" accepts \
                sparse indexes and images, \"all\" refuses whatever is not complete, and a list of platforms demands \
                complete images but of an index only its children for these platforms.",
    },
    Key {
        name: "tls.certificate",
        slot: Slot::Path(|s| &mut s.tls.certificate),
        default: Default::Unset { example: "\"/etc/deltaport/tls.crt\"", means: "plain HTTP" },
        about: "PEM file with the certificate, followed by its intermediates. It is read again when it changes, without a \
                restart.",
    },
    Key {
        name: "tls.key",
        slot: Slot::Path(|s| &mut s.tls.key),
        default: Default::Unset { example: "\"/etc/deltaport/tls.key\"", means: "plain HTTP" },
        about: "PEM file with the certificate's private key.",
    },
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
    Key {
        name: "limits.manifest_size",
        slot: Slot::Size(|s| &mut s.limits.manifest_size, Size(64 * KIB)..=Size(64 * MIB)),
        default: Default::Value("\"4MiB\""),
        about: "The largest manifest that is accepted. The specification demands 4 MiB.",
    },
    Key {
        name: "limits.blob_size",
        slot: Slot::Size(|s| &mut s.limits.blob_size, Size(MIB)..=Size(16 * TIB)),
        default: Default::Value("\"64GiB\""),
        about: "The largest blob, and the largest body of one request.",
    },
    Key {
        name: "limits.header_size",
        slot: Slot::Size(|s| &mut s.limits.header_size, Size(8 * KIB)..=Size(MIB)),
        default: Default::Value("\"32KiB\""),
        about: "The most bytes that the first line and the headers of a request may have together.",
    },
    Key {
        name: "limits.page_size",
        slot: Slot::Count(|s| &mut s.limits.page_size, 1..=100_000),
        default: Default::Value("1000"),
        about: "The most entries on one page of a list of tags, repositories or referrers, whatever n a client asks for.",
    },
    Key {
        name: "limits.json_depth",
        slot: Slot::Count(|s| &mut s.limits.json_depth, 8..=100),
        default: Default::Value("32"),
        about: "How deep the JSON of a manifest may be nested.",
    },
    Key {
        name: "limits.manifest_references",
        slot: Slot::Count(|s| &mut s.limits.manifest_references, 128..=65_536),
        default: Default::Value("4096"),
        about: "How many layers, or children of an index, a manifest may have.",
    },
    Key {
        name: "limits.tags_per_push",
        slot: Slot::Count(|s| &mut s.limits.tags_per_push, 10..=1000),
        default: Default::Value("100"),
        about: "How many tags one push of a manifest may set.",
    },
    Key {
        name: "limits.uploads_per_caller",
        slot: Slot::Count(|s| &mut s.limits.uploads_per_caller, 1..=100_000),
        default: Default::Value("256"),
        about: "How many uploads one user may have open; callers that have not logged in share one count.",
    },
    Key {
        name: "limits.connections",
        slot: Slot::Count(|s| &mut s.limits.connections, 8..=100_000),
        default: Default::Value("1024"),
        about: "How many connections may be open. Further ones wait until one is closed.",
    },
    Key {
        name: "limits.header_timeout",
        slot: Slot::Span(|s| &mut s.limits.header_timeout, seconds(1)..=seconds(10 * MINUTE)),
        default: Default::Value("\"30s\""),
        about: "How long the headers of a request may take to arrive, and a TLS handshake to be done.",
    },
    Key {
        name: "limits.idle_timeout",
        slot: Slot::Span(|s| &mut s.limits.idle_timeout, seconds(1)..=seconds(DAY)),
        default: Default::Value("\"2m\""),
        about: "How long a connection may stay open without a request.",
    },
    Key {
        name: "limits.stall_timeout",
        slot: Slot::Span(|s| &mut s.limits.stall_timeout, seconds(1)..=seconds(HOUR)),
        default: Default::Value("\"30s\""),
        about: "How long a transfer may stand still because of the client before its connection is closed, and the time \
                over which minimum_rate is measured. Uploads can be resumed.",
    },
    Key {
        name: "limits.minimum_rate",
        slot: Slot::Size(|s| &mut s.limits.minimum_rate, Size(0)..=Size(MIB)),
        default: Default::Value("\"128B\""),
        about: "How many bytes a second a transfer has to move on average, as far as it is up to the client. Links to sites are slow; this is against clients \
                that are slow on purpose. 0B is no limit.",
    },
    Key {
        name: "limits.password_checks",
        slot: Slot::Count(|s| &mut s.limits.password_checks, 1..=64),
        default: Default::Value("2"),
        about: "How many passwords are checked at the same time. Each check takes a whole core, and with argon2id some \
                memory, for a moment.",
    },
    Key {
        name: "limits.free_disk",
        slot: Slot::Size(|s| &mut s.limits.free_disk, Size(0)..=Size(16 * TIB)),
        default: Default::Value("\"256MiB\""),
        about: "How much space is left free on the disk of the data directory: writes that would leave less are refused.",
    },
    Key {
        name: "cache.manifests",
        slot: Slot::Size(|s| &mut s.cache.manifests, Size(0)..=Size(4 * GIB)),
        default: Default::Value("\"16MiB\""),
        about: "Memory for manifests that were served recently.",
    },
    Key {
        name: "collect.interval",
        slot: Slot::Span(|s| &mut s.collect.interval, seconds(1)..=seconds(30 * DAY)),
        default: Default::Value("\"10m\""),
        about: "How often space is taken back from what nothing refers to any more. It runs beside everything else.",
    },
    Key {
        name: "collect.grace",
        slot: Slot::Span(|s| &mut s.collect.grace, seconds(0)..=seconds(365 * DAY)),
        default: Default::Value("\"1d\""),
        about: "How long bytes that nothing refers to are kept. A push uploads its layers before the manifest that refers \
                to them, so this must be longer than the slowest push.",
    },
    Key {
        name: "collect.upload_expiry",
        slot: Slot::Span(|s| &mut s.collect.upload_expiry, seconds(60)..=seconds(365 * DAY)),
        default: Default::Value("\"1d\""),
        about: "How long an upload that nobody touches is kept.",
    },
    Key {
        name: "log.level",
        slot: Slot::Choice(&["error", "warn", "info", "debug", "trace"], |s, word| {
            s.log.level = match word {
                "error" => Level::Error,
                "warn" => Level::Warn,
                "debug" => Level::Debug,
                "trace" => Level::Trace,
                _ => Level::Info,
            }
        }),
        default: Default::Value("\"info\""),
        about: "How much is written to the standard error output.",
    },
    Key {
        name: "log.format",
        slot: Slot::Choice(&["text", "json"], |s, word| {
            s.log.format = if word == "json" { LogFormat::Json } else { LogFormat::Text };
        }),
        default: Default::Value("\"text\""),
        about: "How it is written: for people, or one JSON object in each line.",
    },
    Key {
        name: "upstream",
        slot: Slot::Tables(read_upstreams),
        default: Default::Value("[]"),
        about: "Another registry that things come from which are not here. Without any, only what was pushed is served.",
    },
    Key {
        name: "fill.concurrent",
        slot: Slot::Count(|s| &mut s.fill.concurrent, 1..=1000),
        default: Default::Value("8"),
        about: "How many blobs are fetched from upstreams at the same time; more wait.",
    },
    Key {
        name: "fill.patience",
        slot: Slot::Span(|s| &mut s.fill.patience, seconds(1)..=seconds(DAY)),
        default: Default::Value("\"2m\""),
        about: "How long a transfer from an upstream may go without a new byte before it is given up. Until then it is \
                taken up again where it stopped, as often as it takes.",
    },
    Key {
        name: "fill.delta_wait",
        slot: Slot::Span(|s| &mut s.fill.delta_wait, seconds(0)..=seconds(HOUR)),
        default: Default::Value("\"20s\""),
        about: "How long to wait for a delta that an upstream is still making, before the whole layer is fetched.",
    },
    Key {
        name: "delta.memory",
        slot: Slot::Size(|s| &mut s.delta.memory, Size(256 * MIB)..=Size(64 * GIB)),
        default: Default::Value("\"1GiB\""),
        about: "Memory that making one delta may take. With less, large layers are searched in a coarser way, and their \
                deltas are larger. Applying a delta takes at most 256 MiB, whatever the layer.",
    },
    Key {
        name: "delta.scratch",
        slot: Slot::Size(|s| &mut s.delta.scratch, Size(MIB)..=Size(1024 * GIB)),
        default: Default::Value("\"16GiB\""),
        about: "Disk space that applying one delta may take while it lasts, in the data directory: for the old layers, \
                uncompressed. Layers for which it is not enough are fetched whole.",
    },
    Key {
        name: "delta.jobs",
        slot: Slot::Count(|s| &mut s.delta.jobs, 1..=64),
        default: Default::Value("1"),
        about: "How many deltas are made, and how many applied, at the same time, each on a core of its own.",
    },
    Key {
        name: "delta.maximum_layer",
        slot: Slot::Size(|s| &mut s.delta.maximum_layer, Size(MIB)..=Size(64 * GIB)),
        default: Default::Value("\"4GiB\""),
        about: "The largest layer, as it is stored, that deltas are made from or to.",
    },
];

/// The keys of `[[access.rule]]`.
pub(super) const RULE: &[Key<Rule>] = &[
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

/// The keys of `[[upstream]]`.
pub(super) const UPSTREAM: &[Key<Upstream>] = &[
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
        about: "The file that holds the password, in its first line.",
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
        slot: Slot::Choice(&["auto", "never"], |u, word| {
            u.deltas = if word == "never" { Deltas::Never } else { Deltas::Auto };
        }),
        default: Default::Value("\"auto\""),
        about: "Whether to ask it for deltas: \"auto\" for layers of 256 KiB or more, \"never\" not at all. A registry that \
                makes no deltas says so, and whatever goes wrong with one, the whole layer is fetched instead.",
    },
];

fn validate(settings: &mut Settings, value: Texts<'_>) -> Result<(), String> {
    settings.validate = match value {
        Texts::One("none") => Validate::None,
        Texts::One("all") => Validate::All,
        Texts::One(word) => return Err(format!("\"{word}\" is neither \"all\" nor \"none\"")),
        Texts::Many(texts) => {
            let platforms: Result<Vec<Platform>, _> = texts.iter().map(|text| text.parse()).collect();
            Validate::Platforms(platforms.map_err(|error| error.to_string())?)
        }
    };
    Ok(())
}

/// A host name or IPv4 address with or without a port, in small letters. It is also the beginning of names of
/// repositories, with an underscore for the colon, and has to be possible there.
fn host(text: &str) -> Result<String, String> {
    let component = text.replacen(':', "_", 1);
    if text.contains(['/', '_']) || component.parse::<RepositoryName>().is_err() {
        return Err("not a host name in small letters, with or without a port".to_owned());
    }
    Ok(text.to_owned())
}

/// `http` or `https`, a host, maybe a port, and nothing else.
fn url(text: &str) -> Result<String, String> {
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
