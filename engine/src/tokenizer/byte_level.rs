//! GPT-2's alphabet: every byte written as one printable character, so that a vocabulary of byte
//! strings fits into text files.

/// Returns the character that stands for `byte`: itself where it is printable and no blank,
/// else the next free one from U+0100 on (GPT-2, `bytes_to_unicode`).
pub(super) fn byte_to_char(byte: u8) -> char {
    let shift = match byte {
        b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff => return char::from(byte),
        0x00..=0x20 => 0x100,
        0x7f..=0xa0 => 0x100 + 0x21 - 0x7f,
        0xad => 0x100 + 0x21 + 0x22 - 0xad,
    };
    char::from_u32(u32::from(byte) + shift).expect("at most U+0143")
}

/// Returns the byte that `c` stands for.
pub(super) fn char_to_byte(c: char) -> Option<u8> {
    let code = u32::from(c);
    match code {
        0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff => u8::try_from(code).ok(),
        0x100..=0x120 => u8::try_from(code - 0x100).ok(),
        0x121..=0x142 => u8::try_from(code - 0x121 + 0x7f).ok(),
        0x143 => Some(0xad),
        _ => None,
    }
}

/// Returns the bytes that a token's text stands for; a text outside the alphabet stands for its
/// own UTF-8.
pub(super) fn token_bytes(token: &str) -> Box<[u8]> {
    token
        .chars()
        .map(char_to_byte)
        .collect::<Option<_>>()
        .unwrap_or_else(|| token.as_bytes().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_has_its_own_character() {
        for byte in 0..=u8::MAX {
            assert_eq!(char_to_byte(byte_to_char(byte)), Some(byte), "{byte:#04x}");
        }
        assert_eq!(byte_to_char(b' '), 'Ġ');
        assert_eq!(byte_to_char(b'\n'), 'Ċ');
        assert_eq!(byte_to_char(0xad), 'Ń');
        assert_eq!(char_to_byte('\u{144}'), None);
        assert_eq!(char_to_byte(' '), None);
    }
}
