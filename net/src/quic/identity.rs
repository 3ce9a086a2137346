//! Who a server is: a key pair, a self-signed certificate around it, and the fingerprint that clients pin.
//!
//! Owns the two files `tls.key` (PKCS #8, mode 0600) and `tls.crt` in a directory of the caller's.
//! Invariants: a key is created once and never overwritten; a key that others may read is refused, as ssh
//! does; the fingerprint is the SHA-256 of the certificate's SubjectPublicKeyInfo (RFC 5280, 4.1.2.7), so
//! that a certificate made anew around the same key keeps it, and the fingerprint of an Ed25519 key follows
//! from the 32 key bytes alone. Whom to trust is left to [`trust`](super::trust).

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use sha2::{Digest, Sha256};

/// File of the private key.
pub const KEY_FILE: &str = "tls.key";

/// File of the certificate.
pub const CERTIFICATE_FILE: &str = "tls.crt";

/// DER of an Ed25519 SubjectPublicKeyInfo up to the key bytes (RFC 8410, section 4).
pub(crate) const ED25519_SPKI_HEAD: [u8; 12] =
    [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

/// SHA-256 of a server's SubjectPublicKeyInfo.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fingerprint(
    /// The hash.
    pub [u8; 32],
);

impl Fingerprint {
    /// The fingerprint of a certificate. `None` if the bytes are no certificate.
    pub(crate) fn of_certificate(certificate: &CertificateDer<'_>) -> Option<Self> {
        let parsed = rustls::server::ParsedCertificate::try_from(certificate).ok()?;
        Some(Self(Sha256::digest(parsed.subject_public_key_info()).into()))
    }

    /// The fingerprint of a server whose key is this Ed25519 public key.
    #[must_use]
    pub fn of_ed25519(key: &[u8; 32]) -> Self {
        Self(Sha256::new().chain_update(ED25519_SPKI_HEAD).chain_update(key).finalize().into())
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Fingerprint({self})")
    }
}

/// A text that is no fingerprint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a fingerprint: write the 64 hexadecimal digits that the node shows")]
pub struct ParseFingerprintError;

impl FromStr for Fingerprint {
    type Err = ParseFingerprintError;

    fn from_str(text: &str) -> Result<Self, ParseFingerprintError> {
        let id: weft_core::GenesisId = text.parse().map_err(|_| ParseFingerprintError)?;
        Ok(Self(id.0))
    }
}

/// Why there is no identity.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// A file cannot be read or written.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Only one of the two files is there: the other was lost or not copied.
    #[error(
        "{present} is there and {absent} is not: restore it, or remove both for a new identity (clients that pinned it will refuse it)"
    )]
    Half {
        /// The file that is there.
        present: PathBuf,
        /// The file that is not.
        absent: PathBuf,
    },
    /// Others may read the private key.
    #[error("{path} has mode {mode:o}: others can read the private key; run `chmod 600` on it")]
    Permissions {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// A file holds no key or certificate, or the two do not belong together.
    #[error("{path}: {reason}")]
    Invalid {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// No key could be made.
    #[error("no key could be made: {0}")]
    Generate(#[from] rcgen::Error),
}

/// A server's key pair and certificate.
#[derive(Clone)]
pub struct Identity {
    certificate: CertificateDer<'static>,
    key: Arc<PrivateKeyDer<'static>>,
    fingerprint: Fingerprint,
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity").field("fingerprint", &self.fingerprint).finish_non_exhaustive()
    }
}

impl Identity {
    /// The identity in `directory`, which must exist; made and stored on first use.
    ///
    /// # Errors
    /// See [`IdentityError`]. A directory that holds one file of the two, or a key that others may read, is
    /// refused.
    pub fn load_or_create(directory: &Path) -> Result<Self, IdentityError> {
        let key_path = directory.join(KEY_FILE);
        let certificate_path = directory.join(CERTIFICATE_FILE);
        match (key_path.exists(), certificate_path.exists()) {
            (true, true) => Self::load(&key_path, &certificate_path),
            (true, false) => Err(IdentityError::Half { present: key_path, absent: certificate_path }),
            (false, true) => Err(IdentityError::Half { present: certificate_path, absent: key_path }),
            (false, false) => {
                let (pair, certificate) = generate()?;
                // The certificate is of no use without the key: written first, a crash between the two leaves
                // what `Half` explains.
                write_new(&certificate_path, 0o644, certificate.pem().as_bytes())?;
                write_new(&key_path, 0o600, pair.serialize_pem().as_bytes())?;
                File::open(directory).and_then(|directory| directory.sync_all()).map_err(io_at(directory))?;
                Self::load(&key_path, &certificate_path)
            }
        }
    }

    /// An identity that lives in memory only.
    ///
    /// # Errors
    /// No key could be made.
    pub fn ephemeral() -> Result<Self, IdentityError> {
        let (pair, certificate) = generate()?;
        let key = PrivateKeyDer::try_from(pair.serialize_der())
            .map_err(|reason| IdentityError::Invalid { path: KEY_FILE.into(), reason: reason.to_owned() })?;
        Self::of(certificate.der().clone(), key, Path::new(CERTIFICATE_FILE))
    }

    fn load(key_path: &Path, certificate_path: &Path) -> Result<Self, IdentityError> {
        check_mode(key_path)?;
        let invalid = |path: &Path| {
            let path = path.to_owned();
            move |error: rustls::pki_types::pem::Error| IdentityError::Invalid {
                path,
                reason: error.to_string(),
            }
        };
        let key = PrivateKeyDer::from_pem_file(key_path).map_err(invalid(key_path))?;
        let certificate =
            CertificateDer::from_pem_file(certificate_path).map_err(invalid(certificate_path))?;
        Self::of(certificate, key, certificate_path)
    }

    fn of(
        certificate: CertificateDer<'static>,
        key: PrivateKeyDer<'static>,
        path: &Path,
    ) -> Result<Self, IdentityError> {
        let invalid = |reason: String| IdentityError::Invalid { path: path.to_owned(), reason };
        let fingerprint = Fingerprint::of_certificate(&certificate)
            .ok_or_else(|| invalid("not a certificate".to_owned()))?;
        let provider = rustls::crypto::ring::default_provider();
        rustls::sign::CertifiedKey::from_der(vec![certificate.clone()], key.clone_key(), &provider)
            .map_err(|error| invalid(error.to_string()))?;
        Ok(Self { certificate, key: Arc::new(key), fingerprint })
    }

    /// What clients pin.
    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }

    pub(crate) fn certificate(&self) -> CertificateDer<'static> {
        self.certificate.clone()
    }

    pub(crate) fn key(&self) -> PrivateKeyDer<'static> {
        self.key.clone_key()
    }
}

