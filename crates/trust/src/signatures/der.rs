//! The little of DER (X.690) that verdicts need beyond what webpki tells: the kind of a key, the time in which a
//! certificate is valid, e-mail addresses and extensions.
//!
//! What is read out of a certificate counts only after its chain was verified. Every function takes any bytes and
//! gives `None` for what is not the structure it looks for.

use std::time::SystemTime;

use super::calendar::{self, Period};

/// The most extensions of a certificate, and names in one extension, that are looked at.
pub(crate) const MAX_ITEMS: usize = 64;

pub(crate) const UTF8_STRING: u8 = 0x0c;
const INTEGER: u8 = 0x02;
const BIT_STRING: u8 = 0x03;
const OCTET_STRING: u8 = 0x04;
const OBJECT_IDENTIFIER: u8 = 0x06;
const BOOLEAN: u8 = 0x01;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
/// `[0]` and `[3]` of a TBSCertificate, explicit.
const VERSION: u8 = 0xa0;
const EXTENSIONS: u8 = 0xa3;
/// `[1]`, `[2]` and `[6]` of a GeneralName, implicit IA5Strings.
pub(crate) const RFC822_NAME: u8 = 0x81;
pub(crate) const DNS_NAME: u8 = 0x82;
pub(crate) const URI_NAME: u8 = 0x86;

/// `id-ce-subjectAltName`, 2.5.29.17.
const SUBJECT_ALT_NAME: &[u8] = &[0x55, 0x1d, 0x11];
/// `id-at-commonName`, 2.5.4.3.
const COMMON_NAME: &[u8] = &[0x55, 0x04, 0x03];

/// Bytes that elements are taken off the front of.
#[derive(Clone, Copy, Debug)]
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    /// The next element, whatever it is: its tag and what is inside.
    fn any(&mut self) -> Option<(u8, &'a [u8])> {
        let (&tag, rest) = self.0.split_first()?;
        // No structure that is read here has tags of several bytes.
        if tag & 0x1f == 0x1f {
            return None;
        }
        let (len, rest) = length(rest)?;
        let inside = rest.get(..len)?;
        self.0 = rest.get(len..)?;
        Some((tag, inside))
    }

    /// The next element, which has to have `tag`.
    fn element(&mut self, tag: u8) -> Option<&'a [u8]> {
        match self.any()? {
            (found, inside) if found == tag => Some(inside),
            _ => None,
        }
    }

    /// The next element if it has `tag`; otherwise nothing is taken.
    fn optional(&mut self, tag: u8) -> Option<Option<&'a [u8]>> {
        if self.0.first() == Some(&tag) { self.element(tag).map(Some) } else { Some(None) }
    }

    fn end(self) -> Option<()> {
        self.0.is_empty().then_some(())
    }
}

/// Reads a length in its shortest form, of at most four bytes.
fn length(bytes: &[u8]) -> Option<(usize, &[u8])> {
    let (&first, rest) = bytes.split_first()?;
    if first < 0x80 {
        return Some((usize::from(first), rest));
    }
    let count = usize::from(first & 0x7f);
    if count == 0 || count > 4 {
        return None;
    }
    let (digits, rest) = rest.split_at_checked(count)?;
    let len = digits.iter().fold(0_usize, |len, digit| (len << 8) | usize::from(*digit));
    let shortest = digits.first() != Some(&0) && len >= 0x80;
    shortest.then_some((len, rest))
}

/// What is inside of the only element of `bytes`.
pub(crate) fn only(bytes: &[u8], tag: u8) -> Option<&[u8]> {
    let mut reader = Reader(bytes);
    let inside = reader.element(tag)?;
    reader.end()?;
    Some(inside)
}

/// What is inside of the AlgorithmIdentifier of a SubjectPublicKeyInfo.
pub(crate) fn spki_algorithm(spki: &[u8]) -> Option<&[u8]> {
    let mut spki = Reader(only(spki, SEQUENCE)?);
    let algorithm = spki.element(SEQUENCE)?;
    spki.element(BIT_STRING)?;
    spki.end()?;
    Some(algorithm)
}

/// What is read of a certificate.
#[derive(Clone, Debug)]
pub(crate) struct Certificate<'a> {
    pub(crate) valid: Period,
    subject: &'a [u8],
    extensions: Vec<(&'a [u8], &'a [u8])>,
}

impl<'a> Certificate<'a> {
    /// Reads the DER of a Certificate (RFC 5280, section 4.1).
    pub(crate) fn read(der: &'a [u8]) -> Option<Self> {
        let mut tbs = Reader(Reader(only(der, SEQUENCE)?).element(SEQUENCE)?);
        tbs.optional(VERSION)?;
        tbs.element(INTEGER)?;
        let _signature = tbs.element(SEQUENCE)?;
        let _issuer = tbs.element(SEQUENCE)?;
        let mut validity = Reader(tbs.element(SEQUENCE)?);
        let (from, until) = (time(validity.any()?)?, time(validity.any()?)?);
        validity.end()?;
        let subject = tbs.element(SEQUENCE)?;
        let _key = tbs.element(SEQUENCE)?;
        let extensions = match tbs.any() {
            None => Vec::new(),
            Some((EXTENSIONS, inside)) => extensions(inside)?,
            // Identifiers of issuer and subject are of version 2 and were given up.
            Some(_) => return None,
        };
        Some(Self { valid: Period { from: Some(from), until: Some(until) }, subject, extensions })
    }

