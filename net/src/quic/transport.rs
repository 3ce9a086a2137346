//! QUIC's own limits: windows, streams, datagram sizes, sockets; and the memory that they cost in all.
//!
//! Owns the numbers given to quinn, with their reasons, and the product of them that
//! [`ServerLimits::worst_case_bytes`] holds against the budget. Invariants: no window is unbounded; a peer
//! can open no unidirectional stream and send no datagram; a server that could be made to hold more than its
//! budget does not start. Who may connect is left to [`trust`](super::trust) and [`server`](super::server).

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use quinn::congestion::CubicConfig;
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{EndpointConfig, IdleTimeout, MtuDiscoveryConfig, TransportConfig, VarInt};
use rustls::crypto::{CryptoProvider, ring};
use socket2::{Domain, Protocol, SockRef, Socket, Type};

use super::error::BindError;
use super::identity::Identity;
use super::trust::PinVerifier;
use crate::limits::{FRAME_BYTES_MAX, FRAME_BYTES_MAX_LEAST, SessionLimits};

/// ALPN of the protocol (RFC 7301). Another version has another name, so strangers part during the handshake.
pub const ALPN: &[u8] = b"weft/1";

/// UDP payload on loopback, where 1,200 to 1,452 bytes would only multiply packets: these cost less than half
/// the CPU time per byte. Two bounds keep it from being larger. The kernel takes at most 65,507 bytes from
/// one segmented send (GSO) and quinn puts up to ten segments into one; what is beyond would be lost. And a
/// datagram must be smaller than the congestion window at the start, 12,000 bytes, or the handshake never
/// begins.
pub const LOOPBACK_UDP_PAYLOAD_BYTES: u16 = 6_500;

/// Congestion window at the start on loopback, where nothing is shared but the receiver's socket buffer: two
/// segmented sends.
const LOOPBACK_INITIAL_WINDOW_BYTES: u64 = 2 * 10 * LOOPBACK_UDP_PAYLOAD_BYTES as u64;

/// UDP payload that discovery may reach elsewhere: Ethernet's 1,500 bytes less IPv6 and UDP heads.
const PATH_UDP_PAYLOAD_BYTES_MAX: u16 = 1_452;

/// What quinn holds for a connection besides its windows: handshake, packet numbers, congestion state,
/// timers. Measured at about 20 KiB; the rest is for packets received out of order, which pin the buffers
/// they came in.
const CONNECTION_OVERHEAD_BYTES: u64 = 64 << 10;

/// What a node holds for a subscription: positions and sizes of 1,024 lanes, 1,024 open operations, and a notice in
/// the making. Its output is the session's.
const SUBSCRIPTION_BYTES: u64 = 384 << 10;

/// Input taken from QUIC at once, and the start of the next frame that it may hold.
const SESSION_INPUT_BYTES: u64 = 256 << 10;

/// Bytes of a handshake kept before it is accepted.
const INCOMING_BUFFER_BYTES: u64 = 16 << 10;

/// A client sends a QUIC PING after this much silence, so that neither side takes the other for dead.
const KEEP_ALIVE: Duration = Duration::from_secs(5);

/// A connection on which nothing came for this long is dead: six lost keep-alives.
const QUIC_IDLE_TIMEOUT_MS: u32 = 30_000;

/// Limits of a server. The defaults cost at most 1.9 GiB under attack from all sides, and a few MiB at rest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerLimits {
    /// Connections at once, handshakes included. More are refused.
    pub connections_max: u32,
    /// Handshakes at once. More are refused.
    pub handshakes_max: u32,
    /// Handshakes at once above which a client must first prove its address (RFC 9000, 8.1.2): costs it a
    /// round trip, and costs an attacker with forged addresses everything.
    pub handshakes_retry_above: u32,
    /// Sessions at once over all connections. More are told `overloaded`.
    pub sessions_max: u32,
    /// Subscriptions at once over all connections. More are told `overloaded`.
    pub subscriptions_max: u32,
    /// Streams, and so sessions, of one connection at once. Whoever opens more waits for its own.
    pub streams_per_connection_max: u32,
    /// Bytes received and not read, per stream.
    pub stream_window_bytes: u32,
    /// Bytes received and not read, per connection.
    pub connection_window_bytes: u32,
    /// Bytes sent and not acknowledged, per connection.
    pub send_window_bytes: u32,
    /// Bytes of messages handed to the node and not acked, over all sessions. Above it sessions wait, which
    /// is the back pressure.
    pub inflight_bytes_total_max: u64,
    /// Limits of one session.
    pub session: SessionLimits,
    /// Memory that all of this may cost, in bytes.
    pub memory_bytes_max: u64,
    /// Socket buffers asked for, in bytes each way. The kernel may grant less.
    pub socket_buffer_bytes: usize,
    /// How long a handshake may take.
    pub handshake_timeout: Duration,
    /// How long a connection may be without a session.
    pub connection_idle_timeout: Duration,
}

