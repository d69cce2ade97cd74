//! How `hybster top` looks: a line for each replica in each part, made for 80 columns and 24 lines.

use hybster::Status;
use hybster_proto::output::Reject;
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout};
use ratatui::style::{Style, Stylize as _};
use ratatui::text::{Line, Span};
use ratatui::widgets::Paragraph;

use super::model::Model;
use crate::health::Health;
use crate::memory::size;
use crate::words;

/// Draws everything, and keeps the scroll within what there is.
pub(super) fn draw(frame: &mut Frame<'_>, model: &mut Model) {
    let rows = [Constraint::Length(2), Constraint::Fill(1), Constraint::Length(1)];
    let [head, body, foot] = Layout::vertical(rows).areas(frame.area());
    frame.render_widget(Paragraph::new(header(model)), head);
    let lines = lines(model);
    let beyond = u16::try_from(lines.len()).unwrap_or(u16::MAX).saturating_sub(body.height);
    model.scroll = model.scroll.min(beyond);
    frame.render_widget(Paragraph::new(lines).scroll((model.scroll, 0)), body);
    let more = if model.scroll < beyond { "more below; " } else { "" };
    let held = if model.is_held { "held: space goes on" } else { "space holds" };
    let keys = format!("{more}q ends, {held}, arrows scroll");
    frame.render_widget(Paragraph::new(keys.dim()), foot);
}

fn header(model: &Model) -> Vec<Line<'static>> {
    let name: String = model.group.chars().take(12).collect();
    let title = format!(
        "hybster group {name}: {} replicas, f = {}, {} pillars",
        model.replicas, model.faults, model.pillars
    );
    let Some(sample) = &model.now else {
        return vec![Line::from(title.bold()), "asking the replicas".into()];
    };
    let mut complaints: Vec<String> = Vec::new();
    for (replica, health) in sample.health.iter().enumerate() {
        let transfers = model.status(replica).is_some_and(|status| status.transferring);
        let what = match health {
            Health::Ok if transfers => "transfers its state",
            Health::Ok => continue,
            Health::NoAnswer => "does not answer",
            Health::OutOfView => "is out of view",
            Health::Diverged => "repairs its state",
            Health::Halted => "has halted",
        };
        complaints.push(format!("replica {replica} {what}"));
    }
    let health = if complaints.is_empty() {
        "all replicas are well".to_owned().green()
    } else {
        complaints.join(", ").red().bold()
    };
    vec![Line::from(title.bold()), Line::from(health)]
}

fn lines(model: &Model) -> Vec<Line<'static>> {
    let mut lines = Vec::new();
    if model.now.is_none() {
        return lines;
    }
    lines.push(title(
        "replica  view       requests/s  batch  executed        behind  waiting  clients",
    ));
    lines.extend((0..model.replicas).map(|replica| work(model, replica)));
    lines.push(title(
        "replica  checkpoint      committed in each pillar, and certified beyond that",
    ));
    lines.extend(known(model).map(|(replica, status)| pillars(model, replica, status)));
    if known(model).any(|(_, status)| status.disk.is_some()) {
        lines.push(title("replica  sync p50  p99      longest  syncs/s  not synced  held  disk"));
        lines.extend(known(model).filter_map(|(replica, status)| disk(model, replica, status)));
    }
    lines.push(title("replica  peers"));
    lines.extend(known(model).map(|(replica, status)| peers(replica, status)));
    lines.push(title("rejected messages: since the start, and since the last figures"));
    let rejected = model.rejected();
    if rejected.is_empty() {
        lines.push("none".into());
    }
    lines.extend(rejected.into_iter().map(|it| {
        let words = it.reason.map_or(words::UNKNOWN, words::of_reject);
        let counts = format!("{:>9} {:>+7}", short(it.since_start as f64), it.since_before);
        let style = match it.reason.is_none_or(Reject::is_fault) {
            true => Style::new().red(),
            false => Style::new(),
        };
        Line::from(Span::styled(format!("{counts}  {words}"), style))
    }));
    let refused = model.refused();
    if !refused.is_empty() {
        lines.push(title("refused links: since the start"));
    }
    lines.extend(
        refused
            .into_iter()
            .map(|(words, count)| Line::from(format!("{:>9}  {words}", short(count as f64)))),
    );
    lines
}

fn title(text: &'static str) -> Line<'static> {
    Line::from(text.bold().cyan())
}

fn known(model: &Model) -> impl Iterator<Item = (usize, &Status)> {
    (0..model.replicas).filter_map(|replica| Some((replica, model.status(replica)?)))
}

fn work(model: &Model, replica: usize) -> Line<'static> {
    let Some(status) = model.status(replica) else {
        return Line::from(format!("{replica:<7}  no answer").red());
    };
    let view = if status.current_view > status.view {
        format!("{} -> {}", status.view, status.current_view)
    } else if usize::from(status.leader) == replica {
        format!("{} leads", status.view)
    } else {
        status.view.to_string()
    };
    let rate = model.rate(replica, |status| Some(status.requests));
    let batch = model.earlier(replica).and_then(|earlier| status.requests_per_batch_since(earlier));
    let behind = model.executed().saturating_sub(status.executed);
    let text = format!(
        "{replica:<7}  {view:<9}  {:>10}  {:>5}  {:<14}  {:<6}  {:<7}  {}",
        rate.map_or("-".to_owned(), short),
        batch.map_or("-".to_owned(), short),
        status.executed,
        behind,
        status.execution_queue,
        status.client_links,
    );
    text.into()
}

