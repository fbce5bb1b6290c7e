//! `[[repository]]`: repositories that are not as the others.

use deltaport_oci::platform::Pattern;

use crate::settings::key::{Default, Key, Slot, Texts};
use crate::settings::read::read_repositories;
use crate::settings::{Repository, Settings, Validate};

/// What `validate` must be.
pub(super) const VALIDATE: &str =
    "\"all\", \"none\" or a list of platforms such as [\"linux/amd64\", \"linux/arm64\"]";

/// The list of such repositories.
pub(super) const KEYS: &[Key<Settings>] = &[Key {
    name: "repository",
    slot: Slot::Tables(read_repositories),
    default: Default::Value("[]"),
    about: "Repositories that are not as the others. The first of these tables that has a fitting pattern counts.",
}];

/// The keys of `[[repository]]`.
pub(in crate::settings) const REPOSITORY: &[Key<Repository>] = &[
    Key {
        name: "names",
        slot: Slot::Texts("repository names or patterns", |r, text| {
            r.names.push(text.parse().map_err(|error| format!("{error}"))?);
            Ok(())
        }),
        default: Default::Required("[\"team/**\"]"),
        about: "Which repositories it is about, with patterns as in [[access.rule]].",
    },
    Key {
        name: "validate",
        slot: Slot::ChoiceOrTexts(VALIDATE, |r, value| {
            r.validate = validate(value)?;
            Ok(())
        }),
        default: Default::Required("\"all\""),
        about: "As at the top, for these repositories.",
    },
];

/// Reads what must be there when a manifest is pushed.
pub(super) fn validate(value: Texts<'_>) -> Result<Validate, String> {
    match value {
        Texts::One("none") => Ok(Validate::None),
        Texts::One("all") => Ok(Validate::All),
        Texts::One(word) => Err(format!("\"{word}\" is neither \"all\" nor \"none\"")),
        Texts::Many([]) => {
            Err("an empty list demands nothing of an index: write \"all\" or name a platform".to_owned())
        }
        Texts::Many(texts) => {
            let patterns: Result<Vec<Pattern>, _> = texts.iter().map(|text| text.parse()).collect();
            patterns.map(Validate::Platforms).map_err(|error| error.to_string())
        }
    }
}
