//! Query strings, read once into pairs.

use std::borrow::Cow;

/// The decoded pairs of a query string, in order.
#[derive(Clone, Debug, Default)]
pub struct Query<'a>(Vec<(Cow<'a, str>, Cow<'a, str>)>);

impl<'a> Query<'a> {
    /// Reads a query string without its question mark. Everything parses; what is not UTF-8 is replaced.
    pub fn parse(text: &'a str) -> Self {
        Self(form_urlencoded::parse(text.as_bytes()).collect())
    }

    /// The first value of `key`.
    pub fn first(&self, key: &str) -> Option<&str> {
        self.all(key).next()
    }

    /// Every value of `key`, in order.
    pub fn all(&self, key: &str) -> impl Iterator<Item = &str> {
        self.0.iter().filter(move |(name, _)| name == key).map(|(_, value)| value.as_ref())
    }

    /// Renders pairs as a query string, for the asking end.
    pub fn render<'p>(pairs: impl IntoIterator<Item = (&'p str, &'p str)>) -> String {
        form_urlencoded::Serializer::new(String::new()).extend_pairs(pairs).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_survive_both_ways() {
        let pairs = [("digest", "sha256:ab"), ("tag", "a"), ("tag", "b c&d")];
        let text = Query::render(pairs);
        let query = Query::parse(&text);
        assert_eq!(query.first("digest"), Some("sha256:ab"));
        assert_eq!(query.all("tag").collect::<Vec<_>>(), ["a", "b c&d"]);
        assert_eq!(query.first("none"), None);
    }
}
