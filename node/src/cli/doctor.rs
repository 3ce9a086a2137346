//! `weft doctor`: what this machine offers to a node, and what to change.
//!
//! Every check is best effort, changes nothing, and ends in one line: PASS or WARN, what was found, and for a WARN what
//! to do. All of them together take at most about two seconds; the disk is the only thing that is exercised, with an
//! unnamed temporary file that is gone afterwards.

use std::io::Write as _;
use std::net::UdpSocket;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use quinn_udp::{UdpSockRef, UdpSocketState};
use rustix::process::{Resource, getrlimit};
use serde_json::{Value, json};
use weft_crypto::backend;
use weft_gpu::adapter;
use weft_loadgen::machine::{self, Machine};

use super::{DataArg, EXIT_FOUND, JsonArg};
use crate::units::{about_bytes, grouped};

/// Socket buffers that keep up with a burst: 8 MiB is 6,000 packets, 5 ms at ten gigabits a second.
const UDP_BUFFER_BYTES: usize = 8 << 20;
/// A node keeps a few files open for each segment and none for a QUIC connection; HTTP clients cost one each.
const FILE_DESCRIPTORS_MIN: u64 = 4_096;
/// Main memory below which the default tables and queues do not fit comfortably.
const MEMORY_BYTES_MIN: u64 = 2 << 30;
/// Free space below which the default watermark soon refuses messages.
const FREE_SPACE_BYTES_MIN: u64 = 10 << 30;
/// A sync slower than this bounds acks to a few hundred groups a second.
const SYNC_US_MAX: u64 = 10_000;
/// Time given to each of the two disk measurements.
const DISK_TIME_MAX: Duration = Duration::from_millis(800);
/// Appends measured, at most.
const SYNCS_MAX: usize = 25;
/// Time over which the wall clock is held against the monotonic one.
const CLOCK_WINDOW: Duration = Duration::from_millis(50);

/// What `--help` says.
pub const LONG_ABOUT: &str = "Examine this machine: UDP socket buffers and offloads, file descriptors, CPU and the verifier it \
        would use, GPU adapters, memory, disk (space, preallocation, time of an fdatasync), clock, build. Prints PASS or WARN with \
        advice, a line each; takes about two seconds; changes nothing.\n\n\
        Examples:\n  \
        weft doctor\n  \
        weft doctor --data /srv/ledger --json doctor.json\n  \
        weft doctor --strict             exit code 1 if there is any WARN";

/// Arguments of `weft doctor`.
#[derive(clap::Args, Debug)]
pub struct DoctorArgs {
    /// The data directory whose disk is examined; it need not exist.
    #[command(flatten)]
    pub data: DataArg,
    /// Exit with code 1 if anything is a WARN
    #[arg(long)]
    pub strict: bool,
    /// Where the report goes.
    #[command(flatten)]
    pub json: JsonArg,
}

/// One line of the diagnosis.
#[derive(Debug, serde::Serialize)]
struct Check {
    name: &'static str,
    status: &'static str,
    found: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    advice: Option<String>,
    /// The figures behind the line.
    data: Value,
}

impl Check {
    /// PASS if `good`, otherwise WARN with the advice.
    fn new(
        name: &'static str,
        good: bool,
        found: impl Into<String>,
        advice: impl Into<String>,
        data: Value,
    ) -> Self {
        Self {
            name,
            status: if good { "PASS" } else { "WARN" },
            found: found.into(),
            advice: (!good).then(|| advice.into()),
            data,
        }
    }
}

/// Runs `weft doctor`.
///
/// # Errors
/// If the report cannot be written.
pub fn run(args: DoctorArgs) -> anyhow::Result<ExitCode> {
    let machine = Machine::read(Some(&args.data.data));
    let mut checks = vec![build(), kernel(&machine), cpu(&machine), verifier(), gpu()];
    checks.extend([memory(&machine), file_descriptors()]);
    checks.extend(udp());
    checks.extend(disk(&args.data.data, &machine));
    checks.extend([clock(), cores()]);
    let warnings = checks.iter().filter(|check| check.status == "WARN").count();
    args.json.write(&json!({
        "report": "doctor",
        "machine": machine,
        "commit": machine::commit(),
        "version": env!("CARGO_PKG_VERSION"),
        "warnings": warnings,
        "checks": checks,
    }))?;
    if !args.json.on_stdout() {
        let mut out = std::io::stdout().lock();
        for check in &checks {
            writeln!(out, "{}  {:<16} {}", check.status, check.name, check.found)?;
            if let Some(advice) = &check.advice {
                writeln!(out, "      {:<16} -> {advice}", "")?;
            }
        }
        match warnings {
            0 => writeln!(out, "\nnothing to change")?,
            1 => writeln!(out, "\n1 warning")?,
            more => writeln!(out, "\n{more} warnings")?,
        }
    }
    Ok(if args.strict && warnings > 0 { ExitCode::from(EXIT_FOUND) } else { ExitCode::SUCCESS })
}

