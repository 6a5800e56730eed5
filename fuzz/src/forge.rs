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
    /// The counts, the place where each UIDL starts, and the order of the unclaimed keys.
    Starts,
}

const LEDGER_HEADER: usize = 112;
/// The octets of a record, in the front and in the back.
const RECORD_OCTETS: (usize, usize) = (29, 4);
const TOLD_OCTETS: usize = 8;
const KEY_OCTETS: usize = 8;
/// The longest user name, the most UIDVALIDITYs, and the most unclaimed keys.
const MOST: (usize, usize, usize) = (1024, 128, 1 << 20);

fn checksum_of_ledger(parts: &[&[u8]]) -> [u8; DIGEST_OCTETS] {
    twox_hash::XxHash3_128::oneshot(&parts.concat()).to_be_bytes()
}

/// Makes a ledger with right checksums from the file, when it is long enough for the counts in it.
pub fn ledger(file: &[u8], right: Ledger) -> Vec<u8> {
    let mut file = file.to_vec();
    if right != Ledger::AsItIs {
        file.resize(file.len().max(LEDGER_HEADER + 1 + 3 * DIGEST_OCTETS), 0);
        put(&mut file, 0, b"\x89UKL\r\n\x1a\n\x01\0\0\0");
        let mut room = file.len() - LEDGER_HEADER - 3 * DIGEST_OCTETS;
        let user = u32_at(&file, 76).clamp(1, MOST.0.min(room));
        room -= user;
        let told = u32_at(&file, 80).min(MOST.1).min(room / TOLD_OCTETS);
        room -= TOLD_OCTETS * told;
        let unclaimed = u32_at(&file, 108).min(MOST.2).min(room / KEY_OCTETS);
        room -= KEY_OCTETS * unclaimed;
        let each = RECORD_OCTETS.0 + RECORD_OCTETS.1;
        let count = u32_at(&file, 84).min(room / each);
        let heap = room - each * count;
        for (at, number) in [(76, user), (80, told), (84, count), (88, heap), (108, unclaimed)] {
            put(&mut file, at, &(number as u32).to_le_bytes());
        }
    }
    let [user, told, count, heap, unclaimed] = [76, 80, 84, 88, 108].map(|at| u32_at(&file, at));
    let records = LEDGER_HEADER + user + TOLD_OCTETS * told;
    let starts = records + 8 * count;
    let front = records + RECORD_OCTETS.0 * count + heap;
    // Behind the checksum are the names of the listing, which may be anything.
    let back = front + 2 * DIGEST_OCTETS;
    let keys = back + RECORD_OCTETS.1 * count;
    if file.len() < keys + KEY_OCTETS * unclaimed + DIGEST_OCTETS {
        return file;
    }
    if right == Ledger::Starts {
        let mut start = 0_u32;
        for at in 0..count {
            put(&mut file, starts + 4 * at, &start.to_le_bytes());
            let uidl = &file[starts + 4 * count..][(start as usize).min(heap)..heap];
            let len = uidl.iter().position(|&octet| octet == 0).map_or(uidl.len(), |nul| nul + 1);
            start += len as u32;
        }
        let mut sorted: Vec<[u8; KEY_OCTETS]> = file[keys..][..KEY_OCTETS * unclaimed]
            .chunks_exact(KEY_OCTETS)
            .map(|key| key.try_into().expect("so many octets"))
            .collect();
        sorted.sort_unstable();
        put(&mut file, keys, sorted.as_flattened());
    }
    let front_sum = checksum_of_ledger(&[&file[..front]]);
    put(&mut file, front, &front_sum);
    let body_end = file.len() - DIGEST_OCTETS;
    let back_sum = checksum_of_ledger(&[&front_sum, &file[back..body_end]]);
    put(&mut file, body_end, &back_sum);
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
    put(&mut file, 0, b"\x89UKI\r\n\x1a\n\x02\0\0\0");
    put(&mut file, 16, &len.to_le_bytes());
    let (root, level, end) = (u64_at(&file, 40), u32_at(&file, 64), file.len());
    if root >= INDEX_HEADER && root.saturating_add(8 + DIGEST_OCTETS) <= end && level <= 33 {
        seal_named(&mut file, INDEX_HEADER, root, level);
        seal(&mut file, root, end);
        let checksum = file[end - DIGEST_OCTETS..].to_vec();
        put(&mut file, 48, &checksum);
    }
    seal_header(&mut file);
    file
}

/// Seals all that a node names, which begins at `start`, and writes the checksums into the node.
fn seal_named(file: &mut [u8], mut start: usize, node: usize, level: usize) {
    let (count, mut at) = (u32_at(file, node + 4), node + 8);
    for _ in 0..count {
        let checksum_at = at;
        at += DIGEST_OCTETS;
        let mut number = || varint(file, &mut at);
        let numbers = [number(), number(), number(), number(), number()];
        let [Some(len), Some(below), Some(_), Some(_), Some(user_len)] = numbers else { return };
        let offset = start.saturating_add(below);
        let end = offset.saturating_add(len);
        if end > node || len < DIGEST_OCTETS || file.len() - node < user_len {
            return;
        }
        if level > 1 && len >= 8 {
            seal_named(file, start, offset, level - 1);
        }
        seal(file, offset, end);
        let checksum = file[end - DIGEST_OCTETS..end].to_vec();
        put(file, checksum_at, &checksum);
        (at, start) = (at + user_len, end);
    }
}

