//! The session of a load generator: all acks come through one channel, with the time of their arrival.
//!
//! Owns the two halves, [`LoadSender`] and [`AckStream`]. Invariant: a Submit allocates nothing to wait on, and its ack, or the
//! reason why there is none, comes once. Everything else is [`client`](super::client)'s.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use tokio::sync::mpsc;

use super::client::{Inner, Session};
use super::error::NetError;
use crate::frame::{Ack, Welcome, WireError};
use crate::session::Credit;
#[cfg(doc)]
use crate::session::RequestError;

/// Acks that wait to be taken from an [`AckStream`]. When it is full, the session reads no further.
pub(super) const DELIVERIES_MAX: usize = 1_024;

/// What became of one Submit of a load generator.
#[derive(Clone, Debug)]
pub struct Delivery {
    /// The Submit.
    pub request_id: u64,
    /// When its reply was decoded.
    pub received_at: Instant,
    /// The ack, or the node's refusal of the whole Submit.
    pub result: Result<Ack, WireError>,
}

/// The sending half of a load generator's session. Dropping it closes the session; pending acks still come.
#[derive(Debug)]
pub struct LoadSender {
    pub(super) session: Session,
}

impl LoadSender {
    /// What the node said.
    #[must_use]
    pub fn welcome(&self) -> &Welcome {
        self.session.welcome()
    }

    /// The session, for queries. The ack of a [`Session::submit`] made through it goes to its future, not to
    /// the stream.
    #[must_use]
    pub fn session(&self) -> &Session {
        &self.session
    }

    /// What is in flight.
    #[must_use]
    pub fn in_flight(&self) -> Credit {
        self.session.in_flight()
    }

    /// Submits as soon as there is credit, and returns the id under which the ack will come.
    ///
    /// # Errors
    /// As [`Session::submit`].
    pub async fn submit(&self, lengths: &[u16], bytes: Bytes) -> Result<u64, NetError> {
        self.session.inner().when_credit(|session, now, _| session.submit(now, lengths, bytes.clone())).await
    }

    /// Submits now or not at all.
    ///
    /// # Errors
    /// [`NetError::Invalid`] with [`RequestError::NoCredit`] when the credit is used up; else as
    /// [`Session::submit`].
    pub fn try_submit(&self, lengths: &[u16], bytes: Bytes) -> Result<u64, NetError> {
        self.session.inner().attempt(|session, now, _| session.submit(now, lengths, bytes))
    }

    /// Sends nothing more and waits for the last ack to be decoded; the [`AckStream`] must be read meanwhile.
    ///
    /// # Errors
    /// The session ended otherwise.
    pub async fn finish(self) -> Result<(), NetError> {
        self.session.close().await
    }
}

/// The receiving half of a load generator's session.
#[derive(Debug)]
pub struct AckStream {
    pub(super) deliveries: mpsc::Receiver<Delivery>,
    pub(super) inner: Arc<Inner>,
}

impl AckStream {
    /// The next ack or refusal, in the order of arrival. `None` after the end of the session: see
    /// [`end_reason`](Self::end_reason).
    pub async fn recv(&mut self) -> Option<Delivery> {
        self.deliveries.recv().await
    }

    /// The next one if it is there already.
    pub fn try_recv(&mut self) -> Option<Delivery> {
        self.deliveries.try_recv().ok()
    }

    /// Why the session ended, once it has.
    #[must_use]
    pub fn end_reason(&self) -> Option<NetError> {
        self.inner.state().end.clone()
    }
}