fn build() -> Check {
    let release = !cfg!(debug_assertions);
    Check::new(
        "build",
        release,
        format!("weft {}, {} build", env!("CARGO_PKG_VERSION"), if release { "release" } else { "debug" }),
        "signatures are many times slower in a debug build: use cargo run --release",
        json!({ "release": release, "commit": machine::commit() }),
    )
}

fn kernel(machine: &Machine) -> Check {
    let release = machine.kernel.clone().unwrap_or_else(|| "unknown".to_owned());
    // UDP segmentation offload came with Linux 4.18, receive offload with 5.0.
    let new_enough = kernel_version(&release).is_none_or(|version| version >= (5, 0));
    Check::new(
        "kernel",
        new_enough,
        &release,
        "Linux 5.0 or later has UDP offloads for both directions",
        json!({ "kernel": release }),
    )
}

/// Major and minor version out of a text such as `linux 6.1.0-18-amd64`.
fn kernel_version(release: &str) -> Option<(u32, u32)> {
    let version =
        release.split_whitespace().find(|word| word.starts_with(|first: char| first.is_ascii_digit()))?;
    let mut parts = version.split(|letter: char| !letter.is_ascii_digit());
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

fn cpu(machine: &Machine) -> Check {
    let wanted: &[&str] =
        if cfg!(target_arch = "x86_64") { &["avx2", "avx512ifma", "sha_ni", "vaes"] } else { &[] };
    let state = |flag: &&str| {
        let present = machine.cpu_flags.iter().any(|have| have == flag);
        format!("{flag} {}", if present { "yes" } else { "no" })
    };
    let features: Vec<String> = wanted.iter().map(state).collect();
    let enough = wanted.is_empty() || machine.cpu_flags.iter().any(|flag| flag == "avx2");
    let model = machine.cpu_model.as_deref().unwrap_or("unknown model");
    let cores = machine.cores.unwrap_or(1);
    let list = if features.is_empty() { String::new() } else { format!("; {}", features.join(", ")) };
    Check::new(
        "cpu",
        enough,
        format!("{model}, {cores} cores{list}"),
        "without AVX2 signatures are verified by portable code, at about half the rate",
        json!({ "model": model, "cores": cores, "flags": machine.cpu_flags }),
    )
}

fn verifier() -> Check {
    let chosen = backend::auto(&backend::Options::default());
    let measured: Vec<String> =
        chosen.measured.iter().map(|(backend, ns)| format!("{backend} {} ns", grouped(*ns))).collect();
    let how = if measured.is_empty() {
        "the only one here".to_owned()
    } else {
        format!("measured per signature: {}", measured.join(", "))
    };
    let name = chosen.verifier.name();
    let data: Vec<Value> = chosen
        .measured
        .iter()
        .map(|(backend, ns)| json!({ "backend": backend.name(), "ns_per_signature": ns }))
        .collect();
    Check::new(
        "verifier",
        true,
        format!("auto takes {name} ({how})"),
        "",
        json!({ "auto": name, "measured": data }),
    )
}

/// Adapters are named, not opened: compiling their kernels takes seconds (`weft gpu selftest` does it).
fn gpu() -> Check {
    let found: Vec<_> = adapter::list().into_iter().map(|found| found.description).collect();
    let real = found.iter().filter(|adapter| !adapter.software).count();
    let names: Vec<String> = found
        .iter()
        .map(|adapter| format!("{} {} ({})", adapter.index, adapter.name, adapter.kind))
        .collect();
    let says = match (real, found.len()) {
        (0, 0) => "no adapter: signatures are verified on the CPU".to_owned(),
        (0, _) => format!("{}: software only, signatures are verified on the CPU", names.join(", ")),
        _ => format!(
            "{}: a node uses the best beside the CPU (weft gpu selftest tries them)",
            names.join(", ")
        ),
    };
    let data: Vec<Value> = found
        .iter()
        .map(|adapter| {
            json!({
                "index": adapter.index,
                "name": adapter.name,
                "kind": adapter.kind,
                "driver": adapter.driver,
                "int64": adapter.int64,
            })
        })
        .collect();
    // A machine without a GPU is as good a machine.
    Check::new("gpu", true, says, "", json!(data))
}

fn memory(machine: &Machine) -> Check {
    let Some(bytes) = machine.memory_bytes else {
        return Check::new("memory", true, "unknown", "", Value::Null);
    };
    let available = std::fs::read_to_string("/proc/meminfo").ok().and_then(|text| {
        let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?.to_owned();
        Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024)
    });
    let free = available.map(|bytes| format!(", {} available", about_bytes(bytes))).unwrap_or_default();
    Check::new(
        "memory",
        available.unwrap_or(bytes) >= MEMORY_BYTES_MIN,
        format!("{}{free}", about_bytes(bytes)),
        "lower queue_bytes_max, recent_ids_max and replay_issuers_max (weft config prints them)",
        json!({ "total_bytes": bytes, "available_bytes": available }),
    )
}

