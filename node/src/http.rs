//! The operator's window: `GET /health` and `GET /metrics` over plain HTTP, off unless `http` is configured.
//!
//! Read only and cheap: both answers are made from atomics. `/health` is 200 when a load balancer should send clients here and 503
//! otherwise, with the same JSON either way. `/metrics` is the Prometheus text format, version 0.0.4. No data of messages is shown
//! here; bind it where operators are.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::extract::State as Shared;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde::Serialize;
use weft_core::Reason;

use crate::health::{Health, HealthReport};
use crate::pipeline::devices::{Device, DeviceReport};
use crate::stats::{Counters, cpu_seconds_by_stage};

/// What the pages are made from.
#[derive(Clone, Debug)]
pub struct Pages {
    /// The node's health.
    pub health: Arc<Health>,
    /// The node's counters.
    pub counters: Arc<Counters>,
    /// The node's GPUs.
    pub devices: Arc<[Device]>,
}

/// What `/health` says: the node's health, and its GPUs'. A GPU that failed makes no node unhealthy: the CPU does its work.
#[derive(Serialize)]
struct HealthPage {
    #[serde(flatten)]
    report: HealthReport,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    gpu: Vec<DeviceReport>,
}

/// Serves the pages on `listener` until `stop` resolves.
///
/// # Errors
/// If the listener fails.
pub async fn serve(
    listener: tokio::net::TcpListener,
    pages: Pages,
    stop: impl Future<Output = ()> + Send + 'static,
) -> std::io::Result<()> {
    let app =
        axum::Router::new().route("/health", get(health)).route("/metrics", get(metrics)).with_state(pages);
    axum::serve(listener, app).with_graceful_shutdown(stop).await
}

/// Binds the address, so that a taken port is an error at start and not a line in a log later.
///
/// # Errors
/// If the address cannot be bound.
pub async fn bind(address: SocketAddr) -> std::io::Result<tokio::net::TcpListener> {
    tokio::net::TcpListener::bind(address).await
}

async fn health(Shared(pages): Shared<Pages>) -> Response {
    let report = pages.health.report();
    let code = if report.healthy { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let page = HealthPage { report, gpu: pages.devices.iter().map(Device::report).collect() };
    let body = serde_json::to_string(&page).unwrap_or_else(|_| "{}".to_owned());
    (code, [(header::CONTENT_TYPE, "application/json")], body).into_response()
}

async fn metrics(Shared(pages): Shared<Pages>) -> Response {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], metrics_text(&pages)).into_response()
}

