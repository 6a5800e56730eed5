//! A certificate that is trusted by its SHA-256: [`Pin`].
#![forbid(unsafe_code)]

use std::fmt;
use std::str::FromStr;

/// The SHA-256 of a certificate in DER, as `openssl x509 -fingerprint -sha256` prints it.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Pin(pub [u8; 32]);

/// 64 digits, in pairs with `:` between or not, of either case.
impl FromStr for Pin {
    type Err = BadPin;

    fn from_str(text: &str) -> Result<Self, BadPin> {
        let digits: Vec<u8> = text
            .chars()
            .filter(|&octet| octet != ':')
            .map(|digit| digit.to_digit(16).map(|digit| digit as u8))
            .collect::<Option<_>>()
            .ok_or(BadPin)?;
        if digits.len() != 64 {
            return Err(BadPin);
        }
        let mut pin = [0; 32];
        for (octet, pair) in pin.iter_mut().zip(digits.chunks_exact(2)) {
            *octet = pair[0] * 16 + pair[1];
        }
        Ok(Self(pin))
    }
}

/// In lower case, without `:`.
impl fmt::Display for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|octet| write!(f, "{octet:02x}"))
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
