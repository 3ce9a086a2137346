//! `weft inspect`: what lies in a data directory, without a node.
//!
//! Reads only. `log` and `message` lock the data directory, since a log that grows under the walk would look torn; a
//! `segment` is read as it is, so that a running node's can be looked at too. Everything is found by walking the log
//! from its start, which checks it on the way; for a running node `weft get` finds a message by its id at once.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use serde_json::{Value, json};
use weft_core::{LaneId, MESSAGE_BYTES_MAX, MessageId, MessageView, Place};
use weft_crypto::verify_one;
use weft_loadgen::machine::rfc3339;
use weft_storage::segment::{SEGMENT_HEADER_BYTES, SegmentHeader, segment_first};
use weft_storage::verify::inspect_segment;
use weft_storage::{DataDir, LogError, RealDisk};

use super::{DataArg, EXIT_FOUND, JsonArg, usage, verify_log};
use crate::hasher::fastest;
use crate::units::{about_bytes, grouped};

/// Records that `inspect segment` lists unless told otherwise.
const RECORDS_SHOWN: usize = 50;
/// Payload bytes that a readable report shows.
const PAYLOAD_SHOWN_BYTES: usize = 64;

/// The commands under `weft inspect`.
#[derive(clap::Subcommand, Debug)]
pub enum InspectCommand {
    /// The ledger and the log of each lane: segments, size, root, how it ends
    #[command(
        long_about = "Show the ledger of a data directory and, for each lane, its segments, size, Merkle root and how \
            it ends. Walks the whole log; `weft verify-log` checks the signatures too. The node must not be running.\n\n\
            Example:\n  \
            weft inspect log --data ./ledger"
    )]
    Log(InspectLogArgs),
    /// One segment file: its header and its records
    #[command(
        long_about = "Show a segment file: its header and its records, with their offsets. Works while a node runs.\n\n\
            Examples:\n  \
            weft inspect segment ./ledger/lanes/0/0000000000000000.seg\n  \
            weft inspect segment --records 1000000 --json segment.json ./ledger/lanes/0/0000000000000000.seg"
    )]
    Segment(InspectSegmentArgs),
    /// One message, by id, by place, or from a file of its bytes
    #[command(
        long_about = "Show a message: every field, its id computed from its bytes, and whether its device's signature \
            is valid. WHAT is an id (64 hex digits), a place (LANE/POSITION), a file with the message's bytes, or - \
            for stdin. An id or a place is looked up by walking the log of the data directory, whose node must not be \
            running; ask a running node with `weft get`.\n\n\
            Examples:\n  \
            weft inspect message --data ./ledger 0/17\n  \
            weft get 3f9ac0...e1 --raw | weft inspect message -"
    )]
    Message(InspectMessageArgs),
}

/// Arguments of `weft inspect log`.
#[derive(clap::Args, Debug)]
pub struct InspectLogArgs {
    /// The data directory.
    #[command(flatten)]
    pub data: DataArg,
    /// Show this lane only [default: all]
    #[arg(long, value_name = "LANE")]
    pub lane: Option<u16>,
    /// Where the report goes.
    #[command(flatten)]
    pub json: JsonArg,
}

/// Arguments of `weft inspect segment`.
#[derive(clap::Args, Debug)]
pub struct InspectSegmentArgs {
    /// The segment file
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// List at most this many records
    #[arg(long, value_name = "COUNT", default_value_t = RECORDS_SHOWN)]
    pub records: usize,
    /// Where the report goes.
    #[command(flatten)]
    pub json: JsonArg,
}

/// Arguments of `weft inspect message`.
#[derive(clap::Args, Debug)]
pub struct InspectMessageArgs {
    /// Id, LANE/POSITION, file, or -
    #[arg(value_name = "WHAT")]
    pub what: String,
    /// The data directory.
    #[command(flatten)]
    pub data: DataArg,
    /// Where the report goes.
    #[command(flatten)]
    pub json: JsonArg,
}

/// Runs a command under `weft inspect`.
///
/// # Errors
/// If what is asked for cannot be read. Damage that is met, or a message that is not there, is exit code 1.
pub fn run(command: InspectCommand) -> anyhow::Result<ExitCode> {
    match command {
        InspectCommand::Log(args) => log(&args),
        InspectCommand::Segment(args) => segment(&args),
        InspectCommand::Message(args) => message(&args),
    }
}

/// A segment in the listing of a log.
struct SegmentLine {
    file: String,
    first: u64,
    length_bytes: u64,
    batches: u64,
    messages: u64,
    batch_bytes: u64,
}

