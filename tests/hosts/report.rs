//! The page of `uidl-keep report` in a browser: Chromium without a screen, spoken to through two
//! pipes in its own protocol (Chrome DevTools Protocol).
//!
//! Chromium is large, so that only `make test-browser` installs it, and asks for these tests by
//! `UIDL_KEEP_REQUIRE_BROWSER=1`. Others say that they skip them.

use std::fmt::Write as _;
use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::shared::uidl_keep;

const PROGRAMS: [&str; 3] =
    ["/usr/bin/chromium-headless-shell", "/usr/bin/chromium", "/usr/bin/google-chrome"];

/// A browser with one page open.
struct Browser {
    child: Child,
    commands: File,
    answers: BufReader<File>,
    session: String,
    last: u64,
    /// What it told by itself.
    events: Vec<Value>,
    /// What it keeps of its own, and the pipes.
    _dir: TempDir,
}

impl Drop for Browser {
    fn drop(&mut self) {
        // Debian's program is a script, which waits for the browser itself: all of its group ends.
        let _ = rustix::process::kill_process_group(
            rustix::process::Pid::from_child(&self.child),
            rustix::process::Signal::KILL,
        );
        let _ = self.child.wait();
    }
}

impl Browser {
    /// Opens a file; `None`, and a word on stderr: there is no browser.
    fn open(file: &Path) -> Option<Self> {
        let Some(program) = PROGRAMS.iter().find(|program| Path::new(program).exists()) else {
            if std::env::var_os("UIDL_KEEP_REQUIRE_BROWSER").is_some_and(|value| value == "1") {
                panic!("UIDL_KEEP_REQUIRE_BROWSER=1, but there is none of {PROGRAMS:?}");
            }
            eprintln!("skipped: there is none of {PROGRAMS:?}; `make test-browser` installs one");
            return None;
        };
        let dir = tempfile::tempdir().unwrap();
        let pipe = |name: &str| {
            let path = dir.path().join(name);
            rustix::fs::mkfifoat(rustix::fs::CWD, &path, 0o600.into()).unwrap();
            path
        };
        let (commands, answers) = (pipe("commands"), pipe("answers"));
        // The descriptors that it speaks through are 3 and 4. Each is opened for both ways, so that
        // nobody waits for the other.
        let script = r#"exec "$0" --headless --no-sandbox --disable-gpu --no-first-run \
            --remote-debugging-pipe --user-data-dir="$1" 3<>"$2" 4<>"$3""#;
        // It ends when we do.
        let child = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "sh", "-c", script, program])
            .arg(dir.path().join("profile"))
            .args([&commands, &answers])
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let open = |path| OpenOptions::new().read(true).write(true).open(path).unwrap();
        let mut browser = Self {
            child,
            commands: open(&commands),
            answers: BufReader::new(open(&answers)),
            session: String::new(),
            last: 0,
            events: Vec::new(),
            _dir: dir,
        };
        let target = browser.ask("Target.createTarget", json!({ "url": "about:blank" }));
        let attach = json!({ "targetId": target["targetId"], "flatten": true });
        let attached = browser.ask("Target.attachToTarget", attach);
        browser.session = attached["sessionId"].as_str().unwrap().to_owned();
        for domain in ["Page", "Log", "Runtime", "Network"] {
            browser.ask(&format!("{domain}.enable"), json!({}));
        }
        let url = format!("file://{}", file.display());
        browser.ask("Page.navigate", json!({ "url": url }));
        browser.run(
            "new Promise(done => document.readyState === 'complete' ? done() \
                     : addEventListener('load', done))",
        );
        Some(browser)
    }

    fn ask(&mut self, method: &str, params: Value) -> Value {
        self.last += 1;
        let mut command = json!({ "id": self.last, "method": method, "params": params });
        if !self.session.is_empty() {
            command["sessionId"] = self.session.clone().into();
        }
        self.commands.write_all(format!("{command}\0").as_bytes()).unwrap();
        loop {
            let mut octets = Vec::new();
            self.answers.read_until(0, &mut octets).unwrap();
            let answer: Value = serde_json::from_slice(&octets[..octets.len() - 1]).unwrap();
            if answer["id"] == self.last {
                assert!(answer["error"].is_null(), "{method}: {answer}");
                return answer["result"].clone();
            }
            self.events.push(answer);
        }
    }

    /// The value of an expression in the page.
    fn run(&mut self, expression: &str) -> Value {
        let evaluate =
            json!({ "expression": expression, "returnByValue": true, "awaitPromise": true });
        let answer = self.ask("Runtime.evaluate", evaluate);
        assert!(answer["exceptionDetails"].is_null(), "{expression}: {answer}");
        answer["result"]["value"].clone()
    }

    fn press(&mut self, key: &str, code: u32, text: &str) {
        let mut event = json!({
            "type": "keyDown", "key": key, "code": key, "windowsVirtualKeyCode": code, "text": text,
        });
        self.ask("Input.dispatchKeyEvent", event.clone());
        event["type"] = "keyUp".into();
        event["text"] = "".into();
        self.ask("Input.dispatchKeyEvent", event);
    }

    /// Sets width and scheme, and waits until all is drawn so.
    fn show(&mut self, width: u32, scheme: &str) {
        let size =
            json!({ "width": width, "height": 900, "deviceScaleFactor": 1, "mobile": false });
        self.ask("Emulation.setDeviceMetricsOverride", size);
        let feature = json!({ "name": "prefers-color-scheme", "value": scheme });
        self.ask("Emulation.setEmulatedMedia", json!({ "features": [feature] }));
        self.run("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))");
    }
}

