//! What a rehearsal left, told from what clients were told: [`is_rehearsal`].
#![forbid(unsafe_code)]

use super::mark::Mark;
use super::whole::Ledger;

/// Says whether a rehearsal made all of it, and no client has listed the maildrop since.
///
/// A mark without the stamp of a rehearsal was written when a client listed. Then the ledger that
/// has one could not be written at that time, or was put back from a backup.
pub fn is_rehearsal(ledger: Option<&Ledger>, mark: Option<&Mark>) -> bool {
    let of_ledger = ledger.map(|ledger| ledger.rehearsal != 0);
    let of_mark = mark.map(|mark| mark.rehearsal != 0);
    matches!((of_ledger, of_mark), (Some(true), None | Some(true)) | (None, Some(true)))
}
