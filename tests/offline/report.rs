//! The page of `uidl-keep report`, read by a parser of HTML.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::symlink;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use html5gum::emitters::default::DefaultEmitter;
use html5gum::{Token, Tokenizer};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::support::cli::{BOB, CAROL, Here};

/// Elements that have no end.
const VOID: [&str; 4] = ["meta", "input", "br", "wbr"];
/// All elements that a page is made of.
const ELEMENTS: &[&str] = &[
    "a", "bdi", "body", "button", "code", "dd", "details", "div", "dl", "dt", "footer", "form",
    "h1", "h2", "head", "header", "html", "input", "label", "li", "main", "meta", "ol", "option",
    "output", "p", "rect", "script", "section", "select", "small", "span", "strong", "style",
    "summary", "svg", "table", "tbody", "td", "th", "thead", "time", "title", "tr", "ul",
];

#[derive(Debug)]
struct Element {
    name: String,
    attributes: BTreeMap<String, String>,
    /// All text in it.
    text: String,
    /// The places of the elements that it is in, the nearest last.
    within: Vec<usize>,
}

impl Element {
    fn get(&self, attribute: &str) -> &str {
        self.attributes.get(attribute).map_or("", String::as_str)
    }
}

/// A page whose every element was ended in its turn.
#[derive(Debug)]
struct Page(Vec<Element>);

impl Page {
    fn parse(html: &str) -> Self {
        let text = |octets: &[u8]| String::from_utf8(octets.to_vec()).unwrap();
        let mut emitter = DefaultEmitter::default();
        emitter.naively_switch_states(true);
        let (mut elements, mut open) = (Vec::<Element>::new(), Vec::<usize>::new());
        for Ok(token) in Tokenizer::new_with_emitter(html, emitter) {
            match token {
                Token::StartTag(tag) => {
                    let name = text(&tag.name);
                    let attributes = tag.attributes.iter();
                    let attributes = attributes.map(|(name, value)| (text(name), text(value)));
                    elements.push(Element {
                        name: name.clone(),
                        attributes: attributes.collect(),
                        text: String::new(),
                        within: open.clone(),
                    });
                    if !VOID.contains(&name.as_str()) {
                        open.push(elements.len() - 1);
                    }
                }
                Token::EndTag(tag) => {
                    let at = open.pop().expect("an element that is open");
                    assert_eq!(elements[at].name, text(&tag.name));
                }
                Token::String(octets) => {
                    for at in &open {
                        elements[*at].text.push_str(&text(&octets));
                    }
                }
                Token::Doctype(_) => assert!(elements.is_empty()),
                Token::Comment(comment) => panic!("{comment:?}"),
                Token::Error(error) => panic!("{error:?}"),
            }
        }
        assert!(open.is_empty(), "{open:?}");
        Self(elements)
    }

    fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Element> {
        self.0.iter().filter(move |element| element.name == name)
    }

    fn by_id(&self, id: &str) -> &Element {
        let mut found = self.0.iter().filter(|element| element.get("id") == id);
        let element = found.next().unwrap_or_else(|| panic!("no #{id}"));
        assert!(found.next().is_none(), "two #{id}");
        element
    }

    /// The text of the section with that heading.
    fn section(&self, heading: &str) -> &str {
        let mut sections = self.all("section");
        let section = sections.find(|section| section.get("aria-labelledby") == heading);
        &section.unwrap_or_else(|| panic!("no section {heading}")).text
    }

    /// The cells of the rows of that section, row by row.
    fn rows(&self, heading: &str) -> Vec<Vec<&str>> {
        let is_here = |at: &usize| self.0[*at].get("aria-labelledby") == heading;
        let in_body = |element: &Element| {
            element.within.iter().any(|at| self.0[*at].name == "tbody")
                && element.within.iter().any(is_here)
        };
        let mut rows: Vec<Vec<&str>> = Vec::new();
        for element in self.0.iter().filter(|element| in_body(element)) {
            match &*element.name {
                "tr" => rows.push(Vec::new()),
                "th" | "td" => rows.last_mut().unwrap().push(element.text.trim()),
                _ => {}
            }
        }
        rows
    }
}

