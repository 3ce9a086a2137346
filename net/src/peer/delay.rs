//! A UDP socket that holds back what it sends, as a long link does. For tests and `weft cluster up --latency-ms`.
//!
//! Owns datagrams on their way. Invariants: each leaves after the same time, in order, so a link of any length carries
//! as much as without it; what waits is bounded by [`WAITING_BYTES_MAX`], and beyond it datagrams are lost as in a
//! router's full queue. Receiving is not delayed: the other side's socket does its half.

use std::collections::VecDeque;
use std::fmt;
use std::future::poll_fn;
use std::io::{self, IoSliceMut};
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use quinn::udp::{EcnCodepoint, RecvMeta, Transmit};
use quinn::{AsyncUdpSocket, UdpPoller};
use tokio::sync::Notify;
use tokio::time::Instant;

/// Bytes on their way at most: 64 MiB are 1.3 gigabytes a second at 50 ms.
const WAITING_BYTES_MAX: usize = 64 << 20;

/// One or more datagrams to one address, as quinn hands them out.
struct Waiting {
    due: Instant,
    destination: SocketAddr,
    ecn: Option<EcnCodepoint>,
    contents: Vec<u8>,
    segment_size: Option<usize>,
    src_ip: Option<IpAddr>,
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<Waiting>,
    bytes: usize,
}

/// Holds back what is sent through `inner`.
pub(super) struct DelayedSocket {
    inner: Arc<dyn AsyncUdpSocket>,
    latency: Duration,
    queue: Mutex<Queue>,
    added: Notify,
}

impl fmt::Debug for DelayedSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DelayedSocket").field("latency", &self.latency).finish_non_exhaustive()
    }
}

impl DelayedSocket {
    /// Sends through `inner` after `latency`, in a task of the current runtime that ends with the socket.
    pub(super) fn new(inner: Arc<dyn AsyncUdpSocket>, latency: Duration) -> Arc<Self> {
        let socket = Arc::new(Self { inner, latency, queue: Mutex::default(), added: Notify::new() });
        let weak = Arc::downgrade(&socket);
        tokio::spawn(async move {
            // The socket is let go of while there is nothing to send, so that it can close.
            while let Some(socket) = weak.upgrade() {
                let due = socket.lock().waiting.front().map(|waiting| waiting.due);
                match due {
                    Some(due) => {
                        tokio::time::sleep_until(due).await;
                        socket.send_due().await;
                    }
                    None => {
                        let added = socket.added.notified();
                        let _ = tokio::time::timeout(Duration::from_millis(200), added).await;
                    }
                }
            }
        });
        socket
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn send_due(&self) {
        loop {
            let next = {
                let mut queue = self.lock();
                let now = Instant::now();
                let due = queue.waiting.front().is_some_and(|waiting| waiting.due <= now);
                let next = if due { queue.waiting.pop_front() } else { None };
                queue.bytes -= next.as_ref().map_or(0, |waiting| waiting.contents.len());
                next
            };
            let Some(next) = next else { return };
            let transmit = Transmit {
                destination: next.destination,
                ecn: next.ecn,
                contents: &next.contents,
                segment_size: next.segment_size,
                src_ip: next.src_ip,
            };
            while let Err(error) = self.inner.try_send(&transmit) {
                if error.kind() != io::ErrorKind::WouldBlock {
                    // As with quinn itself: what the system does not take is lost, and sent again when it is missed.
                    tracing::debug!(%error, "datagram lost");
                    break;
                }
                let mut poller = Arc::clone(&self.inner).create_io_poller();
                let _ = poll_fn(|cx| poller.as_mut().poll_writable(cx)).await;
            }
        }
    }
}

/// A delayed socket is always writable.
#[derive(Debug)]
struct Always;

impl UdpPoller for Always {
    fn poll_writable(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

impl AsyncUdpSocket for DelayedSocket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Box::pin(Always)
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        let mut queue = self.lock();
        if queue.bytes + transmit.contents.len() > WAITING_BYTES_MAX {
            return Ok(());
        }
        queue.bytes += transmit.contents.len();
        queue.waiting.push_back(Waiting {
            due: Instant::now() + self.latency,
            destination: transmit.destination,
            ecn: transmit.ecn,
            contents: transmit.contents.to_vec(),
            segment_size: transmit.segment_size,
            src_ip: transmit.src_ip,
        });
        drop(queue);
        self.added.notify_one();
        Ok(())
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        self.inner.poll_recv(cx, bufs, meta)
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
