//! The page of a report in a real browser, without a window: Chromium, where it is installed. Of Debian it is the
//! package `chromium`; without it the test says so and checks nothing.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use hybster_bench::page::Page;
use hybster_bench::report::RunReport;
use rustix::process::{Pid, Signal, kill_process_group};
use serde::Deserialize;

const RUN: &str = include_str!("fixtures/run-report.json");
/// Names that Chromium has.
const NAMES: [&str; 3] = ["chromium", "chromium-browser", "google-chrome"];
/// Much longer than it takes on any machine.
const PATIENCE: Duration = Duration::from_secs(120);
/// Widths of a window and of a telephone.
const WIDTHS: [u32; 2] = [1280, 390];

/// Looks at the page in the frame. What it finds is text of the outer page.
const SCRIPT: &str = r#"
addEventListener("load", () => {
  const frame = document.querySelector("iframe"), page = frame.contentDocument;
  const style = (element) => frame.contentWindow.getComputedStyle(element);
  const is_seen = (element) => element.getClientRects().length > 0;
  const is_drawn = (line) => {
    const box = line.getBoundingClientRect(), stroke = style(line).stroke;
    // The colours of lines have names; those of axes and of the grid have others.
    const is_line = (line.getAttribute("stroke") || "").startsWith("var(--series");
    return is_line && box.width > 5 && stroke.startsWith("rgb(");
  };
  const plots = [...page.querySelectorAll("figure")].map((figure) => {
    const image = figure.querySelector("[role=img]");
    const seen = [...figure.querySelectorAll("svg")].filter(is_seen);
    const all = (what) => seen.flatMap((svg) => [...svg.querySelectorAll(what)]);
    const letters = all("text").filter((text) => text.textContent.trim() !== "");
    const heights = letters.map((text) => text.getBoundingClientRect().height);
    return {
      label: image ? image.getAttribute("aria-label") : "",
      pictures: seen.length,
      hidden: seen.every((svg) => svg.getAttribute("aria-hidden") === "true"),
      lines: all("polyline").filter(is_drawn).length,
      letters: Math.min(...heights),
    };
  });
  const text = page.querySelector("pre");
  text.focus();
  const found = {
    errors: frame.contentWindow.seen_errors,
    width: page.documentElement.clientWidth,
    content: page.documentElement.scrollWidth,
    language: page.documentElement.lang,
    headings: page.querySelectorAll("h1").length,
    focus: page.activeElement === text && is_seen(text),
    plots,
  };
  document.getElementById("found").textContent = btoa(JSON.stringify(found));
});
"#;

/// What the script finds.
#[derive(Debug, Deserialize)]
struct Found {
    errors: Vec<String>,
    width: u32,
    content: u32,
    language: String,
    headings: u32,
    focus: bool,
    plots: Vec<Plot>,
}

#[derive(Debug, Deserialize)]
struct Plot {
    label: Option<String>,
    pictures: u32,
    hidden: bool,
    lines: usize,
    letters: f64,
}

/// The browser with its own processes, which end with it.
struct Browser(Child);

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = kill_process_group(Pid::from_child(&self.0), Signal::KILL);
        let _ = self.0.wait();
    }
}

/// The name of a Chromium that runs here.
fn installed() -> Option<&'static str> {
    NAMES.into_iter().find(|name| {
        let mut version = Command::new(name);
        version.arg("--version").stdout(Stdio::null()).stderr(Stdio::null());
        version.status().is_ok_and(|status| status.success())
    })
}

/// The page in a frame of this width: a window has a least width, a frame has none.
fn framed(page: &str, width: u32) -> String {
    let listen = "<head><script>window.seen_errors = []; addEventListener(\"error\", (event) => \
                  seen_errors.push(String(event.message)));</script>";
    let page = page.replacen("<head>", listen, 1).replace('&', "&amp;").replace('"', "&quot;");
    format!(
        "<!doctype html><meta charset=\"utf-8\"><script>{SCRIPT}</script>\n<iframe width=\"{width}\" \
         height=\"20000\" style=\"border:0\" srcdoc=\"{page}\"></iframe>\n<p id=\"found\"></p>"
    )
}