/// A forecast of so many mailboxes: of each hundred, one lacks mail, one has changed, of one it
/// could not tell.
fn forecast_of(mailboxes: usize) -> String {
    let (mut lines, mut signs) = ([const { String::new() }; 5], [0; 5]);
    for number in 0..mailboxes {
        let user = format!("user{number}@customer{}.example", number % 40);
        let (at, line) = match number % 100 {
            7 => (0, json!({ "user": user, "sign": "!", "why": "cur: permission denied" })),
            8 => {
                let changed = ["UID1-17", "UID2-17"];
                let line = json!({
                    "user": user, "sign": "*", "captured": 300, "kept": 298, "changed": changed,
                    "again": 2,
                });
                (1, line)
            }
            9 => {
                let line = json!({
                    "user": user, "sign": "-", "captured": 300, "kept": 299,
                    "not_copied": ["</script><script>document.title = 'bad'</script>"],
                });
                (2, line)
            }
            other if other % 2 == 0 => {
                (3, json!({ "user": user, "sign": "+", "captured": 300, "kept": 300, "new": 2 }))
            }
            _ => (4, json!({ "user": user, "sign": "=", "captured": 300, "kept": 300 })),
        };
        writeln!(lines[at], "{line}").unwrap();
        signs[at] += 1;
    }
    let [unknown, changed, missing, new, whole] = signs;
    let signs = json!({ "!": unknown, "*": changed, "-": missing, "+": new, "=": whole });
    format!("{}{}\n", lines.concat(), json!({ "total": { "maildrops": signs } }))
}

/// A browser that shows the page of so many mailboxes.
fn browser_with(mailboxes: usize) -> Option<(Browser, TempDir)> {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("forecast.json"), forecast_of(mailboxes)).unwrap();
    let args = ["report", "-o", "report.html", "--forecast", "forecast.json"];
    let made = uidl_keep().args(args).current_dir(dir.path()).output().unwrap();
    assert!(made.status.success(), "{made:?}");
    let browser = Browser::open(&dir.path().join("report.html"))?;
    Some((browser, dir))
}

const ROWS: &str = "Array.from(document.querySelectorAll('details.domain tbody tr'))";

