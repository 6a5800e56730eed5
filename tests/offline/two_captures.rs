//! Two captures of one old server, which called messages by other names in between: README's flow.

use std::fs;

use crate::support::cli::{ALICE, DAVE, Here, ROOT};

const USER: &str = "alice@example.com";

/// Makes a Maildir of Courier's with so many messages, all in its state file under these numbers.
fn courier(here: &Here, messages: usize, first_number: usize) {
    let mut state = format!("/3 {} 1795468718\n", first_number + messages);
    for folder in ["cur", "new", "tmp"] {
        fs::create_dir_all(here.path("Maildir").join(folder)).unwrap();
    }
    for at in 0..messages {
        let name = format!("{}.{at}.old:2,S", 1_714_990_000 + at);
        let text = format!("Subject: {at}\nMessage-ID: <{at}@example.com>\n\nbody of {at}\n");
        state += &format!("{name} {} {}:1795468718:0\n", text.len(), first_number + at);
        fs::write(here.path("Maildir/cur").join(&name), text).unwrap();
    }
    here.write("Maildir/courierpop3dsizelist", &state);
}

/// Captures it.
fn capture(here: &Here, listing: &str) {
    let ran = here.run(&format!("capture courier --user {USER} -o {listing} Maildir"));
    assert_eq!((ran.status, &*ran.stdout), (0, ""), "{}", ran.stderr);
}

/// The UIDLs by which a site serves its messages, in order, with the earlier ones.
fn uidls(here: &Here, site: &str) -> Vec<String> {
    let got = here.run(&format!("get {site} {USER}"));
    let lines = got.stdout.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    lines
        .filter(|words| words[0].parse::<u32>().is_ok())
        .map(|words| {
            let earlier = words.iter().filter_map(|word| word.strip_prefix("earlier="));
            std::iter::once(words[1]).chain(earlier).collect::<Vec<_>>().join(" < ")
        })
        .collect()
}

#[test]
fn a_list_that_courier_repaired_between_two_captures_is_served_as_it_is_now() {
    let here = Here::new();
    courier(&here, 6, 1);
    capture(&here, "first.listing");
    // Courier makes the whole list anew after a message was deleted.
    fs::remove_file(here.path("Maildir/cur/1714990002.2.old:2,S")).unwrap();
    let list = String::from_utf8(here.read("Maildir/courierpop3dsizelist")).unwrap();
    let list: String = list
        .lines()
        .filter(|line| !line.contains(".2.old"))
        .map(|line| match line.split_once(":1795468718:") {
            Some((numbered, rest)) => {
                let (start, number) = numbered.rsplit_once(' ').unwrap();
                let number: u32 = number.parse().unwrap();
                format!("{start} {}:1795468718:{rest}\n", number + 800)
            }
            None => "/3 807 1795468718\n".to_owned(),
        })
        .collect();
    here.write("Maildir/courierpop3dsizelist", &list);
    capture(&here, "last.listing");

    here.quiet("build -o site first.listing");
    let before = here.read("site/domain/example.com.idx");
    let trouble = here.run("build --base site -o site --final last.listing");
    assert_eq!((trouble.status, &*trouble.stdout), (2, ""));
    let said: Vec<&str> = trouble.stderr.lines().collect();
    assert_eq!(said.len(), 5, "{said:?}");
    assert_eq!(
        said[1],
        "uidl-keep: alice@example.com 1714990000.0.old: UID1-1795468718 -> UID801-1795468718"
    );
    assert!(said[3].ends_with(" 1714990003.3.old: UID4-1795468718 -> UID804-1795468718"));
    assert!(
        said[4].starts_with("uidl-keep: 5 of 5 messages that two captures have, in 1 maildrops"),
        "{said:?}"
    );
    assert!(said[4].contains("build with --later-wins"), "{said:?}");
    assert!(here.read("site/domain/example.com.idx") == before);
    let strays: Vec<_> = fs::read_dir(here.path("site/domain")).unwrap().collect();
    assert_eq!(strays.len(), 2, "{strays:?}");

    let built = here.run("build --base site -o site --final --later-wins last.listing");
    assert_eq!(built.status, 0, "{}", built.stderr);
    assert_eq!(
        built.stderr,
        "uidl-keep: example.com: 5 messages of 1 maildrops have another unique-id than in an \
         earlier capture, and are served the later one (the first: alice@example.com); `get` \
         shows them\n"
    );
    let expected: Vec<String> = [1, 2, 3, 4, 5, 6]
        .iter()
        .map(|number| match number {
            3 => "UID3-1795468718".to_owned(),
            _ => format!("UID{}-1795468718 < UID{number}-1795468718", 800 + number),
        })
        .collect();
    assert_eq!(uidls(&here, "site"), expected);
    let got = here.run(&format!("get site {USER} UID4-1795468718"));
    assert!(got.stdout.starts_with("4 UID804-1795468718 "), "{}", got.stdout);
    assert!(got.stdout.ends_with(" earlier=UID4-1795468718\n"), "{}", got.stdout);
    let got = here.run(&format!("get site {USER}"));
    let captures = got.stdout.lines().filter(|line| line.starts_with("capture ")).count();
    assert_eq!(captures, 2);
    here.quiet("check site");

    // Its dump makes the same index, and neither listing is news.
    let dump = here.run("dump site").stdout;
    let again = here.run_with("build --final -o again -", &dump);
    assert_eq!((again.status, &*again.stderr), (0, ""));
    let index = here.read("site/domain/example.com.idx");
    assert!(here.read("again/domain/example.com.idx") == index);
    for listing in ["first.listing", "last.listing"] {
        here.quiet(&format!("build --base site -o site --final {listing}"));
        assert!(here.read("site/domain/example.com.idx") == index, "{listing}");
    }
    // Built the other way round the later one is served all the same.
    here.quiet("build -o other last.listing");
    assert!(here.trouble("build --base other -o other first.listing").contains("--later-wins"));
    assert_eq!(here.run("build --base other -o other --later-wins first.listing").status, 0);
    let mut served = uidls(&here, "other");
    served.sort();
    let mut expected = expected;
    expected.sort();
    assert_eq!(served, expected);
}

