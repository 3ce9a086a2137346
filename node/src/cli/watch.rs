//! `weft watch`: what becomes certified and final, as it does.
//!
//! Owns the command's words, its lines and its JSON, and going on after a lost connection. Invariant: what was printed is before the
//! position that is named for going on, and nothing else is.

use std::io::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use serde_json::{Value, json};
use tokio::time::Instant;
use weft_core::{LANE_POSITIONS_MAX, LANES_MAX, LaneId, Place};
use weft_net::frame::lane_flags;
use weft_net::subscribe::OPEN_MAX;
use weft_net::{
    AckLevel, Bookmark, Confirmed, ErrorCode, MessageFilter, NetError, Notice, Outcome, Start, Subscribe,
    Subscription,
};

use super::{Globals, PeerArgs, account, connect, usage};

/// What `--help` says.
pub const LONG_ABOUT: &str = "Print what becomes final at a node, as it does: for each lane that moves a line with its certified and \
        final size, then a line for each message that this made final: its place, its id, and if it carries an operation, what \
        became of that:\n\n  \
        accepted   the operation is in the ledger\n  \
        rejected   another operation is in the ledger for its account and sequence: this one never will be\n  \
        open       not decided yet; a line `decided` follows, mostly within two rounds. Only an account whose owner signed two \
        operations for one sequence may keep one open for ever\n\n\
        Of each lane every message is printed once and in order. At its end, by Ctrl-C, --count or --seconds, the command prints what \
        to say to go on from there, at this node or any other of the ledger: nothing is missed then and nothing printed twice. The \
        node keeps nothing for a watcher; one that is slow, or comes back after a week, reads on in the log.\n\n\
        Examples:\n  \
        weft watch                                     everything from now on\n  \
        weft watch --from start --issuer door.key      all messages of one device, ever\n  \
        weft watch --sizes --level certified           how far the lanes are, nothing else\n  \
        weft watch --from 0:5120,1:77 --open 0/5001    go on where an earlier one ended\n  \
        weft watch --json --reconnect | jq .           one JSON object a line, across restarts of the node";

/// How long to wait before another try to connect.
const RECONNECT_AFTER: Duration = Duration::from_millis(500);

/// Notices under way at a time: 43 KB each at most, so a long link stays full.
const CREDIT: u32 = 16;

/// What moves a line.
#[derive(clap::ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// The certified size too
    Certified,
    /// The final size
    Final,
}

/// Arguments of `weft watch`.
#[derive(clap::Args, Debug)]
pub struct WatchArgs {
    /// Which sizes make a line when they move; messages are told when they are final
    #[arg(long, value_enum, default_value_t = Level::Final)]
    level: Level,
    /// Where to begin: `now`, `start`, or the first position wanted of each lane; lanes that are not named begin at `now`
    #[arg(long, value_name = "now|start|LANE:POS,...", default_value = "now")]
    from: String,
    /// Operations that an earlier watch left open, as it named them
    #[arg(long, value_name = "LANE/POS,...")]
    open: Option<String>,
    /// Only messages signed by this key: 64 hex digits, or a key file
    #[arg(long, value_name = "KEY")]
    issuer: Option<String>,
    /// Witnesses too, the validators' own messages
    #[arg(long)]
    witnesses: bool,
    /// Sizes only, no messages
    #[arg(long, conflicts_with_all = ["issuer", "witnesses", "open"])]
    sizes: bool,
    /// End with the notice that brings the COUNT-th message (with --sizes: after COUNT lines)
    #[arg(long, value_name = "COUNT")]
    count: Option<u64>,
    /// End after so many seconds
    #[arg(long, value_name = "SECONDS")]
    seconds: Option<u64>,
    /// When the connection is lost, connect again and go on, until it is told to end. A node that goes down says so; one that
    /// was killed is missed after 30 seconds of silence
    #[arg(long)]
    reconnect: bool,
    /// One JSON object a line on stdout
    #[arg(long, help_heading = "Output")]
    json: bool,
    #[command(flatten)]
    peer: PeerArgs,
}

