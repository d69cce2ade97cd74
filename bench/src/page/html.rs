//! The page itself: one file, without scripts, in light and dark.

use std::fmt::Write;

use super::Page;
use super::plot::{Plot, themed};
use crate::report::wrap;

/// Columns of the report for the terminal.
const COLUMNS: usize = 80;

const SHEET: &str = "
:root { color-scheme: light dark; --ink: #1f2328; --paper: #ffffff; --soft: #f3f5f7; --grid: #d8dee4;
  --event: #b42318; --series-1: #0550ae; --series-2: #9a4a00; --series-3: #116329;
  --series-4: #8250df; --series-5: #bf3989; --series-6: #57606a; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6edf3; --paper: #0d1117; --soft: #171d25;
  --grid: #343c46; --event: #ff8f85; --series-1: #6cb6ff; --series-2: #f0a35e; --series-3: #6fd58a;
  --series-4: #c297ff; --series-5: #ff8fc8; --series-6: #a5b0bb; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 1060px; padding: 24px 16px; background: var(--paper); color: var(--ink);
  font: 16px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.5rem; line-height: 1.25; margin: 0 0 16px; }
h2 { font-size: 1.15rem; margin: 32px 0 8px; }
.figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(165px, 1fr)); gap: 8px; margin: 0; }
.figures div { background: var(--soft); border-radius: 6px; padding: 8px 12px; }
.figures dt { font-size: 0.85rem; }
.figures dd { margin: 0; font-size: 1.15rem; font-weight: 600; font-variant-numeric: tabular-nums; }
.wrong { border-left: 4px solid var(--event); background: var(--soft); padding: 8px 12px; margin: 0 0 8px; }
figure { margin: 0; }
svg { display: block; width: 100%; height: auto; }
.narrow { display: none; }
@media (max-width: 640px) { .wide { display: none; } .narrow { display: block; } }
figcaption { font-size: 0.9rem; }
pre { background: var(--soft); border-radius: 6px; padding: 12px; overflow-x: auto; font-size: 0.85rem; }
:focus-visible { outline: 2px solid var(--series-1); outline-offset: 2px; }
";

/// The page as text.
pub(super) fn page(page: &Page) -> String {
    let title = escape(&page.title);
    let mut out = format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>{title}</title>\n<style>{SHEET}</style>\n</head>\n<body>\n<main>\n<h1>{title}</h1>\n"
    );
    let interrupted = page
        .verdict
        .interrupted
        .then(|| "It was interrupted: these are the figures until then.".to_owned());
    for complaint in interrupted.iter().chain(&page.verdict.complaints).chain(&page.warnings) {
        let _ = writeln!(out, "<p class=\"wrong\" role=\"note\">{}</p>", escape(complaint));
    }
    out.push_str("<dl class=\"figures\">\n");
    for (name, value) in &page.figures {
        let _ = writeln!(out, "<div><dt>{}</dt><dd>{}</dd></div>", escape(name), escape(value));
    }
    out.push_str("</dl>\n");
    page.plots.iter().for_each(|plot| figure(&mut out, plot));
    // A region that scrolls must be reached by the keyboard.
    let _ = write!(
        out,
        "<h2 id=\"text\">Everything in words</h2>\n<pre tabindex=\"0\" role=\"region\" \
         aria-labelledby=\"text\">{}</pre>\n</main>\n</body>\n</html>\n",
        escape(&wrap(&page.text, COLUMNS))
    );
    out
}

fn figure(out: &mut String, plot: &Plot) {
    let (title, description) = (escape(&plot.title), escape(&plot.description));
    let (wide, narrow) = (themed(&plot.wide), themed(&plot.narrow));
    let _ = write!(
        out,
        "<h2>{title}</h2>\n<figure>\n<div role=\"img\" aria-label=\"{description}\">\n\
         <div class=\"wide\">{wide}</div>\n<div class=\"narrow\">{narrow}</div>\n</div>\n\
         <figcaption>{description}</figcaption>\n</figure>\n"
    );
}

/// Text as it must stand in HTML.
fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_cannot_become_markup() {
        assert_eq!(escape("p99<5ms & \"x\">"), "p99&lt;5ms &amp; &quot;x&quot;&gt;");
    }
}
