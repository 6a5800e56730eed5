//! Takes fields off the front of octets and checks each one: [`Cursor`].

/// The rest of some octets. Every `take` returns `None` when the octets end too early, or hold a
/// number in a form that FORMAT.md does not allow.
pub(super) struct Cursor<'a>(pub(super) &'a [u8]);

impl<'a> Cursor<'a> {
    pub(super) fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(taken)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*taken)
    }

    pub(super) fn u8(&mut self) -> Option<u8> {
        self.array().map(|[octet]| octet)
    }

    /// An unsigned LEB128 number: seven bits in each octet, the lowest first, with the high bit set
    /// on all but the last. Only its shortest form is accepted.
    pub(super) fn varint(&mut self) -> Option<u64> {
        let mut number = 0_u64;
        for shift in (0..u64::BITS).step_by(7) {
            let octet = self.u8()?;
            let bits = u64::from(octet & 0x7F);
            if bits << shift >> shift != bits {
                return None;
            }
            number |= bits << shift;
            if octet & 0x80 == 0 {
                return (octet != 0 || shift == 0).then_some(number);
            }
        }
        None
    }
}

/// Appends a number in the form that [`Cursor::varint`] reads.
pub(super) fn put_varint(octets: &mut Vec<u8>, number: u64) {
    for shift in (0..u64::BITS).step_by(7) {
        let rest = number >> shift;
        if rest < 0x80 {
            octets.push(rest as u8);
            return;
        }
        octets.push(rest as u8 | 0x80);
    }
}

/// The number at an offset, little-endian; `None` when the octets end too early.
pub(super) fn u16_at(octets: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_le_bytes(*octets.get(at..)?.first_chunk()?))
}

/// As [`u16_at`].
pub(super) fn u32_at(octets: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*octets.get(at..)?.first_chunk()?))
}

/// As [`u16_at`].
pub(super) fn u64_at(octets: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(*octets.get(at..)?.first_chunk()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_has_one_form() {
        for number in [0, 1, 127, 128, 16_383, 16_384, u64::from(u32::MAX), u64::MAX] {
            let mut octets = Vec::new();
            put_varint(&mut octets, number);
            let mut cursor = Cursor(&octets);
            assert_eq!(cursor.varint(), Some(number));
            assert!(cursor.0.is_empty());
            for len in 0..octets.len() {
                assert_eq!(Cursor(&octets[..len]).varint(), None);
            }
        }
        for longer in [&[0x80, 0][..], &[0xFF, 0x80, 0], &[0x81, 0]] {
            assert_eq!(Cursor(longer).varint(), None, "{longer:?}");
        }
        let past_64_bits = [0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 2];
        assert_eq!(Cursor(&past_64_bits).varint(), None);
        assert_eq!(Cursor(&[0xFF; 12]).varint(), None);
    }
}
