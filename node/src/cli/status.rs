//! `weft status`: how a node is, asked over its own protocol.

use std::process::ExitCode;

use serde::Serialize;
use weft_net::{AckLevel, NodeState};

use super::{EXIT_FOUND, Globals, JsonArg, PeerArgs, connect};

/// What `--help` says.
pub const LONG_ABOUT: &str = "Ask a node how it is: state, watermarks, counters, age of the last durable write.\n\n\
        Exits with 1 if the node answers that it is not live.\n\n\
        Example:\n  weft status --to 127.0.0.1:7272";

/// Arguments of `weft status`.
#[derive(clap::Args, Debug)]
pub struct StatusArgs {
    #[command(flatten)]
    peer: PeerArgs,
    #[command(flatten)]
    json: JsonArg,
}

#[derive(Serialize)]
struct StatusReport {
    node: String,
    network: String,
    genesis: String,
    certificate: Option<String>,
    state: String,
    uptime_us: u64,
    accepted_total: u64,
    rejected_total: u64,
    queue_messages: u64,
    queue_messages_max: u64,
    durable_age_us: Option<u64>,
    lanes: Vec<LaneReport>,
}

#[derive(Serialize)]
struct LaneReport {
    lane: u16,
    written_size: u64,
    durable_size: u64,
}

/// Runs `weft status`.
///
/// # Errors
/// If the node cannot be reached or does not answer.
pub fn run(args: StatusArgs, _globals: &Globals) -> anyhow::Result<ExitCode> {
    let (report, live) = connect::block_on(&args.peer, async {
        let link = connect::open(&args.peer, None, AckLevel::Durable).await?;
        let status = link.session.status().await?;
        let welcome = link.session.welcome();
        let report = StatusReport {
            node: welcome.node_name.clone(),
            network: welcome.network.to_string(),
            genesis: welcome.genesis.to_string(),
            certificate: link.client.fingerprint().map(|fingerprint| fingerprint.to_string()),
            state: format!("{:?}", status.state).to_lowercase(),
            uptime_us: status.uptime_us,
            accepted_total: status.accepted_total,
            rejected_total: status.rejected_total,
            queue_messages: status.queue_messages,
            queue_messages_max: status.queue_messages_max,
            durable_age_us: (status.durable_age_us != u64::MAX).then_some(status.durable_age_us),
            lanes: status
                .lanes
                .iter()
                .map(|lane| LaneReport {
                    lane: lane.lane.0,
                    written_size: lane.written,
                    durable_size: lane.durable,
                })
                .collect(),
        };
        link.client.close().await;
        Ok((report, status.state == NodeState::Live))
    })?;
    args.json.write(&report)?;
    if !args.json.on_stdout() {
        println!("node \"{}\" is {}, up {:.1} s", report.node, report.state, report.uptime_us as f64 / 1e6);
        println!("  network      {}   genesis {}", report.network, report.genesis);
        println!("  certificate  {}", report.certificate.as_deref().unwrap_or("unknown"));
        println!("  accepted     {}   refused {}", report.accepted_total, report.rejected_total);
        println!("  queue        {} of {} messages", report.queue_messages, report.queue_messages_max);
        match report.durable_age_us {
            Some(age) => println!("  last durable write {:.3} s ago", age as f64 / 1e6),
            None => println!("  nothing written since the start"),
        }
        for lane in &report.lanes {
            println!(
                "  lane {}       written {}   durable {}",
                lane.lane, lane.written_size, lane.durable_size
            );
        }
    }
    Ok(if live { ExitCode::SUCCESS } else { ExitCode::from(EXIT_FOUND) })
}