    /// The value of the extension with `oid`, if the certificate has it.
    pub(crate) fn extension(&self, oid: &[u8]) -> Option<&'a [u8]> {
        self.extensions.iter().find(|(found, _)| *found == oid).map(|(_, value)| *value)
    }

    /// The e-mail addresses that the certificate was issued for; `None` when they cannot be read.
    pub(crate) fn emails(&self) -> Option<Vec<&'a str>> {
        self.alternative_names(RFC822_NAME)
    }

    /// The alternative names of one kind; `None` when they cannot be read.
    pub(crate) fn alternative_names(&self, kind: u8) -> Option<Vec<&'a str>> {
        let Some(value) = self.extension(SUBJECT_ALT_NAME) else { return Some(Vec::new()) };
        let mut names = Reader(only(value, SEQUENCE)?);
        let mut found = Vec::new();
        for _ in 0..MAX_ITEMS {
            if names.end().is_some() {
                return Some(found);
            }
            let (tag, name) = names.any()?;
            if tag == kind {
                found.push(std::str::from_utf8(name).ok().filter(|name| name.is_ascii())?);
            }
        }
        names.end().map(|()| found)
    }

    /// The common names in the subject; `None` when they cannot be read.
    pub(crate) fn common_names(&self) -> Option<Vec<&'a str>> {
        let mut parts = Reader(self.subject);
        let mut found = Vec::new();
        for _ in 0..MAX_ITEMS {
            if parts.end().is_some() {
                return Some(found);
            }
            let mut attributes = Reader(parts.element(SET)?);
            let mut attribute = Reader(attributes.element(SEQUENCE)?);
            let kind = attribute.element(OBJECT_IDENTIFIER)?;
            let (_, value) = attribute.any()?;
            if kind == COMMON_NAME {
                found.push(std::str::from_utf8(value).ok()?);
            }
        }
        parts.end().map(|()| found)
    }
}

/// Reads the list of extensions: no more than [`MAX_ITEMS`], none of them twice.
fn extensions(inside: &[u8]) -> Option<Vec<(&[u8], &[u8])>> {
    let mut list = Reader(only(inside, SEQUENCE)?);
    let mut extensions: Vec<(&[u8], &[u8])> = Vec::new();
    while list.end().is_none() {
        let mut extension = Reader(list.element(SEQUENCE)?);
        let oid = extension.element(OBJECT_IDENTIFIER)?;
        extension.optional(BOOLEAN)?;
        let value = extension.element(OCTET_STRING)?;
        extension.end()?;
        if extensions.len() >= MAX_ITEMS || extensions.iter().any(|(earlier, _)| *earlier == oid) {
            return None;
        }
        extensions.push((oid, value));
    }
    Some(extensions)
}

/// Reads a Time (RFC 5280, section 4.1.2.5): in UTC, to the second. Before 1970 there were no certificates.
fn time((tag, text): (u8, &[u8])) -> Option<SystemTime> {
    let digits = text.strip_suffix(b"Z")?;
    if !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let number = |range: std::ops::Range<usize>| {
        digits.get(range).map(|part| part.iter().fold(0_u64, |sum, digit| sum * 10 + u64::from(digit - b'0')))
    };
    let (year, at) = match (tag, digits.len()) {
        (UTC_TIME, 12) => match number(0..2)? {
            year @ 0..50 => (2000 + year, 2),
            year => (1900 + year, 2),
        },
        (GENERALIZED_TIME, 14) => (number(0..4)?, 4),
        _ => return None,
    };
    let part = |index: usize| number(at + 2 * index..at + 2 * index + 2);
    calendar::time([year, part(0)?, part(1)?, part(2)?, part(3)?, part(4)?])
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn times_are_those_of_the_calendar() {
        let seconds = |tag, text: &str| {
            time((tag, text.as_bytes()))
                .map(|time| time.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs())
        };
        assert_eq!(seconds(UTC_TIME, "700101000000Z"), Some(0));
        assert_eq!(seconds(UTC_TIME, "000229120000Z"), Some(951_825_600));
        assert_eq!(seconds(UTC_TIME, "491231235959Z"), Some(2_524_607_999));
        assert_eq!(seconds(GENERALIZED_TIME, "20500101000000Z"), Some(2_524_608_000));
        assert_eq!(seconds(GENERALIZED_TIME, "21000301000000Z"), Some(4_107_542_400));
        for text in
            ["700101000000", "7001010000Z", "701301000000Z", "700101250000Z", "7001010000+1Z", "Z", ""]
        {
            assert_eq!(seconds(UTC_TIME, text), None, "{text}");
        }
    }

    #[test]
    fn lengths_have_one_spelling() {
        assert_eq!(length(&[5]), Some((5, &[][..])));
        assert_eq!(length(&[0x81, 0x80]), Some((128, &[][..])));
        for wrong in [&[0x80][..], &[0x81, 5], &[0x82, 0, 0x80], &[0x85, 1, 1, 1, 1, 1], &[0x82, 1], &[]] {
            assert_eq!(length(wrong), None, "{wrong:?}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), text in "[0-9]{0,16}Z?", tag in 0x17..0x19_u8) {
            let _ = spki_algorithm(&bytes);
            let _ = Certificate::read(&bytes).map(|certificate| {
                (certificate.emails().map(|emails| emails.len()), certificate.common_names().map(|names| names.len()))
            });
            let _ = time((tag, text.as_bytes()));
        }
    }
}
