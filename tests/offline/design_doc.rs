//! Every rule and every kind of evidence that code and tests cite by number is in docs/design.md,
//! and every rule there is cited by a test.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use crate::shared::tree::below;

const DOC: &str = include_str!("../../docs/design.md");

/// The things that are cited by number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Rule,
    Evidence,
    /// The page's sections have names; only an RFC's have numbers.
    Section,
}

const WORDS: [(&str, Kind); 6] = [
    ("rule", Kind::Rule),
    ("rules", Kind::Rule),
    ("evidence", Kind::Evidence),
    ("section", Kind::Section),
    ("sections", Kind::Section),
    ("design", Kind::Section),
];

/// The numbers that the page gives to rules, by their headings, and to evidence, by the rows of its
/// table.
fn numbered() -> BTreeSet<(Kind, u32)> {
    let rules = DOC.lines().filter_map(|line| line.strip_prefix("### Rule ")?.split_once(':'));
    let rules = rules.map(|(number, _)| (Kind::Rule, number.parse().expect("a number")));
    let (_, evidence) = DOC.split_once("\n## Evidence\n").expect("a section on evidence");
    let (evidence, _) = evidence.split_once("\n## ").expect("a section behind it");
    let rows = evidence.lines().filter_map(|line| line.strip_prefix("| ")?.split_once(' '));
    let rows = rows.filter_map(|(number, _)| Some((Kind::Evidence, number.parse().ok()?)));
    rules.chain(rows).collect()
}

/// The text without line ends, and without the signs that open the lines of a comment.
fn on_one_line(text: &str) -> String {
    let lines = text.lines().map(|line| {
        let line = line.trim_start();
        ["///", "//!", "//"].iter().find_map(|open| line.strip_prefix(open)).unwrap_or(line)
    });
    lines.collect::<Vec<_>>().join(" ")
}

/// The numbers that a text cites: `rule 2`, `Rules 1 and 2`, `Evidence 1, 2 and 6`, `rules 3 to 5`.
fn cited(text: &str) -> BTreeSet<(Kind, u32)> {
    let line = on_one_line(text);
    let words: Vec<&str> = line.split_ascii_whitespace().collect();
    let mut found = BTreeSet::new();
    for (at, word) in words.iter().enumerate() {
        let word = word.trim_start_matches(|c: char| !c.is_ascii_alphabetic()).to_ascii_lowercase();
        let Some((_, kind)) = WORDS.iter().find(|(name, _)| *name == word) else { continue };
        let is_of_rfc = words[at.saturating_sub(3)..at].iter().any(|word| word.ends_with("RFC"));
        if *kind == Kind::Section && is_of_rfc {
            continue;
        }
        let mut last = None;
        let mut is_range = false;
        for word in &words[at + 1..] {
            if last.is_some() && matches!(*word, "and" | "or" | "to") {
                is_range = *word == "to";
                continue;
            }
            let digits = word.trim_matches(|c: char| !c.is_ascii_digit());
            let Ok(number) = digits.parse::<u32>() else { break };
            if !word.starts_with(|c: char| c.is_ascii_digit()) {
                break;
            }
            let from = last.filter(|_| is_range).unwrap_or(number);
            found.extend((from..=number).map(|number| (*kind, number)));
            (last, is_range) = (Some(number), false);
            // After the last number the sentence goes on.
            let goes_on = word.len() == digits.len() || word.strip_prefix(digits) == Some(",");
            if !goes_on {
                break;
            }
        }
    }
    found
}

/// The Rust files of a directory of the project, this one left out.
fn sources(dir: &str) -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let is_rust = |path: &Path| path.extension().is_some_and(|extension| extension == "rs");
    let mut found = below(&root.join(dir));
    found.retain(|path| is_rust(path) && !path.ends_with("tests/offline/design_doc.rs"));
    assert!(found.len() > 20, "{dir}: {} files", found.len());
    found
}

fn cited_in(path: &Path) -> BTreeSet<(Kind, u32)> {
    cited(&fs::read_to_string(path).expect("a source"))
}

#[test]
fn a_citation_is_found_however_it_is_spelled() {
    use Kind::{Evidence, Rule, Section};
    let spelled: [(&str, &[(Kind, u32)]); 10] = [
        ("/// Rule 2: what", &[(Rule, 2)]),
        ("(rule 10).", &[(Rule, 10)]),
        ("//! Rules 1 and 2: what", &[(Rule, 1), (Rule, 2)]),
        ("`Rules 3 to 5`", &[(Rule, 3), (Rule, 4), (Rule, 5)]),
        ("// Evidence 1, 2 and 6: what", &[(Evidence, 1), (Evidence, 2), (Evidence, 6)]),
        (
            "    /// by rule\n    /// 11, and by\n    /// evidence\n    /// 7",
            &[(Rule, 11), (Evidence, 7)],
        ),
        ("Evidence 5 and rule 11: what", &[(Rule, 11), (Evidence, 5)]),
        ("Section 3: a delta; design 6", &[(Section, 3), (Section, 6)]),
        ("(RFC 1939\n//! section 7). RFC 5322 section 3", &[]),
        ("the rules and 3 messages, by rule. 4 of them", &[]),
    ];
    for (text, numbers) in spelled {
        assert_eq!(cited(text), numbers.iter().copied().collect(), "{text}");
    }
}

#[test]
fn the_page_numbers_its_rules_and_its_evidence_without_a_gap() {
    let rules = (1..=12).map(|number| (Kind::Rule, number));
    let evidence = (1..=7).map(|number| (Kind::Evidence, number));
    assert_eq!(numbered(), rules.chain(evidence).collect());
    assert_eq!(DOC.matches("\n### Rule ").count(), 12, "none twice");
}

#[test]
fn every_number_that_is_cited_is_in_the_page() {
    let numbered = numbered();
    assert!(cited(DOC).is_subset(&numbered), "{:?}", cited(DOC).difference(&numbered));
    for path in ["src", "tests"].into_iter().flat_map(sources) {
        let unknown: Vec<_> = cited_in(&path).difference(&numbered).copied().collect();
        assert!(unknown.is_empty(), "{}: {unknown:?} are not in docs/design.md", path.display());
    }
}

#[test]
fn every_rule_and_all_evidence_is_cited_by_a_test() {
    let in_tests: BTreeSet<_> = sources("tests").iter().flat_map(|path| cited_in(path)).collect();
    let uncited: Vec<_> = numbered().difference(&in_tests).copied().collect();
    assert!(uncited.is_empty(), "{uncited:?} are cited by no test");
}

/// A rule says why, and which history needs it.
#[test]
fn every_rule_has_its_reason_and_its_history() {
    let rules = DOC.split("\n### Rule ").skip(1);
    for rule in rules.map(|rule| rule.split("\n## ").next().unwrap_or(rule)) {
        let title = rule.lines().next().unwrap_or_default();
        for part in ["\n*Why:* ", "\n*History:* "] {
            assert!(rule.contains(part), "rule {title}: no {}", part.trim());
        }
    }
}
