//! The rules for a block, beyond the shape of its lines: the reader demands them, and the writer
//! keeps them.
#![forbid(unsafe_code)]

use crate::listing::error::{Excerpt, ListingFault};
use crate::listing::form::last_capture;
use crate::maildrop::{Counter, EntryRef, Maildrop, NameRef, State};

/// Checks what the reader demands of a block beyond the shape of its lines.
pub(super) fn check(maildrop: &Maildrop) -> Result<(), ListingFault> {
    if maildrop.user.is_empty() {
        return Err(ListingFault::NoValue { field: "maildrop" });
    }
    check_counter(maildrop)?;
    if maildrop.state == State::Empty && !maildrop.entries.is_empty() {
        return Err(ListingFault::NotEmpty);
    }
    if maildrop.state == State::Failed && maildrop.remarks.is_empty() {
        return Err(ListingFault::NoRemark);
    }
    if maildrop.remarks.iter().any(String::is_empty) {
        return Err(ListingFault::NoValue { field: "remark" });
    }
    let last = last_capture(maildrop);
    (1..).zip(&maildrop.entries).try_for_each(|(number, entry)| {
        check_entry(number, &entry.into())?;
        for (field, found, most) in
            [("last", entry.last_capture, last), ("first", entry.first_capture, entry.last_capture)]
        {
            if found > most {
                let found = Excerpt::of((u64::from(found) + 1).to_string().as_bytes());
                return Err(ListingFault::OfCapture { field, found, captures: last + 1 });
            }
        }
        Ok(())
    })
}

pub(super) fn check_counter(maildrop: &Maildrop) -> Result<(), ListingFault> {
    match &maildrop.counter {
        Some(Counter { format, .. }) if !format.is_counting() => {
            Err(ListingFault::NotCounting { format: format.clone() })
        }
        Some(Counter { format, .. })
            if format.has_uidvalidity() && maildrop.uidvalidity.is_none() =>
        {
            Err(ListingFault::NoUidvalidity { format: format.clone() })
        }
        _ => Ok(()),
    }
}

pub(super) fn check_entry(number: u64, entry: &EntryRef<'_>) -> Result<(), ListingFault> {
    for (field, name) in [("file", &entry.file), ("guid", &entry.guid)] {
        if matches!(name, Some(NameRef::Spelled(name)) if name.is_empty()) {
            return Err(ListingFault::NoValue { field });
        }
    }
    if !entry.has_key() {
        return Err(ListingFault::NoKey { number, uidl: entry.uidl.to_uidl() });
    }
    Ok(())
}