fn file_descriptors() -> Check {
    let limit = getrlimit(Resource::Nofile);
    // None is no limit.
    let soft = limit.current.unwrap_or(u64::MAX);
    let show = |limit: Option<u64>| limit.map_or_else(|| "unlimited".to_owned(), grouped);
    Check::new(
        "file descriptors",
        soft >= FILE_DESCRIPTORS_MIN,
        format!("{} (hard limit {})", show(limit.current), show(limit.maximum)),
        format!("ulimit -n {FILE_DESCRIPTORS_MIN}, or LimitNOFILE={FILE_DESCRIPTORS_MIN} in a systemd unit"),
        json!({ "soft": limit.current, "hard": limit.maximum }),
    )
}

fn udp() -> Vec<Check> {
    let state = UdpSocket::bind(("127.0.0.1", 0)).and_then(|socket| {
        let state = UdpSocketState::new(UdpSockRef::from(&socket))?;
        Ok((socket, state))
    });
    let (socket, state) = match state {
        Ok(both) => both,
        Err(error) => {
            let found = format!("cannot open a UDP socket on loopback: {error}");
            return vec![Check::new("udp", false, found, "a node needs UDP: allow it here", Value::Null)];
        }
    };
    let mut checks = Vec::new();
    for (name, sysctl, receive) in
        [("udp receive", "net.core.rmem_max", true), ("udp send", "net.core.wmem_max", false)]
    {
        let reference = UdpSockRef::from(&socket);
        let granted = if receive {
            state.set_recv_buffer_size(reference, UDP_BUFFER_BYTES).ok();
            state.recv_buffer_size(UdpSockRef::from(&socket))
        } else {
            state.set_send_buffer_size(reference, UDP_BUFFER_BYTES).ok();
            state.send_buffer_size(UdpSockRef::from(&socket))
        }
        .unwrap_or(0);
        // Linux grants twice what was asked for, to have room for its own bookkeeping.
        let enough = granted >= UDP_BUFFER_BYTES;
        checks.push(Check::new(
            name,
            enough,
            format!(
                "asked for {} of buffer, granted {}",
                about_bytes(UDP_BUFFER_BYTES as u64),
                about_bytes(granted as u64)
            ),
            format!("packets are lost in bursts: sysctl -w {sysctl}={UDP_BUFFER_BYTES}"),
            json!({ "asked_bytes": UDP_BUFFER_BYTES, "granted_bytes": granted }),
        ));
    }
    let (gso, gro) = (state.max_gso_segments(), state.gro_segments());
    checks.push(Check::new(
        "udp offload",
        gso > 1 && gro > 1,
        format!("send (GSO) {gso} packets a call, receive (GRO) {gro} packets a call"),
        "every packet costs a system call of its own; a newer kernel has UDP GSO and GRO",
        json!({ "gso_segments": gso, "gro_segments": gro }),
    ));
    checks
}

