//! What Cyrus's `uidl_format` means.

use uidl_keep::format::UidlFormat;

/// The values of `uidl_format` in imapd.conf.
#[derive(Clone, Copy, clap::ValueEnum)]
pub enum UidlFormatArg {
    /// UIDVALIDITY.UID
    Cyrus,
    /// UID
    Uidonly,
    /// UID and UIDVALIDITY in 8 hexadecimal digits each
    Dovecot,
    /// UIDVALIDITY-UID
    Courier,
}

impl UidlFormatArg {
    /// The same in Dovecot's spelling.
    pub fn spelled(self) -> UidlFormat {
        let spelling = match self {
            Self::Cyrus => "%v.%u",
            Self::Uidonly => "%u",
            Self::Dovecot => "%08Xu%08Xv",
            Self::Courier => "%v-%u",
        };
        UidlFormat::parse(spelling).expect("spelled here")
    }
}
