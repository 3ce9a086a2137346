//! The end of a node: graceful, by drop, or by a thread that panics.
//!
//! Owns what a stop takes apart, and the order of that: nothing new is taken, what was taken is answered, the stages end one after the
//! other with empty queues, the log is made durable, and the directory is let go of last.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use weft_net::{ServerHandle, ShutdownReport};
use weft_storage::datadir::DataDir;

use super::RunningNode;
use crate::confirm::driver::Event;
use crate::confirm::events::EventSender;
use crate::health::{Health, State};
use crate::lane::{Lane, with_sources};
use crate::replicate::Replication;
use crate::replicate::store::Stores;

/// What a stop found.
#[derive(Debug)]
pub struct StopReport {
    /// The sessions' end.
    pub sessions: ShutdownReport,
    /// Size of the lane, all of it durable; or why that cannot be said.
    pub durable_size: Result<u64, String>,
}

#[derive(Debug)]
pub(super) struct Parts {
    pub(super) runtime: tokio::runtime::Runtime,
    pub(super) server: ServerHandle,
    pub(super) http_stop: Option<tokio::sync::oneshot::Sender<()>>,
    pub(super) workers: Vec<JoinHandle<()>>,
    pub(super) sequencer: JoinHandle<Option<Lane>>,
    pub(super) committer: JoinHandle<()>,
    pub(super) confirmation: JoinHandle<()>,
    pub(super) events: EventSender,
    pub(super) replication: Option<Replication>,
    pub(super) stores: Arc<Stores>,
    /// Holds the directory's lock; let go last.
    pub(super) _data: DataDir,
}

impl RunningNode {
    /// Stops gracefully: takes nothing new, acknowledges or refuses what was taken, makes the log durable, and lets the directory go.
    pub fn stop(mut self) -> StopReport {
        self.take_apart(self.stop_grace)
    }

    fn take_apart(&mut self, grace: Duration) -> StopReport {
        let Some(parts) = self.parts.take() else {
            return StopReport {
                sessions: ShutdownReport::default(),
                durable_size: Ok(self.health.durable_size()),
            };
        };
        let Parts {
            runtime,
            server,
            http_stop,
            workers,
            sequencer,
            committer,
            confirmation,
            events,
            replication,
            stores,
            _data,
        } = parts;
        self.health.set_state(State::Stopping, None);
        let sessions = runtime.block_on(server.shutdown(grace));
        // No ack is left that waits for other nodes.
        let replicating = replication.map(|replication| replication.stop(&runtime));
        // No session is left to send jobs: the stages end one after the other, each with an empty queue.
        self.service.close();
        for worker in workers {
            let _ = worker.join();
        }
        let lane = sequencer.join().ok().flatten();
        let _ = committer.join();
        let _ = events.send(Event::Stop);
        let _ = confirmation.join();
        for thread in replicating.into_iter().flatten() {
            let _ = thread.join();
        }
        if let Some(stores) = Arc::into_inner(stores) {
            stores.close();
        }
        if let Some(stop) = http_stop {
            let _ = stop.send(());
        }
        let durable_size = match lane {
            Some(lane) => lane.close().map_err(|error| with_sources(&error)),
            None => Err("the sequencer ended by a panic".to_owned()),
        };
        runtime.shutdown_timeout(Duration::from_secs(1));
        StopReport { sessions, durable_size }
    }
}

impl Drop for RunningNode {
    fn drop(&mut self) {
        self.take_apart(Duration::ZERO);
    }
}

/// Poisons the node when its thread unwinds.
pub(super) struct PanicGuard {
    pub(super) stage: &'static str,
    pub(super) health: Arc<Health>,
}

impl Drop for PanicGuard {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.health.set_state(
                State::Poisoned,
                Some(format!("the {} thread ended by a panic: a bug", self.stage)),
            );
        }
    }
}