impl Default for ServerLimits {
    fn default() -> Self {
        Self {
            connections_max: 128,
            handshakes_max: 64,
            handshakes_retry_above: 16,
            sessions_max: 256,
            subscriptions_max: 64,
            streams_per_connection_max: 16,
            stream_window_bytes: 1 << 20,
            connection_window_bytes: 2 << 20,
            send_window_bytes: 1 << 20,
            inflight_bytes_total_max: 256 << 20,
            session: SessionLimits::default(),
            memory_bytes_max: 2 << 30,
            socket_buffer_bytes: 4 << 20,
            handshake_timeout: Duration::from_secs(5),
            connection_idle_timeout: Duration::from_secs(30),
        }
    }
}

impl ServerLimits {
    /// Bytes that peers can make the server hold at most: connections x (both windows and overhead) +
    /// handshakes x their buffer + sessions x (a frame, half received or waiting for the budget, the input
    /// behind it, and the output) + subscriptions x what a node holds for one + the messages in flight over all sessions.
    #[must_use]
    pub fn worst_case_bytes(&self) -> u64 {
        let connection = u64::from(self.connection_window_bytes)
            + u64::from(self.send_window_bytes)
            + CONNECTION_OVERHEAD_BYTES;
        let session =
            u64::from(self.session.frame_bytes_max) + SESSION_INPUT_BYTES + self.session.output_bytes_max();
        u64::from(self.connections_max) * connection
            + u64::from(self.handshakes_max) * INCOMING_BUFFER_BYTES
            + u64::from(self.sessions_max) * session
            + u64::from(self.subscriptions_max) * SUBSCRIPTION_BYTES
            + self.inflight_bytes_total_max
    }

    pub(crate) fn check(&self) -> Result<(), BindError> {
        let window_max = u64::from(u32::MAX);
        let frame = u64::from(self.session.frame_bytes_max);
        for (limit_name, got, least, most) in [
            ("connections_max", self.connections_max.into(), 1, 1 << 20),
            ("handshakes_max", self.handshakes_max.into(), 1, 1 << 20),
            ("sessions_max", self.sessions_max.into(), 1, 1 << 20),
            ("subscriptions_max", self.subscriptions_max.into(), 0, 1 << 16),
            ("subscriptions_max of a connection", self.session.subscriptions_max.into(), 0, 1 << 10),
            ("streams_per_connection_max", self.streams_per_connection_max.into(), 1, 1 << 16),
            ("stream_window_bytes", self.stream_window_bytes.into(), 1 << 10, window_max),
            ("connection_window_bytes", self.connection_window_bytes.into(), 1 << 10, window_max),
            ("send_window_bytes", self.send_window_bytes.into(), 1 << 10, window_max),
            ("frame_bytes_max", frame, FRAME_BYTES_MAX_LEAST.into(), FRAME_BYTES_MAX.into()),
            // A Submit must fit, or it would wait for ever.
            ("inflight_bytes_total_max", self.inflight_bytes_total_max, frame, window_max),
            ("inflight_bytes_max", self.session.inflight_bytes_max, frame, self.inflight_bytes_total_max),
            ("inflight_requests_max", self.session.inflight_requests_max.into(), 1, 1 << 16),
            ("inflight_messages_max", self.session.inflight_messages_max.into(), 1, 1 << 24),
            ("output_bytes_high", self.session.output_bytes_high as u64, 1 << 10, window_max),
        ] {
            if got < least || got > most {
                return Err(BindError::Limit { limit_name, got, least, most });
            }
        }
        let got = self.worst_case_bytes();
        if got > self.memory_bytes_max {
            return Err(BindError::Memory { got, limit: self.memory_bytes_max });
        }
        Ok(())
    }
}

/// Windows of a client's connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientWindows {
    /// Bytes received and not read, per stream.
    pub stream_window_bytes: u32,
    /// Bytes received and not read, over all streams.
    pub connection_window_bytes: u32,
    /// Bytes sent and not acknowledged.
    pub send_window_bytes: u32,
    /// Socket buffers asked for, in bytes each way.
    pub socket_buffer_bytes: usize,
}