fn disk(data: &Path, machine: &Machine) -> Vec<Check> {
    let directory = nearest_existing(data);
    let mut checks = Vec::new();
    let disk = machine.disk.as_ref();
    let kind = disk.map_or("unknown", |disk| disk.file_system.as_str());
    let in_memory = matches!(kind, "tmpfs" | "ramfs");
    let over_network = kind.starts_with("nfs") || matches!(kind, "cifs" | "smb3" | "9p" | "fuse.sshfs");
    let device = disk.map(|disk| format!(" on {}", disk.device)).unwrap_or_default();
    checks.push(Check::new(
        "file system",
        !in_memory && !over_network,
        format!("{}: {kind}{device}", directory.display()),
        if in_memory {
            "what is here is lost with the machine's power: no ack is durable"
        } else {
            "what a sync promises depends on the server, and shared maps may fail: use a local disk"
        },
        json!({ "directory": directory.to_string_lossy(), "disk": disk }),
    ));
    if let Ok(space) = rustix::fs::statvfs(&directory) {
        let free = space.f_bavail.saturating_mul(space.f_frsize);
        let total = space.f_blocks.saturating_mul(space.f_frsize);
        checks.push(Check::new(
            "free space",
            free >= FREE_SPACE_BYTES_MIN,
            format!("{} of {}", about_bytes(free), about_bytes(total)),
            "a node refuses messages below free_space_watermark_bytes (default 1 GiB) and needs a segment ahead",
            json!({ "free_bytes": free, "total_bytes": total }),
        ));
    }
    match measure_syncs(&directory) {
        Ok(syncs) => {
            let slow = syncs.small_us.max(syncs.large_us) > SYNC_US_MAX;
            checks.push(Check::new(
                "disk sync",
                !slow,
                format!(
                    "fdatasync after 4 KiB {} us, after 1 MiB {} us (medians of {} and {})",
                    grouped(syncs.small_us),
                    grouped(syncs.large_us),
                    syncs.small_count,
                    syncs.large_count
                ),
                "durable acks wait for it: use a disk with power-loss protection, or accept --ack-level written",
                json!({ "us_4kib": syncs.small_us, "us_1mib": syncs.large_us }),
            ));
            checks.push(Check::new(
                "preallocation",
                syncs.preallocated,
                if syncs.preallocated {
                    "segments can be preallocated"
                } else {
                    "refused by the file system"
                },
                "a full disk may then show only when a segment is written; use ext4, xfs or btrfs",
                json!(syncs.preallocated),
            ));
        }
        Err(error) => checks.push(Check::new(
            "disk sync",
            false,
            format!("cannot write in {}: {error}", directory.display()),
            "name a data directory that this user can write: --data DIR",
            Value::Null,
        )),
    }
    checks
}

/// The data directory, or the nearest directory above it that exists: it lies on the same disk.
fn nearest_existing(path: &Path) -> PathBuf {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| PathBuf::from("/"));
    absolute
        .ancestors()
        .find(|ancestor| ancestor.is_dir())
        .map_or_else(|| PathBuf::from("/"), Path::to_path_buf)
}

struct Syncs {
    small_us: u64,
    small_count: usize,
    large_us: u64,
    large_count: usize,
    preallocated: bool,
}

/// Appends to a preallocated file, as the log does, and times the sync after each.
fn measure_syncs(directory: &Path) -> std::io::Result<Syncs> {
    let file = tempfile::tempfile_in(directory)?;
    let large = vec![0x5a; 1 << 20];
    let small = &large[..4 << 10];
    let length = (SYNCS_MAX * (large.len() + small.len())) as u64;
    let preallocated = rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, length).is_ok();
    file.sync_all()?;
    let mut offset = 0;
    let mut median = |bytes: &[u8]| -> std::io::Result<(u64, usize)> {
        use std::os::unix::fs::FileExt as _;
        let start = Instant::now();
        let mut times = Vec::new();
        while times.len() < SYNCS_MAX && (times.len() < 3 || start.elapsed() < DISK_TIME_MAX) {
            file.write_all_at(bytes, offset)?;
            offset += bytes.len() as u64;
            let before = Instant::now();
            file.sync_data()?;
            times.push(u64::try_from(before.elapsed().as_micros()).unwrap_or(u64::MAX));
        }
        times.sort_unstable();
        Ok((times[times.len() / 2], times.len()))
    };
    let (small_us, small_count) = median(small)?;
    let (large_us, large_count) = median(&large)?;
    Ok(Syncs { small_us, small_count, large_us, large_count, preallocated })
}

