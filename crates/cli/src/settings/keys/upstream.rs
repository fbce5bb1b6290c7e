//! `[[upstream]]`: where missing things come from.

use deltaport_oci::RepositoryName;

use crate::settings::key::{Default, Key, Slot};
use crate::settings::read::read_upstreams;
use crate::settings::{Deltas, Settings, Upstream};

/// The list of upstreams.
pub(super) const KEYS: &[Key<Settings>] = &[Key {
    name: "upstream",
    slot: Slot::Tables(read_upstreams),
    default: Default::Value("[]"),
    about: "Another registry that things come from which are not here. Without any, only what was pushed is served.",
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
        slot: Slot::Choice(&["auto", "never"], |u, word| {
            u.deltas = if word == "never" { Deltas::Never } else { Deltas::Auto };
        }),
        default: Default::Value("\"auto\""),
        about: "Whether to ask it for deltas: \"auto\" for layers of 256 KiB or more, \"never\" not at all. A registry that \
                makes no deltas says so, and whatever goes wrong with one, the whole layer is fetched instead.",
    },
];

/// A host name or IPv4 address with or without a port, in small letters. It is also the beginning of names of
/// repositories, with an underscore for the colon, and has to be possible there.
fn host(text: &str) -> Result<String, String> {
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