fn log(args: &InspectLogArgs) -> anyhow::Result<ExitCode> {
    let data = DataDir::open(&args.data.data)?;
    let genesis = data.genesis();
    let mut sound = true;
    let mut lanes = Vec::new();
    let mut out = std::io::stdout().lock();
    let readable = !args.json.on_stdout();
    if readable {
        writeln!(out, "ledger \"{}\", network {}", genesis.name, data.network())?;
        writeln!(out, "  genesis       {}", data.genesis_id())?;
        writeln!(out, "  created       {}", rfc3339(genesis.created_at_us / 1_000_000))?;
        writeln!(out, "  committee     {} validators", genesis.committee.len())?;
        writeln!(
            out,
            "  limits        payload {} bytes, batch {} messages, clocks {} s ahead, {} s behind",
            genesis.payload_bytes_max,
            genesis.batch_messages_max,
            genesis.clock_ahead_us_max / 1_000_000,
            genesis.clock_behind_us_max / 1_000_000
        )?;
    }
    for lane in verify_log::lanes(&data, args.lane)? {
        let dir = data.lane_dir(lane);
        let mut segments = list_segments(&dir)?;
        let report =
            weft_storage::verify_log(&RealDisk, &dir, data.network(), lane, fastest(), &mut |batch, _| {
                let index = segments.partition_point(|segment| segment.first <= batch.first());
                if let Some(segment) = index.checked_sub(1).and_then(|index| segments.get_mut(index)) {
                    segment.batches += 1;
                    segment.messages += u64::from(batch.count());
                    segment.batch_bytes += batch.bytes().len() as u64;
                }
                Ok(())
            })?;
        sound &= report.damage.is_none();
        if readable {
            writeln!(
                out,
                "lane {lane}: {} messages in {} batches, {}",
                grouped(report.messages),
                grouped(report.batches),
                about_bytes(report.batch_bytes)
            )?;
            writeln!(out, "  size          {}", report.size)?;
            writeln!(out, "  root          {}", hex::encode(report.root))?;
            let end = match (report.torn_bytes, report.closed) {
                (0, true) => "closed in order".to_owned(),
                (0, false) => "not closed in order, nothing torn".to_owned(),
                (bytes, _) => format!("{bytes} bytes of a torn tail"),
            };
            writeln!(out, "  end           {end}")?;
            for segment in &segments {
                writeln!(
                    out,
                    "  {}  from {:>10}  {:>9} batches {:>11} messages  {:>10} of {:>10}",
                    segment.file,
                    segment.first,
                    grouped(segment.batches),
                    grouped(segment.messages),
                    about_bytes(segment.batch_bytes),
                    about_bytes(segment.length_bytes)
                )?;
            }
            if let Some(damage) = &report.damage {
                writeln!(out, "  DAMAGED       {damage}")?;
            }
        }
        let segments: Vec<Value> = segments
            .iter()
            .map(|segment| {
                json!({
                    "file": segment.file,
                    "first": segment.first,
                    "length_bytes": segment.length_bytes,
                    "batches": segment.batches,
                    "messages": segment.messages,
                    "batch_bytes": segment.batch_bytes,
                })
            })
            .collect();
        lanes.push(json!({
            "lane": lane.0,
            "size": report.size,
            "root": hex::encode(report.root),
            "batches": report.batches,
            "messages": report.messages,
            "torn_bytes": report.torn_bytes,
            "closed": report.closed,
            "damage": report.damage.as_ref().map(ToString::to_string),
            "segments": segments,
        }));
    }
    args.json.write(&json!({
        "report": "inspect log",
        "ledger": genesis.name,
        "network": data.network().to_string(),
        "genesis": data.genesis_id().to_string(),
        "created_at_us": genesis.created_at_us,
        "payload_bytes_max": genesis.payload_bytes_max,
        "batch_messages_max": genesis.batch_messages_max,
        "clock_ahead_us_max": genesis.clock_ahead_us_max,
        "clock_behind_us_max": genesis.clock_behind_us_max,
        "committee": genesis.committee.iter().map(|member| {
            json!({ "key": member.key.to_string(), "weight": member.weight })
        }).collect::<Vec<_>>(),
        "lanes": lanes,
    }))?;
    Ok(if sound { ExitCode::SUCCESS } else { ExitCode::from(EXIT_FOUND) })
}

fn list_segments(dir: &Path) -> anyhow::Result<Vec<SegmentLine>> {
    let mut segments = Vec::new();
    for entry in std::fs::read_dir(dir).with_context(|| format!("cannot list {}", dir.display()))? {
        let entry = entry?;
        let file = entry.file_name().to_string_lossy().into_owned();
        if let Some(first) = segment_first(&file) {
            let length_bytes = entry.metadata()?.len();
            segments.push(SegmentLine { file, first, length_bytes, batches: 0, messages: 0, batch_bytes: 0 });
        }
    }
    segments.sort_by_key(|segment| segment.first);
    Ok(segments)
}

