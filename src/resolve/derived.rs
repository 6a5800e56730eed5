//! UIDLs of our own making, for messages whose native UIDL is spent.
#![forbid(unsafe_code)]

use super::message::Message;
use crate::uidl::Uidl;

/// The first and the last octet of every UIDL of ours. No server uses the form `~` 32 hex digits
/// `~`.
const DERIVED_MARK: u8 = b'~';
const DERIVED_OCTETS: usize = 34;

/// The `nth` derived UIDL of a message. It is the same as long as the message is.
pub(super) fn derived(user: &str, uidvalidity: u32, message: &Message, nth: u32) -> Uidl {
    let mut hasher = blake3::Hasher::new_derive_key("uidl-keep 2026-11 derived UIDL");
    hasher.update(&(user.len() as u64).to_le_bytes()).update(user.as_bytes());
    hasher.update(&uidvalidity.to_le_bytes()).update(&message.uid.to_le_bytes());
    if let Some(name) = message.all_names().last() {
        hasher.update(&name.cut);
    }
    if nth > 0 {
        hasher.update(&nth.to_le_bytes());
    }
    let hex = hasher.finalize().to_hex();
    Uidl::new(format!("~{}~", &hex[..32]).into_bytes()).expect("printable and short")
}

pub(super) fn is_derived(uidl: &Uidl) -> bool {
    let octets = uidl.as_bytes();
    let is_digit = |octet: &u8| matches!(octet, b'0'..=b'9' | b'a'..=b'f');
    octets.len() == DERIVED_OCTETS
        && octets[0] == DERIVED_MARK
        && octets[DERIVED_OCTETS - 1] == DERIVED_MARK
        && octets[1..DERIVED_OCTETS - 1].iter().all(is_digit)
}