#[test]
fn three_thousand_mailboxes_are_searched_chosen_and_sorted() {
    let began = Instant::now();
    let Some((mut browser, _dir)) = browser_with(3000) else { return };
    assert!(began.elapsed() < Duration::from_secs(60), "{:?}", began.elapsed());
    let shown = format!("{ROWS}.filter(row => !row.hidden).length");
    assert_eq!(browser.run(&shown), 3000);
    assert_eq!(browser.run("document.getElementById('find').hidden"), false);
    let search = |browser: &mut Browser, words: &str| {
        browser.run(&format!(
            "words.value = '{words}'; words.dispatchEvent(new Event('input')); \
             new Promise(done => setTimeout(done, 400))"
        ));
    };
    let took = browser.run("const began = performance.now(); find(); performance.now() - began");
    assert!(took.as_f64().unwrap() < 2000.0, "{took}");
    search(&mut browser, "USER123@ customer3.example");
    assert_eq!(browser.run(&shown), 1);
    assert_eq!(browser.run("document.getElementById('found').textContent"), "1 mailbox found");
    let open = "Array.from(document.querySelectorAll('details.domain:not([hidden])'), \
                it => [it.open, it.id]).length";
    assert_eq!(browser.run(open), 1);
    search(&mut browser, "permission denied");
    assert_eq!(browser.run(&shown), 30);
    search(&mut browser, "");
    browser.run("sign.value = '*'; sign.dispatchEvent(new Event('change'))");
    assert_eq!(browser.run(&shown), 30);
    let at_risk = "document.querySelectorAll('section[aria-labelledby=risk] tbody \
                   tr:not([hidden])').length";
    assert_eq!(browser.run(at_risk), 30);
    browser.run("form.reset(); new Promise(done => setTimeout(done, 50))");
    assert_eq!(browser.run(&shown), 3000);
    let is_open = "document.querySelectorAll('details.domain[open]').length";
    assert_eq!(browser.run(is_open), 0);
    browser.run("document.getElementById('open').click()");
    assert_eq!(browser.run(is_open), 40);

    // A click sorts, another turns it round.
    let table = "document.querySelector('details.domain table')";
    let column = |browser: &mut Browser, at: usize| -> Vec<String> {
        let rows = browser.run(&format!(
            "Array.from({table}.tBodies[0].rows, row => row.cells[{at}].textContent.trim())"
        ));
        rows.as_array().unwrap().iter().map(|it| it.as_str().unwrap().to_owned()).collect()
    };
    browser.run(&format!("{table}.querySelectorAll('th button')[1].click()"));
    let numbers: Vec<u32> = column(&mut browser, 1)
        .iter()
        .map(|user| user["user".len()..].split('@').next().unwrap().parse().unwrap())
        .collect();
    assert!(numbers.is_sorted() && numbers.len() == 75, "{numbers:?}");
    browser.run(&format!("{table}.querySelectorAll('th button')[3].click()"));
    let kept: Vec<u32> =
        column(&mut browser, 3).iter().map(|kept| kept.parse().unwrap_or_default()).collect();
    assert!(kept.is_sorted_by(|a, b| a >= b), "{kept:?}");
    let sorted = format!("{table}.querySelectorAll('th[aria-sort]').length");
    assert_eq!(browser.run(&sorted), 1);
}

#[test]
fn the_page_is_used_by_keyboard_and_asks_the_network_for_nothing() {
    let Some((mut browser, _dir)) = browser_with(300) else { return };
    browser.press("Tab", 9, "");
    assert_eq!(browser.run("document.activeElement.textContent"), "Skip to the mailboxes at risk");
    browser.press("Enter", 13, "\r");
    assert_eq!(browser.run("location.hash"), "#risk");
    browser.press("Tab", 9, "");
    assert_eq!(browser.run("document.activeElement.textContent"), "State");
    browser.press("Enter", 13, "\r");
    let sort = "document.activeElement.parentNode.getAttribute('aria-sort')";
    assert_eq!(browser.run(sort), "descending");
    browser.press("Enter", 13, "\r");
    assert_eq!(browser.run(sort), "ascending");
    // A link to a domain opens it.
    browser.run(
        "document.querySelector('section[aria-labelledby=domains] a').click(); \
                 new Promise(done => setTimeout(done, 100))",
    );
    assert_eq!(browser.run("document.querySelectorAll('details.domain[open]').length"), 1);

    assert_eq!(browser.run("document.title"), "Migration of mailboxes");
    let of = |method: &str| {
        browser.events.iter().filter(|event| event["method"] == method).collect::<Vec<_>>()
    };
    assert_eq!(of("Network.requestWillBeSent").len(), 1);
    for method in ["Log.entryAdded", "Runtime.exceptionThrown", "Runtime.consoleAPICalled"] {
        assert!(of(method).is_empty(), "{:?}", of(method));
    }
    // Its policy holds: a script of anybody else's does not run.
    browser.run(
        "const script = document.createElement('script'); \
                 script.textContent = 'document.title = \"bad\"'; document.body.append(script)",
    );
    assert_eq!(browser.run("document.title"), "Migration of mailboxes");
}

