//! Numbers and octets as text: decimal digits, hexadecimal digits, percent-encoding.
//!
//! Listing, roster and captures read and write these in the same way.
#![forbid(unsafe_code)]

use std::borrow::Cow;
use std::fmt;

const HEX_DIGITS: &[u8; 16] = b"0123456789abcdef";

/// The number that `digits` spell. `None` when there are no digits, when anything else is among
/// them (a sign, a blank), or when the number does not fit.
pub fn decimal(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0_u64, |number, octet| {
        let digit = octet.is_ascii_digit().then(|| u64::from(octet - b'0'))?;
        number.checked_mul(10)?.checked_add(digit)
    })
}

/// Octets, shown as hexadecimal digits in lower case.
#[derive(Debug, Clone, Copy)]
pub struct Hex<'a>(pub &'a [u8]);

impl fmt::Display for Hex<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|octet| write!(f, "{octet:02x}"))
    }
}

/// Writes two hexadecimal digits for each octet, in lower case.
pub fn push_hex(out: &mut Vec<u8>, octets: &[u8]) {
    for octet in octets {
        out.push(HEX_DIGITS[usize::from(octet >> 4)]);
        out.push(HEX_DIGITS[usize::from(octet & 15)]);
    }
}

/// Reads `N` octets from `2 * N` hexadecimal digits of either case; `None` for anything else.
pub fn octets_of_hex<const N: usize>(hex: &[u8]) -> Option<[u8; N]> {
    if hex.len() != 2 * N {
        return None;
    }
    let (mut octets, mut all) = ([0; N], 0);
    for (octet, pair) in octets.iter_mut().zip(hex.chunks_exact(2)) {
        let [high, low] = [pair[0], pair[1]].map(|digit| VALUE_OF_HEX[usize::from(digit)]);
        *octet = high << 4 | low;
        all |= high | low;
    }
    (all != NO_HEX).then_some(octets)
}

fn octet_of_hex(high: u8, low: u8) -> Option<u8> {
    octets_of_hex(&[high, low]).map(|[octet]: [u8; 1]| octet)
}

/// The value of each octet that is a hexadecimal digit, of either case.
const VALUE_OF_HEX: [u8; 256] = {
    let mut values = [NO_HEX; 256];
    let mut value = 0;
    while value < HEX_DIGITS.len() {
        let digit = HEX_DIGITS[value];
        values[digit as usize] = value as u8;
        values[digit.to_ascii_uppercase() as usize] = value as u8;
        value += 1;
    }
    values
};

/// The value of any other octet. It stays what it is beside any number of digits, by `|`.
const NO_HEX: u8 = u8::MAX;

/// Writes `octets` as one word. Every octet outside 0x21-0x7E, and `%`, becomes `%` and two
/// hexadecimal digits.
pub fn push_percent_encoded(out: &mut Vec<u8>, octets: &[u8]) {
    if are_plain(octets) {
        out.extend_from_slice(octets);
        return;
    }
    for &octet in octets {
        if octet.is_ascii_graphic() && octet != b'%' {
            out.push(octet);
        } else {
            out.push(b'%');
            push_hex(out, &[octet]);
        }
    }
}

/// As [`percent_decoded`]. Octets of which none is encoded are not copied.
pub fn percent_decoded_ref(encoded: &[u8]) -> Option<Cow<'_, [u8]>> {
    if are_plain(encoded) {
        return Some(Cow::Borrowed(encoded));
    }
    percent_decoded(encoded).map(Cow::Owned)
}

/// Whether octets are their own percent-encoded form. All are looked at, many in a step.
fn are_plain(octets: &[u8]) -> bool {
    let is_plain = |octet: &u8| octet.is_ascii_graphic() & (*octet != b'%');
    octets.iter().fold(true, |all, octet| all & is_plain(octet))
}

/// Reads octets from their percent-encoded form. `None` when an octet outside 0x21-0x7E is not
/// encoded, or when no two hexadecimal digits follow a `%`.
pub fn percent_decoded(encoded: &[u8]) -> Option<Vec<u8>> {
    let mut octets = Vec::with_capacity(encoded.len());
    let mut rest = encoded.iter();
    while let Some(&octet) = rest.next() {
        octets.push(match octet {
            b'%' => octet_of_hex(*rest.next()?, *rest.next()?)?,
            0x21..=0x7E => octet,
            _ => return None,
        });
    }
    Some(octets)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_number_is_digits_only_and_fits() {
        for (digits, number) in [("0", 0), ("007", 7), ("18446744073709551615", u64::MAX)] {
            assert_eq!(decimal(digits.as_bytes()), Some(number));
        }
        for bad in ["", "+1", "-1", " 1", "1 ", "1a", "0x1", "18446744073709551616"] {
            assert_eq!(decimal(bad.as_bytes()), None, "{bad:?}");
        }
    }

    #[test]
    fn an_octet_that_is_not_encoded_right_is_no_text() {
        assert_eq!(percent_decoded(b"a%20b%25%ff%FF"), Some(b"a b%\xff\xff".to_vec()));
        for bad in ["%", "%2", "%+1", "%g0", "a b", "\t", "\x7f"] {
            assert_eq!(percent_decoded(bad.as_bytes()), None, "{bad:?}");
        }
        assert_eq!(octets_of_hex(b"00fF"), Some([0, 255]));
        assert_eq!(octets_of_hex::<2>(b"00f"), None);
        assert_eq!(octets_of_hex::<2>(b"00f+"), None);
        assert_eq!(Hex(&[0, 0x1f, 0xff]).to_string(), "001fff");
    }

    proptest! {
        #[test]
        fn octets_are_read_as_they_are_written(octets: Vec<u8>, number: u64) {
            let mut word = Vec::new();
            push_percent_encoded(&mut word, &octets);
            prop_assert!(word.iter().all(u8::is_ascii_graphic));
            let lent = percent_decoded_ref(&octets).map(Cow::into_owned);
            prop_assert_eq!(lent, percent_decoded(&octets));
            let lent = percent_decoded_ref(&word).map(Cow::into_owned);
            prop_assert_eq!(lent.as_ref(), Some(&octets));
            prop_assert_eq!(percent_decoded(&word), Some(octets));
            prop_assert_eq!(decimal(number.to_string().as_bytes()), Some(number));
            let mut hex = Vec::new();
            push_hex(&mut hex, &number.to_be_bytes());
            prop_assert_eq!(hex.clone(), Hex(&number.to_be_bytes()).to_string().into_bytes());
            prop_assert_eq!(octets_of_hex(&hex), Some(number.to_be_bytes()));
        }
    }
}
