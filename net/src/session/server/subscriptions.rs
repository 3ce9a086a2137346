//! Subscriptions of a session at the server.
//!
//! Owns which are open and what each may still be sent. Invariants: no more than the limit are open; a notice is sent only while
//! its subscription has credit and the session's output is below its mark, so a subscriber that does not read holds no memory here
//! beyond that mark; after its end a subscription is sent nothing. They do not count as requests in flight: a session that
//! drains ends them. What there is to tell is left to the node.

use std::time::Instant;

use super::{Phase, ServerEvent, ServerSession, millis};
use crate::codec::FrameError;
use crate::frame::{ErrorCode, Frame, WireError};
use crate::subscribe::{CREDIT_MAX, Notice, Subscribe};

/// An open subscription.
#[derive(Clone, Copy, Debug)]
pub(super) struct Open {
    /// Notices that may be sent.
    credit: u32,
    /// Whether it was told where it begins.
    started: bool,
}

impl ServerSession {
    pub(super) fn handle_subscribe(&mut self, now: Instant, request_id: u64, subscribe: Subscribe) {
        if !self.is_next(now, request_id) {
            return;
        }
        let (got, limit) = (self.subscriptions.len() + 1, self.limits.subscriptions_max as usize);
        if got > limit {
            let text = format!("{got} subscriptions; the limit of a connection is {limit}");
            let retry_after_ms = millis(self.limits.retry_after);
            let error = WireError::new(request_id, ErrorCode::Overloaded, retry_after_ms, text);
            self.output.frame(now, &Frame::Error(error));
            return;
        }
        let open = Open { credit: subscribe.credit, started: false };
        self.subscriptions.insert(request_id, open);
        self.events.push_back(ServerEvent::Subscribe { request_id, subscribe });
    }

    pub(super) fn handle_grant(&mut self, now: Instant, request_id: u64, credit: u32) {
        let Some(open) = self.subscriptions.get_mut(&request_id) else {
            return self.check_was_open(now, request_id);
        };
        // Both are at most CREDIT_MAX.
        open.credit += credit;
        let got = open.credit;
        if got > CREDIT_MAX {
            let (field, limit) = ("credit", CREDIT_MAX.into());
            return self.fail_frame(now, FrameError::Count { field, got: got.into(), limit });
        }
        // One tells it all: whoever grants in small pieces makes no row of events.
        let granted = ServerEvent::Granted { request_id };
        if self.events.back() != Some(&granted) {
            self.events.push_back(granted);
        }
    }

    pub(super) fn handle_unsubscribe(&mut self, now: Instant, request_id: u64) {
        if self.subscriptions.remove(&request_id).is_none() {
            return self.check_was_open(now, request_id);
        }
        self.output.frame(now, &Frame::Unsubscribed { request_id });
        // A wish that the node has not seen it need not see: so there are never more of them than open subscriptions.
        let of_it = |event: &ServerEvent| match event {
            ServerEvent::Subscribe { request_id: id, .. } => *id == request_id,
            _ => false,
        };
        match self.events.iter().rposition(of_it) {
            Some(at) => drop(self.events.remove(at)),
            None => self.events.push_back(ServerEvent::Unsubscribe { request_id }),
        }
    }

    /// What concerns no open subscription may have crossed its end on the way; a number never used can not.
    fn check_was_open(&mut self, now: Instant, request_id: u64) {
        if request_id > self.last_request_id {
            self.fail_frame(
                now,
                FrameError::Value { field: "request id of a subscription", got: request_id },
            );
        }
    }

    /// Tells where a subscription begins, by lane. False if it is not open, or was told already.
    pub fn subscribed(&mut self, now: Instant, request_id: u64, starts: Vec<u64>) -> bool {
        match self.subscriptions.get_mut(&request_id) {
            Some(open) if !open.started => open.started = true,
            _ => return false,
        }
        self.output.frame(now, &Frame::Subscribed { request_id, starts });
        self.active_at = now;
        true
    }

    /// Whether a notice would be sent now; `None` if the subscription is not open.
    #[must_use]
    pub fn may_notify(&self, request_id: u64) -> Option<bool> {
        let open = self.subscriptions.get(&request_id)?;
        Some(open.started && open.credit > 0 && self.wants_input())
    }

    /// Sends a notice. False if it may not be sent now. One that no frame can hold is a fault of the node: the client gets
    /// `internal` instead, and the subscription ends.
    pub fn notify(&mut self, now: Instant, request_id: u64, notice: Notice) -> bool {
        if self.may_notify(request_id) != Some(true) {
            return false;
        }
        if let Err(error) = notice.check() {
            let text = format!("the node's notice is none: {error}");
            self.end_subscription(now, WireError::new(request_id, ErrorCode::Internal, 0, text));
            return false;
        }
        if let Some(open) = self.subscriptions.get_mut(&request_id) {
            open.credit -= 1;
        }
        self.output.frame(now, &Frame::Notice { request_id, notice });
        self.active_at = now;
        true
    }

    /// Ends a subscription, or refuses it. False if it is not open.
    pub fn end_subscription(&mut self, now: Instant, error: WireError) -> bool {
        if self.subscriptions.remove(&error.request_id).is_none() {
            return false;
        }
        let error = WireError::new(error.request_id, error.code, error.retry_after_ms, error.text);
        self.output.frame(now, &Frame::Error(error));
        true
    }

    /// Subscriptions that are open.
    #[must_use]
    pub fn subscriptions(&self) -> usize {
        self.subscriptions.len()
    }

    /// Whether a new request may come with this id; if not, that is answered here.
    pub(super) fn is_next(&mut self, now: Instant, request_id: u64) -> bool {
        if request_id <= self.last_request_id {
            self.fail_frame(now, FrameError::Value { field: "request id (it must rise)", got: request_id });
            return false;
        }
        self.last_request_id = request_id;
        if self.phase == Phase::Draining {
            let text = "the node takes no more requests in this session";
            let error = WireError::new(request_id, ErrorCode::ShuttingDown, 0, text);
            self.output.frame(now, &Frame::Error(error));
            return false;
        }
        true
    }
}