/// A line of a forecast; what is not named is as in a mailbox that is whole.
fn forecast(user: &str, sign: &str, fields: Value) -> Value {
    let mut line = json!({
        "user": user, "sign": sign, "messages": 30, "captured": 30, "kept": 30,
        "kept_by": { "file": 30 }, "not_copied": [], "changed": [], "ambiguous": [], "again": 0,
        "new": 0, "listed": 0, "other_uidl": 0, "repeated": 0, "unreadable": 0, "in_order": true,
        "refused": false,
    });
    for (name, value) in fields.as_object().unwrap() {
        line[name] = value.clone();
    }
    line
}

/// As the command prints it, with its total.
fn printed(lines: &[Value]) -> String {
    let mut signs = json!({ "!": 0, "*": 0, "-": 0, "+": 0, "=": 0 });
    let mut text = String::new();
    for line in lines {
        let sign = line["sign"].as_str().unwrap();
        signs[sign] = (signs[sign].as_u64().unwrap() + 1).into();
        writeln!(text, "{line}").unwrap();
    }
    let total = json!({ "total": { "maildrops": signs, "on_no_roster": 2 } });
    writeln!(text, "{total}").unwrap();
    text
}

fn night() -> Vec<Value> {
    vec![
        forecast("alice@example.com", "=", json!({})),
        forecast(
            "bob@example.com",
            "-",
            json!({ "kept": 28, "not_copied": ["UID4-17", "UID5-17"] }),
        ),
        json!({ "user": "eve@example.net", "sign": "!", "why": "cur: permission denied" }),
        forecast(
            "carol@example.com",
            "*",
            json!({
                "kept": 1_018, "captured": 1_030, "again": 12, "in_order": false,
                "changed": (0..12).map(|number| format!("UID{number}-9")).collect::<Vec<_>>(),
            }),
        ),
        forecast("dan@example.org", "+", json!({ "new": 3 })),
    ]
}

/// Makes a page of these arguments, and expects that nothing was wrong.
fn page(here: &Here, args: &str) -> (String, Page) {
    let ran = here.run(&format!("report -o report.html {args}"));
    assert_eq!((ran.status, &*ran.stdout), (0, ""), "{args}: {}", ran.stderr);
    let html = String::from_utf8(here.read("report.html")).unwrap();
    let page = Page::parse(&html);
    (html, page)
}

fn with_forecast(lines: &[Value]) -> Here {
    let here = Here::new();
    here.write("forecast.json", &printed(lines));
    here
}

#[test]
fn who_is_at_risk_comes_first_with_reasons_and_what_to_do() {
    let here = with_forecast(&night());
    let (_, page) = page(&here, "--forecast forecast.json --title Night");
    assert_eq!(page.all("h1").map(|it| &*it.text).collect::<Vec<_>>(), ["Night"]);
    let rows = page.rows("risk");
    let firsts: Vec<_> = rows.iter().map(|row| (row[0], row[1], row[3])).collect();
    assert_eq!(
        firsts,
        [
            ("! could not tell", "eve@example.net", "unknown"),
            ("* changed", "carol@example.com", "1,018 of 1,030"),
            ("- missing", "bob@example.com", "28 of 30"),
        ]
    );
    assert_eq!(rows[0][2], "could not tell: cur: permission denied");
    for words in [
        "12 messages changed on the way: clients download them again",
        "messages stand in another order",
        "UID9-9, and 2 more",
    ] {
        assert!(rows[1][2].contains(words), "{words}: {}", rows[1][2]);
    }
    assert!(!rows[1][2].contains("UID10-9"), "{}", rows[1][2]);
    assert!(rows[1][4].ends_with("uidl-keep explain carol@example.com"), "{}", rows[1][4]);
    assert!(rows[2][2].contains("2 messages not copied"), "{}", rows[2][2]);
    let copied_again = "uidl-keep forecast --only=bob@example.com";
    assert!(rows[2][4].ends_with(copied_again), "{}", rows[2][4]);

    let cards: Vec<_> = page.all("dd").map(|it| &*it.text).take(7).collect();
    assert_eq!(cards, ["5", "3", "98.75 %", "1,106", "2", "12", "3"]);
    let whole = page.section("totals");
    assert!(whole.contains("The messages of 1 mailbox are not known"), "{whole}");
    assert!(whole.contains("2 mailboxes on this server are on no roster"), "{whole}");
    let steps = page.section("next");
    assert!(steps.contains("Mend 1 mailbox of which"), "{steps}");
    assert!(steps.contains("Copy the mail of 1 mailbox again"), "{steps}");
    let verdict = page.all("strong").next().unwrap();
    assert_eq!(verdict.text, "3 of 5 mailboxes need attention.");
}

