//! `[tls]`: the certificate.

use crate::settings::Settings;
use crate::settings::key::{Default, Key, Slot};

/// The keys of `[tls]`.
pub(super) const KEYS: &[Key<Settings>] = &[
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
        name: "tls.client_ca",
        slot: Slot::Path(|s| &mut s.tls.client_ca),
        default: Default::Unset {
            example: "\"/etc/deltaport/sites-ca.pem\"",
            means: "clients are not asked for a certificate",
        },
        about: "PEM file with the authorities whose certificates clients may show to say who they are; \
                [[access.certificate]] says whose is whose. It is read again when it changes, without a restart.",
    },
];