fn clock() -> Check {
    let now = || SystemTime::now().duration_since(UNIX_EPOCH);
    let (wall, steady) = (now(), Instant::now());
    std::thread::sleep(CLOCK_WINDOW);
    let drift_us = match (wall, now()) {
        (Ok(before), Ok(after)) => {
            let wall = i128::try_from(after.as_micros()).unwrap_or(0)
                - i128::try_from(before.as_micros()).unwrap_or(0);
            Some(wall - i128::try_from(steady.elapsed().as_micros()).unwrap_or(0))
        }
        _ => None,
    };
    // 2026-01-01: this version did not exist before. A machine without a clock battery starts in 1970.
    let plausible = now().is_ok_and(|now| now.as_secs() >= 1_767_225_600);
    let steady = drift_us.is_some_and(|drift| drift.abs() < 10_000);
    let synchronised = clock_sync();
    let source = std::fs::read_to_string("/sys/devices/system/clocksource/clocksource0/current_clocksource")
        .map_or_else(|_| "unknown".to_owned(), |text| text.trim().to_owned());
    let sync = match synchronised {
        Some(by) => format!("kept by {by}"),
        None => "no sign of NTP here (a container's host may keep it)".to_owned(),
    };
    let date = now().map_or_else(|_| "before 1970".to_owned(), |now| machine::rfc3339(now.as_secs()));
    // Reading these clock sources takes a microsecond or more, and a node reads the clock for every batch.
    let slow_source = matches!(source.as_str(), "hpet" | "acpi_pm" | "jiffies");
    Check::new(
        "clock",
        plausible && steady && !slow_source,
        format!("{date}, source {source}, {sync}"),
        if slow_source {
            "this clock source is slow to read: boot with clocksource=tsc if the machine has a stable one"
        } else {
            "messages are refused when a device's clock and this one are far apart: run chrony or systemd-timesyncd"
        },
        json!({ "utc": date, "source": source, "synchronised_by": synchronised, "drift_us": drift_us.map(|us| us as i64) }),
    )
}

/// Which service keeps the clock, as far as the file system shows.
fn clock_sync() -> Option<&'static str> {
    let signs = [
        ("/run/systemd/timesync/synchronized", "systemd-timesyncd"),
        ("/run/chrony/chronyd.pid", "chrony"),
        ("/run/chrony/chronyd.sock", "chrony"),
        ("/run/ntpd.pid", "ntpd"),
        ("/run/openntpd.pid", "openntpd"),
    ];
    signs.into_iter().find(|(path, _)| Path::new(path).exists()).map(|(_, name)| name)
}

fn cores() -> Check {
    let governor = std::fs::read_to_string("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
        .map(|text| text.trim().to_owned())
        .ok();
    // cgroup v2: "max 100000" or "<quota> <period>", microseconds.
    let quota = std::fs::read_to_string("/sys/fs/cgroup/cpu.max").ok().and_then(|text| {
        let (quota, period) = text.trim().split_once(' ')?;
        Some(quota.parse::<f64>().ok()? / period.parse::<f64>().ok()?)
    });
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let saving = governor.as_deref() == Some("powersave");
    let throttled = quota.is_some_and(|quota| quota.fract() > 0.01);
    let found = format!(
        "{cores} usable, frequency governor {}, quota {}",
        governor.as_deref().unwrap_or("not shown"),
        quota.map_or_else(|| "none".to_owned(), |quota| format!("{quota:.2} cores")),
    );
    let advice = if saving {
        "timings wander while the frequency does: cpupower frequency-set -g performance"
    } else {
        "a quota that is no whole number of cores stops threads in the middle of a batch"
    };
    Check::new(
        "cores",
        !saving && !throttled,
        found,
        advice,
        json!({ "cores": cores, "governor": governor, "quota_cores": quota }),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernel_versions_are_read_out_of_release_texts() {
        assert_eq!(kernel_version("linux 6.1.0-18-amd64"), Some((6, 1)));
        assert_eq!(kernel_version("linux 4.18"), Some((4, 18)));
        assert_eq!(kernel_version("unknown"), None);
    }

    #[test]
    fn a_directory_that_is_yet_to_be_made_is_examined_through_its_parent() {
        let here = tempfile::tempdir().unwrap();
        assert_eq!(nearest_existing(&here.path().join("a/b")), here.path());
        assert_eq!(nearest_existing(here.path()), here.path());
    }

    #[test]
    fn the_disk_is_measured_and_nothing_is_left_behind() {
        let here = tempfile::tempdir().unwrap();
        let syncs = measure_syncs(here.path()).unwrap();
        assert!(syncs.small_count >= 3 && syncs.large_count >= 3);
        assert_eq!(std::fs::read_dir(here.path()).unwrap().count(), 0);
        assert!(measure_syncs(&here.path().join("absent")).is_err());
    }

    #[test]
    fn every_warning_carries_advice_and_no_pass_does() {
        let warn = Check::new("x", false, "bad", "do this", Value::Null);
        assert_eq!((warn.status, warn.advice.as_deref()), ("WARN", Some("do this")));
        let pass = Check::new("x", true, "fine", "", Value::Null);
        assert_eq!((pass.status, pass.advice), ("PASS", None));
    }
}
