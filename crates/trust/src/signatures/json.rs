//! JSON, read as policies and signatures have to be: no key twice, no key that nobody knows, nothing behind the end,
//! and not more of it than a limit allows.
//!
//! Two readers that disagree on which of two equal keys counts can be told different things by one signed text, so
//! that a text with two is refused wherever it is read here.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};

/// How deep objects and arrays may nest.
pub const MAX_DEPTH: usize = 32;
/// How many values one text may have, counting those inside others.
pub const MAX_VALUES: usize = 65_536;

/// Why a text was not read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum JsonError {
    /// It is longer than what is read of its kind.
    #[error("it has {len} bytes; at most {limit} are read")]
    TooLong {
        /// How many bytes it has.
        len: usize,
        /// How many are read.
        limit: usize,
    },
    /// It nests deeper than [`MAX_DEPTH`] or has more values than [`MAX_VALUES`].
    #[error("it nests deeper than {MAX_DEPTH} levels or has more than {MAX_VALUES} values")]
    TooMuch,
    /// It is not JSON, or ends too early.
    #[error("not JSON: {0}")]
    Syntax(String),
    /// An object has a key twice.
    #[error("the key {0:?} is there twice")]
    Twice(String),
    /// An object lacks a key.
    #[error("the key {0:?} is missing")]
    Missing(&'static str),
    /// An object has a key that means nothing here.
    #[error("the key {0:?} is not known")]
    Unknown(String),
    /// A value is not what it has to be.
    #[error("{key} is not {wanted}")]
    Kind {
        /// The key that the value stands behind.
        key: String,
        /// What it has to be.
        wanted: &'static str,
    },
}

/// A value of a text.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Value {
    Null,
    Bool(bool),
    Integer(i64),
    /// Any other number: nothing that is read here has one that counts.
    Fraction,
    String(String),
    Array(Vec<Self>),
    Object(BTreeMap<String, Self>),
}

/// Reads a text of at most `limit` bytes.
pub(crate) fn read(text: &[u8], limit: usize) -> Result<Value, JsonError> {
    if text.len() > limit {
        return Err(JsonError::TooLong { len: text.len(), limit });
    }
    let state = State { left: Cell::new(MAX_VALUES), fault: RefCell::new(None) };
    let mut deserializer = serde_json::Deserializer::from_slice(text);
    let value = Seed { depth: 0, state: &state }
        .deserialize(&mut deserializer)
        .and_then(|value| deserializer.end().map(|()| value));
    match (value, state.fault.into_inner()) {
        (Ok(value), None) => Ok(value),
        (_, Some(fault)) => Err(fault),
        (Err(error), None) => Err(JsonError::Syntax(error.to_string())),
    }
}

impl Value {
    /// The object that this is; `key` says where it stands, for the message.
    pub(crate) fn object(self, key: &str) -> Result<Fields, JsonError> {
        match self {
            Self::Object(values) => Ok(Fields(values)),
            _ => Err(kind(key, "an object")),
        }
    }

    /// The array that this is.
    pub(crate) fn array(self, key: &str) -> Result<Vec<Self>, JsonError> {
        match self {
            Self::Array(values) => Ok(values),
            _ => Err(kind(key, "an array")),
        }
    }

    /// The text that this is.
    pub(crate) fn string(self, key: &str) -> Result<String, JsonError> {
        match self {
            Self::String(text) => Ok(text),
            _ => Err(kind(key, "a string")),
        }
    }

    /// The integer that this is: as a number, or in a string, as protobuf's JSON writes 64 bits.
    pub(crate) fn integer(self, key: &str) -> Result<i64, JsonError> {
        let wrong = || kind(key, "an integer");
        match self {
            Self::Integer(number) => Ok(number),
            Self::String(text) => text.parse().map_err(|_| wrong()),
            _ => Err(wrong()),
        }
    }
}

/// An object whose keys are taken out one by one, so that what is left over is known to be unknown.
#[derive(Debug)]
pub(crate) struct Fields(BTreeMap<String, Value>);

impl Fields {
    /// Takes what stands behind `key`, if it is there.
    pub(crate) fn take(&mut self, key: &str) -> Option<Value> {
        self.0.remove(key)
    }

    /// Takes what stands behind `key`, which has to be there.
    pub(crate) fn need(&mut self, key: &'static str) -> Result<Value, JsonError> {
        self.take(key).ok_or(JsonError::Missing(key))
    }

