//! `hybster top`: the replicas of a group in a terminal, again and again.

mod model;
mod view;

use std::io::IsTerminal;
use std::path::PathBuf;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender, TryRecvError};
use std::time::{Duration, Instant};

use clap::Args;
use hybster::client::{ClientDriver, ClientOptions};
use hybster::duration::{DurationError, DurationRange};
use hybster::{ClientId, ClientKeys, Group};
use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};

use crate::{Done, Failure, survey};
use model::{Model, Sample};

/// How long the terminal waits for a key before it looks for new figures.
const KEY_WAIT: Duration = Duration::from_millis(100);
/// How long a replica has for its answer, at most.
const MOST_PATIENCE: Duration = Duration::from_secs(2);

/// Options of `hybster top`.
#[derive(Debug, Args)]
#[command(
    after_help = "Keys: arrows and page keys scroll, space holds the figures, q ends. What the figures \
    mean: tools/STATUS.md; what to do about them: tools/OPERATIONS.md."
)]
pub(crate) struct TopArgs {
    /// The group directory.
    #[arg(long)]
    group: PathBuf,
    /// Whose key to use: client-N.key of the group directory.
    #[arg(long, default_value_t = 0, value_name = "N")]
    client: u32,
    /// Time between two figures, such as 2s or 500ms; a plain number means seconds.
    #[arg(long, default_value = "1s", value_name = "DURATION", value_parser = interval)]
    every: Duration,
}

fn interval(text: &str) -> Result<Duration, DurationError> {
    DurationRange::seconds(Duration::from_millis(100), Duration::from_secs(3600)).parse(text)
}

/// Shows the group until somebody ends it.
pub(crate) fn top(args: &TopArgs) -> Result<Done, Failure> {
    let group = Group::load(&args.group)?;
    let keys = ClientKeys::load(&group, group.directory(), ClientId(args.client))?;
    if !std::io::stdout().is_terminal() {
        let text = "hybster top draws on a terminal; `hybster status` and its --json are for files and pipes";
        return Err(Failure::new(text));
    }
    let options = ClientOptions { sessions: 1, ..ClientOptions::default() };
    let driver = ClientDriver::connect(&group, &keys, &options)?;
    let model = Model::of(&group);
    // Asking may wait for a replica that is gone; keys must not.
    let (samples, arrived) = mpsc::sync_channel(1);
    let (end, ended) = mpsc::sync_channel(1);
    let every = args.every;
    let asking = std::thread::Builder::new()
        .name("status".into())
        .spawn(move || ask(&group, driver, every, &samples, &ended))?;
    let mut terminal = ratatui::try_init()?;
    let result = show(&mut terminal, model, &arrived);
    ratatui::restore();
    drop((end, arrived));
    let _ = asking.join();
    result
}

/// Asks until the other side of `samples` is gone, or `ended` is.
fn ask(
    group: &Group,
    mut driver: ClientDriver,
    every: Duration,
    samples: &SyncSender<Result<Sample, Failure>>,
    ended: &Receiver<()>,
) {
    loop {
        let start = Instant::now();
        let answers = survey::ask(group, &mut driver, every.min(MOST_PATIENCE));
        let failed = answers.is_err();
        let sample = answers.map(|answers| Sample::of(answers, group.config().faults));
        if samples.send(sample).is_err() || failed {
            return;
        }
        let rest = every.saturating_sub(start.elapsed());
        if !matches!(ended.recv_timeout(rest), Err(RecvTimeoutError::Timeout)) {
            return;
        }
    }
}

fn show(
    terminal: &mut DefaultTerminal,
    mut model: Model,
    arrived: &Receiver<Result<Sample, Failure>>,
) -> Result<Done, Failure> {
    terminal.draw(|frame| view::draw(frame, &mut model))?;
    loop {
        let mut changed = false;
        match arrived.try_recv() {
            Ok(sample) => {
                model.add(sample?);
                changed = true;
            }
            Err(TryRecvError::Empty) => {}
            // It ends only with a failure, which was told.
            Err(TryRecvError::Disconnected) => return Ok(Done::Yes),
        }
        if event::poll(KEY_WAIT)? {
            match event::read()? {
                Event::Key(key) if key.kind != KeyEventKind::Release => {
                    let control = key.modifiers.contains(KeyModifiers::CONTROL);
                    match key.code {
                        KeyCode::Char('q') | KeyCode::Esc => return Ok(Done::Yes),
                        // The terminal makes no signal of it while it is drawn on.
                        KeyCode::Char('c') if control => return Ok(Done::Yes),
                        KeyCode::Char(' ') => model.is_held = !model.is_held,
                        KeyCode::Up => model.scroll = model.scroll.saturating_sub(1),
                        KeyCode::Down => model.scroll = model.scroll.saturating_add(1),
                        KeyCode::PageUp => model.scroll = model.scroll.saturating_sub(10),
                        KeyCode::PageDown => model.scroll = model.scroll.saturating_add(10),
                        KeyCode::Home => model.scroll = 0,
                        _ => {}
                    }
                    changed = true;
                }
                Event::Resize(..) => changed = true,
                _ => {}
            }
        }
        if changed {
            terminal.draw(|frame| view::draw(frame, &mut model))?;
        }
    }
}
