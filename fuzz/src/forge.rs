//! Makes files of ours with wrong contents and right checksums, as their owner could write them.
//!
//! A checksum is no proof against somebody who can write the file, and a fuzzer never guesses one.
//! This module follows the documents (the head of `src/ledger/mod.rs`, `src/index/FORMAT.md`,
//! `docs/roster.md`) and not the code that is tested.

const DIGEST_OCTETS: usize = 16;

fn digest(parts: &[&[u8]]) -> [u8; DIGEST_OCTETS] {
    let mut hasher = blake3::Hasher::new();
    for part in parts {
        hasher.update(part);
    }
    let mut cut = [0; DIGEST_OCTETS];
    cut.copy_from_slice(&hasher.finalize().as_bytes()[..DIGEST_OCTETS]);
    cut
}

fn u32_at(octets: &[u8], at: usize) -> usize {
    octets
        .get(at..at + 4)
        .map_or(0, |field| u32::from_le_bytes(field.try_into().expect("four octets")) as usize)
}

fn u64_at(octets: &[u8], at: usize) -> usize {
    let field = octets.get(at..at + 8).map(|field| field.try_into().expect("eight octets"));
    usize::try_from(field.map_or(0, u64::from_le_bytes)).unwrap_or(usize::MAX)
}

fn put(octets: &mut [u8], at: usize, field: &[u8]) {
    octets[at..at + field.len()].copy_from_slice(field);
}

/// The parts of a ledger that are made right beside its checksums.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ledger {
    /// Nothing.
    AsItIs,
    /// Its counts, so that they go with its length.
    Counts,
    /// The counts, and the place where each UIDL starts.
    Starts,
}

const LEDGER_HEADER: usize = 108;
/// The octets of a record, in the front and in the back.
const RECORD_OCTETS: (usize, usize) = (29, 4);
const TOLD_OCTETS: usize = 8;
/// The longest user name, and the most UIDVALIDITYs.
const MOST: (usize, usize) = (1024, 128);

/// Makes a ledger with right checksums from the file, when it is long enough for the counts in it.
pub fn ledger(file: &[u8], right: Ledger) -> Vec<u8> {
    let mut file = file.to_vec();
    if right != Ledger::AsItIs {
        file.resize(file.len().max(LEDGER_HEADER + 1 + 2 * DIGEST_OCTETS), 0);
        put(&mut file, 0, b"\x89UKL\r\n\x1a\n\x01\0\0\0");
        let mut room = file.len() - LEDGER_HEADER - 2 * DIGEST_OCTETS;
        let user = u32_at(&file, 76).clamp(1, MOST.0.min(room));
        room -= user;
        let told = u32_at(&file, 80).min(MOST.1).min(room / TOLD_OCTETS);
        room -= TOLD_OCTETS * told;
        let each = RECORD_OCTETS.0 + RECORD_OCTETS.1;
        let count = u32_at(&file, 84).min(room / each);
        for (at, number) in [(76, user), (80, told), (84, count), (88, room - each * count)] {
            put(&mut file, at, &(number as u32).to_le_bytes());
        }
    }
    let [user, told, count, heap] = [76, 80, 84, 88].map(|at| u32_at(&file, at));
    let records = LEDGER_HEADER + user + TOLD_OCTETS * told;
    let starts = records + 8 * count;
    let front = records + RECORD_OCTETS.0 * count + heap;
    let back = front + DIGEST_OCTETS;
    if file.len() < back + RECORD_OCTETS.1 * count + DIGEST_OCTETS {
        return file;
    }
    if right == Ledger::Starts {
        let mut start = 0_u32;
        for at in 0..count {
            put(&mut file, starts + 4 * at, &start.to_le_bytes());
            let uidl = &file[front - heap + (start as usize).min(heap)..front];
            let len = uidl.iter().position(|&octet| octet == 0).map_or(uidl.len(), |nul| nul + 1);
            start += len as u32;
        }
    }
    let front_digest = digest(&[&file[..front]]);
    put(&mut file, front, &front_digest);
    let body_end = file.len() - DIGEST_OCTETS;
    let back_digest = digest(&[&front_digest, &file[back..body_end]]);
    put(&mut file, body_end, &back_digest);
    file
}

/// Makes a mark of a lock's file from the text, with a right checksum in place of its last word.
pub fn mark(text: &[u8]) -> Vec<u8> {
    let text = text.trim_ascii_end();
    let cut = text.iter().rposition(|&octet| octet == b' ').unwrap_or(text.len());
    let check = digest(&[&text[..cut]]);
    let check: String = check[..8].iter().map(|octet| format!("{octet:02x}")).collect();
    [&text[..cut], b" ", check.as_bytes(), b"\n"].concat()
}

const INDEX_HEADER: usize = 104;
/// The version of the rules behind fingerprints.
const NORMALISER: u32 = 1;