fn varint(file: &[u8], at: &mut usize) -> Option<usize> {
    let mut number = 0;
    for shift in (0..56).step_by(7) {
        let octet = *file.get(*at)?;
        *at += 1;
        number |= usize::from(octet & 0x7F) << shift;
        if octet < 0x80 {
            return Some(number);
        }
    }
    None
}

/// What a node names.
struct Named {
    user: Vec<u8>,
    start: usize,
    offset: usize,
    end: usize,
    maildrops: u64,
    entries: u64,
}

/// Makes an index from the blocks of the file, each as long as it says, and whatever nodes stand
/// between them. Checksums, nodes and header are right.
pub fn index_of_blocks(file: &[u8]) -> Vec<u8> {
    let mut made = vec![0; INDEX_HEADER];
    // By the level of what is named.
    let mut open: Vec<Vec<Named>> = (0..35).map(|_| Vec::new()).collect();
    let mut at = INDEX_HEADER;
    loop {
        if let Some(end) = node_end(file, at) {
            at = end;
            continue;
        }
        let Some(end) = block_end(file, at) else { break };
        let block = &file[at..end];
        let user_len = usize::from(u16::from_le_bytes([block[14], block[15]]));
        let user = block.get(30..30 + user_len).unwrap_or_default();
        let hash = u128::from_be_bytes(digest(&[user]));
        if made.len() > INDEX_HEADER {
            (0..hash.leading_zeros() as usize / 4)
                .for_each(|it| end_node(&mut made, &mut open, it));
        }
        let start = made.len();
        made.extend(block);
        let block_end = made.len();
        seal(&mut made, start, block_end);
        let (user, entries) = (user.to_vec(), u32_at(&made, start + 4) as u64);
        let (offset, maildrops) = (start, 1);
        open[0].push(Named { user, start, offset, end: block_end, maildrops, entries });
        at = end;
    }
    let mut level = 0;
    while level == 0 || open[level].len() > 1 || open[level + 1..].iter().any(|it| !it.is_empty()) {
        if made.len() == INDEX_HEADER || !open[level].is_empty() {
            end_node(&mut made, &mut open, level);
        }
        level += 1;
    }
    let root = &open[level][0];
    let mut header = b"\x89UKI\r\n\x1a\n\x02\0\0\0\x01\0\0\0".to_vec();
    for number in [made.len() as u64, root.maildrops, root.entries, root.offset as u64] {
        header.extend(number.to_le_bytes());
    }
    header.extend(&made[made.len() - DIGEST_OCTETS..]);
    for number in [level as u32, NORMALISER] {
        header.extend(number.to_le_bytes());
    }
    put(&mut made, 0, &header);
    seal_header(&mut made);
    made
}

/// Writes a node that names what is open at a level, if anything is.
fn end_node(made: &mut Vec<u8>, open: &mut [Vec<Named>], level: usize) {
    let named = std::mem::take(&mut open[level]);
    let is_of_nobody = open.iter().all(Vec::is_empty);
    if named.is_empty() && !is_of_nobody {
        return;
    }
    let offset = made.len();
    made.extend((level as u32 + 1).to_le_bytes());
    made.extend((named.len() as u32).to_le_bytes());
    for it in &named {
        let checksum = made[it.end - DIGEST_OCTETS..it.end].to_vec();
        made.extend(checksum);
        let (len, below) = (it.end - it.offset, it.offset - it.start);
        for number in [len as u64, below as u64, it.maildrops, it.entries, it.user.len() as u64] {
            let mut rest = number;
            while rest >= 0x80 {
                made.push(rest as u8 | 0x80);
                rest >>= 7;
            }
            made.push(rest as u8);
        }
        made.extend(&it.user);
    }
    made.extend([0; DIGEST_OCTETS]);
    let end = made.len();
    seal(made, offset, end);
    open[level + 1].push(Named {
        user: named.first().map_or_else(Vec::new, |first| first.user.clone()),
        start: named.first().map_or(offset, |first| first.start),
        offset,
        end,
        maildrops: named.iter().map(|it| it.maildrops).sum(),
        entries: named.iter().map(|it| it.entries).sum(),
    });
}

/// The end of the block at `at`, by its own length, within the file.
fn block_end(file: &[u8], at: usize) -> Option<usize> {
    let len = u32_at(file, at);
    let end = at.checked_add(len)?;
    (len >= 30 + DIGEST_OCTETS && end <= file.len()).then_some(end)
}

/// The end of the node at `at`, by the names in it, within the file.
fn node_end(file: &[u8], at: usize) -> Option<usize> {
    let (level, count) = (u32_at(file, at), u32_at(file, at.saturating_add(4)));
    if !(1..=33).contains(&level) {
        return None;
    }
    let mut at = at + 8;
    for _ in 0..count {
        at += DIGEST_OCTETS;
        for _ in 0..4 {
            varint(file, &mut at)?;
        }
        let user_len = varint(file, &mut at)?;
        at += user_len;
    }
    let end = at + DIGEST_OCTETS;
    (end <= file.len()).then_some(end)
}

/// Makes the last octets of a range the checksum of the octets before them.
fn seal(file: &mut [u8], start: usize, end: usize) {
    let content_end = end - DIGEST_OCTETS;
    let found = digest(&[&file[start..content_end]]);
    put(file, content_end, &found);
}

fn seal_header(file: &mut [u8]) {
    let build_id = digest(&[&file[..72]]);
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
