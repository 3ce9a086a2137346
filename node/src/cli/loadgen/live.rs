//! The live view of a run: a dashboard on a terminal, a line a second elsewhere, nothing in quiet mode.
//!
//! Owns what is drawn and the terminal's state: the alternate screen of stderr is entered when the run begins and left when the view is
//! dropped, however the run ends. The terminal stays in its usual mode, so Ctrl-C is a signal as ever. Figures come from the run's
//! progress; the node's health from a session of its own, asked once a second.

use std::collections::VecDeque;
use std::io::{IsTerminal as _, Stderr, stderr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use ratatui::backend::CrosstermBackend;
use ratatui::crossterm::execute;
use ratatui::crossterm::terminal::{Clear, ClearType, EnterAlternateScreen, LeaveAlternateScreen};
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Style, Stylize as _};
use ratatui::symbols::Marker;
use ratatui::text::Line;
use ratatui::widgets::{Axis, Block, Chart, Dataset, GraphType, Paragraph, Row, Table};
use ratatui::{Frame, Terminal};
use weft_loadgen::report::{Moment, group, time};
use weft_loadgen::{NodeTarget, Phase, Progress};
use weft_net::{AckLevel, Client, ClientConfig, SessionOptions};

use crate::cli::traffic;

/// Seconds that the plots show.
const HISTORY: usize = 120;

/// How often the node is asked how it is, and how long it may take to answer.
const ASK_EVERY: Duration = Duration::from_secs(1);
const ANSWER_MAX: Duration = Duration::from_secs(3);

/// What a run looks like.
pub enum View {
    /// Nothing is shown.
    Quiet,
    /// A line a second.
    Lines,
    /// A dashboard.
    Dashboard(Box<Dashboard>),
}

impl View {
    /// The view for this terminal; `title` and `classes` are what is played.
    #[must_use]
    pub fn new(quiet: bool, title: String, classes: Vec<String>, node: Option<&NodeTarget>) -> Self {
        if quiet {
            return Self::Quiet;
        }
        if !stderr().is_terminal() {
            return Self::Lines;
        }
        match Dashboard::open(title, classes, node) {
            Ok(dashboard) => Self::Dashboard(Box::new(dashboard)),
            // A terminal that cannot do this shows lines.
            Err(_) => Self::Lines,
        }
    }

    /// Shows a look at the run.
    pub fn show(&mut self, progress: &Progress) {
        match self {
            Self::Quiet => {}
            Self::Lines => traffic::show(progress),
            Self::Dashboard(dashboard) => dashboard.show(progress),
        }
    }
}

/// What is drawn.
#[derive(Debug, Default)]
struct State {
    title: String,
    classes: Vec<String>,
    history: VecDeque<Moment>,
    health: String,
}

/// A terminal that shows a run.
pub struct Dashboard {
    terminal: Terminal<CrosstermBackend<Stderr>>,
    state: State,
    health: Option<Health>,
}

impl Dashboard {
    fn open(title: String, classes: Vec<String>, node: Option<&NodeTarget>) -> std::io::Result<Self> {
        let terminal = Terminal::new(CrosstermBackend::new(stderr()))?;
        // Not the terminal's own way to clear, which first asks where the cursor is and waits for an answer.
        execute!(stderr(), EnterAlternateScreen, Clear(ClearType::All))?;
        let state = State { title, classes, ..State::default() };
        Ok(Self { terminal, state, health: node.cloned().map(Health::watch) })
    }

    fn show(&mut self, progress: &Progress) {
        if self.state.history.len() == HISTORY {
            self.state.history.pop_front();
        }
        self.state.history.push_back(progress.moment);
        if let Some(health) = &self.health {
            self.state.health.clone_from(&health.text.lock().unwrap_or_else(PoisonError::into_inner));
        }
        let state = &self.state;
        // A frame that cannot be drawn is followed by another in a second.
        let _ = self.terminal.draw(|frame| draw(frame, state, progress));
    }
}

impl Drop for Dashboard {
    fn drop(&mut self) {
        let _ = execute!(stderr(), LeaveAlternateScreen);
        let _ = self.terminal.show_cursor();
    }
}

