//! A certificate that is trusted by its SHA-256: [`Pin`].
#![forbid(unsafe_code)]

use std::fmt;
use std::str::FromStr;

use crate::encoding::{Hex, octets_of_hex};

/// The SHA-256 of a certificate in DER, as `openssl x509 -fingerprint -sha256` prints it.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Pin(pub [u8; 32]);

/// 64 digits, in pairs with `:` between or not, of either case.
impl FromStr for Pin {
    type Err = BadPin;

    fn from_str(text: &str) -> Result<Self, BadPin> {
        let digits: Vec<u8> = text.bytes().filter(|&octet| octet != b':').collect();
        octets_of_hex(&digits).map(Self).ok_or(BadPin)
    }
}

/// In lower case, without `:`.
impl fmt::Display for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Hex(&self.0).fmt(f)
    }
}

impl fmt::Debug for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pin({self})")
    }
}

/// Not the SHA-256 of a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a SHA-256: it has 64 hexadecimal digits")]
pub struct BadPin;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pin_is_read_as_openssl_prints_it_and_as_we_do() {
        let pin = Pin(std::array::from_fn(|at| at as u8 * 8));
        let colons: Vec<String> = pin.0.iter().map(|octet| format!("{octet:02X}")).collect();
        assert_eq!(colons.join(":").parse(), Ok(pin));
        assert_eq!(pin.to_string().parse(), Ok(pin));
        for bad in ["", "00", &pin.to_string()[1..], &pin.to_string().replace('8', "g")] {
            assert_eq!(bad.parse::<Pin>(), Err(BadPin), "{bad}");
        }
    }
}
