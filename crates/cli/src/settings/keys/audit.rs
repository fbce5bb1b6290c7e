//! `[audit]`: who changed what, and who was refused.

use crate::settings::Settings;
use crate::settings::key::{Default, Key, Slot};

/// The keys of `[audit]`.
pub(super) const KEYS: &[Key<Settings>] = &[Key {
    name: "audit.file",
    slot: Slot::Path(|s| &mut s.audit.file),
    default: Default::Unset { example: "\"/var/log/deltaport/audit.jsonl\"", means: "there is no audit log" },
    about: "The file at whose end pushes, deletes, denials, refusals and failed log-ins are written, as one JSON object a \
            line. Rename it and send SIGHUP to have a new one begun.",
}];
