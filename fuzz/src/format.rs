//! `pop3_uidl_format`: a printed format reads the same, and a number is found in the UIDL made from
//! it.

use uidl_keep::format::{Fields, UidlFormat};
use uidl_keep::uidl::Uidl;

use super::{check_message, check_uidl};

/// UID and UIDVALIDITY in four octets each, then a format.
pub fn check(octets: &[u8]) {
    let Some((numbers, text)) = octets.split_first_chunk::<8>() else { return };
    let [uid, uidvalidity] =
        [0, 4].map(|at| u32::from_le_bytes(numbers[at..at + 4].try_into().expect("four octets")));
    let Ok(text) = std::str::from_utf8(text) else { return };
    let format = match UidlFormat::parse(text) {
        Ok(format) => format,
        // Its `{found:?}` and the like are the text's own characters, escaped or not.
        Err(error) => return check_message(error.to_string().escape_default()),
    };
    let printed = format.to_string();
    assert_eq!(UidlFormat::parse(&printed).as_ref(), Ok(&format), "{printed}");
    assert_eq!(UidlFormat::parse(&printed).expect("printed").to_string(), printed);

    let fields = Fields { uid, uidvalidity, file: Some(b"1.M2.host,S=7"), guid: Some(b"d35d") };
    let uidl = match format.render(&fields) {
        Ok(uidl) => uidl,
        Err(error) => return check_message(error),
    };
    check_uidl(uidl.as_bytes());
    assert!(uidl.as_bytes().len() <= Uidl::MAX_OCTETS);
    let other = Fields { uid: uid ^ 1, ..fields };
    if format.is_counting() {
        assert_ne!(format.render(&other).as_ref(), Ok(&uidl), "two UIDs of one UIDL");
    }
    if !format.has_uidvalidity() {
        let elsewhere = Fields { uidvalidity: !uidvalidity, ..fields };
        assert_eq!(format.render(&elsewhere).as_ref(), Ok(&uidl));
    }
    let bare = Fields { file: None, guid: None, ..fields };
    let is_number_alone = format.render(&bare).is_ok();
    let found = format.number_of(uidl.as_bytes(), uidvalidity);
    assert_eq!(found, (format.is_counting() && is_number_alone).then_some(uid));
    // These are UIDLs that a client may hold and that are not quite this one.
    for wrong in [&uidl.as_bytes()[1..], &[uidl.as_bytes(), b"0"].concat(), text.as_bytes()] {
        if let Some(uid) = format.number_of(wrong, uidvalidity) {
            let made = format.render(&Fields { uid, ..bare });
            assert_eq!(made.expect("a number alone").as_bytes(), wrong);
        }
    }
}
