//! The node's key in TLS, and whose key a connection may have.
//!
//! Owns the self-signed certificate around the node's Ed25519 key and the check of the other side's. Invariants: both
//! sides prove that they hold the key of their certificate (TLS 1.3 CertificateVerify); only keys of the genesis pass;
//! who dials accepts the one key that it dials and no other; names, dates and signatures in certificates mean nothing.
//!
//! The node's key signs three kinds of text, and none can pass for another: lane checkpoints begin with `weft/`, ids of
//! messages have 32 bytes, and what TLS signs begins with 64 spaces (RFC 8446, 4.4.3) or, in the certificate, with a
//! DER sequence.

use std::collections::HashMap;
use std::sync::Arc;

use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::WebPkiSupportedAlgorithms;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, SignatureScheme};
use weft_core::{LaneId, NodeKey};

use crate::quic::SERVER_NAME;
use crate::quic::error::BindError;
use crate::quic::identity::ED25519_SPKI_HEAD;
use crate::quic::transport::provider;

/// ALPN of the protocol between peers. Another version has another name, so strangers part during the handshake.
pub(super) const PEER_ALPN: &[u8] = b"weft-peer/1";

/// PKCS #8 of an Ed25519 key up to the seed (RFC 8410, section 7).
const ED25519_PKCS8_HEAD: [u8; 16] =
    [0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20];

/// Lanes by key.
pub(super) type Members = Arc<HashMap<NodeKey, LaneId>>;

/// The node's key and the certificate around it.
pub(super) struct PeerIdentity {
    certificate: CertificateDer<'static>,
    key: PrivateKeyDer<'static>,
    public: NodeKey,
}

impl PeerIdentity {
    /// Of the node with this seed.
    pub(super) fn new(seed: &[u8; 32]) -> Result<Self, BindError> {
        let tls = |error: &dyn std::fmt::Display| BindError::Tls(error.to_string());
        let der: Vec<u8> = ED25519_PKCS8_HEAD.iter().chain(seed).copied().collect();
        let pkcs8 = PrivatePkcs8KeyDer::from(der);
        let pair = rcgen::KeyPair::from_pkcs8_der_and_sign_algo(&pkcs8, &rcgen::PKCS_ED25519)
            .map_err(|error| tls(&error))?;
        let mut params =
            rcgen::CertificateParams::new(vec![SERVER_NAME.to_owned()]).map_err(|error| tls(&error))?;
        params.distinguished_name.push(rcgen::DnType::CommonName, "weft node");
        let certificate = params.self_signed(&pair).map_err(|error| tls(&error))?.der().clone();
        let public =
            key_of(&certificate).ok_or_else(|| BindError::Tls("no Ed25519 certificate".to_owned()))?;
        Ok(Self { certificate, key: pkcs8.into(), public })
    }

    /// The node's public key.
    pub(super) fn public(&self) -> NodeKey {
        self.public
    }

    /// TLS for connections that come.
    pub(super) fn server_tls(&self, members: &Members) -> Result<Arc<QuicServerConfig>, BindError> {
        let tls = |error: &dyn std::fmt::Display| BindError::Tls(error.to_string());
        let mut config = rustls::ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(|error| tls(&error))?
            .with_client_cert_verifier(MemberVerifier::new(members, None))
            .with_single_cert(vec![self.certificate.clone()], self.key.clone_key())
            .map_err(|error| tls(&error))?;
        config.alpn_protocols = vec![PEER_ALPN.to_vec()];
        config.send_tls13_tickets = 0;
        QuicServerConfig::try_from(config).map(Arc::new).map_err(|error| tls(&error))
    }

    /// TLS for dialling the node with this key.
    pub(super) fn client_tls(
        &self,
        members: &Members,
        expected: NodeKey,
    ) -> Result<Arc<QuicClientConfig>, BindError> {
        let tls = |error: &dyn std::fmt::Display| BindError::Tls(error.to_string());
        let mut config = rustls::ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(|error| tls(&error))?
            .dangerous()
            .with_custom_certificate_verifier(MemberVerifier::new(members, Some(expected)))
            .with_client_auth_cert(vec![self.certificate.clone()], self.key.clone_key())
            .map_err(|error| tls(&error))?;
        config.alpn_protocols = vec![PEER_ALPN.to_vec()];
        config.resumption = rustls::client::Resumption::disabled();
        QuicClientConfig::try_from(config).map(Arc::new).map_err(|error| tls(&error))
    }
}

/// The Ed25519 key that a certificate is for; `None` if it is for another kind of key or no certificate.
pub(super) fn key_of(certificate: &CertificateDer<'_>) -> Option<NodeKey> {
    let parsed = rustls::server::ParsedCertificate::try_from(certificate).ok()?;
    let spki = parsed.subject_public_key_info();
    let key: [u8; 32] = spki.as_ref().strip_prefix(&ED25519_SPKI_HEAD)?.try_into().ok()?;
    Some(NodeKey::from(key))
}

/// Lets keys of the genesis pass, or one of them.
#[derive(Debug)]
struct MemberVerifier {
    members: Members,
    expected: Option<NodeKey>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl MemberVerifier {
    fn new(members: &Members, expected: Option<NodeKey>) -> Arc<Self> {
        let algorithms = provider().signature_verification_algorithms;
        Arc::new(Self { members: Arc::clone(members), expected, algorithms })
    }

    fn check(&self, certificate: &CertificateDer<'_>) -> Result<(), rustls::Error> {
        let key =
            key_of(certificate).ok_or(rustls::Error::InvalidCertificate(CertificateError::BadEncoding))?;
        let passes = match self.expected {
            Some(expected) => key == expected,
            None => self.members.contains_key(&key),
        };
        if passes {
            return Ok(());
        }
        Err(rustls::Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure))
    }

    fn check_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }
}

fn no_tls12() -> rustls::Error {
    // QUIC is TLS 1.3 only (RFC 9001, 4.2).
    rustls::Error::General("TLS 1.2 is not spoken".to_owned())
}

impl ServerCertVerifier for MemberVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        self.check(end_entity).map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(no_tls12())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.check_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }
}

impl ClientCertVerifier for MemberVerifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        self.check(end_entity).map(|()| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(no_tls12())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.check_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }
}
