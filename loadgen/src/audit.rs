//! Reading back what was acked, and believing none of it.
//!
//! Owns [`audit`]: every recorded message is asked for by id, over the same protocol, and what comes back is checked from its bytes alone.
//! The node is given no credit: the id is computed again, the issuer is the key that this side derives for the device of the event, the
//! sequence is the one it was built with, and the signature is verified here. Invariant: `checked` counts the messages asked for and
//! answered; `missing` and `invalid` are parts of it and disjoint; a message counts as good only if all checks passed.
//!
//! A node that goes away meanwhile, because its operator restarts it, or that says that it is overloaded or going down, is waited for, at
//! most [`AuditOptions::patience`] without one answer; what it had not answered is asked again. One that refuses a request otherwise is
//! there and does not give what it acked: waiting would not help, and the audit is broken off. Whether it was restarted at all is read from its own uptime, so that a report says how much of what was read
//! came from a process that had not taken it, which means from its disk.
//!
//! | check | against |
//! |---|---|
//! | present | the ack |
//! | parses as one message | message format |
//! | id of the bytes | the id that was signed and acked |
//! | issuer | key derived from seed and device number |
//! | sequence | the one that was signed |
//! | signature | ZIP-215 batch verification over the computed id |

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tokio::runtime::Handle;
use weft_core::{MessageId, MessageView};
use weft_crypto::sign::{BatchSigner, SerialSigner};
use weft_crypto::{Backend, BatchVerifier, Columns, Messages};
use weft_net::limits::GET_MESSAGES_MAX;
use weft_net::{AckLevel, Client, ClientConfig, ErrorCode, Lookup, NetError, Session, SessionOptions};

use crate::acked::{Acked, AckedLog};
use crate::config::NodeTarget;
use crate::device::DeviceKeys;
use crate::driver::Stop;
use crate::error::LoadError;
use crate::report::group;

/// Failures that a report describes, at most; all are counted.
pub const FAILURES_MAX: usize = 10;

/// Readers of one audit, at most.
pub const READERS_MAX: u32 = 64;

/// How long one attempt to connect may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// From one attempt to reach a node that is gone to the next.
const RETRY_EVERY: Duration = Duration::from_millis(200);

/// How an audit is made.
#[derive(Clone, Copy, Debug)]
pub struct AuditOptions {
    /// Connections, each with a thread that asks and verifies in turn, so that some wait for the node while others compute. Default 4.
    pub readers: u32,
    /// Keys that each reader keeps (112 bytes each). Default 65,536.
    pub key_cache_slots: usize,
    /// How long a node that is gone, or takes no requests, is waited for. Default: not at all.
    pub patience: Duration,
    /// When the run began: a node that was started later was restarted. Default: unknown, then no restart is seen.
    pub run_began: Option<Instant>,
    /// Whether to begin only when the node was restarted, for which it has as long as `patience`. Default no.
    pub await_restart: bool,
}

impl Default for AuditOptions {
    fn default() -> Self {
        Self {
            readers: 4,
            key_cache_slots: crate::device::KEY_CACHE_SLOTS_DEFAULT,
            patience: Duration::ZERO,
            run_began: None,
            await_restart: false,
        }
    }
}

/// A look at an audit that goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AuditProgress {
    /// Since it began.
    pub elapsed: Duration,
    /// Messages checked.
    pub checked: u64,
    /// Messages to check.
    pub total: u64,
    /// Of the checked ones, those the node does not have.
    pub missing: u64,
    /// Of the checked ones, those that are not what was acked.
    pub invalid: u64,
}

/// One line for a terminal.
impl fmt::Display for AuditProgress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (seconds, checked, total) = (self.elapsed.as_secs_f64(), group(self.checked), group(self.total));
        write!(f, "{seconds:>6.1} s  {checked} of {total} read back and verified")?;
        if self.missing + self.invalid > 0 {
            write!(f, ", {} MISSING, {} INVALID", group(self.missing), group(self.invalid))?;
        }
        Ok(())
    }
}

