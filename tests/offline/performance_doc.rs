//! docs/performance.md against itself: each figure says how it is measured, and each that is missed
//! says why.

const PAGE: &str = include_str!("../../docs/performance.md");

/// The name before `/` of each figure that the table has, with its verdict.
fn figures() -> Vec<(&'static str, &'static str)> {
    let rows = PAGE.lines().filter(|line| line.starts_with("| `"));
    let figures: Vec<_> = rows
        .filter_map(|row| {
            let cells: Vec<&str> = row.trim_matches('|').split('|').map(str::trim).collect();
            let name = cells[0].trim_matches('`');
            let group = name.split('/').next().unwrap_or(name);
            // The other tables of the page have fewer columns.
            (cells.len() == 6).then(|| (group, cells[4]))
        })
        .collect();
    assert!(figures.len() > 20, "the table of `make bench`: {figures:?}");
    figures
}

/// The lines of the section with that heading.
fn section(heading: &str) -> &'static str {
    let (_, rest) = PAGE.split_once(heading).unwrap_or_else(|| panic!("no {heading:?}"));
    rest.split("\n## ").next().unwrap_or(rest)
}

#[test]
fn each_figure_says_how_it_is_measured_and_each_that_is_missed_why() {
    let (how, why) = (section("\n## How each is measured\n"), section("\n## What is missed\n"));
    for (figure, verdict) in figures() {
        assert!(how.contains(&format!("`{figure}`")), "{figure}: how is it measured?");
        match verdict {
            "missed" => {
                assert!(why.contains(&format!("`{figure}`")), "{figure}: why is it missed?")
            }
            "met" | "" => {}
            other => panic!("{figure}: {other:?} is no verdict"),
        }
    }
}
