//! Reading back what was acked, and believing none of it.
//!
//! Owns [`audit`]: every recorded message is asked for by id, over the same protocol, and what comes back is checked from its bytes alone.
//! The node is given no credit: the id is computed again, the issuer is the key that this side derives for the device of the event, the
//! sequence is the one it was built with, and the signature is verified here. Invariant: `checked` counts the messages asked for and
//! answered; `missing` and `invalid` are parts of it and disjoint; a message counts as good only if all checks passed.
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
use weft_net::{AckLevel, Client, ClientConfig, Lookup, Session, SessionOptions};

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

/// How an audit is made.
#[derive(Clone, Copy, Debug)]
pub struct AuditOptions {
    /// Connections, each with a thread that asks and verifies in turn, so that some wait for the node while others compute. Default 4.
    pub readers: u32,
    /// Keys that each reader keeps (112 bytes each). Default 65,536.
    pub key_cache_slots: usize,
}

impl Default for AuditOptions {
    fn default() -> Self {
        Self { readers: 4, key_cache_slots: crate::device::KEY_CACHE_SLOTS_DEFAULT }
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
    /// Messages to check; more than `checked` only if the audit was stopped.
    pub total: u64,
    /// 1 if everything acked was to be checked, n if a uniform sample of one batch in n was.
    pub sampled_one_in: u64,
    /// Duration, seconds.
    pub seconds: f64,
    /// Verifier of the signatures.
    pub verifier: String,
    /// What was wrong with the first few.
    pub failures: Vec<String>,
}

impl AuditReport {
    /// Whether everything that was to be checked was found as acked.
    #[must_use]
    pub const fn is_clean(&self) -> bool {
        self.checked == self.total && self.missing == 0 && self.invalid == 0
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
        if self.sampled_one_in > 1 {
            write!(f, "; a sample: one batch in {}", self.sampled_one_in)?;
        }
        Ok(())
    }
}

/// Reads every message of `acked` back from `target` and checks it. Blocks until done; call it from a thread that may block. `verifier`
/// judges the signatures; `observer` gets a look each second; after a stop the report covers what was checked until then.
///
/// # Errors
/// [`LoadError::Connect`] if the node cannot be reached, [`LoadError::Audit`] if it stops answering on the way: then nothing can be said
/// of the rest. A missing or altered message is no error but a finding.
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
    failures: Mutex<Vec<String>>,
    /// The first reader that could not go on says why; the others stop.
    broken: Mutex<Option<String>>,
    halt: AtomicBool,
}

impl Tally {
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
    let mut sessions = Vec::new();
    for _ in 0..readers {
        sessions.push(runtime.block_on(async {
            let client = Client::connect(ClientConfig::new(target.addr, target.trust.clone())).await?;
            let options = SessionOptions {
                network: target.network,
                ack_level: AckLevel::Received,
                ..SessionOptions::default()
            };
            let session = client.open_session(options).await?;
            Ok::<_, LoadError>((client, session))
        })?);
    }

    let tally = Tally::default();
    let messages = Mutex::new(acked.iter());
    let mut observed = Instant::now();
    std::thread::scope(|scope| -> Result<(), LoadError> {
        let mut threads = Vec::new();
        for (index, (_, session)) in sessions.iter().enumerate() {
            let handle = runtime.handle().clone();
            let (tally, messages) = (&tally, &messages);
            let thread = std::thread::Builder::new().name(format!("audit-{index}"));
            let spawned = thread.spawn_scoped(scope, move || {
                let mut reader = Reader {
                    session,
                    handle,
                    verifier,
                    keys: DeviceKeys::new(acked.seed(), options.key_cache_slots, fastest_signer()),
                };
                loop {
                    if stop.is_requested() || tally.halt.load(Ordering::Relaxed) {
                        return;
                    }
                    let chunk: Vec<Acked> = {
                        let mut messages = messages.lock().unwrap_or_else(PoisonError::into_inner);
                        messages.by_ref().take(GET_MESSAGES_MAX as usize).collect()
                    };
                    if chunk.is_empty() {
                        return;
                    }
                    if let Err(reason) = reader.check(&chunk, tally) {
                        tally.broken.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(reason);
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
    runtime.block_on(async {
        for (client, session) in sessions {
            let _ = tokio::time::timeout(Duration::from_millis(500), async {
                let _ = session.close().await;
                client.close().await;
            })
            .await;
        }
    });
    runtime.shutdown_timeout(Duration::from_secs(1));

    let found = tally.progress(begun, acked.messages());
    observer(&found);
    if let Some(reason) = tally.broken.into_inner().unwrap_or_else(PoisonError::into_inner) {
        return Err(LoadError::Audit { checked: found.checked, total: found.total, reason });
    }
    Ok(AuditReport {
        checked: found.checked,
        missing: found.missing,
        invalid: found.invalid,
        total: found.total,
        sampled_one_in: acked.sampled_one_in(),
        seconds: (begun.elapsed().as_secs_f64() * 1e3).round() / 1e3,
        verifier: verifier.name().to_owned(),
        failures: tally.failures.into_inner().unwrap_or_else(PoisonError::into_inner),
    })
}

/// One thread of an audit.
struct Reader<'a> {
    session: &'a Session,
    handle: Handle,
    verifier: &'a dyn BatchVerifier,
    keys: DeviceKeys,
}

impl Reader<'_> {
    /// Asks for a chunk and checks what comes back.
    fn check(&mut self, chunk: &[Acked], tally: &Tally) -> Result<(), String> {
        let ids: Vec<MessageId> = chunk.iter().map(|acked| acked.id).collect();
        let lookups = self.handle.block_on(self.session.get(&ids)).map_err(|error| error.to_string())?;
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
        Ok(())
    }
}