impl Default for ClientWindows {
    fn default() -> Self {
        Self {
            stream_window_bytes: 1 << 20,
            connection_window_bytes: 2 << 20,
            send_window_bytes: 4 << 20,
            socket_buffer_bytes: 4 << 20,
        }
    }
}

/// Socket buffers as the kernel granted them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SocketBuffers {
    /// Bytes asked for, each way.
    pub requested_bytes: usize,
    /// Bytes granted for receiving.
    pub receive_bytes: usize,
    /// Bytes granted for sending.
    pub send_bytes: usize,
}

/// ring with the ciphers in the order of their speed on machines with AES instructions; a client's order
/// decides.
pub(crate) fn provider() -> Arc<CryptoProvider> {
    let mut provider = ring::default_provider();
    provider.cipher_suites = vec![
        ring::cipher_suite::TLS13_AES_128_GCM_SHA256,
        ring::cipher_suite::TLS13_AES_256_GCM_SHA384,
        ring::cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
    ];
    Arc::new(provider)
}

/// TLS for a server: no client certificates, no resumption (a ticket costs more than it saves where
/// connections live for hours).
pub(crate) fn server_tls(identity: &Identity) -> Result<Arc<QuicServerConfig>, BindError> {
    let tls = |error: &dyn std::fmt::Display| BindError::Tls(error.to_string());
    let mut config = rustls::ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|error| tls(&error))?
        .with_no_client_auth()
        .with_single_cert(vec![identity.certificate()], identity.key())
        .map_err(|error| tls(&error))?;
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.send_tls13_tickets = 0;
    QuicServerConfig::try_from(config).map(Arc::new).map_err(|error| tls(&error))
}

/// TLS for a client that checks keys by `verifier`.
pub(crate) fn client_tls(verifier: Arc<PinVerifier>) -> Result<Arc<QuicClientConfig>, String> {
    let mut config = rustls::ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|error| error.to_string())?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.resumption = rustls::client::Resumption::disabled();
    QuicClientConfig::try_from(config).map(Arc::new).map_err(|error| error.to_string())
}

fn transport(
    stream_window: u32,
    connection_window: u32,
    send_window: u32,
    loopback: bool,
) -> TransportConfig {
    let mut config = TransportConfig::default();
    let mut discovery = MtuDiscoveryConfig::default();
    if loopback {
        config.initial_mtu(LOOPBACK_UDP_PAYLOAD_BYTES);
        discovery.upper_bound(LOOPBACK_UDP_PAYLOAD_BYTES);
        let mut cubic = CubicConfig::default();
        cubic.initial_window(LOOPBACK_INITIAL_WINDOW_BYTES);
        config.congestion_controller_factory(Arc::new(cubic));
    } else {
        discovery.upper_bound(PATH_UDP_PAYLOAD_BYTES_MAX);
    }
    config
        .mtu_discovery_config(Some(discovery))
        .stream_receive_window(VarInt::from_u32(stream_window))
        .receive_window(VarInt::from_u32(connection_window))
        .send_window(send_window.into())
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .datagram_receive_buffer_size(None)
        .max_idle_timeout(Some(IdleTimeout::from(VarInt::from_u32(QUIC_IDLE_TIMEOUT_MS))));
    config
}

/// Transport of a server's connection to a peer on loopback, or elsewhere.
pub(crate) fn server_transport(limits: &ServerLimits, loopback: bool) -> Arc<TransportConfig> {
    let mut config = transport(
        limits.stream_window_bytes,
        limits.connection_window_bytes,
        limits.send_window_bytes,
        loopback,
    );
    config.max_concurrent_bidi_streams(VarInt::from_u32(limits.streams_per_connection_max));
    Arc::new(config)
}

/// Transport of a client's connection.
pub(crate) fn client_transport(windows: &ClientWindows, loopback: bool) -> Arc<TransportConfig> {
    let mut config = transport(
        windows.stream_window_bytes,
        windows.connection_window_bytes,
        windows.send_window_bytes,
        loopback,
    );
    config.max_concurrent_bidi_streams(VarInt::from_u32(0)).keep_alive_interval(Some(KEEP_ALIVE));
    Arc::new(config)
}