#[test]
fn a_few_messages_that_were_renumbered_are_served_anew_without_a_question() {
    let here = Here::new();
    courier(&here, 6, 1);
    capture(&here, "first.listing");
    // A name without flags got a number, and another one when the message was read.
    let list = String::from_utf8(here.read("Maildir/courierpop3dsizelist")).unwrap();
    let list = list.replace("/3 7 ", "/3 804 ").replace(" 5:1795468718:", " 803:1795468718:");
    here.write("Maildir/courierpop3dsizelist", &list);
    capture(&here, "last.listing");
    here.quiet("build -o site first.listing");
    let built = here.run("build --base site -o site last.listing");
    assert_eq!(built.status, 0, "{}", built.stderr);
    assert!(built.stderr.contains("1 messages of 1 maildrops have another"), "{}", built.stderr);
    let served = uidls(&here, "site");
    assert_eq!(served[4], "UID803-1795468718 < UID5-1795468718");
    assert_eq!(served.len(), 6);
    let spent = here.run(&format!("get site {USER}")).stdout;
    assert!(!spent.contains("\nspent "), "{spent}");
}

#[test]
fn listings_of_which_none_says_when_count_in_the_order_of_building() {
    let here = Here::new();
    let names = |text: &str, uidl: &str| text.replace("UID1-1714990000", uidl);
    here.write("one.listing", ALICE);
    here.write("two.listing", &names(ALICE, "other"));
    here.quiet("build -o site one.listing");
    for (listing, expected) in [
        ("two.listing", "other < UID1-1714990000"),
        ("one.listing", "UID1-1714990000 < other"),
        ("two.listing", "other < UID1-1714990000"),
    ] {
        assert_eq!(here.run(&format!("build --base site -o site {listing}")).status, 0);
        assert_eq!(uidls(&here, "site")[0], expected, "{listing}");
    }
    // A message that is called what another was called is that one alone.
    let swapped = ALICE.replace("file=1714990000.20000.old%20name", "file=new");
    here.write("three.listing", &swapped);
    let built = here.run("build --base site -o site three.listing");
    assert!(built.stderr.is_empty(), "{}", built.stderr);
    let gone =
        "1 UID1-1714990000 file=gone\n2 UID2-1714990000 file=1714990060.20007.old.example.com\n";
    let (head, _) = ALICE.split_once("1 UID1").unwrap();
    here.write("four.listing", &format!("{head}{gone}.\n"));
    let built = here.run("build --base site -o site four.listing");
    assert_eq!(built.status, 0);
    assert!(
        built
            .stderr
            .contains("1 unique-ids are other messages' in the later capture (the first: UID1-"),
        "{}",
        built.stderr
    );
    let served = uidls(&here, "site");
    let times = served.iter().filter(|uidl| uidl.starts_with("UID1-")).count();
    assert_eq!(times, 1, "{served:?}");
    here.quiet("check site");
}

/// A site of two domains and a login without one.
fn site() -> Here {
    let here = Here::new();
    here.write("all.listing", &[ALICE, DAVE, ROOT].concat());
    here.quiet("build -o site all.listing");
    here
}

/// The words of the roster on a user behind his state.
fn words(here: &Here, roster: &str) -> String {
    let lines = here.roster(&format!("site/{roster}.roster"));
    let line = lines.iter().find(|line| !line.starts_with('@')).unwrap();
    line.splitn(3, ' ').nth(2).unwrap().to_owned()
}