/// What an audit found.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct AuditReport {
    /// Messages asked for and answered.
    pub checked: u64,
    /// Of these, messages that the node says it does not have.
    pub missing: u64,
    /// Of these, messages that are not what was acked.
    pub invalid: u64,
    /// Messages to check; more than `checked` only if the audit was stopped or broken off.
    pub total: u64,
    /// 1 if everything acked was to be checked, n if a uniform sample of one batch in n was.
    pub sampled_one_in: u64,
    /// Duration, seconds.
    pub seconds: f64,
    /// Verifier of the signatures.
    pub verifier: String,
    /// What was wrong with the first few.
    pub failures: Vec<String>,
    /// Of the checked ones, those read from a node that, by its own uptime, was started after the run began.
    #[serde(default)]
    pub checked_after_restart: u64,
    /// Times that the node was gone, not restarted yet, or took no requests, and was waited for.
    #[serde(default)]
    pub waits: u64,
    /// For how long, seconds.
    #[serde(default)]
    pub waited_s: f64,
    /// Why the audit was broken off; `null` if it went to its end or was stopped. Nothing is said about the messages not checked.
    #[serde(default)]
    pub broken_off: Option<String>,
}

impl AuditReport {
    /// The report of an audit of `total` messages that could not be made at all.
    #[must_use]
    pub fn failed(total: u64, error: &LoadError) -> Self {
        let checked = match error {
            LoadError::Audit { checked, .. } => *checked,
            _ => 0,
        };
        Self { checked, total, broken_off: Some(error.to_string()), ..Self::default() }
    }

    /// Whether everything that was to be checked was found as acked.
    #[must_use]
    pub const fn is_clean(&self) -> bool {
        self.checked == self.total && self.missing == 0 && self.invalid == 0 && self.broken_off.is_none()
    }
}

impl fmt::Display for AuditReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} acked messages read back and verified, {} missing, {} invalid ({:.1} s)",
            group(self.checked),
            group(self.missing),
            group(self.invalid),
            self.seconds
        )?;
        if self.checked < self.total {
            write!(f, "; STOPPED before {} more", group(self.total - self.checked))?;
        }
        if let Some(reason) = &self.broken_off {
            write!(f, "; BROKEN OFF: {reason}")?;
        }
        if self.sampled_one_in > 1 {
            write!(f, "; a sample: one batch in {}", self.sampled_one_in)?;
        }
        if self.waits > 0 {
            write!(f, "; waited {:.1} s for the node", self.waited_s)?;
        }
        if self.checked_after_restart > 0 {
            write!(f, "; {} of them after a restart of it", group(self.checked_after_restart))?;
        }
        Ok(())
    }
}

/// Reads every message of `acked` back from `target` and checks it. Blocks until done; call it from a thread that may block. `verifier`
/// judges the signatures; `observer` gets a look each second; after a stop the report covers what was checked until then. So it does if the
/// node cannot be reached, or is gone for longer than it is waited for: what was found until then, a missing message above all, is not
/// thrown away with the rest, and [`AuditReport::broken_off`] says why nothing can be said of that.
///
/// # Errors
/// [`LoadError`] if the system gives no thread or runtime, or a reader panicked.
pub fn audit(
    target: &NodeTarget,
    acked: &AckedLog,
    options: &AuditOptions,
    verifier: &dyn BatchVerifier,
    stop: &Stop,
    observer: &mut (dyn FnMut(&AuditProgress) + Send),
) -> Result<AuditReport, LoadError> {
    // A thread of its own, for the same reason as a run's: a runtime may not be entered from within another.
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new()
            .name("audit".to_owned())
            .spawn_scoped(scope, || audit_here(target, acked, options, verifier, stop, observer))?;
        thread.join().unwrap_or(Err(LoadError::Internal { what: "the audit panicked" }))
    })
}

/// Derives keys fastest on this machine: backends are listed from the slowest to the fastest.
fn fastest_signer() -> Arc<dyn BatchSigner> {
    Backend::ALL
        .into_iter()
        .rev()
        .find_map(|backend| backend.signer().ok())
        .unwrap_or_else(|| Arc::new(SerialSigner))
}

/// Counts that the readers share.
#[derive(Debug, Default)]
struct Tally {
    checked: AtomicU64,
    missing: AtomicU64,
    invalid: AtomicU64,
    after_restart: AtomicU64,
    gone: Mutex<Gone>,
    failures: Mutex<Vec<String>>,
    /// The first reader that could not go on says why; the others stop.
    broken: Mutex<Option<String>>,
    halt: AtomicBool,
}

/// Times without a node.
#[derive(Debug, Default)]
struct Gone {
    since: Option<Instant>,
    waits: u64,
    waited: Duration,
}

impl Tally {
    /// Notes that the node is gone; tells since when.
    fn gone(&self) -> Instant {
        let mut gone = self.gone.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(since) = gone.since {
            return since;
        }
        gone.waits += 1;
        *gone.since.insert(Instant::now())
    }