/// What is found in a page that is so wide.
fn look(browser: &str, directory: &Path, page: &str, width: u32) -> Found {
    let [file, profile, out] = ["framed.html", "profile", "dom.html"]
        .map(|name| directory.join(format!("{width}-{name}")));
    std::fs::write(&file, framed(page, width)).unwrap();
    let mut command = Command::new(browser);
    // The page is our own, and whoever runs the test may be root, for whom there is no sandbox.
    command.args(["--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run"]);
    command.args(["--disable-breakpad", "--disable-dev-shm-usage", "--window-size=1400,1000"]);
    command.arg(format!("--user-data-dir={}", profile.display()));
    command.arg("--dump-dom").arg(format!("file://{}", file.display()));
    command.stdin(Stdio::null()).stdout(std::fs::File::create(&out).unwrap());
    command.stderr(Stdio::null());
    std::os::unix::process::CommandExt::process_group(&mut command, 0);
    let mut running = Browser(command.spawn().unwrap());
    let deadline = Instant::now() + PATIENCE;
    while running.0.try_wait().unwrap().is_none() {
        assert!(Instant::now() < deadline, "the browser does not end");
        std::thread::sleep(Duration::from_millis(20));
    }
    drop(running);
    let dom = std::fs::read_to_string(out).unwrap();
    let (_, found) = dom.rsplit_once("<p id=\"found\">").expect("the page was not loaded");
    let found = found.split('<').next().unwrap_or_default();
    serde_json::from_slice(&decoded(found)).expect("the script has found nothing")
}

/// Base64, which no quoting changes.
fn decoded(text: &str) -> Vec<u8> {
    const LETTERS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let (mut bytes, mut bits, mut held) = (Vec::new(), 0u32, 0);
    for letter in text.bytes().filter_map(|byte| LETTERS.iter().position(|l| *l == byte)) {
        bits = bits << 6 | letter as u32;
        held += 6;
        if held >= 8 {
            held -= 8;
            bytes.push((bits >> held) as u8);
        }
    }
    bytes
}

#[test]
fn the_page_of_a_report_can_be_read_in_a_browser() {
    let Some(browser) = installed() else {
        println!("skipped: no Chromium is installed (apt-get install chromium)");
        return;
    };
    let directory = tempfile::tempdir().unwrap();
    let mut run: RunReport = serde_json::from_str(RUN).unwrap();
    // The fixture has figures of three moments only.
    run.timeline.as_mut().unwrap().completed = (0..1000).map(|number| 4000 + number % 7).collect();
    run.usage.as_mut().unwrap().at_s = vec![1.0, 5.0, 9.0];
    let report = directory.path().join("report");
    Page::of_run(&run).unwrap().write(&report, &run).unwrap();
    let page = std::fs::read_to_string(report.join("report.html")).unwrap();
    assert!(!page.contains("<script"), "the page needs no scripts");
    for width in WIDTHS {
        let found = look(browser, directory.path(), &page, width);
        assert!(found.errors.is_empty(), "{found:?}");
        // Nothing is cut off, and nothing has to be moved sideways.
        assert_eq!(found.width, width, "{found:?}");
        assert!(found.content <= width, "{found:?}");
        assert_eq!((found.language.as_str(), found.headings), ("en", 1));
        assert!(found.focus, "the text cannot be reached by the keyboard");
        // Throughput, latency, its stages, CPU and memory, of which the last two have a line for each process, and one
        // beside its name; stages are areas.
        let lines = run.usage.as_ref().unwrap().processes.len();
        let least = [1, 1, 0, 2 * lines, 2 * lines];
        assert_eq!(found.plots.len(), least.len(), "{found:?}");
        for (plot, least) in found.plots.iter().zip(least) {
            assert!(
                plot.label.as_ref().is_some_and(|label| label.len() > 20) && plot.hidden,
                "{width}: {plot:?}"
            );
            assert_eq!(plot.pictures, 1, "{width}: {plot:?}");
            assert!(plot.lines >= least, "{width}: {plot:?}");
            assert!(plot.letters >= 9.0, "too small to read: {width}: {plot:?}");
        }
    }
}

/// A test that cannot fail is none: a page with an error, too wide and without its lines.
#[test]
fn what_is_wrong_with_a_page_is_found() {
    let Some(browser) = installed() else {
        println!("skipped: no Chromium is installed (apt-get install chromium)");
        return;
    };
    let directory = tempfile::tempdir().unwrap();
    let page = "<html><head></head><body><pre tabindex=\"0\" style=\"width:2000px\">x</pre><figure>\
                <div role=\"img\"><svg><text>x</text></svg></div></figure>\
                <script>missing()</script></body></html>";
    let found = look(browser, directory.path(), page, 390);
    assert!(found.errors[0].contains("missing"), "{found:?}");
    assert!(found.content > 390, "{found:?}");
    assert_eq!((found.plots[0].lines, found.plots[0].hidden, found.headings), (0, false, 0));
}