/// A note of a user as a number.
fn stamp(here: &Here, roster: &str, note: &str) -> u64 {
    let words = words(here, roster);
    let stamp = words.split(' ').find_map(|word| word.strip_prefix(note)?.strip_prefix('='));
    stamp.unwrap_or_else(|| panic!("{note}: {words}")).parse().unwrap()
}

/// Rule 12: a name on no roster is said.
#[test]
fn what_the_operator_knows_is_noted_on_the_roster_and_outlives_builds() {
    let here = site();
    let ran = here.run("listed --site site example.com eve nobody@example.com");
    assert_eq!(ran.status, 1);
    assert_eq!(ran.stdout, "@example.com listed 1\neve listed\n");
    assert!(ran.stderr.contains("nobody@example.com is not on it"), "{}", ran.stderr);
    assert_eq!(words(&here, "domain/example.com"), "guarded listed=yes");
    assert_eq!(words(&here, "domain/example.net"), "guarded");
    let again = here.run("listed --site site alice@example.com");
    assert_eq!((again.status, &*again.stdout, &*again.stderr), (0, "", ""));

    let ran = here.run("restored --site site @example.com dave@example.net");
    assert_eq!(ran.stdout, "@example.com restored 1\ndave@example.net restored\n");
    assert_eq!(
        ran.stderr,
        "uidl-keep: 2 maildrops: at the next POP3 login of each, the next UID is raised by 65,536\n"
    );
    let first = stamp(&here, "domain/example.com", "restored");
    assert!(first > 1_700_000_000);
    // Each time that mail was put back counts, also twice in a second.
    assert_eq!(here.run("restored --site site alice@example.com").status, 0);
    assert!(stamp(&here, "domain/example.com", "restored") > first);

    let ran = here.run("release --unguarded --site site alice@example.com");
    assert_eq!((ran.status, &*ran.stdout), (0, "alice@example.com released\n"), "{}", ran.stderr);
    let first = stamp(&here, "domain/example.com", "unguarded");
    assert!(first > 1_700_000_000);
    assert_eq!(here.run("release --unguarded --site site alice@example.com").status, 0);
    assert!(stamp(&here, "domain/example.com", "unguarded") > first);
    // A user who is served already and is released by his name is released for what is missing.
    here.run("release --site site dave@example.net");
    assert!(stamp(&here, "domain/example.net", "unguarded") > 1_700_000_000);

    let before = words(&here, "domain/example.com");
    assert!(before.starts_with("released listed=yes restored="), "{before}");
    here.write("more.listing", &ALICE.replace("counter 13", "counter 14"));
    here.quiet("build --base site -o site --final more.listing");
    assert_eq!(words(&here, "domain/example.com"), before);
    here.quiet("check site");
    let log = String::from_utf8(here.read("site/changes.log")).unwrap();
    assert!(log.contains(" listed alice@example.com guarded -> guarded uid="), "{log}");
    assert!(log.contains(" restored alice@example.com guarded -> guarded uid="), "{log}");
    assert!(log.contains(" release --unguarded alice@example.com released -> released "), "{log}");

    let said = here.run("inspect site/domain/example.com.roster").stdout;
    assert!(
        said.ends_with(
            "1 released; 1 noted as listed, 1 noted as restored, 1 noted as unguarded\n"
        )
    );
    let said = here.run("get site alice@example.com").stderr;
    assert!(
        said.contains("alice@example.com is captured, released listed=yes restored="),
        "{said}"
    );

    // The earlier word is taken back, and with it what was said of it.
    here.run("forget --site site alice@example.com");
    let after = words(&here, "domain/example.com");
    assert!(after.starts_with("forgotten forgotten="), "{after}");
    assert!(after.contains(" restored=") && !after.contains("listed"), "{after}");
    assert!(!after.contains("unguarded"), "{after}");
}

#[test]
fn of_a_whole_domain_what_was_noted_says_who_and_held_users_stay_held() {
    let here = site();
    here.run("hold --site site example.com eve");
    here.run("restored --site site example.com eve");
    here.run("listed --site site example.com eve");
    assert!(words(&here, "domain/example.com").starts_with("held listed=yes restored="));
    let ran = here.run("release --redownload --site site eve");
    assert_eq!(ran.stdout, "eve redownload\n");
    assert!(words(&here, "user/eve").starts_with("redownload listed=yes restored="));
    for command in ["listed", "restored"] {
        assert!(here.trouble(&format!("{command} --site nowhere eve")).contains("nowhere"));
        assert_eq!(here.run(&format!("{command} --site site")).status, 2);
        let help = here.run(&format!("{command} --help")).stdout;
        assert!(help.contains(&format!("Example: uidl-keep {command} ")), "{help}");
    }
}