/// The metrics page.
fn metrics_text(pages: &Pages) -> String {
    let mut out = String::with_capacity(4096);
    let report = pages.health.report();
    let counters = &pages.counters;
    let mut metric = |name: &str, kind: &str, help: &str, values: &[(String, f64)]| {
        let _ = writeln!(out, "# HELP weft_{name} {help}\n# TYPE weft_{name} {kind}");
        for (labels, value) in values {
            let _ = writeln!(out, "weft_{name}{labels} {value}");
        }
    };
    let one = |value: f64| vec![(String::new(), value)];
    let load =
        |counter: &std::sync::atomic::AtomicU64| counter.load(std::sync::atomic::Ordering::Relaxed) as f64;
    metric(
        "healthy",
        "gauge",
        "1 when clients should be sent here.",
        &one(f64::from(u8::from(report.healthy))),
    );
    let state = vec![(format!("{{state=\"{}\"}}", report.state.name()), 1.0)];
    metric("state", "gauge", "What the node is doing.", &state);
    metric("uptime_seconds", "gauge", "Time since the start.", &one(report.uptime_ms as f64 / 1e3));
    metric(
        "lane_written_size",
        "gauge",
        "Positions handed to the operating system.",
        &one(report.written_size as f64),
    );
    metric("lane_durable_size", "gauge", "Positions known durable.", &one(report.durable_size as f64));
    if let Some(age) = report.durable_age_ms {
        metric("durable_age_seconds", "gauge", "Time since the last durable write.", &one(age as f64 / 1e3));
    }
    let pending = report.pending_age_ms.unwrap_or(0) as f64 / 1e3;
    metric("pending_age_seconds", "gauge", "Age of the oldest append that is not durable.", &one(pending));
    metric("accepted_total", "counter", "Messages given a place.", &one(load(&counters.accepted)));
    let rejected: Vec<_> = Reason::ALL
        .iter()
        .map(|reason| (format!("{{reason=\"{}\"}}", reason.name()), counters.rejected(*reason) as f64))
        .collect();
    metric("rejected_total", "counter", "Messages refused, by reason.", &rejected);
    metric("submits_total", "counter", "Submits taken.", &one(load(&counters.submits)));
    metric("signatures_total", "counter", "Signatures checked.", &one(load(&counters.signatures)));
    metric("verify_batches_total", "counter", "Verifier calls.", &one(load(&counters.verify_batches)));
    metric("lane_batches_total", "counter", "Lane batches appended.", &one(load(&counters.lane_batches)));
    metric(
        "lane_bytes_total",
        "counter",
        "Bytes of lane batches appended.",
        &one(load(&counters.lane_bytes)),
    );
    metric("syncs_total", "counter", "Group commits.", &one(load(&counters.syncs)));
    metric(
        "sync_seconds_total",
        "counter",
        "Time spent in group commits.",
        &one(load(&counters.sync_us) / 1e6),
    );
    let devices: Vec<DeviceReport> = pages.devices.iter().map(Device::report).collect();
    if !devices.is_empty() {
        // The number tells two adapters of one name apart.
        let label = |number: usize, device: &DeviceReport, more: &str| {
            let name = device.adapter.replace(['"', '\\', '\n'], " ");
            format!("{{gpu=\"{number}\",adapter=\"{name}\"{more}}}")
        };
        let of = |value: fn(&DeviceReport) -> u64| -> Vec<(String, f64)> {
            let rows = devices.iter().enumerate();
            rows.map(|(number, device)| (label(number, device, ""), value(device) as f64)).collect()
        };
        let states: Vec<_> = devices
            .iter()
            .enumerate()
            .map(|(number, device)| (label(number, device, &format!(",state=\"{}\"", device.state)), 1.0))
            .collect();
        metric("gpu_state", "gauge", "What each GPU is: opening, active, failed or quarantined.", &states);
        metric("gpu_signatures_total", "counter", "Verdicts that came from the GPU.", &of(|d| d.signatures));
        metric("gpu_batches_total", "counter", "Batches that the GPU answered.", &of(|d| d.batches));
        metric(
            "gpu_checked_total",
            "counter",
            "Verdicts of the GPU that were verified again on the CPU.",
            &of(|d| d.rejections_checked + d.sampled),
        );
        metric(
            "gpu_mismatches_total",
            "counter",
            "Wrong verdicts of the GPU that were found.",
            &of(|d| d.mismatches),
        );
        metric(
            "gpu_fallback_signatures_total",
            "counter",
            "Signatures verified on the CPU because the GPU failed.",
            &of(|d| d.fallback_signatures),
        );
        metric("gpu_equations_total", "counter", "Batch equations on the GPU.", &of(|d| d.equations));
        metric(
            "gpu_equations_failed_total",
            "counter",
            "Batch equations that failed, so that their signatures were verified one by one.",
            &of(|d| d.equations_failed),
        );
    }
    let cpu: Vec<_> = cpu_seconds_by_stage()
        .into_iter()
        .filter(|(stage, _)| stage.starts_with("weft"))
        .map(|(stage, seconds)| (format!("{{stage=\"{stage}\"}}"), seconds))
        .collect();
    if !cpu.is_empty() {
        metric("stage_cpu_seconds_total", "counter", "CPU time by pipeline stage.", &cpu);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    async fn fetch(address: SocketAddr, path: &str) -> String {
        let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn health_is_503_until_the_node_is_live_and_metrics_count_refusals() {
        let pages = Pages { health: Arc::default(), counters: Arc::default(), devices: Arc::new([]) };
        let listener = bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(serve(listener, pages.clone(), std::future::pending()));
        assert!(fetch(address, "/health").await.starts_with("HTTP/1.1 503"));
        pages.health.set_state(crate::health::State::Live, None);
        pages.counters.reject(Reason::BadSignature);
        let health = fetch(address, "/health").await;
        assert!(health.starts_with("HTTP/1.1 200") && health.contains("\"state\":\"live\""), "{health}");
        let metrics = fetch(address, "/metrics").await;
        assert!(metrics.contains("weft_rejected_total{reason=\"bad_signature\"} 1"), "{metrics}");
    }
}
