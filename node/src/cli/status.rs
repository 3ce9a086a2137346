//! `weft status`: how a node is, asked over its own protocol.

use std::process::ExitCode;

use serde::Serialize;
use weft_net::frame::{lane_flags, node_flags};
use weft_net::{AckLevel, LaneStatus, NodeState};

use super::{EXIT_FOUND, Globals, JsonArg, PeerArgs, connect};

/// What `--help` says.
pub const LONG_ABOUT: &str = "Ask a node how it is: state, counters, age of the last durable write; the committee and every lane \
        as this node has them: how much it holds, has applied, and how much of that is certified and final; rounds, and \
        faults that were proven.\n\n\
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
    lane: u16,
    silenced: bool,
    restoring: bool,
    disk_full: bool,
    votes_wait: bool,
    witnesses_total: u64,
    round_us: u64,
    acks_waiting: u64,
    lanes: Vec<LaneReport>,
}

#[derive(Serialize)]
struct LaneReport {
    lane: u16,
    weight: u64,
    connected: bool,
    written_size: u64,
    durable_size: u64,
    applied_size: u64,
    certified_size: u64,
    final_size: u64,
    witness: u64,
    faults: Vec<&'static str>,
}

impl LaneReport {
    fn new(lane: &LaneStatus) -> Self {
        let faults = [
            (lane_flags::FORKED, "forked"),
            (lane_flags::ENDED, "ended"),
            (lane_flags::EQUIVOCATED, "equivocated"),
        ];
        Self {
            lane: lane.lane.0,
            weight: lane.weight,
            connected: lane.flags & lane_flags::CONNECTED != 0,
            written_size: lane.written,
            durable_size: lane.durable,
            applied_size: lane.applied,
            certified_size: lane.certified,
            final_size: lane.final_size,
            witness: lane.witness,
            faults: faults.iter().filter(|(bit, _)| lane.flags & bit != 0).map(|(_, name)| *name).collect(),
        }
    }
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
            lane: status.lane.0,
            silenced: status.flags & node_flags::SILENCED != 0,
            restoring: status.flags & node_flags::RESTORING != 0,
            disk_full: status.flags & node_flags::DISK_FULL != 0,
            votes_wait: status.flags & node_flags::VOTES_WAIT != 0,
            witnesses_total: status.witnesses_total,
            round_us: status.round_us,
            acks_waiting: status.acks_waiting,
            lanes: status.lanes.iter().map(LaneReport::new).collect(),
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
        if report.disk_full {
            println!("  NO ROOM on its disk: it takes nothing until there is");
        }
        match report.durable_age_us {
            Some(age) => println!("  last durable write {:.3} s ago", age as f64 / 1e6),
            None => println!("  nothing written since the start"),
        }
        println!(
            "  confirmation round {} ms   witnesses made {}   acks that wait {}{}",
            report.round_us / 1000,
            report.witnesses_total,
            report.acks_waiting,
            match (report.silenced, report.votes_wait, report.restoring) {
                (true, _, _) => "   SILENCED: it has forgotten what it signed and states nothing more",
                (_, true, _) => "   VOTES WAIT for room on its disk: it confirms nothing until there is",
                (_, _, true) => "   restoring",
                _ => "",
            }
        );
        println!(
            "  lane  weight           held        durable        applied      certified          final  witness"
        );
        for lane in &report.lanes {
            let mark = if lane.lane == report.lane { '*' } else { ' ' };
            let there = if lane.connected { "" } else { "  not connected" };
            println!(
                "  {:>4}{mark} {:>6} {:>14} {:>14} {:>14} {:>14} {:>14} {:>8}{there}{}",
                lane.lane,
                lane.weight,
                lane.written_size,
                lane.durable_size,
                lane.applied_size,
                lane.certified_size,
                lane.final_size,
                lane.witness,
                lane.faults.iter().map(|fault| format!("  {}", fault.to_uppercase())).collect::<String>()
            );
        }
    }
    Ok(if live { ExitCode::SUCCESS } else { ExitCode::from(EXIT_FOUND) })
}