    /// Notes that the node gave what it was asked for. That it can be reached is not enough: one that takes connections and answers nothing
    /// would be waited for without end.
    fn back(&self) {
        let mut gone = self.gone.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(since) = gone.since.take() {
            gone.waited += since.elapsed();
        }
    }

    fn fail(&self, counter: &AtomicU64, acked: &Acked, what: &str) {
        counter.fetch_add(1, Ordering::Relaxed);
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        if failures.len() < FAILURES_MAX {
            failures.push(format!("message {} of device {}: {what}", acked.id, acked.device));
        }
    }

    fn progress(&self, begun: Instant, total: u64) -> AuditProgress {
        AuditProgress {
            elapsed: begun.elapsed(),
            checked: self.checked.load(Ordering::Relaxed),
            total,
            missing: self.missing.load(Ordering::Relaxed),
            invalid: self.invalid.load(Ordering::Relaxed),
        }
    }
}

fn audit_here(
    target: &NodeTarget,
    acked: &AckedLog,
    options: &AuditOptions,
    verifier: &dyn BatchVerifier,
    stop: &Stop,
    observer: &mut (dyn FnMut(&AuditProgress) + Send),
) -> Result<AuditReport, LoadError> {
    let begun = Instant::now();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .thread_name("audit-io")
        .enable_all()
        .build()?;
    let readers = options.readers.clamp(1, READERS_MAX);
    let tally = Tally::default();
    let messages = Mutex::new(acked.iter());
    let mut observed = Instant::now();
    std::thread::scope(|scope| -> Result<(), LoadError> {
        let mut threads = Vec::new();
        for index in 0..readers {
            let handle = runtime.handle().clone();
            let (tally, messages) = (&tally, &messages);
            let thread = std::thread::Builder::new().name(format!("audit-{index}"));
            let spawned = thread.spawn_scoped(scope, move || {
                let mut reader = Reader {
                    target,
                    options,
                    stop,
                    tally,
                    node: None,
                    handle,
                    verifier,
                    keys: DeviceKeys::new(acked.seed(), options.key_cache_slots, fastest_signer()),
                };
                loop {
                    if stop.is_requested() || tally.halt.load(Ordering::Relaxed) {
                        return reader.close();
                    }
                    let chunk: Vec<Acked> = {
                        let mut messages = messages.lock().unwrap_or_else(PoisonError::into_inner);
                        messages.by_ref().take(GET_MESSAGES_MAX as usize).collect()
                    };
                    if chunk.is_empty() {
                        return reader.close();
                    }
                    if let Err(reason) = reader.check(&chunk) {
                        // Whoever stopped the audit while it waited knows why it ended.
                        if !stop.is_requested() {
                            let mut broken = tally.broken.lock().unwrap_or_else(PoisonError::into_inner);
                            broken.get_or_insert(reason);
                        }
                        tally.halt.store(true, Ordering::Relaxed);
                    }
                }
            });
            match spawned {
                Ok(thread) => threads.push(thread),
                Err(error) => {
                    // Those that run would wait for nobody, but the scope waits for them.
                    tally.halt.store(true, Ordering::Relaxed);
                    return Err(error.into());
                }
            }
        }
        while !threads.iter().all(|thread| thread.is_finished()) {
            std::thread::sleep(Duration::from_millis(5));
            if observed.elapsed() >= Duration::from_secs(1) {
                observed = Instant::now();
                observer(&tally.progress(begun, acked.messages()));
            }
        }
        let panicked = threads.into_iter().any(|thread| thread.join().is_err());
        if panicked { Err(LoadError::Internal { what: "an audit reader panicked" }) } else { Ok(()) }
    })?;
    runtime.shutdown_timeout(Duration::from_secs(1));

    let found = tally.progress(begun, acked.messages());
    observer(&found);
    // A wait that the audit's end cut short was a wait too.
    tally.back();
    let gone = tally.gone.into_inner().unwrap_or_else(PoisonError::into_inner);
    let broken = tally.broken.into_inner().unwrap_or_else(PoisonError::into_inner);
    let broken_off = broken
        .map(|reason| LoadError::Audit { checked: found.checked, total: found.total, reason }.to_string());
    Ok(AuditReport {
        checked: found.checked,
        missing: found.missing,
        invalid: found.invalid,
        total: found.total,
        sampled_one_in: acked.sampled_one_in(),
        seconds: (begun.elapsed().as_secs_f64() * 1e3).round() / 1e3,
        verifier: verifier.name().to_owned(),
        failures: tally.failures.into_inner().unwrap_or_else(PoisonError::into_inner),
        checked_after_restart: tally.after_restart.into_inner(),
        waits: gone.waits,
        waited_s: (gone.waited.as_secs_f64() * 1e3).round() / 1e3,
        broken_off,
    })
}

