//! Subscriptions of a session at the client.
//!
//! Owns what the client asked to be told, the credit that it gave for it, and the check that each notice follows on the one before
//! it. Invariants: a notice beyond the credit, out of order, or of what was not asked for ends the session as a fault of the server;
//! what comes for a subscription that was ended here is let go of.

use std::time::Instant;

use super::{ClientEvent, ClientSession, Phase, RequestError, SessionEnd};
use crate::frame::{Frame, WireError};
use crate::subscribe::{Bookmark, CREDIT_MAX, MessageFilter, Notice, Subscribe};

/// A subscription that the server has not ended.
#[derive(Debug)]
pub(super) struct Subscription {
    state: State,
    messages: Option<MessageFilter>,
    /// Notices that may still come.
    credit: u32,
}

#[derive(Debug)]
enum State {
    /// Asked for; what was open before.
    Asked(Vec<weft_core::Place>),
    Open(Bookmark),
    /// Ended here; the server has not said so yet.
    Ending,
}

impl ClientSession {
    /// Asks to be told what is confirmed. Notices come until [`unsubscribe`](Self::unsubscribe), a
    /// [`Failed`](ClientEvent::Failed) with this id, or the end of the session.
    ///
    /// # Errors
    /// [`RequestError::Subscriptions`] beyond the server's limit; the others as for [`submit`](Self::submit).
    pub fn subscribe(&mut self, now: Instant, subscribe: Subscribe) -> Result<u64, RequestError> {
        let (_, welcome) = self.limit().ok_or(RequestError::NotOpen)?;
        let limit = welcome.subscriptions_max;
        if self.subscriptions.len() >= limit as usize {
            return Err(RequestError::Subscriptions { limit });
        }
        subscribe.check()?;
        self.last_request_id += 1;
        let request_id = self.last_request_id;
        let asked = Subscription {
            state: State::Asked(subscribe.open.clone()),
            messages: subscribe.messages,
            credit: subscribe.credit,
        };
        self.subscriptions.insert(request_id, asked);
        self.output.frame(now, &Frame::Subscribe { request_id, subscribe });
        self.sent_at = now;
        Ok(request_id)
    }

    /// Lets `credit` more notices come, above 0.
    ///
    /// # Errors
    /// [`RequestError::NotOpen`] for a subscription that has ended; [`RequestError::TooLarge`] if more than [`CREDIT_MAX`] could
    /// come then.
    pub fn grant(&mut self, now: Instant, request_id: u64, credit: u32) -> Result<(), RequestError> {
        if self.phase != Phase::Open {
            return Err(RequestError::NotOpen);
        }
        let open = self.subscriptions.get_mut(&request_id).ok_or(RequestError::NotOpen)?;
        let after = open.credit.saturating_add(credit);
        if credit == 0 || after > CREDIT_MAX {
            let (field, limit) = ("credit of a subscription", CREDIT_MAX.into());
            return Err(RequestError::TooLarge { field, got: after.into(), limit });
        }
        open.credit = after;
        self.output.frame(now, &Frame::Grant { request_id, credit });
        self.sent_at = now;
        Ok(())
    }

    /// Ends a subscription: no notice of it is told from now on, and [`Unsubscribed`](ClientEvent::Unsubscribed) comes. Nothing for
    /// one that has ended.
    pub fn unsubscribe(&mut self, now: Instant, request_id: u64) {
        if self.phase != Phase::Open {
            return;
        }
        let Some(open) = self.subscriptions.get_mut(&request_id) else { return };
        if !matches!(open.state, State::Ending) {
            open.state = State::Ending;
            self.output.frame(now, &Frame::Unsubscribe { request_id });
            self.sent_at = now;
        }
    }

    /// Subscriptions that the server has not ended.
    #[must_use]
    pub fn subscriptions(&self) -> usize {
        self.subscriptions.len()
    }

    pub(super) fn handle_subscribed(&mut self, now: Instant, request_id: u64, starts: Vec<u64>) {
        let open = self.subscriptions.get_mut(&request_id);
        match open.map(|open| &mut open.state) {
            Some(state @ State::Asked(_)) => {
                if let State::Asked(open) = state {
                    *state = State::Open(Bookmark::new(&starts, open));
                }
                self.events.push_back(ClientEvent::Subscribed { request_id, starts });
            }
            Some(State::Ending) => {}
            _ => self.fault(now, SessionEnd::Mismatch("a start of what was not asked for")),
        }
    }

    pub(super) fn handle_notice(&mut self, now: Instant, request_id: u64, notice: Notice) {
        let Some(open) = self.subscriptions.get_mut(&request_id) else {
            return self.fault(now, SessionEnd::Mismatch("a notice that nobody asked for"));
        };
        let Some(left) = open.credit.checked_sub(1) else {
            return self.fault(now, SessionEnd::Mismatch("a notice beyond the credit"));
        };
        open.credit = left;
        let told = match &mut open.state {
            State::Ending => return,
            State::Asked(_) => Err("a notice before the start"),
            State::Open(bookmark) => match (&notice, open.messages) {
                (Notice::Confirmed(told), None) if !told.messages.is_empty() => {
                    Err("messages that nobody asked for")
                }
                _ => bookmark.take(&notice),
            },
        };
        match told {
            Ok(()) => self.events.push_back(ClientEvent::Notice { request_id, notice }),
            Err(why) => self.fault(now, SessionEnd::Mismatch(why)),
        }
    }

    pub(super) fn handle_unsubscribed(&mut self, now: Instant, request_id: u64) {
        match self.subscriptions.remove(&request_id).map(|open| open.state) {
            Some(State::Ending) => self.events.push_back(ClientEvent::Unsubscribed { request_id }),
            _ => self.fault(now, SessionEnd::Mismatch("an end that nobody asked for")),
        }
    }

    /// Whether an error is the end of a subscription; then it is told.
    pub(super) fn ends_subscription(&mut self, error: &WireError) -> bool {
        let Some(ended) = self.subscriptions.remove(&error.request_id) else { return false };
        self.events.push_back(match ended.state {
            // The two ends have crossed.
            State::Ending => ClientEvent::Unsubscribed { request_id: error.request_id },
            State::Asked(_) | State::Open(_) => ClientEvent::Failed(error.clone()),
        });
        true
    }
}