/// Reads `now`, `start` or positions.
fn parse_from(text: &str) -> anyhow::Result<(Start, Vec<(LaneId, u64)>)> {
    match text {
        "now" => return Ok((Start::Now, Vec::new())),
        "start" => return Ok((Start::Beginning, Vec::new())),
        _ => {}
    }
    let mut positions = Vec::new();
    for part in text.split(',') {
        let pair = part.split_once(':').and_then(|(lane, position)| {
            let (lane, position): (u16, u64) = (lane.trim().parse().ok()?, position.trim().parse().ok()?);
            (lane < LANES_MAX && position <= LANE_POSITIONS_MAX).then_some((LaneId(lane), position))
        });
        let wrong =
            || usage(format!("--from: {part:?} is not LANE:POSITION; write now, start, or 0:5120,1:77"));
        positions.push(pair.ok_or_else(wrong)?);
    }
    positions.sort_unstable();
    if positions.windows(2).any(|pair| pair[0].0 == pair[1].0) {
        return Err(usage("--from: a lane is named twice"));
    }
    Ok((Start::Now, positions))
}

fn parse_open(text: &str) -> anyhow::Result<Vec<Place>> {
    let place = |part: &str| {
        let place: Option<Place> = part.trim().parse().ok();
        let place = place.filter(|place| place.lane().0 < LANES_MAX);
        place.ok_or_else(|| usage(format!("--open: {part:?} is not LANE/POSITION; write 0/5001,1/70")))
    };
    let mut places = text.split(',').map(place).collect::<anyhow::Result<Vec<_>>>()?;
    places.sort_unstable();
    places.dedup();
    if places.len() > OPEN_MAX {
        return Err(usage(format!("--open: {} places, the limit is {OPEN_MAX}", places.len())));
    }
    Ok(places)
}

impl WatchArgs {
    fn wanted(&self) -> anyhow::Result<Subscribe> {
        let (start, positions) = parse_from(&self.from)?;
        let issuer = self.issuer.as_deref().map(account::parse_account).transpose()?;
        let filter = MessageFilter { witnesses: self.witnesses, issuer };
        Ok(Subscribe {
            messages: (!self.sizes).then_some(filter),
            certified: self.level == Level::Certified,
            start,
            credit: CREDIT,
            positions,
            open: self.open.as_deref().map(parse_open).transpose()?.unwrap_or_default(),
        })
    }
}

fn faults(told: &Confirmed) -> Vec<&'static str> {
    let names = [
        (lane_flags::FORKED, "forked"),
        (lane_flags::ENDED, "ended"),
        (lane_flags::EQUIVOCATED, "equivocated"),
    ];
    names.iter().filter(|(bit, _)| told.faults & bit != 0).map(|(_, name)| *name).collect()
}

/// How a subscriber goes on: the values of `--from` and `--open`.
fn resume_text(bookmark: &Bookmark) -> (String, String) {
    let join = |parts: Vec<String>| parts.join(",");
    let from = join(bookmark.positions().map(|(lane, position)| format!("{lane}:{position}")).collect());
    (from, join(bookmark.open().map(|place| place.to_string()).collect()))
}

/// Prints notices, and counts.
struct Printer {
    json: bool,
    /// Lines without messages are left out.
    only_messages: bool,
    sizes: bool,
    /// Messages, or lines with --sizes.
    counted: u64,
}