/// Makes an index from the file, with right checksums wherever its own offsets and lengths lead.
pub fn index(file: &[u8]) -> Vec<u8> {
    let mut file = file.to_vec();
    if file.len() < INDEX_HEADER {
        return file;
    }
    let len = file.len() as u64;
    put(&mut file, 0, b"\x89UKI\r\n\x1a\n\x01\0\0\0");
    put(&mut file, 16, &len.to_le_bytes());
    let (buckets, table) = (u64_at(&file, 40).min(file.len()), u64_at(&file, 48).min(file.len()));
    let mut at = INDEX_HEADER;
    while let Some(end) = block_end(&file, at).filter(|&end| end <= buckets) {
        seal(&mut file, at, end);
        at = end;
    }
    let mut at = buckets;
    while at + 8 <= table {
        let Some(end) = u32_at(&file, at + 4).checked_mul(32).map(|len| at + 8 + len + 16) else {
            break;
        };
        if end > table {
            break;
        }
        seal(&mut file, at, end);
        at = end;
    }
    seal_header(&mut file);
    file
}

/// Makes an index from the blocks of the file, each as long as it says. Checksums, buckets, table
/// and header are right.
pub fn index_of_blocks(file: &[u8]) -> Vec<u8> {
    let mut made = vec![0; INDEX_HEADER];
    let (mut places, mut entries, mut largest) = (Vec::new(), 0_u64, 0);
    let mut at = INDEX_HEADER;
    while let Some(end) = block_end(file, at) {
        let start = made.len();
        made.extend(&file[at..end]);
        let block_end = made.len();
        seal(&mut made, start, block_end);
        let block = &made[start..];
        let user_len = usize::from(u16::from_le_bytes([block[14], block[15]]));
        let user = block.get(30..30 + user_len).unwrap_or_default();
        places.push((digest(&[user]), start as u64, block.len() as u64));
        entries += u32_at(block, 4) as u64;
        largest = largest.max(block.len() as u32);
        at = end;
    }
    let bits = places.len().div_ceil(4).next_power_of_two().trailing_zeros();
    places.sort_unstable();
    let buckets = made.len();
    let (mut table, mut largest_bucket) = (Vec::new(), 0);
    for number in 0..1_u32 << bits {
        let prefix = |hash: &[u8; 16]| {
            let first = u32::from_be_bytes([hash[0], hash[1], hash[2], hash[3]]);
            first.checked_shr(32 - bits).unwrap_or(0)
        };
        let here: Vec<_> = places.iter().filter(|(hash, ..)| prefix(hash) == number).collect();
        largest_bucket = largest_bucket.max(here.len() as u32);
        let start = made.len();
        table.extend((start as u64).to_le_bytes());
        made.extend(number.to_le_bytes());
        made.extend((here.len() as u32).to_le_bytes());
        for (hash, offset, len) in here {
            made.extend(hash);
            made.extend(offset.to_le_bytes());
            made.extend(len.to_le_bytes());
        }
        made.extend([0; DIGEST_OCTETS]);
        let end = made.len();
        seal(&mut made, start, end);
    }
    let table_at = made.len() as u64;
    made.extend(table);
    let mut header = b"\x89UKI\r\n\x1a\n\x01\0\0\0\x01\0\0\0".to_vec();
    header.extend((made.len() as u64).to_le_bytes());
    header.extend((places.len() as u64).to_le_bytes());
    header.extend(entries.to_le_bytes());
    header.extend((buckets as u64).to_le_bytes());
    header.extend(table_at.to_le_bytes());
    for number in [largest, largest_bucket, bits, NORMALISER] {
        header.extend(number.to_le_bytes());
    }
    put(&mut made, 0, &header);
    seal_header(&mut made);
    made
}

/// The end of the block at `at`, by its own length, within the file.
fn block_end(file: &[u8], at: usize) -> Option<usize> {
    let len = u32_at(file, at);
    let end = at.checked_add(len)?;
    (len >= 30 + DIGEST_OCTETS && end <= file.len()).then_some(end)
}

/// Makes the last octets of a range the checksum of the octets before them.
fn seal(file: &mut [u8], start: usize, end: usize) {
    let content_end = end - DIGEST_OCTETS;
    let found = digest(&[&file[start..content_end]]);
    put(file, content_end, &found);
}

fn seal_header(file: &mut [u8]) {
    let build_id = digest(&[&file[INDEX_HEADER..], &file[..72]]);
    put(file, 72, &build_id);
    seal(file, 0, INDEX_HEADER);
}

/// Makes a roster from the lines: each with its checksum, a first line that counts them, and a last
/// line.
///
/// The text in a checksum's place, behind the last blank, is not read.
pub fn roster(lines: &[u8]) -> Vec<u8> {
    let mut lines: Vec<&[u8]> = lines.split(|&octet| octet == b'\n').collect();
    // When the input is a roster already, its own first and last lines make room.
    lines.retain(|line| {
        !line.is_empty() && !line.starts_with(b"uidl-keep-roster ") && !line.starts_with(b". ")
    });
    let mut made = format!("uidl-keep-roster 1 {}", lines.len()).into_bytes();
    let mut before = made.clone();
    made.push(b'\n');
    for line in lines {
        let cut = line.iter().rposition(|&octet| octet == b' ').unwrap_or(line.len());
        made.extend(checked_line(&before, &line[..cut]));
        let name_end = line.iter().position(|&octet| octet == b' ').unwrap_or(line.len());
        before = line[..name_end].to_vec();
    }
    made.extend(checked_line(&before, b"."));
    made
}

fn checked_line(before: &[u8], content: &[u8]) -> Vec<u8> {
    let check = digest(&[before, b"\n", content]);
    let check: String = check[..4].iter().map(|octet| format!("{octet:02x}")).collect();
    [content, b" ", check.as_bytes(), b"\n"].concat()
}
