//! The listing: reader, scan and outline agree, and a listing that was read is written so that it
//! reads the same.

use std::io::{BufRead, BufReader, Cursor};

use uidl_keep::listing::{Block, ListingError, Reader, outline, scan, write_maildrop};
use uidl_keep::maildrop::{Entry, Maildrop};

use super::{check_message, check_uidl};

/// The input as a whole listing.
pub fn check(octets: &[u8]) {
    let (maildrops, end) = read(octets);
    assert_eq!(read(BufReader::with_capacity(7, octets)), (maildrops.clone(), end.clone()));

    let mut blocks: Vec<Block> = Vec::new();
    let mut scan_end = None;
    for block in scan(octets) {
        match block {
            Ok(block) => blocks.push(block),
            Err(error) => scan_end = Some(said(&error)),
        }
    }
    assert_eq!(scan_end, end);
    assert_eq!(blocks.len(), maildrops.len());
    // An outline is not as strict, and finds the same where all is right.
    let outlined = outline(BufReader::with_capacity(7, octets)).take(blocks.len());
    assert_eq!(outlined.collect::<Result<Vec<_>, _>>().expect("what a scan finds"), blocks);
    for (block, maildrop) in blocks.iter().zip(&maildrops) {
        assert_eq!((&block.user, block.entries), (&maildrop.user, maildrop.entries.len() as u64));
        let mut input = Cursor::new(octets);
        input.set_position(block.offset);
        let there = Reader::at_block(input, block).next().expect("a block").expect("a right one");
        assert_eq!(there, *maildrop);
        assert!(block.offset + block.len_octets <= octets.len() as u64);
    }

    let mut written = Vec::new();
    for maildrop in &maildrops {
        for uidl in maildrop.entries.iter().flat_map(Entry::uidls).chain(&maildrop.spent) {
            check_uidl(uidl.as_bytes());
        }
        write_maildrop(&mut written, maildrop).expect("what was read can be written");
    }
    assert!(written.iter().all(|&octet| octet == b'\n' || (b' '..=b'~').contains(&octet)));
    if !maildrops.is_empty() {
        assert_eq!(read(&written[..]), (maildrops, None));
    }
}

/// The maildrops up to the end, and the error that made the end.
fn read(input: impl BufRead) -> (Vec<Maildrop>, Option<String>) {
    let (mut maildrops, mut end) = (Vec::new(), None);
    for maildrop in Reader::new(input) {
        assert!(end.is_none(), "more after an error");
        match maildrop {
            Ok(maildrop) => maildrops.push(maildrop),
            Err(error) => end = Some(said(&error)),
        }
    }
    (maildrops, end)
}

fn said(error: &ListingError) -> String {
    check_message(error);
    error.to_string()
}
