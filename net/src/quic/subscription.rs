//! Subscriptions over QUIC: at a client a stream of notices, at a server one task for each.
//!
//! Owns both ends around the sans-io sessions. Invariants at a client: a [`Subscription`] is read at its owner's own speed, and however
//! slow that is, the session's other replies come; what is not taken is bounded by the credit it gave; its bookmark is of what was
//! taken, so whoever goes on from it misses nothing and hears nothing twice. At a server: a task asks its [`NoticeSource`] only when the
//! notice can be sent, and ends with the session. Which subscriptions are open is left to [`session`](crate::session).

use std::collections::HashMap;
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::task::{AbortHandle, JoinSet};

use super::client::{Owner, Session};
use super::error::NetError;
use super::server::{Refusal, Service, SessionInner};
use crate::subscribe::{Bookmark, Notice, Subscribe};

/// When a client that found no room for a subscription should come back.
const RETRY_AFTER_MS: u32 = 1_000;

// ---------- client

/// What one subscription of a session is waiting for.
#[derive(Debug)]
pub(super) struct Feed {
    started: Option<oneshot::Sender<Result<Vec<u64>, NetError>>>,
    notices: mpsc::Sender<Result<Notice, NetError>>,
}

impl Feed {
    pub(super) fn start(&mut self, starts: Vec<u64>) {
        if let Some(started) = self.started.take() {
            let _ = started.send(Ok(starts));
        }
    }

    pub(super) fn tell(&self, notice: Notice) {
        // There is room for all that the credit allows; whoever let go of the other end wants nothing.
        let _ = self.notices.try_send(Ok(notice));
    }

    pub(super) fn end(self, error: NetError) {
        match self.started {
            Some(started) => drop(started.send(Err(error))),
            // And for one more.
            None => drop(self.notices.try_send(Err(error))),
        }
    }
}

/// What a node tells of confirmation, as it was asked to. Dropping it ends the subscription.
#[derive(Debug)]
pub struct Subscription {
    owner: Arc<Owner>,
    request_id: u64,
    notices: mpsc::Receiver<Result<Notice, NetError>>,
    wanted: Subscribe,
    bookmark: Bookmark,
    /// Notices taken and not given back as credit.
    taken: u32,
    end: Option<NetError>,
}

impl Subscription {
    /// How far it is: what [`next`](Self::next) has returned.
    #[must_use]
    pub fn bookmark(&self) -> &Bookmark {
        &self.bookmark
    }

    /// What to ask for to go on from here, at this node or another one of its ledger, after this connection.
    #[must_use]
    pub fn resume(&self) -> Subscribe {
        self.bookmark.resume(&self.wanted)
    }

    /// The next notice. May be dropped while it waits: nothing is lost.
    ///
    /// # Errors
    /// Why the subscription has ended, each time: the node ended it ([`NetError::Request`]), or the session ended.
    pub async fn next(&mut self) -> Result<Notice, NetError> {
        if let Some(end) = &self.end {
            return Err(end.clone());
        }
        let next = self.notices.recv().await;
        let inner = &self.owner.inner;
        match next.unwrap_or_else(|| Err(inner.end_reason())) {
            Ok(notice) => {
                // The session has checked it.
                let _ = self.bookmark.take(&notice);
                self.taken += 1;
                if self.taken >= self.wanted.credit.div_ceil(2) {
                    // Refused only when the subscription has ended: its last notices are still here.
                    let _ = inner.link.lock().grant(Instant::now(), self.request_id, self.taken);
                    inner.link.wake();
                    self.taken = 0;
                }
                Ok(notice)
            }
            Err(error) => {
                self.end = Some(error.clone());
                Err(error)
            }
        }
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        let inner = &self.owner.inner;
        inner.state().subscriptions.remove(&self.request_id);
        inner.link.lock().unsubscribe(Instant::now(), self.request_id);
        inner.link.wake();
    }
}

impl Session {
    /// Asks to be told what is confirmed, and waits until the node has said where that begins. Up to `wanted.credit` notices wait
    /// here to be taken.
    ///
    /// # Errors
    /// The node refuses, the connection has as many subscriptions as it may have, or the session has ended.
    pub async fn subscribe(&self, wanted: Subscribe) -> Result<Subscription, NetError> {
        let (started, begins) = oneshot::channel();
        let (notices_in, notices) = mpsc::channel(wanted.credit as usize + 1);
        let request_id = self.inner().attempt(|session, now, state| {
            let request_id = session.subscribe(now, wanted.clone())?;
            state.subscriptions.insert(request_id, Feed { started: Some(started), notices: notices_in });
            Ok(request_id)
        })?;
        // From here on a drop of this future ends the subscription.
        let mut subscription = Subscription {
            owner: self.inner.clone(),
            request_id,
            notices,
            bookmark: Bookmark::default(),
            wanted,
            taken: 0,
            end: None,
        };
        let starts = begins.await.unwrap_or_else(|_| Err(self.inner().end_reason()))?;
        subscription.bookmark = Bookmark::new(&starts, &subscription.wanted.open);
        Ok(subscription)
    }
}

