//! Base64 as it is found in policies, annotations and bundles: with line ends in it when `base64` or `openssl` made it
//! (Go's reader, which all the other tools use, skips them), of either alphabet and with or without padding in the JSON
//! of protobuf. What bytes come out is what counts, and that is verified, so that several spellings do no harm.

use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// The bytes that a text stands for, if it is base64.
pub(crate) fn base64(text: &str) -> Option<Vec<u8>> {
    let plain: Vec<u8> = text
        .bytes()
        .filter(|byte| !matches!(byte, b'\r' | b'\n'))
        .map(|byte| match byte {
            b'-' => b'+',
            b'_' => b'/',
            other => other,
        })
        .collect();
    LENIENT.decode(plain).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spellings_of_the_same_bytes() {
        for text in ["+/8=", "-_8=", "+/8", "+/\n8=\r\n"] {
            assert_eq!(base64(text).as_deref(), Some(&[0xfb, 0xff][..]), "{text:?}");
        }
        for text in ["+/9=", "+/8= ", "+", "+/8=+/8=", "\u{e9}"] {
            assert_eq!(base64(text), None, "{text:?}");
        }
    }
}
