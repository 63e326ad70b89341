//! Bytes as text that survives URLs, shells and double clicks: base64 with the URL alphabet, unpadded.
//!
//! Deliberately small and strict: one text per value, so that texts can be compared.

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// Where a text stops being one of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NotText {
    /// Byte offset of the first offender, or the length if the text ends too early.
    pub(crate) at: usize,
}

pub(crate) fn to_text(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let mut bits = [0; 4];
        bits[1..=group.len()].copy_from_slice(group);
        let bits = u32::from_be_bytes(bits);
        for nth in 0..=group.len() {
            // The group sits in the low 24 bits, highest six first.
            let six = (bits >> (18 - 6 * nth)) & 0x3f;
            text.push(char::from(ALPHABET[six as usize]));
        }
    }
    text
}

pub(crate) fn from_text(text: &str) -> Result<Vec<u8>, NotText> {
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3 + 2);
    for (nth_group, group) in text.as_bytes().chunks(4).enumerate() {
        let at = nth_group * 4;
        let mut bits = 0_u32;
        for (nth, &symbol) in group.iter().enumerate() {
            let six = value_of(symbol).ok_or(NotText { at: at + nth })?;
            bits |= six << (18 - 6 * nth);
        }
        let [_, decoded @ ..] = bits.to_be_bytes();
        let len = group.len() - 1;
        // One symbol holds no byte; bits beyond the last byte must be zero, or two texts would mean the same.
        if len == 0 || decoded[len..].iter().any(|&byte| byte != 0) {
            return Err(NotText { at: at + group.len() });
        }
        bytes.extend_from_slice(&decoded[..len]);
    }
    Ok(bytes)
}

fn value_of(symbol: u8) -> Option<u32> {
    match symbol {
        b'A'..=b'Z' => Some(u32::from(symbol - b'A')),
        b'a'..=b'z' => Some(u32::from(symbol - b'a') + 26),
        b'0'..=b'9' => Some(u32::from(symbol - b'0') + 52),
        b'-' => Some(62),
        b'_' => Some(63),
        _ => None,
    }
}

/// CRC-32 (IEEE), bit by bit: the texts are short, and one more table would be longer than this.
pub(crate) fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg()))
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn known_values() {
        // RFC 4648, section 10, and the check value of CRC-32.
        for (bytes, text) in [("", ""), ("f", "Zg"), ("fo", "Zm8"), ("foo", "Zm9v"), ("foob", "Zm9vYg")] {
            assert_eq!(to_text(bytes.as_bytes()), text);
        }
        assert_eq!(to_text(&[0xfb, 0xff]), "-_8");
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
    }

    #[test]
    fn strict() {
        assert_eq!(from_text("Zm9 "), Err(NotText { at: 3 }));
        assert_eq!(from_text("Zm8="), Err(NotText { at: 3 }));
        assert_eq!(from_text("Zm9vY"), Err(NotText { at: 5 }), "a lone symbol");
        assert_eq!(from_text("Zh"), Err(NotText { at: 2 }), "bits beyond the last byte");
        assert_eq!(from_text("Zm9+"), Err(NotText { at: 3 }), "the other alphabet");
        assert_eq!(from_text("Zé"), Err(NotText { at: 1 }));
    }

    proptest! {
        #[test]
        fn round_trips(bytes: Vec<u8>) {
            prop_assert_eq!(from_text(&to_text(&bytes)), Ok(bytes));
        }
    }
}
