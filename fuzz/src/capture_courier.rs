//! `courierpop3dsizelist` beside the messages of a Maildir.

use std::cmp::Ordering;

use uidl_keep::capture::disk::courier::{SizeList, order, plan};

use super::{check_message, check_plan, file_names, parts, snapshot};

/// The list, a NUL, then one file name on each line.
pub fn check(octets: &[u8]) {
    let [list, names] = parts(octets);
    match SizeList::parse(list) {
        Ok(parsed) => check_list(list, &parsed),
        Err(error) => check_message(error),
    }
    let some: Vec<&[u8]> = file_names(names).take(6).collect();
    for a in &some {
        for b in &some {
            assert_eq!(order(a, b), order(b, a).reverse());
            for c in &some {
                let (ab, bc, ac) = (order(a, b), order(b, c), order(a, c));
                assert!(ab != bc || ab == ac, "{} {} {}", ab as i8, bc as i8, ac as i8);
                assert!(ab != Ordering::Equal || ac == bc);
            }
        }
    }
    for state in [Some(list), None] {
        let snapshot = snapshot(state, names);
        match plan(&snapshot) {
            Ok(plan) => {
                let told = plan.entries.len() + plan.spent.len();
                let lines = SizeList::parse(list).map_or(0, |list| list.lines.len());
                assert!(told <= if state.is_some() { lines } else { 0 });
                check_plan(plan, &snapshot);
            }
            Err(error) => check_message(error),
        }
    }
}

/// Every line is a message or odd. The messages are written again and read again.
fn check_list(octets: &[u8], list: &SizeList) {
    let lines = octets.split_inclusive(|&octet| octet == b'\n').count();
    let header = usize::from(list.next.is_some());
    assert_eq!(list.lines.len() + list.odd.len() + header, lines);
    let mut again = match (list.version, list.next, list.uidv) {
        // An odd line comes first, so that no message stands where a header would.
        (0, ..) => b"\n".to_vec(),
        (version, Some(next), Some(uidv)) => format!("/{version} {next} {uidv}\n").into_bytes(),
        (version, Some(next), None) => format!("/{version} {next}\n").into_bytes(),
        (_, None, _) => panic!("a header without its number"),
    };
    for line in &list.lines {
        again.extend(&line.name);
        again.extend(
            match list.version {
                0 => " 7\n".to_owned(),
                1 => format!(" 7 {}\n", line.n),
                2 => format!(" 7 {}:{}\n", line.n, line.uidv),
                _ => format!(" 7 {}:{}:0\n", line.n, line.uidv),
            }
            .into_bytes(),
        );
    }
    let read = SizeList::parse(&again).expect("a header that was taken");
    assert_eq!(SizeList { odd: Vec::new(), ..read }, SizeList { odd: Vec::new(), ..list.clone() });
}
