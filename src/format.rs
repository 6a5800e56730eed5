//! Forms of UIDL that are made from UID and UIDVALIDITY, or from a file name: [`UidlFormat`].
#![forbid(unsafe_code)]

use std::fmt;

/// Dovecot's `pop3_uidl_format`, in the 2.3 (`%08Xu%08Xv`) or the 2.4 spelling
/// (`%{uid | hex(8)}%{uidvalidity | hex(8)}`); printed in the 2.3 spelling.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UidlFormat(String);

impl fmt::Display for UidlFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
