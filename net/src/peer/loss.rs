//! A UDP socket that loses part of what comes in, as a bad link does. For tests and `weft cluster up --loss`.
//!
//! Owns the choice of what is lost. Invariants: each datagram is lost or not by itself, with the same chance, also where the kernel hands
//! out several as one; what is left is whole and in order; the choice follows from the seed and the count of datagrams alone. Since it is
//! made on receiving, nothing here can block a sender, and QUIC above sees what it would see of a link: gaps.

use std::fmt;
use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use quinn::udp::{RecvMeta, Transmit};
use quinn::{AsyncUdpSocket, UdpPoller};
use weft_core::{RandomSource, SplitMix64};

/// Loses some of what `inner` receives.
pub(super) struct LossySocket {
    inner: Arc<dyn AsyncUdpSocket>,
    chance: f64,
    random: Mutex<SplitMix64>,
}

impl fmt::Debug for LossySocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LossySocket").field("chance", &self.chance).finish_non_exhaustive()
    }
}

impl LossySocket {
    /// Loses each datagram with this chance, from 0 to 1.
    pub(super) fn new(inner: Arc<dyn AsyncUdpSocket>, chance: f64, seed: u64) -> Arc<Self> {
        Arc::new(Self { inner, chance, random: Mutex::new(SplitMix64::new(seed)) })
    }
}

/// Takes lost datagrams out of what was received as one: all have `meta.stride` bytes, the last one perhaps fewer.
fn lose(buffer: &mut [u8], meta: &mut RecvMeta, mut is_lost: impl FnMut() -> bool) {
    let (len, stride) = (meta.len.min(buffer.len()), meta.stride.max(1));
    let (mut from, mut kept) = (0, 0);
    while from < len {
        let to = len.min(from + stride);
        if !is_lost() {
            buffer.copy_within(from..to, kept);
            kept += to - from;
        }
        from = to;
    }
    meta.len = kept;
}

impl AsyncUdpSocket for LossySocket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Arc::clone(&self.inner).create_io_poller()
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        self.inner.try_send(transmit)
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let received = ready!(self.inner.poll_recv(cx, bufs, meta))?;
        let mut random = self.random.lock().unwrap_or_else(PoisonError::into_inner);
        for (buffer, meta) in bufs.iter_mut().zip(meta).take(received) {
            lose(buffer, meta, || random.unit() < self.chance);
        }
        Poll::Ready(Ok(received))
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.inner.local_addr()
    }

    fn max_transmit_segments(&self) -> usize {
        self.inner.max_transmit_segments()
    }

    fn max_receive_segments(&self) -> usize {
        self.inner.max_receive_segments()
    }

    fn may_fragment(&self) -> bool {
        self.inner.may_fragment()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Loses of `datagrams`, received as one, those at `lost`; what quinn reads then.
    fn left(datagrams: &[&[u8]], lost: &[usize]) -> Vec<Vec<u8>> {
        let mut buffer = datagrams.concat();
        let whole = buffer.len();
        buffer.extend([0xee; 8]);
        let mut meta = RecvMeta::default();
        (meta.len, meta.stride) = (whole, datagrams.first().map_or(0, |first| first.len()));
        let mut count = 0..;
        lose(&mut buffer, &mut meta, || count.next().is_some_and(|at| lost.contains(&at)));
        assert_eq!(count.start, datagrams.len(), "each is asked about once");
        buffer[..meta.len].chunks(meta.stride.max(1)).map(<[u8]>::to_vec).collect()
    }

    #[test]
    fn what_is_not_lost_of_several_datagrams_received_as_one_is_whole_and_in_order() {
        let four: [&[u8]; 4] = [b"aaa", b"bbb", b"ccc", b"d"];
        assert_eq!(left(&four, &[]), four);
        assert_eq!(left(&four, &[0]), four[1..]);
        assert_eq!(left(&four, &[1, 2]), [four[0], four[3]]);
        assert_eq!(left(&four, &[3]), four[..3]);
        assert_eq!(left(&four, &[0, 1, 2]), [four[3]]);
        assert_eq!(left(&four, &[0, 1, 2, 3]), Vec::<Vec<u8>>::new());
        assert_eq!(left(&[], &[]), Vec::<Vec<u8>>::new());
    }
}