/// Texts whose contrast with what is behind them is below 4.5 (WCAG 2, level AA).
const FAINT: &str = r"(() => {
  const part = value => value <= 0.03928 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
  const light = color => {
    const [r, g, b] = color.match(/[\d.]+/g).slice(0, 3).map(it => part(it / 255));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = element => {
    for (let it = element; it !== null; it = it.parentElement) {
      const color = getComputedStyle(it).backgroundColor;
      if (color !== 'rgba(0, 0, 0, 0)' && color !== 'transparent') return color;
    }
    return 'rgb(255, 255, 255)';
  };
  const faint = new Set();
  let seen = 0;
  for (const element of document.querySelectorAll('body *')) {
    const isText = Array.from(element.childNodes)
      .some(node => node.nodeType === 3 && node.data.trim() !== '');
    if (!isText || element.closest('svg, script, option')) continue;
    seen += 1;
    const [a, b] = [light(getComputedStyle(element).color), light(behind(element))];
    const contrast = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (contrast < 4.5) faint.add(`${element.tagName} ${element.className} ${contrast}`);
  }
  return [seen, ...faint];
})()";

#[test]
fn all_is_read_in_light_and_dark_on_wide_and_narrow_screens_and_on_paper() {
    let Some((mut browser, _dir)) = browser_with(300) else { return };
    browser.run("document.getElementById('open').click()");
    let mut backs = Vec::new();
    for width in [1280, 768, 390] {
        for scheme in ["light", "dark"] {
            browser.show(width, scheme);
            let faint = browser.run(FAINT);
            assert!(faint[0].as_u64().unwrap() > 1000, "{faint}");
            assert_eq!(faint.as_array().unwrap().len(), 1, "{width} {scheme}: {faint}");
            let over = browser.run("document.documentElement.scrollWidth - innerWidth");
            assert!(over.as_i64().unwrap() <= 0, "{width} {scheme}: {over} too wide");
            backs.push(browser.run("getComputedStyle(document.body).backgroundColor"));
        }
    }
    assert_ne!(backs[0], backs[1]);
    assert_eq!(backs[0], backs[2]);
    let printed = browser.ask("Page.printToPDF", json!({ "printBackground": false }));
    let pdf = STANDARD.decode(printed["data"].as_str().unwrap()).unwrap();
    assert!(pdf.starts_with(b"%PDF-") && pdf.len() > 50_000, "{}", pdf.len());
    browser.ask("Emulation.setEmulatedMedia", json!({ "media": "print" }));
    let form = "getComputedStyle(document.getElementById('find')).display";
    assert_eq!(browser.run(form), "none");
    let paper = "getComputedStyle(document.body).backgroundColor";
    assert_eq!(browser.run(paper), "rgb(255, 255, 255)");
}

#[test]
fn without_scripts_everything_is_there_but_what_searches() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("forecast.json"), forecast_of(100)).unwrap();
    let args = ["report", "-o", "report.html", "--forecast", "forecast.json"];
    let made = uidl_keep().args(args).current_dir(dir.path()).output().unwrap();
    assert!(made.status.success(), "{made:?}");
    // As a mail program would show it: the policy of the page forbids the script.
    let page = fs::read_to_string(dir.path().join("report.html")).unwrap();
    let without = page.replace("script-src 'sha256-", "script-src 'sha256-A");
    assert_ne!(page, without);
    fs::write(dir.path().join("without.html"), without).unwrap();
    let Some(mut browser) = Browser::open(&dir.path().join("without.html")) else { return };
    let form = "getComputedStyle(document.getElementById('find')).display";
    assert_eq!(browser.run(form), "none");
    assert_eq!(browser.run("document.querySelectorAll('th button').length"), 0);
    assert_eq!(browser.run(&format!("{ROWS}.length")), 100);
    browser.run("document.querySelector('details.domain summary').click()");
    assert_eq!(browser.run("document.querySelectorAll('details.domain[open]').length"), 1);
    let words = browser.run("document.body.innerText");
    for said in ["3 of 100 mailboxes need attention.", "user7@", "permission denied", "Copy the"] {
        assert!(words.as_str().unwrap().contains(said), "{said}");
    }
}