impl Printer {
    fn print(&mut self, notice: &Notice) -> std::io::Result<()> {
        let mut out = String::new();
        let mut line = |text: String| {
            out.push_str(&text);
            out.push('\n');
        };
        match notice {
            Notice::Confirmed(told) => {
                self.counted += if self.sizes { 1 } else { told.messages.len() as u64 };
                let is_shown = !self.only_messages || !told.messages.is_empty() || told.faults != 0;
                let faults = faults(told);
                if self.json {
                    let message = |message: &weft_net::ConfirmedMessage| {
                        json!({
                            "position": message.position,
                            "id": message.id.to_string(),
                            "kind": message.kind.0,
                            "outcome": message.outcome.name(),
                        })
                    };
                    // Always, since `next` is where a reader goes on.
                    line(
                        json!({
                            "event": "confirmed",
                            "lane": told.lane.0,
                            "certified_size": told.certified,
                            "final_size": told.final_size,
                            "from": told.from,
                            "next": told.to,
                            "faults": faults,
                            "messages": told.messages.iter().map(message).collect::<Vec<Value>>(),
                        })
                        .to_string(),
                    );
                } else if is_shown {
                    let faults: String =
                        faults.iter().map(|fault| format!("  {}", fault.to_uppercase())).collect();
                    line(format!(
                        "lane {}  certified {}  final {}{faults}",
                        told.lane, told.certified, told.final_size
                    ));
                    for message in &told.messages {
                        let place = Place::new(told.lane, message.position);
                        let outcome = match message.outcome {
                            Outcome::None => String::new(),
                            outcome => format!("  {outcome}"),
                        };
                        line(format!("  {place}  {}{outcome}", message.id));
                    }
                }
            }
            Notice::Decided(decided) => {
                for (place, outcome) in decided {
                    line(if self.json {
                        json!({ "event": "decided", "place": place.to_string(), "outcome": outcome.name() })
                            .to_string()
                    } else {
                        format!("decided  {place}  {outcome}")
                    });
                }
            }
        }
        // One write, so that whoever reads along sees a notice whole; and at once.
        let mut stdout = std::io::stdout().lock();
        stdout.write_all(out.as_bytes())?;
        stdout.flush()
    }

    fn print_end(&self, bookmark: &Bookmark) -> std::io::Result<()> {
        let (from, open) = resume_text(bookmark);
        if self.json {
            let mut stdout = std::io::stdout().lock();
            writeln!(stdout, "{}", json!({ "event": "end", "resume_from": from, "resume_open": open }))?;
            return stdout.flush();
        }
        let open = if open.is_empty() { String::new() } else { format!(" --open {open}") };
        eprintln!("to go on from here: --from {from}{open}");
        Ok(())
    }
}

/// Why one connection's watching ended.
enum Ended {
    /// As it was told to.
    Told,
    Lost(anyhow::Error),
}

