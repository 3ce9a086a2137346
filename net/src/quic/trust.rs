//! Whom a client trusts: one pinned key, the key it met first, or (on loopback, for tests) any.
//!
//! Owns the check of a server's key during the TLS handshake and the file of known nodes. Invariants: the
//! peer always proves that it holds the key of its certificate (TLS 1.3 CertificateVerify); names and dates
//! in certificates mean nothing here; a changed key is an error with both fingerprints, never a question and
//! never an update.
//!
//! Known nodes are lines of text: `ADDRESS:PORT FINGERPRINT`, `#` begins a comment. Lines are only ever
//! appended; the first line for an address counts.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, DigitallySignedStruct, SignatureScheme};

use super::error::NetError;
use super::identity::Fingerprint;

/// A file of known nodes longer than this is not read: it is not one of ours.
const KNOWN_NODES_BYTES_MAX: u64 = 4 << 20;

/// Whom a client trusts.
#[derive(Clone, Debug)]
pub enum Trust {
    /// The server with this fingerprint.
    Pin(Fingerprint),
    /// The server that this file names for the address; at the first connection, any, and its fingerprint is
    /// added to the file.
    FirstUse(PathBuf),
    /// Anyone. Gives no protection against a server in the middle: for tests on loopback.
    InsecureAny,
}

impl Trust {
    /// The fingerprint that the server must have, if it is known.
    pub(crate) fn expected(&self, address: SocketAddr) -> Result<Option<Fingerprint>, NetError> {
        match self {
            Self::Pin(fingerprint) => Ok(Some(*fingerprint)),
            Self::FirstUse(path) => known_node(path, address),
            Self::InsecureAny => Ok(None),
        }
    }

    /// Remembers a server met for the first time.
    pub(crate) fn remember(&self, address: SocketAddr, fingerprint: Fingerprint) -> Result<(), NetError> {
        let Self::FirstUse(path) = self else { return Ok(()) };
        if known_node(path, address)?.is_some() {
            return Ok(());
        }
        // One write in append mode: a line of another client at the same time stays whole.
        let line = format!("{address} {fingerprint}\n");
        let append = || OpenOptions::new().append(true).create(true).open(path)?.write_all(line.as_bytes());
        append().map_err(|source| NetError::KnownNodes { path: path.clone(), source: source.into() })
    }

    /// The error for a server with another key.
    pub(crate) fn mismatch(&self, address: SocketAddr, known: Fingerprint, got: Fingerprint) -> NetError {
        match self {
            Self::FirstUse(path) => NetError::KeyChanged { address, known, got, path: path.clone() },
            Self::Pin(_) | Self::InsecureAny => NetError::KeyMismatch { address, pinned: known, got },
        }
    }
}

fn known_node(path: &Path, address: SocketAddr) -> Result<Option<Fingerprint>, NetError> {
    let fail = |source: io::Error| NetError::KnownNodes { path: path.to_owned(), source: source.into() };
    let text = match std::fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(fail(error)),
        Ok(metadata) if metadata.len() > KNOWN_NODES_BYTES_MAX => {
            let reason = format!("{} bytes, the limit is {KNOWN_NODES_BYTES_MAX}", metadata.len());
            return Err(fail(io::Error::new(io::ErrorKind::InvalidData, reason)));
        }
        Ok(_) => std::fs::read_to_string(path).map_err(fail)?,
    };
    let address = address.to_string();
    for (number, line) in text.lines().enumerate() {
        let mut fields = line.split('#').next().unwrap_or_default().split_whitespace();
        if fields.next() == Some(&address) {
            return match fields.next().map(str::parse) {
                Some(Ok(fingerprint)) => Ok(Some(fingerprint)),
                _ => {
                    let reason = format!("line {}: no fingerprint after the address", number + 1);
                    Err(fail(io::Error::new(io::ErrorKind::InvalidData, reason)))
                }
            };
        }
    }
    Ok(None)
}

/// Checks a server's key against the expected fingerprint, and keeps the one it saw.
#[derive(Debug)]
pub(crate) struct PinVerifier {
    expected: Option<Fingerprint>,
    seen: Mutex<Option<Fingerprint>>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl PinVerifier {
    pub(crate) fn new(expected: Option<Fingerprint>, provider: &CryptoProvider) -> Arc<Self> {
        Arc::new(Self {
            expected,
            seen: Mutex::new(None),
            algorithms: provider.signature_verification_algorithms,
        })
    }

    /// The fingerprint of the server that answered last.
    pub(crate) fn seen(&self) -> Option<Fingerprint> {
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ServerCertVerifier for PinVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let got = Fingerprint::of_certificate(end_entity)
            .ok_or(rustls::Error::InvalidCertificate(CertificateError::BadEncoding))?;
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = Some(got);
        match self.expected {
            Some(expected) if expected != got => {
                Err(rustls::Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure))
            }
            _ => Ok(ServerCertVerified::assertion()),
        }
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        // QUIC is TLS 1.3 only (RFC 9001, 4.2).
        Err(rustls::Error::General("TLS 1.2 is not spoken".to_owned()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, cert, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_line_for_an_address_counts_and_comments_are_skipped() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("known_nodes");
        let address: SocketAddr = "127.0.0.1:7".parse().unwrap();
        let (one, two) = (Fingerprint([1; 32]), Fingerprint([2; 32]));
        assert!(known_node(&path, address).unwrap().is_none());
        let trust = Trust::FirstUse(path.clone());
        trust.remember(address, one).unwrap();
        trust.remember(address, two).unwrap();
        std::fs::write(
            &path,
            format!("# 127.0.0.1:7 no\n127.0.0.1:71 {two}\n{}", std::fs::read_to_string(&path).unwrap()),
        )
        .unwrap();
        assert_eq!(trust.expected(address).unwrap(), Some(one));
        assert_eq!(std::fs::read_to_string(&path).unwrap().lines().count(), 3);
    }

    #[test]
    fn a_damaged_line_is_an_error_and_not_a_first_meeting() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("known_nodes");
        std::fs::write(&path, "127.0.0.1:7 0123\n").unwrap();
        let error = Trust::FirstUse(path).expected("127.0.0.1:7".parse().unwrap()).unwrap_err();
        assert!(error.to_string().contains("line 1"), "{error}");
    }
}
