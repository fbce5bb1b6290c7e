//! The keys above all tables.

use deltaport_registry::mirror::zone;
use deltaport_server::Network;

use super::repository::{VALIDATE, validate};
use super::{HOUR, seconds};
use crate::settings::Settings;
use crate::settings::key::{Default, Key, Slot};

/// The keys of the file itself.
pub(super) const KEYS: &[Key<Settings>] = &[
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
        name: "trusted_proxies",
        slot: Slot::Texts("networks such as \"10.0.0.0/8\"", |s, text| {
            let network: Network = text.parse().map_err(|error| format!("{error}"))?;
            if network.is_everything() {
                return Err("everybody is in it, and could then pass for anybody".to_owned());
            }
            s.trusted_proxies.push(network);
            Ok(())
        }),
        default: Default::Unset {
            example: "[\"10.1.2.3\", \"10.1.3.0/24\"]",
            means: "the other end of a connection is the client, whatever it says",
        },
        about: "The proxies and balancers in front that are believed whom they speak for: the client is then the last address of \
                X-Forwarded-For that is not in one of these networks. It is what storage.s3.redirect goes by, what wrong passwords \
                are counted against, and what stands in the logs. Name no network that clients are on: they could pass for others. \
                The proxy must add to X-Forwarded-For, or set it; Forwarded (RFC 7239) is not read.",
    },
    Key {
        name: "shutdown_grace",
        slot: Slot::Span(|s| &mut s.shutdown_grace, seconds(0)..=seconds(HOUR)),
        default: Default::Value("\"30s\""),
        about: "How long requests may take to end after SIGTERM or SIGINT. What is still running then is cut off; nothing \
                that was acknowledged is lost, and uploads can be resumed.",
    },
    Key {
        name: "public_upstreams",
        slot: Slot::OptionalFlag(|s| &mut s.public_upstreams),
        default: Default::Unset {
            example: "true",
            means: "true as long as there is no [[upstream]], false otherwise",
        },
        about: "Whether what is pulled from well-known public registries comes through here: docker.io, gcr.io, ghcr.io, \
                mcr.microsoft.com, public.ecr.aws, quay.io, registry.access.redhat.com and registry.k8s.io, as \
                127.0.0.1:5000/docker.io/library/debian. None is asked before somebody pulls from it. An [[upstream]] \
                of the same host counts in its place.",
    },
    Key {
        name: "timezone",
        slot: Slot::Text("a time zone such as \"Europe/Berlin\"", |s, text| {
            s.timezone = text.to_owned();
            zone(text).map(drop)
        }),
        default: Default::Value("\"system\""),
        about: "Where the clock hangs that `schedule` and `windows` of [[mirror]] go by: a name of the system's database of \
                time zones, \"UTC\", or \"system\", what this machine is set to, which is UTC in most containers.",
    },
    Key {
        name: "validate",
        slot: Slot::ChoiceOrTexts(VALIDATE, |s, value| {
            s.validate = validate(value)?;
            Ok(())
        }),
        default: Default::Value("\"none\""),
        about: "Which of the things that a pushed manifest refers to must be in the repository already: \"none\" accepts \
                sparse indexes and images, \"all\" refuses whatever is not complete, and a list of platforms demands \
                complete images but of an index only its children for these platforms, as far as it has any, and those \
                for no platform. Platforms are written as in upstream.platforms. [[repository]] can say otherwise.",
    },
];