    /// Takes a text that has to be there.
    pub(crate) fn string(&mut self, key: &'static str) -> Result<String, JsonError> {
        self.need(key)?.string(key)
    }

    /// Takes an object that has to be there.
    pub(crate) fn object(&mut self, key: &'static str) -> Result<Self, JsonError> {
        self.need(key)?.object(key)
    }

    /// Takes a text that need not be there.
    pub(crate) fn optional_string(&mut self, key: &str) -> Result<Option<String>, JsonError> {
        self.take(key).map(|value| value.string(key)).transpose()
    }

    /// Fails when something was not taken.
    pub(crate) fn end(self) -> Result<(), JsonError> {
        match self.0.into_keys().next() {
            None => Ok(()),
            Some(key) => Err(JsonError::Unknown(key)),
        }
    }

    /// What was not taken.
    pub(crate) fn rest(self) -> BTreeMap<String, Value> {
        self.0
    }
}

fn kind(key: &str, wanted: &'static str) -> JsonError {
    JsonError::Kind { key: key.to_owned(), wanted }
}

/// What is counted and found while a text is read. serde's errors are texts; ours is put aside here.
struct State {
    left: Cell<usize>,
    fault: RefCell<Option<JsonError>>,
}

impl State {
    fn fail<E: serde::de::Error>(&self, fault: JsonError) -> E {
        let error = E::custom(&fault);
        self.fault.replace(Some(fault));
        error
    }
}

#[derive(Clone, Copy)]
struct Seed<'a> {
    depth: usize,
    state: &'a State,
}

impl Seed<'_> {
    fn deeper(self) -> Self {
        Self { depth: self.depth + 1, ..self }
    }
}

impl<'de> DeserializeSeed<'de> for Seed<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        let left = self.state.left.get().checked_sub(1);
        match left {
            Some(left) if self.depth <= MAX_DEPTH => self.state.left.set(left),
            _ => return Err(self.state.fail(JsonError::TooMuch)),
        }
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Seed<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Integer(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(i64::try_from(value).map_or(Value::Fraction, Value::Integer))
    }

    fn visit_f64<E>(self, _: f64) -> Result<Value, E> {
        Ok(Value::Fraction)
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut values = Vec::new();
        while let Some(value) = access.next_element_seed(self.deeper())? {
            values.push(value);
        }
        Ok(Value::Array(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut values = BTreeMap::new();
        while let Some(key) = access.next_key::<String>()? {
            if values.contains_key(&key) {
                return Err(self.state.fail(JsonError::Twice(key)));
            }
            let value = access.next_value_seed(self.deeper())?;
            values.insert(key, value);
        }
        Ok(Value::Object(values))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_read_whole_or_refused() {
        let syntax = |text: &str| matches!(read(text.as_bytes(), 100), Err(JsonError::Syntax(_)));
        for text in ["", "{", "[1", "{} {}", "{\"a\":}", "\u{feff}{}", "nul"] {
            assert!(syntax(text), "{text}");
        }
        assert_eq!(read(b"[1,2]", 4), Err(JsonError::TooLong { len: 5, limit: 4 }));
        assert_eq!(read(br#"{"a":1,"b":{"c":1,"c":1}}"#, 100), Err(JsonError::Twice("c".into())));
        // The same key in another spelling is the same key.
        assert_eq!(read(br#"{"a":1,"\u0061":2}"#, 100), Err(JsonError::Twice("a".into())));
        let deep = "[".repeat(40) + &"]".repeat(40);
        assert_eq!(read(deep.as_bytes(), 100), Err(JsonError::TooMuch));
        let many = format!("[{}1]", "1,".repeat(MAX_VALUES));
        assert_eq!(read(many.as_bytes(), 1 << 20), Err(JsonError::TooMuch));
    }

    #[test]
    fn what_was_not_taken_is_unknown() {
        let mut fields = read(br#"{"a":"x","b":7}"#, 100).and_then(|value| value.object("it")).unwrap();
        assert_eq!(fields.string("a"), Ok("x".into()));
        assert_eq!(fields.string("a"), Err(JsonError::Missing("a")));
        assert_eq!(fields.end(), Err(JsonError::Unknown("b".into())));
    }

    #[test]
    fn an_integer_may_be_in_a_string() {
        assert_eq!(Value::String("-7".into()).integer("n"), Ok(-7));
        assert_eq!(read(b"18446744073709551615", 100), Ok(Value::Fraction));
        assert!(Value::Fraction.integer("n").is_err());
    }
}
