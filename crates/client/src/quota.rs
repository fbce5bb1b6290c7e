//! How much an upstream lets us ask: `ratelimit-limit` and `ratelimit-remaining`, as Docker Hub sends them with every
//! manifest (an old draft of the IETF's RateLimit fields: `100;w=21600`).

use std::time::Duration;

use http::HeaderMap;

/// A share of an upstream's attention, as of its last answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quota {
    /// How many requests that count there may be in one window.
    pub limit: u64,
    /// How long a window is, if the upstream says it.
    pub window: Option<Duration>,
    /// How many of them are left.
    pub remaining: u64,
}

impl Quota {
    /// Reads both fields; `None` unless both are there and make sense.
    pub(crate) fn read(headers: &HeaderMap) -> Option<Self> {
        let field = |name| parse(headers.get(name)?.to_str().ok()?);
        let ((limit, window), (remaining, _)) = (field("ratelimit-limit")?, field("ratelimit-remaining")?);
        Some(Self { limit, window, remaining })
    }
}

/// Reads `100;w=21600`: a count, and the seconds that it is for. Parameters that are not known are skipped.
fn parse(text: &str) -> Option<(u64, Option<Duration>)> {
    let mut parts = text.split(';').map(str::trim);
    let count = parts.next()?.parse().ok()?;
    let window = parts.find_map(|part| part.strip_prefix("w=")?.parse().ok()).map(Duration::from_secs);
    Some((count, window))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_as_docker_hub_sends_them() {
        let read = |limit: &str, remaining: &str| {
            let fields = [("ratelimit-limit", limit), ("ratelimit-remaining", remaining)];
            let headers = fields.iter().filter(|(_, value)| !value.is_empty());
            Quota::read(
                &headers.map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect(),
            )
        };
        let quota = |limit, window: Option<u64>, remaining| {
            Some(Quota { limit, window: window.map(Duration::from_secs), remaining })
        };
        for (limit, remaining, expected) in [
            ("100;w=21600", "76;w=21600", quota(100, Some(21_600), 76)),
            ("100", "0", quota(100, None, 0)),
            ("100; x=1; w=60", "7", quota(100, Some(60), 7)),
            ("100;w=soon", "7", quota(100, None, 7)),
            ("100;w=21600", "", None),
            ("", "5", None),
            ("many", "5", None),
            ("-1", "5", None),
        ] {
            assert_eq!(read(limit, remaining), expected, "{limit} {remaining}");
        }
    }
}