fn segment(args: &InspectSegmentArgs) -> anyhow::Result<ExitCode> {
    let file = &args.file;
    let shown = file.display();
    let mut head = vec![0; SEGMENT_HEADER_BYTES];
    File::open(file)
        .and_then(|mut open| open.read_exact(&mut head))
        .with_context(|| format!("cannot read the header of {shown}"))?;
    let header = match SegmentHeader::decode(&head) {
        Ok((header, _)) => header,
        Err(error) => {
            writeln!(std::io::stdout(), "{shown}: not a segment, or damaged: {error}")?;
            return Ok(ExitCode::from(EXIT_FOUND));
        }
    };
    let name = file.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let Some(first) = segment_first(&name) else {
        return Err(usage(format!(
            "{shown}: a segment's name is its first position, 16 hex digits and .seg"
        )));
    };
    let dir = file.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let (records, end) = match inspect_segment(&RealDisk, dir, header.network, header.lane, first) {
        Ok(found) => found,
        Err(LogError::Damaged(damage) | LogError::Unsound(damage)) => {
            writeln!(std::io::stdout(), "DAMAGED {damage}")?;
            return Ok(ExitCode::from(EXIT_FOUND));
        }
        Err(error) => return Err(error.into()),
    };
    let messages: u64 = records.iter().map(|record| u64::from(record.count)).sum();
    args.json.write(&json!({
        "report": "inspect segment",
        "file": file.to_string_lossy(),
        "network": header.network.to_string(),
        "lane": header.lane.0,
        "first": header.first(),
        "length_bytes": header.length_bytes,
        "previous": hex::encode(header.previous),
        "records_total": records.len(),
        "messages": messages,
        "end": end,
        "records": records.iter().take(args.records).map(|record| json!({
            "offset": record.offset,
            "first": record.first,
            "count": record.count,
            "length_bytes": record.length_bytes,
            "durable": record.durable,
            "session": format!("{:016x}", record.session),
        })).collect::<Vec<_>>(),
    }))?;
    if args.json.on_stdout() {
        return Ok(ExitCode::SUCCESS);
    }
    let mut out = std::io::stdout().lock();
    writeln!(out, "{shown}")?;
    writeln!(
        out,
        "  network   {}   lane {}   first position {}",
        header.network,
        header.lane,
        header.first()
    )?;
    writeln!(out, "  length    {}", about_bytes(header.length_bytes))?;
    writeln!(out, "  previous  {}", hex::encode(header.previous))?;
    writeln!(
        out,
        "  records   {} with {} messages; {end}",
        grouped(records.len() as u64),
        grouped(messages)
    )?;
    if !records.is_empty() && args.records > 0 {
        writeln!(
            out,
            "{:>12} {:>12} {:>8} {:>12} {:>12}  session",
            "offset", "first", "messages", "bytes", "durable"
        )?;
    }
    for record in records.iter().take(args.records) {
        writeln!(
            out,
            "{:>12} {:>12} {:>8} {:>12} {:>12}  {:016x}",
            record.offset, record.first, record.count, record.length_bytes, record.durable, record.session
        )?;
    }
    if records.len() > args.records {
        writeln!(out, "... and {} more: --records {}", records.len() - args.records, records.len())?;
    }
    Ok(ExitCode::SUCCESS)
}

/// A message and, if it came out of a log, where it and its parents lie.
struct Found {
    bytes: Vec<u8>,
    places: Option<(Place, [Place; 2])>,
}