/// Asks a node how it is.
struct Health {
    text: Arc<Mutex<String>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Health {
    fn watch(node: NodeTarget) -> Self {
        let text = Arc::new(Mutex::new("not asked yet".to_owned()));
        let stop = Arc::new(AtomicBool::new(false));
        let (shared, asked) = (Arc::clone(&text), Arc::clone(&stop));
        let thread = std::thread::Builder::new().name("health".to_owned()).spawn(move || {
            let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else {
                return;
            };
            runtime.block_on(ask(&node, &shared, &asked));
        });
        Self { text, stop, thread: thread.ok() }
    }
}

impl Drop for Health {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

async fn ask(node: &NodeTarget, shared: &Mutex<String>, stop: &AtomicBool) {
    let say = |text: String| *shared.lock().unwrap_or_else(PoisonError::into_inner) = text;
    let session = async {
        let client = Client::connect(ClientConfig::new(node.addr, node.trust.clone())).await?;
        let options = SessionOptions { ack_level: AckLevel::Received, ..SessionOptions::default() };
        let session = client.open_session(options).await?;
        Ok::<_, weft_net::NetError>((client, session))
    };
    let (_client, session) = match tokio::time::timeout(ANSWER_MAX, session).await {
        Ok(Ok(session)) => session,
        Ok(Err(error)) => return say(format!("no session: {error}")),
        Err(_) => return say("no answer".to_owned()),
    };
    while !stop.load(Ordering::Relaxed) {
        match tokio::time::timeout(ANSWER_MAX, session.status()).await {
            Ok(Ok(status)) => {
                let age = match status.durable_age_us {
                    u64::MAX => "never".to_owned(),
                    us => format!("{} ago", time(us)),
                };
                say(format!(
                    "{:?}, last durable write {age}, {} of {} messages queued, {} accepted, {} rejected",
                    status.state,
                    group(status.queue_messages),
                    group(status.queue_messages_max),
                    group(status.accepted_total),
                    group(status.rejected_total)
                ));
            }
            Ok(Err(error)) => return say(format!("session lost: {error}")),
            Err(_) => say("no answer for 3 s".to_owned()),
        }
        tokio::time::sleep(ASK_EVERY).await;
    }
}

fn draw(frame: &mut Frame<'_>, state: &State, progress: &Progress) {
    let classes = u16::try_from(state.classes.len()).unwrap_or(u16::MAX).saturating_add(3);
    let rejected = u16::try_from(progress.rejected_by.len()).unwrap_or(u16::MAX).min(6) + 3;
    let [head, plots, table, foot] = Layout::vertical([
        Constraint::Length(3),
        Constraint::Min(8),
        Constraint::Length(classes),
        Constraint::Length(rejected),
    ])
    .areas(frame.area());
    let phase = match progress.phase {
        Phase::WarmUp => "warm-up",
        Phase::Measuring => "measuring",
        Phase::Draining => "draining",
    };
    let figures = format!(
        "{:.0} s {phase}   {} sent/s   {} acked/s   {} in flight   p50 {}   p99 {}",
        progress.elapsed.as_secs_f64(),
        group(progress.sent_per_s as u64),
        group(progress.acked_per_s as u64),
        group(progress.in_flight),
        progress.p50_us.map_or("-".to_owned(), time),
        progress.p99_us.map_or("-".to_owned(), time)
    );
    let block = Block::bordered().title(Line::from(state.title.as_str()).bold());
    frame.render_widget(Paragraph::new(figures).block(block), head);
    let [rates, latencies] = Layout::horizontal([Constraint::Fill(1), Constraint::Fill(1)]).areas(plots);
    let lines = |value: fn(&Moment) -> Option<f64>| -> Vec<(f64, f64)> {
        state.history.iter().filter_map(|moment| Some((moment.at_s, value(moment)?))).collect()
    };
    plot(
        frame,
        rates,
        "messages a second: due (white), sent (blue), acked (green)",
        &[
            (Color::White, lines(|moment| moment.intended_per_s)),
            (Color::Blue, lines(|moment| Some(moment.sent_per_s))),
            (Color::Green, lines(|moment| Some(moment.acked_per_s))),
        ],
        |value| group(value as u64),
    );
    plot(
        frame,
        latencies,
        "latency, ms: max (red), p99 (yellow), p50 (green)",
        &[
            (Color::Red, lines(|moment| Some(moment.latency_us.max as f64 / 1e3))),
            (Color::Yellow, lines(|moment| Some(moment.latency_us.p99 as f64 / 1e3))),
            (Color::Green, lines(|moment| Some(moment.latency_us.p50 as f64 / 1e3))),
        ],
        |value| format!("{value:.0}"),
    );
    let total: u64 = progress.classes.iter().map(|class| class.sent).sum();
    let rows = state.classes.iter().zip(&progress.classes).map(|(name, class)| {
        Row::new([
            name.clone(),
            group(class.sent),
            format!("{:.2} %", 100.0 * class.sent as f64 / total.max(1) as f64),
            group(class.acked),
            group(class.rejected),
            if class.p99_us == 0 { "-".to_owned() } else { time(class.p99_us) },
        ])
    });
    let widths = [
        Constraint::Min(16),
        Constraint::Length(14),
        Constraint::Length(9),
        Constraint::Length(14),
        Constraint::Length(12),
        Constraint::Length(10),
    ];
    let header = Row::new(["class", "sent", "share", "acked", "rejected", "p99"]).bold();
    frame.render_widget(
        Table::new(rows, widths).header(header).block(Block::bordered().title("classes")),
        table,
    );
    let mut text = vec![Line::from(format!("node: {}", state.health))];
    if progress.rejected == 0 {
        text.push(Line::from("nothing rejected"));
    }
    let rejections = progress.rejected_by.iter().take(6);
    text.extend(
        rejections.map(|(name, count)| Line::from(format!("rejected {name}: {}", group(*count))).red()),
    );
    frame.render_widget(Paragraph::new(text).block(Block::bordered().title("health")), foot);
}

fn plot(
    frame: &mut Frame<'_>,
    area: Rect,
    title: &str,
    lines: &[(Color, Vec<(f64, f64)>)],
    label: fn(f64) -> String,
) {
    let points = || lines.iter().flat_map(|(_, points)| points);
    let (from, to) =
        points().fold((f64::INFINITY, 1.0f64), |(from, to), point| (from.min(point.0), to.max(point.0)));
    let most = points().map(|point| point.1).fold(1.0f64, f64::max) * 1.05;
    let from = if from.is_finite() { from.min(to - 1.0) } else { 0.0 };
    let sets = lines.iter().map(|(colour, points)| {
        Dataset::default()
            .marker(Marker::Braille)
            .graph_type(GraphType::Line)
            .style(Style::default().fg(*colour))
            .data(points)
    });
    let x = Axis::default().bounds([from, to]).labels([format!("{from:.0} s"), format!("{to:.0} s")]);
    let y = Axis::default().bounds([0.0, most]).labels(["0".to_owned(), label(most / 2.0), label(most)]);
    let chart = Chart::new(sets.collect()).block(Block::bordered().title(title)).x_axis(x).y_axis(y);
    frame.render_widget(chart, area);
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use ratatui::backend::TestBackend;
    use weft_loadgen::ClassProgress;

    use super::*;

    fn progress() -> Progress {
        let moment = Moment {
            at_s: 3.0,
            seconds: 1.0,
            sent_per_s: 1_234.0,
            acked_per_s: 1_200.0,
            ..Moment::default()
        };
        Progress {
            elapsed: Duration::from_secs(3),
            phase: Phase::Measuring,
            sent: 9_000,
            acked: 8_000,
            rejected: 7,
            in_flight: 993,
            sent_per_s: 1_234.0,
            acked_per_s: 1_200.0,
            p50_us: Some(1_500),
            p99_us: Some(250_000),
            moment,
            rejected_by: BTreeMap::from([("bad_signature".to_owned(), 7)]),
            classes: vec![ClassProgress { sent: 5_000, acked: 4_990, rejected: 7, p99_us: 12_000 }; 2],
        }
    }

    fn shown(width: u16, height: u16) -> String {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        let state = State {
            title: "world-20b at 1e-3".to_owned(),
            classes: vec!["camera".to_owned(), "vehicle".to_owned()],
            history: (0..5).map(|_| progress().moment).collect(),
            health: "Live, last durable write 3 ms ago".to_owned(),
        };
        terminal.draw(|frame| draw(frame, &state, &progress())).unwrap();
        let buffer = terminal.backend().buffer().clone();
        let lines = buffer.content.chunks(usize::from(width));
        lines.map(|cells| cells.iter().map(|cell| cell.symbol()).collect::<String>() + "\n").collect()
    }

    #[test]
    fn the_dashboard_shows_rates_latencies_classes_rejections_and_health() {
        let text = shown(120, 40);
        for part in [
            "world-20b at 1e-3",
            "measuring",
            "1,234 sent/s",
            "1,200 acked/s",
            "993 in flight",
            "p99 250 ms",
            "camera",
            "vehicle",
            "50.00 %",
            "12.0 ms",
            "rejected bad_signature: 7",
            "last durable write 3 ms ago",
        ] {
            assert!(text.contains(part), "{part:?} is not in\n{text}");
        }
    }

    #[test]
    fn a_tiny_terminal_does_not_end_the_run() {
        for (width, height) in [(1, 1), (10, 4), (40, 10), (300, 8)] {
            assert!(!shown(width, height).is_empty());
        }
    }
}