/// Runs `weft watch`.
///
/// # Errors
/// If the node cannot be reached or refuses, or the connection is lost without `--reconnect`.
pub fn run(args: WatchArgs, _globals: &Globals) -> anyhow::Result<ExitCode> {
    let mut wanted = args.wanted()?;
    let mut printer = Printer {
        json: args.json,
        only_messages: args.issuer.is_some() && args.level == Level::Final,
        sizes: args.sizes,
        counted: 0,
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        use tokio::signal::unix::{SignalKind, signal};
        let (mut interrupt, mut terminate) =
            (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
        let until = args.seconds.map(|seconds| Instant::now() + Duration::from_secs(seconds));
        let mut stop = std::pin::pin!(async {
            let time = async {
                match until {
                    Some(until) => tokio::time::sleep_until(until).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! { _ = interrupt.recv() => {}, _ = terminate.recv() => {}, () = time => {} }
        });
        let mut bookmark = None;
        loop {
            let ended = tokio::select! {
                () = &mut stop => Ended::Told,
                ended = watch(&args, &mut wanted, &mut bookmark, &mut printer) => ended?,
            };
            match ended {
                Ended::Lost(error) if args.reconnect => {
                    eprintln!("{error:#}; connecting again");
                    tokio::select! {
                        () = &mut stop => {}
                        () = tokio::time::sleep(RECONNECT_AFTER) => continue,
                    }
                }
                Ended::Lost(error) => {
                    if let Some(bookmark) = &bookmark {
                        printer.print_end(bookmark)?;
                    }
                    return Err(error);
                }
                Ended::Told => {}
            }
            if let Some(bookmark) = &bookmark {
                printer.print_end(bookmark)?;
            }
            return Ok(ExitCode::SUCCESS);
        }
    })
}

/// Watches over one connection. `wanted` and `bookmark` are where it is, whenever this is dropped.
async fn watch(
    args: &WatchArgs,
    wanted: &mut Subscribe,
    bookmark: &mut Option<Bookmark>,
    printer: &mut Printer,
) -> anyhow::Result<Ended> {
    let opened = tokio::time::timeout(Duration::from_millis(args.peer.timeout_ms), async {
        let link = connect::open(&args.peer, None, AckLevel::Durable).await?;
        let subscription = link.session.subscribe(wanted.clone()).await;
        Ok::<_, anyhow::Error>((link, subscription))
    });
    let (_link, subscription) = match opened.await {
        Ok(Ok(opened)) => opened,
        Ok(Err(error)) if error.is::<super::UsageError>() => return Err(error),
        Ok(Err(error)) => return Ok(Ended::Lost(error)),
        Err(_) => {
            let (to, patience) = (args.peer.to, args.peer.timeout_ms);
            return Ok(Ended::Lost(anyhow::anyhow!(
                "no answer from {to} within {patience} ms (--timeout-ms)"
            )));
        }
    };
    let mut subscription: Subscription = match subscription {
        Ok(subscription) => subscription,
        // What does not exist will not exist later either; a node that is full, or goes down, may be well again.
        Err(NetError::Request(error))
            if matches!(error.code, ErrorCode::NotFound | ErrorCode::Unsupported) =>
        {
            return Err(NetError::Request(error).into());
        }
        Err(error @ NetError::Invalid(_)) => return Err(error.into()),
        Err(error) => return Ok(Ended::Lost(error.into())),
    };
    *bookmark = Some(subscription.bookmark().clone());
    *wanted = subscription.resume();
    while args.count.is_none_or(|count| printer.counted < count) {
        let notice = match subscription.next().await {
            Ok(notice) => notice,
            Err(error) => return Ok(Ended::Lost(error.into())),
        };
        printer.print(&notice).context("cannot write to stdout")?;
        *bookmark = Some(subscription.bookmark().clone());
        *wanted = subscription.resume();
    }
    Ok(Ended::Told)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn from_is_a_word_or_positions_in_any_order() {
        assert_eq!(parse_from("now").unwrap(), (Start::Now, vec![]));
        assert_eq!(parse_from("start").unwrap(), (Start::Beginning, vec![]));
        let positions = vec![(LaneId(0), 5120), (LaneId(7), 0)];
        assert_eq!(parse_from("7:0, 0:5120").unwrap(), (Start::Now, positions));
        for wrong in ["", "later", "0", "0:", ":1", "0:-1", "1024:0", "0:281474976710657", "0:1,0:2", "0:1,"]
        {
            assert!(parse_from(wrong).unwrap_err().is::<super::super::UsageError>(), "{wrong:?}");
        }
    }

    #[test]
    fn what_is_printed_to_go_on_is_read_again_as_the_same() {
        let open = [Place::new(LaneId(0), 3), Place::new(LaneId(1), 70)];
        let bookmark = Bookmark::new(&[5, 77], &open);
        let (from, open_text) = resume_text(&bookmark);
        assert_eq!((from.as_str(), open_text.as_str()), ("0:5,1:77", "0/3,1/70"));
        assert_eq!(parse_from(&from).unwrap().1, [(LaneId(0), 5), (LaneId(1), 77)]);
        assert_eq!(parse_open(&open_text).unwrap(), open);
        assert!(parse_open("0/3,root/1").is_err() && parse_open("3").is_err());
    }
}