/// Transport of a connection between nodes: a window each way, streams that the other side may open, silence after
/// which a probe is sent and after which the connection is dead.
pub(crate) fn peer_transport(
    window_bytes: u32,
    streams: (u32, u32),
    silence: (Duration, Duration),
    loopback: bool,
) -> Arc<TransportConfig> {
    // A stream may fill half of the connection's window, so that one that is not read never stops the others.
    let mut config = transport(window_bytes / 2, window_bytes, window_bytes, loopback);
    let idle = IdleTimeout::try_from(silence.1).unwrap_or(VarInt::from_u32(QUIC_IDLE_TIMEOUT_MS).into());
    config
        .max_concurrent_bidi_streams(VarInt::from_u32(streams.0))
        .max_concurrent_uni_streams(VarInt::from_u32(streams.1))
        .keep_alive_interval(Some(silence.0))
        .max_idle_timeout(Some(idle));
    Arc::new(config)
}

/// quinn's server configuration for peers on loopback, or elsewhere.
pub(crate) fn quic_server(
    limits: &ServerLimits,
    tls: Arc<QuicServerConfig>,
    loopback: bool,
) -> quinn::ServerConfig {
    let mut config = quinn::ServerConfig::with_crypto(tls);
    config
        .transport_config(server_transport(limits, loopback))
        .max_incoming(limits.handshakes_max as usize)
        .incoming_buffer_size(INCOMING_BUFFER_BYTES)
        .incoming_buffer_size_total(INCOMING_BUFFER_BYTES * u64::from(limits.handshakes_max));
    config
}

/// Endpoint that takes datagrams as large as loopback carries.
pub(crate) fn endpoint_config() -> EndpointConfig {
    let mut config = EndpointConfig::default();
    if config.max_udp_payload_size(LOOPBACK_UDP_PAYLOAD_BYTES).is_err() {
        tracing::warn!("UDP payload size not accepted: loopback will be slower");
    }
    config
}

/// Whether datagrams to this peer never leave the machine.
pub(crate) fn is_loopback(peer: SocketAddr) -> bool {
    peer.ip().to_canonical().is_loopback()
}

/// A UDP socket at `address` with the buffers asked for, as far as the kernel grants them.
pub(crate) fn socket(address: SocketAddr, buffer_bytes: usize) -> io::Result<(UdpSocket, SocketBuffers)> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    if address.is_ipv6() {
        // Both families where the address is [::]; a system that refuses is left as it is.
        let _ = socket.set_only_v6(false);
    }
    socket.bind(&address.into())?;
    let _ = socket.set_recv_buffer_size(buffer_bytes);
    let _ = socket.set_send_buffer_size(buffer_bytes);
    let socket = UdpSocket::from(socket);
    let buffers = granted(&socket, buffer_bytes)?;
    Ok((socket, buffers))
}

fn granted(socket: &UdpSocket, requested_bytes: usize) -> io::Result<SocketBuffers> {
    // Linux doubles the figure for its own book-keeping, and reports it doubled (socket(7)).
    let own = if cfg!(target_os = "linux") { 2 } else { 1 };
    let socket = SockRef::from(socket);
    Ok(SocketBuffers {
        requested_bytes,
        receive_bytes: socket.recv_buffer_size()? / own,
        send_bytes: socket.send_buffer_size()? / own,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_limits_fit_their_own_memory_budget() {
        let limits = ServerLimits::default();
        limits.check().unwrap();
        assert!(limits.worst_case_bytes() > limits.memory_bytes_max / 2, "{}", limits.worst_case_bytes());
    }

    #[test]
    fn limits_that_multiply_beyond_the_budget_are_refused_with_both_figures() {
        let limits = ServerLimits { connections_max: 10_000, ..ServerLimits::default() };
        let error = limits.check().unwrap_err();
        assert!(matches!(error, BindError::Memory { got, limit } if got > limit), "{error}");
    }

    #[test]
    fn a_credit_that_could_never_be_had_is_refused() {
        let limits = ServerLimits { inflight_bytes_total_max: 1 << 20, ..ServerLimits::default() };
        let error = limits.check().unwrap_err();
        assert!(matches!(error, BindError::Limit { limit_name: "inflight_bytes_total_max", .. }), "{error}");
    }

    #[test]
    fn ten_loopback_datagrams_fit_one_segmented_send() {
        assert!(10 * usize::from(LOOPBACK_UDP_PAYLOAD_BYTES) <= 65_507);
    }

    #[test]
    fn an_address_mapped_into_ipv6_counts_as_loopback() {
        assert!(is_loopback("[::ffff:127.0.0.1]:1".parse().unwrap()));
        assert!(!is_loopback("[::ffff:10.0.0.1]:1".parse().unwrap()));
    }
}