fn generate() -> Result<(rcgen::KeyPair, rcgen::Certificate), IdentityError> {
    let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519)?;
    let mut params = rcgen::CertificateParams::new(vec![super::SERVER_NAME.to_owned()])?;
    params.distinguished_name.push(rcgen::DnType::CommonName, "weft node");
    let certificate = params.self_signed(&pair)?;
    Ok((pair, certificate))
}

fn io_at(path: &Path) -> impl FnOnce(io::Error) -> IdentityError {
    let path = path.to_owned();
    move |source| IdentityError::Io { path, source }
}

fn write_new(path: &Path, mode: u32, bytes: &[u8]) -> Result<(), IdentityError> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, mode);
    #[cfg(not(unix))]
    let _ = mode;
    let write = || {
        let mut file = options.open(path)?;
        file.write_all(bytes)?;
        file.sync_all()
    };
    write().map_err(io_at(path))
}

#[cfg(unix)]
fn check_mode(path: &Path) -> Result<(), IdentityError> {
    use std::os::unix::fs::PermissionsExt;
    let mode = std::fs::metadata(path).map_err(io_at(path))?.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(IdentityError::Permissions { path: path.to_owned(), mode });
    }
    Ok(())
}

#[cfg(not(unix))]
fn check_mode(_path: &Path) -> Result<(), IdentityError> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_is_made_once_and_found_again() {
        let directory = tempfile::tempdir().unwrap();
        let first = Identity::load_or_create(directory.path()).unwrap();
        let second = Identity::load_or_create(directory.path()).unwrap();
        assert_eq!(first.fingerprint(), second.fingerprint());
        assert_ne!(first.fingerprint(), Identity::ephemeral().unwrap().fingerprint());
        assert_eq!(first.fingerprint().to_string().parse(), Ok(first.fingerprint()));
    }

    #[test]
    fn the_fingerprint_follows_from_the_ed25519_key_alone() {
        let (pair, certificate) = generate().unwrap();
        let key: [u8; 32] = pair.public_key_raw().try_into().unwrap();
        assert_eq!(Fingerprint::of_certificate(certificate.der()), Some(Fingerprint::of_ed25519(&key)));
    }

    #[cfg(unix)]
    #[test]
    fn a_key_that_others_may_read_is_refused() {
        use std::os::unix::fs::PermissionsExt;
        let directory = tempfile::tempdir().unwrap();
        Identity::load_or_create(directory.path()).unwrap();
        let key = directory.path().join(KEY_FILE);
        assert_eq!(std::fs::metadata(&key).unwrap().permissions().mode() & 0o777, 0o600);
        std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o640)).unwrap();
        let error = Identity::load_or_create(directory.path()).unwrap_err();
        assert!(matches!(error, IdentityError::Permissions { mode: 0o640, .. }), "{error}");
    }

    #[test]
    fn half_an_identity_is_named_and_never_replaced() {
        let directory = tempfile::tempdir().unwrap();
        Identity::load_or_create(directory.path()).unwrap();
        std::fs::remove_file(directory.path().join(KEY_FILE)).unwrap();
        let error = Identity::load_or_create(directory.path()).unwrap_err();
        assert!(matches!(error, IdentityError::Half { .. }), "{error}");
    }

    #[test]
    fn a_certificate_of_another_key_is_refused() {
        let ours = tempfile::tempdir().unwrap();
        let theirs = tempfile::tempdir().unwrap();
        Identity::load_or_create(ours.path()).unwrap();
        Identity::load_or_create(theirs.path()).unwrap();
        std::fs::copy(theirs.path().join(CERTIFICATE_FILE), ours.path().join(CERTIFICATE_FILE)).unwrap();
        let error = Identity::load_or_create(ours.path()).unwrap_err();
        assert!(matches!(error, IdentityError::Invalid { .. }), "{error}");
    }
}