// ---------- server

/// What a node has to tell to one subscription.
pub trait NoticeSource: Send {
    /// The next notice; waits until there is one. An error ends the subscription. The future is dropped only with the source.
    fn next(&mut self) -> Pin<Box<dyn Future<Output = Result<Notice, Refusal>> + Send + '_>>;
}

/// A subscription that a node takes.
pub struct Confirmations {
    /// The first position that will be told, by lane: 1 to 1,024 lanes.
    pub starts: Vec<u64>,
    /// What comes then.
    pub source: Box<dyn NoticeSource>,
}

impl std::fmt::Debug for Confirmations {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Confirmations").field("starts", &self.starts).finish_non_exhaustive()
    }
}

/// The tasks of a session's subscriptions. They end when this is dropped.
#[derive(Debug, Default)]
pub(super) struct Tellers {
    tasks: JoinSet<()>,
    running: HashMap<u64, (AbortHandle, Arc<Places>)>,
}

/// The places of a subscription at its connection and in all. Freed when it ends, not when its task is cleared away: its client may
/// ask for another one at once.
#[derive(Debug)]
struct Places(Mutex<Option<(OwnedSemaphorePermit, OwnedSemaphorePermit)>>);

impl Places {
    fn free(&self) {
        drop(self.0.lock().unwrap_or_else(PoisonError::into_inner).take());
    }
}

impl Tellers {
    /// Begins a subscription if there is room for it, at this connection and in all.
    pub(super) async fn begin<S: Service>(
        &mut self,
        service: &S,
        session: &Arc<SessionInner>,
        in_all: &Arc<Semaphore>,
        (request_id, wanted): (u64, Subscribe),
    ) {
        while self.tasks.try_join_next().is_some() {}
        self.running.retain(|_, (task, _)| !task.is_finished());
        let refuse = |refusal: Refusal| {
            session.tell(|session, now| session.end_subscription(now, refusal.error(request_id)));
        };
        let places = session.subscriptions.clone().try_acquire_owned().ok();
        let places = places.zip(in_all.clone().try_acquire_owned().ok());
        let Some(places) = places else {
            let text = "this connection, or the node, has as many subscriptions as it may have";
            return refuse(Refusal::overloaded(RETRY_AFTER_MS, text));
        };
        match service.subscribe(wanted).await {
            Ok(Confirmations { starts, source }) => {
                if session.tell(|session, now| session.subscribed(now, request_id, starts)) {
                    let places = Arc::new(Places(Mutex::new(Some(places))));
                    let teller = {
                        let (session, places) = (session.clone(), places.clone());
                        async move {
                            tell(session, request_id, source).await;
                            places.free();
                        }
                    };
                    self.running.insert(request_id, (self.tasks.spawn(teller), places));
                }
            }
            Err(refusal) => refuse(refusal),
        }
    }

    /// A subscription has ended: its places are free again.
    pub(super) fn end(&mut self, request_id: u64) {
        if let Some((task, places)) = self.running.remove(&request_id) {
            task.abort();
            places.free();
        }
    }
}

/// The life of one subscription.
async fn tell(session: Arc<SessionInner>, request_id: u64, mut source: Box<dyn NoticeSource>) {
    // The source is asked only once there is room, so that what it tells is fresh.
    while room(&session, request_id).await {
        let mut notice = match source.next().await {
            Ok(notice) => Some(notice),
            Err(refusal) => {
                session.tell(|session, now| session.end_subscription(now, refusal.error(request_id)));
                return;
            }
        };
        // Another subscription of the session may have taken the room meanwhile.
        while notice.is_some() && room(&session, request_id).await {
            session.tell(|session, now| {
                if session.may_notify(request_id) == Some(false) {
                    return false;
                }
                notice.take().is_some_and(|notice| session.notify(now, request_id, notice))
            });
        }
    }
}

/// Waits until a notice would be sent; false once the subscription has ended.
async fn room(session: &SessionInner, request_id: u64) -> bool {
    loop {
        let mut changed = pin!(session.link.room.notified());
        changed.as_mut().enable();
        let may = session.link.lock().may_notify(request_id);
        match may {
            None => return false,
            Some(true) => return true,
            Some(false) => changed.await,
        }
    }
}

impl SessionInner {
    /// Does something with the session that may make output.
    fn tell(&self, act: impl FnOnce(&mut crate::session::ServerSession, Instant) -> bool) -> bool {
        let done = act(&mut self.link.lock(), Instant::now());
        self.link.wake();
        done
    }
}