fn pillars(model: &Model, replica: usize, status: &Status) -> Line<'static> {
    let mut text = format!("{replica:<7}  {:<14}", status.stable_checkpoint);
    // The status has the next number; the one before it in its pillar is done.
    let step = u64::from(model.pillars.max(1));
    for pillar in &status.pillars {
        let done = pillar.committed.saturating_sub(step);
        let lag = pillar.prepared.saturating_sub(pillar.committed) / step;
        text += &format!("  {done} +{lag}");
    }
    text.into()
}

fn disk(model: &Model, replica: usize, status: &Status) -> Option<Line<'static>> {
    let disk = status.disk.as_ref()?;
    let syncs = model.rate(replica, |status| Some(status.disk.as_ref()?.syncs));
    let text = format!(
        "{replica:<7}  {:<8}  {:<7}  {:<7}  {:<7}  {:<10}  {:<4}  ",
        time(disk.sync_p50_us),
        time(disk.sync_p99_us),
        time(disk.sync_longest_us),
        syncs.map_or("-".to_owned(), short),
        size(disk.log_behind),
        disk.held,
    );
    let state = match (disk.holds_clients, disk.is_short) {
        (true, _) => "full".red(),
        (false, true) => "short".yellow(),
        (false, false) => "ok".into(),
    };
    Some(Line::from(vec![text.into(), state]))
}

fn peers(replica: usize, status: &Status) -> Line<'static> {
    let mut spans = vec![Span::from(format!("{replica:<7}"))];
    for peer in &status.peers {
        let name = format!("  {}", peer.replica);
        spans.push(if peer.up {
            format!("{name} up").into()
        } else {
            format!("{name} down").red()
        });
        if peer.queued_bytes > 0 {
            spans.push(format!(", {} wait", size(peer.queued_bytes)).into());
        }
        if peer.throttled > 0 {
            spans.push(format!(", {} throttled", short(peer.throttled as f64)).yellow());
        }
        if peer.differed > 0 {
            spans.push(format!(", {} states differed", peer.differed).red());
        }
    }
    Line::from(spans)
}

/// A number in at most five characters.
fn short(value: f64) -> String {
    let (value, unit) = match value {
        ..1e4 => (value, ""),
        ..1e6 => (value / 1e3, "k"),
        ..1e9 => (value / 1e6, "M"),
        _ => (value / 1e9, "G"),
    };
    match value {
        ..10.0 if value.fract() > 0.0 => format!("{value:.1}{unit}"),
        _ => format!("{value:.0}{unit}"),
    }
}