#[test]
fn each_domain_has_a_bar_that_says_in_words_what_it_shows() {
    let here = with_forecast(&night());
    let (_, page) = page(&here, "--forecast forecast.json");
    let bars: Vec<_> = page.all("svg").map(|bar| bar.get("aria-label")).collect();
    assert_eq!(
        bars,
        [
            "1 could not tell, 1 changed, 1 missing, 1 new mail, 1 whole",
            "1 changed, 1 missing, 1 whole",
            "1 could not tell",
            "1 new mail",
        ]
    );
    let rows = page.rows("domains");
    let numbers: Vec<_> = rows.iter().map(|row| [row[0], row[2], row[3], row[4]]).collect();
    assert_eq!(
        numbers,
        [
            ["example.com", "3", "2", "98.71 %"],
            ["example.net", "1", "1", "-"],
            ["example.org", "1", "0", "100 %"],
        ]
    );
    let parts = |at: usize| {
        let bar = page.0.iter().position(|it| it.get("aria-label") == bars[at]).unwrap();
        let rects = page.all("rect").filter(move |rect| rect.within.contains(&bar));
        rects.map(|rect| rect.get("width").parse::<u32>().unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(parts(0), [200; 5]);
    assert_eq!(parts(1).iter().sum::<u32>(), 1000);
}

#[test]
fn a_page_needs_nothing_beside_it_and_is_built_for_everybody() {
    let here = with_forecast(&night());
    let (html, page) = page(&here, "--forecast forecast.json");
    for element in &page.0 {
        assert!(ELEMENTS.contains(&&*element.name), "{}", element.name);
        for (name, value) in &element.attributes {
            let is_code = name.starts_with("on") || name == "style" || name == "src";
            assert!(!is_code, "{name}={value}");
            assert!(name != "href" || value.starts_with('#'), "{value}");
        }
    }
    let hash = |name: &str| {
        let texts: Vec<_> = page.all(name).map(|it| &*it.text).collect();
        assert_eq!(texts.len(), 1, "{name}");
        format!("'sha256-{}'", STANDARD.encode(Sha256::digest(texts[0])))
    };
    let mut metas = page.all("meta");
    let policy = metas.find(|it| !it.get("http-equiv").is_empty()).unwrap().get("content");
    let expected = format!(
        "default-src 'none'; style-src {}; script-src {}; base-uri 'none'; form-action 'none'",
        hash("style"),
        hash("script")
    );
    assert_eq!(policy, expected);
    assert!(!page.all("style").any(|it| it.text.contains("url(") || it.text.contains("@import")));
    assert!(!html.contains("http://") && !html.contains("https://"));

    assert_eq!(page.all("html").next().unwrap().get("lang"), "en");
    assert!(page.all("th").count() > 20);
    assert!(page.all("th").all(|it| ["col", "row"].contains(&it.get("scope"))));
    for (element, attribute) in [("section", "aria-labelledby"), ("label", "for")] {
        for it in page.all(element) {
            page.by_id(it.get(attribute));
        }
    }
    for link in page.all("a") {
        page.by_id(&link.get("href")[1..]);
    }
    // Only what scripts serve waits for them.
    let hidden: Vec<_> = page.0.iter().filter(|it| it.attributes.contains_key("hidden")).collect();
    assert_eq!(hidden.iter().map(|it| &*it.name).collect::<Vec<_>>(), ["form"]);
}

#[test]
fn names_reasons_and_uidls_of_others_are_text_and_nothing_else() {
    let users = [
        "<script>alert(1)</script>@example.com",
        "a\"onmouseover=\"alert(1)@example.com",
        "a'b&amp;c@</title></style></script><img src=x onerror=alert(1)>",
        "x@\"><svg onload=alert(1)>",
        "-rf;$(id)@example.com",
        "back\u{202e}moc.elpmaxe@example.com",
        "line\nfeed\u{0}\u{1b}[1m@example.com",
        "<!--@example.com",
    ];
    let bad = "</td></table><script>alert(2)</script><!-- \u{0}";
    let lines: Vec<Value> = users
        .iter()
        .flat_map(|user| {
            [
                forecast(user, "*", json!({ "kept": 29, "changed": [bad] })),
                json!({ "user": format!("2{user}"), "sign": "!", "why": bad }),
            ]
        })
        .collect();
    let here = with_forecast(&lines);
    let status = json!({
        "domain": "</a><script>", "faults": [bad], "next": { "command": bad },
        "refused": [{ "user": "r@</a><script>", "why": bad }],
    });
    here.write("status.json", &format!("{status}\n{{\"total\":{{}},\"plugin\":{{}}}}\n"));
    here.write("<b>&.json", &here.read_text("forecast.json").replace("user\":\"", "user\":\"3"));
    let mut command = here.command("report -o report.html --forecast forecast.json");
    command.args([
        "--title",
        "</title><script>&amp;",
        "--status",
        "status.json",
        "--forecast",
        "<b>&.json",
    ]);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let html = String::from_utf8(here.read("report.html")).unwrap();
    let page = Page::parse(&html);
    assert_eq!(page.all("script").count(), 1);
    for element in &page.0 {
        assert!(ELEMENTS.contains(&&*element.name), "{}", element.name);
        let is_handler = |name: &String| name.starts_with("on");
        assert!(!element.attributes.keys().any(is_handler), "{element:?}");
    }
    let titles: Vec<_> = page.all("title").map(|it| &*it.text).take(1).collect();
    assert_eq!(titles, ["</title><script>&amp;"]);
    let names: BTreeSet<_> = page.all("bdi").map(|it| &*it.text).collect();
    for user in &users[..6] {
        assert!(names.contains(user), "{user}");
    }
    // Octets that act on a terminal, or that no page can hold, are shown as numbers.
    assert!(names.contains("line\\x0afeed\\x00\\x1b[1m@example.com"));
    assert!(page.rows("risk").iter().any(|row| row[2].contains("<script>alert(2)</script>")));
    assert!(page.rows("read").iter().any(|row| row[0] == "<b>&.json"));

    let commands: BTreeSet<_> = page.all("code").map(|it| &*it.text).collect();
    assert!(commands.contains("uidl-keep explain -- '-rf;$(id)@example.com'"), "{commands:?}");
    let is_odd = |text: &&str| text.contains('\u{202e}') || text.contains("\\x");
    let of_ours = commands.iter().filter(|text| text.starts_with("uidl-keep"));
    assert_eq!(of_ours.copied().find(is_odd), None);
}

#[test]
fn an_input_that_cannot_be_read_makes_no_page_and_is_named_with_its_line() {
    let here = with_forecast(&night());
    let good = here.read_text("forecast.json");
    let first = good.lines().next().unwrap();
    let rehearsal = json!({ "user": "alice@example.com", "outcome": "rehearsed" });
    let status = json!({ "domain": "example.com", "maildrops": 1 });
    for (option, text, said) in [
        ("forecast", format!("{first}\n* bob@example.com: 27\n"), "bad:2: no JSON object ("),
        ("forecast", format!("{first}\n\n[1]\n"), "bad:3: no JSON object ("),
        ("forecast", format!("{first}\n{{\"user\":\"b"), "bad:2: no JSON object ("),
        ("forecast", format!("{first}\n{first}\n"), "bad:2: alice@example.com has a line before"),
        ("forecast", format!("{rehearsal}\n"), "bad:1: no \"sign\" that is known; give what `uidl"),
        ("forecast", first.replace("\"=\"", "\"x\""), "bad:1: no \"sign\" that is known"),
        ("forecast", format!("{status}\n"), "bad:1: no \"user\" that is known"),
        ("forecast", String::new(), "bad: nothing of `uidl-keep forecast --json` is in it"),
        ("forecast", "{\"later\":1}\n".to_owned(), "bad: nothing of `uidl-keep forecast --json`"),
        ("rehearsal", good.clone(), "bad:1: no \"outcome\" that is known"),
        ("status", good.clone(), "bad:1: no \"domain\" that is known"),
        ("status", format!("{status}\n{status}\n"), "bad:2: example.com has a line before"),
    ] {
        here.write("bad", &text);
        let trouble = here.trouble(&format!("report -o report.html --{option} bad"));
        assert!(trouble.starts_with(&format!("uidl-keep: {said}")), "{option} {text}: {trouble}");
        assert!(!here.path("report.html").exists());
    }
    let missing = here.trouble("report -o report.html --forecast not-there.json");
    assert!(missing.starts_with("uidl-keep: not-there.json: No such file"), "{missing}");
    let no_site = here.trouble("report -o report.html --site .");
    assert!(no_site.contains("domain: No such file"), "{no_site}");
    let no_input = here.run("report -o report.html");
    assert_eq!(no_input.status, 2);
    assert!(no_input.stderr.contains("--forecast <FILE>"), "{}", no_input.stderr);
    let nobody =
        here.trouble("report -o report.html --forecast forecast.json --only elsewhere.org");
    assert!(nobody.contains("nobody who is asked for"), "{nobody}");
    let two = here.trouble("report -o report.html --forecast - --status -");
    assert!(two.contains("only one input can be standard input"), "{two}");
}

#[test]
fn an_input_that_was_cut_short_is_named_on_the_page_too() {
    let here = with_forecast(&night());
    let good = here.read_text("forecast.json");
    let lines: Vec<&str> = good.lines().collect();
    let lost_total = lines[..5].join("\n");
    let lost_line = lines[1..].join("\n");
    let twice = format!("{good}{}", printed(&[forecast("x@example.org", "=", json!({}))]));
    for (text, said) in [
        (lost_total, Some("forecast.json: no total at its end: it was cut short")),
        (lost_line, Some("forecast.json:5: the total is of 5 mailboxes, and 4 stand before it")),
        (twice, None),
    ] {
        here.write("forecast.json", &text);
        let ran = here.run("report -o report.html --forecast forecast.json");
        let html = String::from_utf8(here.read("report.html")).unwrap();
        let page = Page::parse(&html);
        let notes: Vec<_> = page.all("div").filter(|it| it.get("role") == "note").collect();
        match said {
            Some(said) => {
                assert_eq!(ran.status, 1, "{}", ran.stderr);
                assert!(ran.stderr.contains(said), "{}", ran.stderr);
                assert!(notes[0].text.contains(said), "{}", notes[0].text);
                assert!(page.section("next").contains("Make again what is incomplete"));
            }
            None => assert_eq!((ran.status, notes.len()), (0, 0), "{}", ran.stderr),
        }
    }
}

#[test]
fn a_page_for_one_customer_names_nobody_else() {
    let here = with_forecast(&night());
    let total =
        json!({ "total": { "held": 77, "next": { "command": "uidl-keep release --all" } } });
    let domain = |name: &str| {
        let refused = json!([{ "user": format!("r@{name}"), "why": "its capture failed" }]);
        json!({ "domain": name, "held": 3, "refused": refused })
    };
    let status = format!("{}\n{}\n{total}\n", domain("example.com"), domain("example.net"));
    here.write("status.json", &status);
    let inputs = "--forecast forecast.json --status status.json";
    let (html, _) = page(&here, &format!("{inputs} --only @example.net"));
    for other in ["alice", "bob", "carol", "example.com", "example.org", "--all", "77", "no roster"]
    {
        let page = html.split("<script>").next().unwrap().split("</style>").nth(1).unwrap();
        assert!(!page.contains(other), "{other}: {page}");
    }
    assert!(html.contains("eve@") && html.contains("r@"));
    let ran = here.run(&format!(
        "report -o report.html {inputs} --only example.net --only bob@example.com --only zoe@a.org"
    ));
    assert_eq!(ran.status, 1);
    let said = "zoe@a.org: nobody of that name is in what was read";
    assert!(ran.stderr.contains(said), "{}", ran.stderr);
    assert!(!ran.stderr.contains("bob@example.com"), "{}", ran.stderr);
}

/// A domain that was built, with Alice, Bob and Carol, whose capture failed.
fn with_site(held: bool) -> Here {
    let here = Here::new();
    let alice = crate::support::cli::ALICE;
    here.write("first.listing", &[alice, BOB, CAROL].concat());
    assert_eq!(here.run("build --final -o site first.listing").status, 0);
    if held {
        assert_eq!(here.run("hold --site site example.com").status, 0);
    }
    here
}

#[test]
fn rosters_say_who_is_refused_who_is_held_and_what_comes_next() {
    let here = with_site(true);
    let (_, of_site) = page(&here, "--site site");
    let verdict = of_site.all("strong").next().unwrap();
    assert_eq!(verdict.text, "1 of 3 mailboxes needs attention.");
    let rows = of_site.rows("risk");
    assert_eq!(rows.len(), 1, "{rows:?}");
    assert_eq!((rows[0][0], rows[0][1]), ("! could not tell", "carol@example.com"));
    assert!(rows[0][2].contains("the capture of the mailbox failed"), "{}", rows[0][2]);
    assert!(rows[0][4].ends_with("uidl-keep build --install LISTING"), "{}", rows[0][4]);
    let all = of_site.rows("all");
    let gates: Vec<_> = all.iter().map(|row| (row[0], row[2])).collect();
    let unseen = ("? not seen", "held");
    assert_eq!(gates, [("! could not tell", "held"), unseen, unseen]);
    let domains = of_site.rows("domains");
    assert!(domains[0][1].contains("the whole domain is held"), "{}", domains[0][1]);
    assert!(of_site.section("risk").contains("Mailboxes at risk"));

    // Nobody is at risk, and all are held.
    let users = ["alice@example.com", "bob@example.com"];
    let lines = users.map(|user| forecast(user, "=", json!({})));
    here.write("forecast.json", &printed(&lines));
    let both = "--site site --forecast forecast.json --only alice@example.com \
                --only bob@example.com";
    let (_, held) = page(&here, both);
    let site = format!("--site '{}'", here.path("site").display());
    let rehearse = format!("uidl-keep rehearse {site} alice@example.com bob@example.com");
    assert!(held.section("next").contains(&rehearse), "{}", held.section("next"));
    let next = held.rows("domains")[0][5..].concat();
    assert!(next.contains(&format!("uidl-keep rehearse {site} example.com")), "{next}");

    let (_, whole) = page(&here, "--site site --forecast forecast.json");
    assert!(!whole.section("next").contains("rehearse"), "Carol is at risk");

    assert_eq!(here.run("release --site site --redownload alice@example.com").status, 0);
    let (_, given_up) = page(&here, both);
    let rows = given_up.rows("risk");
    assert_eq!((rows.len(), rows[0][1]), (1, "alice@example.com"));
    assert!(rows[0][2].contains("clients download everything again"), "{}", rows[0][2]);
}

#[test]
fn a_rehearsal_and_a_forecast_that_disagree_are_told_by_the_worse() {
    let here = with_forecast(&[
        forecast("alice@example.com", "=", json!({})),
        forecast("bob@example.com", "-", json!({ "kept": 28, "not_copied": ["a", "b"] })),
        forecast("carol@example.com", "=", json!({})),
        forecast("dan@example.com", "+", json!({ "new": 1, "a_later_field": { "x": [1] } })),
    ]);
    let differs = json!({
        "user": "alice@example.com", "outcome": "differs", "listed": 30, "captured": 30,
        "missing": ["UID7-9"], "misplaced": [], "repeated": [], "spent": ["UID8-9", "UID9-9"],
    });
    let agrees =
        |user: &str| json!({ "user": user, "outcome": "rehearsed", "listed": 30, "captured": 30 });
    let could_not =
        |user: &str, why: &str| json!({ "user": user, "outcome": "could_not", "why": why });
    let lines = [
        differs,
        agrees("bob@example.com"),
        could_not("carol@example.com", "no userdb entry"),
        could_not("dan@example.com", "busy"),
        json!({ "total": {} }),
        agrees("dan@example.com"),
        json!({ "total": {} }),
    ];
    here.write("rehearsal.json", &lines.map(|line| format!("{line}\n")).concat());
    let (_, page) = page(&here, "--forecast forecast.json --rehearsal rehearsal.json");
    let rows = page.rows("risk");
    let users: Vec<_> = rows.iter().map(|row| (row[0], row[1])).collect();
    assert_eq!(
        users,
        [
            ("! could not tell", "carol@example.com"),
            ("* changed", "alice@example.com"),
            ("- missing", "bob@example.com"),
        ]
    );
    assert!(rows[0][2].contains("could not be rehearsed: no userdb entry"), "{}", rows[0][2]);
    assert!(rows[0][4].ends_with("uidl-keep rehearse carol@example.com"), "{}", rows[0][4]);
    assert!(rows[1][2].contains("1 message not listed under the captured UIDL"), "{}", rows[1][2]);
    let spent = "2 messages with a UIDL that clients may hold for another message";
    assert!(rows[1][2].contains(spent), "{}", rows[1][2]);
    let later = "the rehearsal found all as it was captured; if it is the later one, make";
    assert!(rows[2][2].contains(later), "{}", rows[2][2]);
    let cards = page.section("totals");
    assert!(cards.contains("rehearsed well2"), "{cards}");
}

#[test]
fn a_rehearsal_alone_makes_a_page_and_so_does_a_status() {
    let here = Here::new();
    let rehearsed = |user: &str, listed: u32| {
        let outcome = "rehearsed";
        json!({ "user": user, "outcome": outcome, "listed": listed, "captured": 30 })
    };
    let lines = [rehearsed("a@a.org", 30), rehearsed("b@a.org", 31), json!({ "total": {} })];
    here.write("rehearsal.json", &lines.map(|line| format!("{line}\n")).concat());
    let (_, of_rehearsal) = page(&here, "--rehearsal rehearsal.json");
    let states: Vec<_> = of_rehearsal.rows("all").iter().map(|row| row[0]).collect();
    assert_eq!(states, ["+ new mail", "= whole"]);
    assert!(of_rehearsal.section("risk").contains("None, as far as was looked."));

    let counts = json!({
        "held": 3, "rehearsed": 2, "waiting": 1, "not_baked": ["x@a.org", "y@a.org"],
        "could_not_tell": [{ "user": "c@a.org", "why": "ledger: damaged" }],
        "next": { "step": "rehearse", "command": "uidl-keep rehearse a.org" },
    });
    let mut domain = counts.clone();
    domain["domain"] = "a.org".into();
    domain["faults"] = json!(["index: damaged"]);
    domain["refused"] = json!([{ "user": "*@a.org", "why": "somebody may be missing" }]);
    let total = json!({ "total": counts, "plugin": { "state": "loaded", "said": "loaded here" } });
    here.write("status.json", &format!("{domain}\n{total}\n"));
    let (_, of_status) = page(&here, "--status status.json");
    let words = "3 held, 2 of these rehearsed, 1 waiting for a first listing, 2 not baked";
    let whole = of_status.section("totals");
    assert!(whole.contains(words) && whole.contains("Plugin: loaded here."), "{whole}");
    let row = of_status.rows("domains")[0].concat();
    assert!(row.contains(words) && row.contains("could not tell: index: damaged"), "{row}");
    assert!(row.contains("could not be searched for all of the domain"), "{row}");
    assert!(of_status.section("next").contains("uidl-keep rehearse a.org"));
    let rows = of_status.rows("risk");
    assert_eq!((rows.len(), rows[0][1]), (1, "c@a.org"));
    assert!(rows[0][2].contains("what clients were told: ledger: damaged"), "{}", rows[0][2]);
}

#[test]
fn only_an_earlier_page_is_replaced_and_only_its_owner_may_read_it() {
    let here = with_forecast(&night());
    let args = "report -o report.html --forecast forecast.json";
    for _ in 0..2 {
        let ran = here.run(args);
        let said = "uidl-keep: report.html: 5 mailboxes in 3 domains, 3 at risk\n";
        assert_eq!((ran.status, &*ran.stdout, &*ran.stderr), (0, "", said));
        assert_eq!(here.mode("report.html"), 0o600);
    }
    let mut names: Vec<_> = fs::read_dir(here.0.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert_eq!(names, ["forecast.json", "report.html"]);

    let before = here.read("forecast.json");
    let trouble = here.trouble("report -o forecast.json --forecast forecast.json");
    assert!(trouble.contains("forecast.json: not replaced: it is no page"), "{trouble}");
    assert_eq!(here.read("forecast.json"), before);
    symlink("report.html", here.path("link.html")).unwrap();
    let trouble = here.trouble("report -o link.html --forecast forecast.json");
    assert!(trouble.contains("link.html: a symbolic link"), "{trouble}");
    let trouble = here.trouble("report -o none/report.html --forecast forecast.json");
    assert!(trouble.contains("No such file"), "{trouble}");

    let ran = here.run_with("report -o - --forecast -", &here.read_text("forecast.json"));
    assert_eq!(ran.status, 0, "{}", ran.stderr);
    let page = Page::parse(&ran.stdout);
    assert_eq!(page.rows("read")[0][0], "standard input");
}

#[test]
fn three_thousand_mailboxes_are_all_there_and_soon() {
    let line = |number: usize| {
        let user = format!("user{number}@customer{}.example", number % 40);
        match number % 100 {
            7 => forecast(&user, "-", json!({ "kept": 29, "not_copied": ["UID1-1"] })),
            _ => forecast(&user, "=", json!({})),
        }
    };
    let here = with_forecast(&(0..3000).map(line).collect::<Vec<_>>());
    let began = Instant::now();
    let (html, page) = page(&here, "--forecast forecast.json");
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
    assert!(html.len() < 3 << 20, "{}", html.len());
    let users: BTreeSet<_> = page.rows("all").iter().map(|row| row[1].to_owned()).collect();
    assert_eq!(users.len(), 3000);
    assert_eq!(page.rows("risk").len(), 30);
    assert_eq!(page.all("details").filter(|it| it.get("class") == "domain").count(), 40);
    assert!(page.all("details").all(|it| !it.attributes.contains_key("open")));
}