fn message(args: &InspectMessageArgs) -> anyhow::Result<ExitCode> {
    let found = if args.what == "-" {
        Some(read_message(std::io::stdin().lock(), "stdin")?)
    } else if let Ok(id) = args.what.parse::<MessageId>() {
        find(&args.data.data, None, |place_id| place_id.1 == id)?
    } else if let Ok(place) = args.what.parse::<Place>() {
        if place.is_root() {
            return Err(usage("a genesis root is an id without a message"));
        }
        find(&args.data.data, Some(place.lane()), |place_id| place_id.0 == place)?
    } else {
        let path = Path::new(&args.what);
        match File::open(path) {
            Ok(file) => Some(read_message(file, &args.what)?),
            Err(error) => {
                return Err(usage(format!(
                    "{}: neither an id (64 hex digits) nor a place (LANE/POSITION), nor a file that can be read ({error})",
                    args.what
                )));
            }
        }
    };
    let Some(found) = found else {
        writeln!(std::io::stdout(), "{}: not in the log of {}", args.what, args.data.data.display())?;
        return Ok(ExitCode::from(EXIT_FOUND));
    };
    let view = match MessageView::parse(&found.bytes) {
        Ok(view) => view,
        Err(rejection) => {
            writeln!(std::io::stdout(), "{}: not a message: {rejection}", args.what)?;
            return Ok(ExitCode::from(EXIT_FOUND));
        }
    };
    let id = view.id();
    let valid = verify_one(&view.issuer().0, &id.0, view.signature());
    let parents = view.parents();
    args.json.write(&json!({
        "report": "inspect message",
        "id": id.to_string(),
        "place": found.places.map(|(place, _)| place.to_string()),
        "version": view.version(),
        "kind": view.kind().to_string(),
        "network": view.network().to_string(),
        "issued_at_us": view.issued_at_us(),
        "sequence": view.sequence(),
        "issuer": view.issuer().to_string(),
        "parents": parents.iter().enumerate().map(|(index, parent)| json!({
            "id": parent.to_string(),
            "place": found.places.map(|(_, places)| places[index].to_string()),
        })).collect::<Vec<_>>(),
        "payload": hex::encode(view.payload()),
        "signature": hex::encode(view.signature()),
        "signature_valid": valid,
        "bytes": found.bytes.len(),
    }))?;
    if !args.json.on_stdout() {
        let mut out = std::io::stdout().lock();
        writeln!(out, "message {id}")?;
        if let Some((place, _)) = found.places {
            writeln!(out, "  place      {place}")?;
        }
        writeln!(out, "  network    {}   version {}   kind {}", view.network(), view.version(), view.kind())?;
        writeln!(out, "  issuer     {}", view.issuer())?;
        let issued = view.issued_at_us();
        writeln!(
            out,
            "  issued     {} ({issued} us)   sequence {}",
            rfc3339(issued / 1_000_000),
            view.sequence()
        )?;
        for (index, parent) in parents.iter().enumerate() {
            let place =
                found.places.map(|(_, places)| format!("   at {}", places[index])).unwrap_or_default();
            writeln!(out, "  parent {index}   {parent}{place}")?;
        }
        writeln!(out, "  payload    {} bytes  {}", view.payload().len(), preview(view.payload()))?;
        writeln!(out, "  signature  {}", if valid { "valid" } else { "NOT VALID" })?;
    }
    Ok(if valid { ExitCode::SUCCESS } else { ExitCode::from(EXIT_FOUND) })
}

/// The beginning of a payload: as text where it is printable, a dot for other bytes.
fn preview(payload: &[u8]) -> String {
    let shown = payload.iter().take(PAYLOAD_SHOWN_BYTES);
    let text: String = shown
        .map(|byte| if byte.is_ascii_graphic() || *byte == b' ' { char::from(*byte) } else { '.' })
        .collect();
    if payload.len() > PAYLOAD_SHOWN_BYTES { format!("{text}...") } else { text }
}

fn read_message(input: impl std::io::Read, name: &str) -> anyhow::Result<Found> {
    let mut bytes = Vec::new();
    // One byte more than fits tells a message that is too long from one that just fits.
    input
        .take(MESSAGE_BYTES_MAX as u64 + 1)
        .read_to_end(&mut bytes)
        .with_context(|| format!("cannot read {name}"))?;
    Ok(Found { bytes, places: None })
}

/// Walks the log of `lane`, or of every lane, to the first message that `wanted` says yes to.
fn find(
    data: &Path,
    lane: Option<LaneId>,
    wanted: impl Fn((Place, MessageId)) -> bool,
) -> anyhow::Result<Option<Found>> {
    let data = DataDir::open(data)?;
    for lane in verify_log::lanes(&data, lane.map(|lane| lane.0))? {
        let mut found = None;
        let report = weft_storage::verify_log(
            &RealDisk,
            &data.lane_dir(lane),
            data.network(),
            lane,
            fastest(),
            &mut |batch, ids| {
                for (entry, id) in batch.messages().zip(ids) {
                    let place = Place::new(lane, entry.position);
                    if wanted((place, *id)) {
                        let bytes = entry.message.bytes().to_vec();
                        found = Some(Found { bytes, places: Some((place, entry.parent_places)) });
                        // The walk stops at what is said to be wrong: here that it is no longer needed.
                        return Err("found".to_owned());
                    }
                }
                Ok(())
            },
        )?;
        if found.is_some() {
            return Ok(found);
        }
        if let Some(damage) = report.damage {
            eprintln!("warning: lane {lane} was read only up to its damage: {damage}");
        }
    }
    Ok(None)
}
