//! The formats and versions that this helper goes by, for `--version`: [`long_version`].

use std::sync::LazyLock;

use uidl_keep::key::NORMALISER_VERSION;
use uidl_keep::site::roster;
use uidl_keep::{index, ledger, listing};

/// The release lines of Dovecot that the plugin can be built for. `dovecot-plugin/shim.c` refuses
/// the headers of others.
const DOVECOT_LINES: &str = "2.3 and 2.4";

static LONG_VERSION: LazyLock<String> = LazyLock::new(|| {
    format!(
        "{}\n\
         listing {}, index {}, roster {}, ledger {}: written, and no other version read\n\
         message keys: normaliser {NORMALISER_VERSION}\n\
         plugin: for Dovecot {DOVECOT_LINES}, each build for the plugin ABI of its Dovecot",
        env!("CARGO_PKG_VERSION"),
        listing::VERSION,
        index::VERSION,
        roster::VERSION,
        ledger::VERSION,
    )
});

/// The version of the helper, and beneath it those of all that it reads and writes.
pub fn long_version() -> &'static str {
    &LONG_VERSION
}