fn time(us: u64) -> String {
    match us {
        ..1_000 => format!("{us} us"),
        1_000..1_000_000 => format!("{:.1} ms", us as f64 / 1e3),
        _ => format!("{:.1} s", us as f64 / 1e6),
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use hybster::group::{CreateOptions, generate};
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;
    use serde_json::{Value, json};

    use super::super::model::Sample;
    use super::*;
    use crate::survey::Answer;

    fn status(id: u16, requests: u64, more: Value) -> Answer {
        let peers: Vec<Value> = (0..3)
            .filter(|peer| *peer != id)
            .map(|peer| json!({ "replica": peer, "up": true }))
            .collect();
        let mut all = json!({
            "replica": id, "replicated": true, "view": 4, "current_view": 4, "leader": 1, "requests": requests,
            "batches": requests / 100, "executed": 12_400, "stable_checkpoint": 12_288, "client_links": 3,
            "uptime_us": requests, "peers": peers,
            "pillars": [{ "pillar": 0, "prepared": 12_406, "committed": 12_402 },
                { "pillar": 1, "prepared": 12_403, "committed": 12_403 }],
            "disk": { "sync_p50_us": 250, "sync_p99_us": 4_100, "sync_longest_us": 1_200_000, "syncs": requests / 1000 },
            "rejections": [{ "from": 1, "kind": 4, "reason": "Irrelevant", "count": requests / 10 }],
        });
        all.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        Answer { status: Some(serde_json::from_value(all).unwrap()), ..Answer::default() }
    }

    fn model(before: Vec<Answer>, now: Vec<Answer>) -> Model {
        let mut model = Model::of(&generate(&CreateOptions::default()).unwrap().group);
        model.group = "0123456789abcdef".into();
        let start = Instant::now();
        model.add(Sample { at: start, ..Sample::of(before, 1) });
        model.add(Sample { at: start + Duration::from_secs(2), ..Sample::of(now, 1) });
        model
    }

    fn screen(model: &mut Model, width: u16, height: u16) -> Vec<String> {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal.draw(|frame| draw(frame, model)).unwrap();
        let buffer = terminal.backend().buffer();
        let line = |y| (0..width).map(|x| buffer[(x, y)].symbol()).collect::<String>();
        (0..height).map(|y| line(y).trim_end().to_owned()).collect()
    }

    #[test]
    fn a_group_that_is_well_fits_on_80_columns_and_24_lines() {
        let all = |requests| (0..3).map(|id| status(id, requests, json!({}))).collect::<Vec<_>>();
        let mut model = model(all(100_000), all(300_000));
        let expected = "\
hybster group 0123456789ab: 3 replicas, f = 1, 2 pillars
all replicas are well
replica  view       requests/s  batch  executed        behind  waiting  clients
0        4                100k    100  12400           0       0        3
1        4 leads          100k    100  12400           0       0        3
2        4                100k    100  12400           0       0        3
replica  checkpoint      committed in each pillar, and certified beyond that
0        12288           12400 +2  12401 +0
1        12288           12400 +2  12401 +0
2        12288           12400 +2  12401 +0
replica  sync p50  p99      longest  syncs/s  not synced  held  disk
0        250 us    4.1 ms   1.2 s    100      0 B         0     ok
1        250 us    4.1 ms   1.2 s    100      0 B         0     ok
2        250 us    4.1 ms   1.2 s    100      0 B         0     ok
replica  peers
0        1 up  2 up
1        0 up  2 up
2        0 up  1 up
rejected messages: since the start, and since the last figures
      90k  +60000  known already, or come too late: usual, others are faster
";
        let screen = screen(&mut model, 80, 24);
        let body: Vec<&str> = expected.lines().collect();
        assert_eq!(screen[..body.len()], body, "\n{}", screen.join("\n"));
        assert_eq!(screen[23], "q ends, space holds, arrows scroll");
    }

    #[test]
    fn what_is_wrong_stands_out() {
        let before = vec![
            status(0, 100, json!({})),
            status(1, 100, json!({ "uptime_us": 9_000 })),
            Answer::default(),
        ];
        let now = vec![
            status(
                0,
                200,
                json!({
                    "current_view": 6, "executed": 12_000,
                    "peers": [{ "replica": 1, "up": true, "queued_bytes": 2048, "throttled": 7, "differed": 1 },
                        { "replica": 2, "up": false }],
                    "disk": { "holds_clients": true },
                    "rejections": [{ "reason": "Irrelevant", "count": 9_000 }, { "reason": "BadCertificate", "count": 2 },
                        { "reason": "\u{1b}[2J", "count": 1 }],
                    "refusals": [{ "reason": "garbage", "count": 5 }],
                }),
            ),
            // It has started again, so that nothing can be said of its rate.
            status(1, 200, json!({ "uptime_us": 5, "transferring": true })),
            Answer::default(),
        ];
        let mut model = model(before, now);
        let screen = screen(&mut model, 80, 24).join("\n");
        for part in [
            "replica 0 is out of view, replica 1 transfers its state, replica 2 does not answ",
            "4 -> 6",
            "2        no answer",
            "1        4 leads             -      -",
            "0     full",
            "1 up, 2.00 KiB wait, 7 throttled, 1 states differed  2 down",
            "2      +2  its certificate is not valid: ",
            "1      +1  a reason that this program does not know",
            "5  no link of this protocol: a scanner, or a wrong port",
        ] {
            assert!(screen.contains(part), "{part} is missing in\n{screen}");
        }
        let place = |part: &str| screen.find(part).unwrap();
        assert!(place("its certificate") < place("known already"), "faults come first\n{screen}");
        assert!(!screen.contains('\u{1b}'), "what a replica says does not speak to the terminal");
    }

    #[test]
    fn what_does_not_fit_is_scrolled_to_and_no_further() {
        let all = || (0..3).map(|id| status(id, 100, json!({}))).collect::<Vec<_>>();
        let mut model = model(all(), all());
        assert!(screen(&mut model, 40, 10)[9].contains("more below"));
        model.scroll = u16::MAX;
        let end = screen(&mut model, 40, 10);
        assert!(end[8].contains("known already") && !end[9].contains("more"), "{end:?}");
        // The smallest terminals have no room, and do not break it.
        for size in 1..4 {
            screen(&mut model, size, size);
        }
    }

    #[test]
    fn numbers_are_short() {
        for (value, text) in [
            (0.0, "0"),
            (0.5, "0.5"),
            (9_999.0, "9999"),
            (10_000.0, "10k"),
            (3_208_755.0, "3.2M"),
            (u64::MAX as f64, "18446744074G"),
        ] {
            assert_eq!(short(value), text);
        }
        assert_eq!([time(5), time(1500), time(2_000_000)], ["5 us", "1.5 ms", "2.0 s"]);
    }

    #[test]
    fn before_the_first_answer_it_says_what_it_does() {
        let mut model = Model::of(&generate(&CreateOptions::default()).unwrap().group);
        assert_eq!(screen(&mut model, 80, 24)[1], "asking the replicas");
    }
}
