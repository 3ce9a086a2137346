//! Connections that came and are not their peer's yet.
//!
//! Owns their count: of all, from the first packet on, and of each member once its key is known. Invariant: what was counted is let go
//! of when the connection becomes the peer's or ends, whichever way. A member holds a good key, so without its own bound it could keep
//! any number of connections in their hello.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::net::{Shared, Slot};

/// Connections of one member that have not said hello, or wait for the one before them to end; more are refused. One that comes back
/// while the node has not noticed that its last attempt is dead needs two.
const GREETINGS_MAX: u32 = 2;

/// A connection that came and is not its peer's yet: counted in all, and of its peer once that is known.
pub(super) struct Greeting {
    shared: Arc<Shared>,
    slot: Option<Arc<Slot>>,
}

impl Greeting {
    pub(super) fn new(shared: &Arc<Shared>) -> Self {
        shared.handshakes.fetch_add(1, Ordering::Relaxed);
        Self { shared: Arc::clone(shared), slot: None }
    }

    /// It is this peer's; `false` if that has enough of them.
    pub(super) fn is_of(&mut self, slot: &Arc<Slot>) -> bool {
        let more = |now: u32| (now < GREETINGS_MAX).then_some(now + 1);
        let counted = slot.greetings.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok();
        if counted {
            self.slot = Some(Arc::clone(slot));
        }
        counted
    }
}

impl Drop for Greeting {
    fn drop(&mut self) {
        self.shared.handshakes.fetch_sub(1, Ordering::Relaxed);
        if let Some(slot) = &self.slot {
            slot.greetings.fetch_sub(1, Ordering::Relaxed);
        }
    }
}