/// A session with the node.
struct Connected {
    client: Client,
    session: Session,
    /// Whether the node was started after the run began.
    restarted: bool,
}

/// Connects, and asks the node for how long it has been up.
async fn connect(target: &NodeTarget, run_began: Option<Instant>) -> Result<Connected, NetError> {
    let config = ClientConfig {
        connect_timeout: CONNECT_TIMEOUT,
        ..ClientConfig::new(target.addr, target.trust.clone())
    };
    let client = Client::connect(config).await?;
    let options = SessionOptions {
        network: target.network,
        ack_level: AckLevel::Received,
        ..SessionOptions::default()
    };
    let session = client.open_session(options).await?;
    let up = Duration::from_micros(session.status().await?.uptime_us);
    let started = Instant::now().checked_sub(up);
    let restarted = run_began.zip(started).is_some_and(|(began, started)| started > began);
    Ok(Connected { client, session, restarted })
}

/// One thread of an audit.
struct Reader<'a> {
    target: &'a NodeTarget,
    options: &'a AuditOptions,
    stop: &'a Stop,
    tally: &'a Tally,
    node: Option<Connected>,
    handle: Handle,
    verifier: &'a dyn BatchVerifier,
    keys: DeviceKeys,
}

impl Reader<'_> {
    /// A session, waiting for the node while it is gone.
    fn connected(&mut self) -> Result<&Connected, String> {
        while self.node.is_none() {
            match self.handle.block_on(connect(self.target, self.options.run_began)) {
                Ok(node) if node.restarted || !self.options.await_restart => self.node = Some(node),
                Ok(_) => self.wait(RETRY_EVERY, || "it was not restarted".to_owned())?,
                Err(error) => self.wait(RETRY_EVERY, || error.to_string())?,
            }
        }
        self.node.as_ref().ok_or_else(|| "no session".to_owned())
    }

    /// Asks for a chunk, again if the node went away meanwhile or asks to be asked later.
    fn ask(&mut self, ids: &[MessageId]) -> Result<(Vec<Lookup>, bool), String> {
        loop {
            let handle = self.handle.clone();
            let node = self.connected()?;
            let error = match handle.block_on(node.session.get(ids)) {
                Ok(lookups) => {
                    let restarted = node.restarted;
                    self.tally.back();
                    return Ok((lookups, restarted));
                }
                Err(error) => error,
            };
            match &error {
                NetError::Request(refusal)
                    if matches!(refusal.code, ErrorCode::Overloaded | ErrorCode::ShuttingDown) => {}
                // It is there, and does not give what was asked for: waiting would not help.
                NetError::Request(_) | NetError::Unanswered { .. } | NetError::Invalid(_) => {
                    return Err(error.to_string());
                }
                _ => self.node = None,
            }
            tracing::info!(%error, "the node does not answer; the audit waits for it");
            self.wait(error.retry_after().unwrap_or(RETRY_EVERY), || error.to_string())?;
        }
    }

    /// Lets `time` pass before the node is tried again; an error, with the reason for the wait, once there is no patience left or the audit
    /// ends for another reason.
    fn wait(&self, time: Duration, reason: impl Fn() -> String) -> Result<(), String> {
        // What a node asks for is its own word: it is held to the patience like everything else.
        let since = self.tally.gone();
        let until = Instant::now().checked_add(time);
        loop {
            let halted = self.stop.is_requested() || self.tally.halt.load(Ordering::Relaxed);
            if halted || since.elapsed() >= self.options.patience {
                return Err(reason());
            }
            let left = until.map_or(RETRY_EVERY, |until| until.saturating_duration_since(Instant::now()));
            if left.is_zero() {
                return Ok(());
            }
            let patience = self.options.patience.saturating_sub(since.elapsed());
            std::thread::sleep(left.min(patience).min(RETRY_EVERY));
        }
    }

    /// Ends the session properly, if that can be had soon.
    fn close(self) {
        if let Some(Connected { client, session, .. }) = self.node {
            self.handle.block_on(async {
                let close = async {
                    let _ = session.close().await;
                    client.close().await;
                };
                // How a session ends that is no longer needed changes no figure.
                let _ = tokio::time::timeout(Duration::from_millis(500), close).await;
            });
        }
    }

    /// Asks for a chunk and checks what comes back.
    fn check(&mut self, chunk: &[Acked]) -> Result<(), String> {
        let tally = self.tally;
        let ids: Vec<MessageId> = chunk.iter().map(|acked| acked.id).collect();
        let (lookups, restarted) = self.ask(&ids)?;
        if lookups.len() != chunk.len() {
            return Err(format!("{} answers to {} questions", lookups.len(), chunk.len()));
        }
        self.keys.load(chunk.iter().map(|acked| acked.device));

        // Columns of those that passed everything but the signature.
        let mut rows = Vec::with_capacity(chunk.len());
        let (mut keys, mut signed) = (Vec::with_capacity(chunk.len()), Vec::with_capacity(chunk.len()));
        let mut signatures = Vec::with_capacity(chunk.len());
        for (row, (acked, lookup)) in chunk.iter().zip(&lookups).enumerate() {
            let found = match lookup {
                Lookup::Found(found) => found,
                Lookup::Absent => {
                    tally.fail(&tally.missing, acked, "the node does not have it");
                    continue;
                }
                Lookup::AskAgain => return Err("the node did not answer for a message".to_owned()),
            };
            let message = match MessageView::parse(&found.bytes) {
                Ok(message) => message,
                Err(rejection) => {
                    tally.fail(&tally.invalid, acked, &rejection.to_string());
                    continue;
                }
            };
            let id = message.id();
            let wrong = if id != acked.id {
                Some("its bytes have another id")
            } else if *message.issuer() != self.keys.public(row) {
                Some("its issuer is not the device that sent it")
            } else if message.sequence() != acked.sequence {
                Some("its sequence is not the one it was sent with")
            } else {
                None
            };
            if let Some(what) = wrong {
                tally.fail(&tally.invalid, acked, what);
                continue;
            }
            rows.push(row);
            keys.push(message.issuer().0);
            signed.push(id.0);
            signatures.push(*message.signature());
        }
        let mut verdicts = vec![false; rows.len()];
        let columns = Columns { keys: &keys, messages: Messages::Ids(&signed), signatures: &signatures };
        self.verifier.verify(&columns, &mut verdicts);
        for (row, _) in rows.iter().zip(&verdicts).filter(|(_, valid)| !**valid) {
            tally.fail(&tally.invalid, &chunk[*row], "its signature is not valid");
        }
        tally.checked.fetch_add(chunk.len() as u64, Ordering::Relaxed);
        if restarted {
            tally.after_restart.fetch_add(chunk.len() as u64, Ordering::Relaxed);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use weft_crypto::SerialBatch;
    use weft_net::Trust;

    use super::*;
    use crate::generate::Trail;

    #[test]
    fn an_audit_that_cannot_go_on_still_reports_and_is_not_clean() {
        let mut acked = AckedLog::new(1, 100);
        let trail = |device| Trail { id: MessageId([device as u8; 32]), device, sequence: 1 };
        acked.record(0, (0..7).map(trail).collect(), &[]);
        // Nobody can be reached at port 0, and that is found at once.
        let addr = std::net::SocketAddr::from(([127, 0, 0, 1], 0));
        let target = NodeTarget { addr, trust: Trust::InsecureAny, network: None };
        let options = AuditOptions { patience: Duration::from_millis(200), ..AuditOptions::default() };
        let stop = Stop::new();
        let found = audit(&target, &acked, &options, &SerialBatch::new(), &stop, &mut |_| {}).unwrap();
        assert_eq!((found.checked, found.total, found.missing), (0, 7, 0), "{found:?}");
        assert!(!found.is_clean());
        let reason = found.broken_off.as_deref().unwrap();
        assert!(reason.starts_with("audit stopped after 0 of 7 messages: "), "{reason}");
        assert!(found.waits == 1 && found.waited_s > 0.1, "{found:?}");
        assert!(found.to_string().contains("BROKEN OFF: audit stopped after 0 of 7"), "{found}");
    }

    #[test]
    fn a_failed_audit_is_not_clean_even_if_nothing_was_left_to_check() {
        let error = LoadError::Internal { what: "an audit reader panicked" };
        let report = AuditReport::failed(0, &error);
        assert!(!report.is_clean() && report.broken_off.as_deref() == Some(&*error.to_string()));
        let error = LoadError::Audit { checked: 3, total: 9, reason: "gone".to_owned() };
        let report = AuditReport::failed(9, &error);
        assert_eq!((report.checked, report.total, report.is_clean()), (3, 9, false));
    }
}
