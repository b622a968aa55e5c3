//! TLS on the way to Redis: whom we trust, and who we are.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::crypto::ring;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, InvalidDnsNameError, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore};

use crate::ground::config::TlsFiles;

/// The client's side of TLS, read from its files once and shared by all connections.
#[derive(Clone, Debug)]
pub struct Tls(Arc<ClientConfig>);

/// Why TLS can't be set up.
#[derive(Debug)]
pub enum TlsError {
    /// A file can't be read, or is not what it should be.
    File {
        option: &'static str,
        path: PathBuf,
        problem: String,
    },
    /// Certificate and key do not go together.
    Identity(rustls::Error),
    /// This host trusts nobody.
    NoAuthorities,
    Protocol(rustls::Error),
}

impl Tls {
    /// Reads the files.
    ///
    /// # Errors
    /// What is wrong with which file.
    pub fn new(files: &TlsFiles) -> Result<Self, TlsError> {
        let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(TlsError::Protocol)?
            .with_root_certificates(authorities(files.authorities.as_deref())?);
        let config = match &files.certificate {
            None => builder.with_no_client_auth(),
            Some((certificate, key)) => {
                let option = "--redis-client-cert";
                let chain = certificates(option, certificate)?;
                let key = PrivateKeyDer::from_pem_file(key)
                    .map_err(|error| bad_file("--redis-client-key", key, &error))?;
                builder.with_client_auth_cert(chain, key).map_err(TlsError::Identity)?
            }
        };
        Ok(Self(Arc::new(config)))
    }

    /// The client's side of a connection to `host`, whose certificate must be for that name or
    /// address.
    ///
    /// # Errors
    /// That no certificate can be for such a host.
    pub fn client(&self, host: &str) -> Result<ClientConnection, rustls::Error> {
        let name = ServerName::try_from(host.to_owned())
            .map_err(|InvalidDnsNameError| rustls::Error::General(format!("bad name {host:?}")))?;
        ClientConnection::new(Arc::clone(&self.0), name)
    }
}

/// What went wrong in TLS, with what to do about it.
#[must_use]
pub fn explain(error: &rustls::Error) -> String {
    use rustls::{AlertDescription, CertificateError, Error};
    let hint = match error {
        Error::InvalidCertificate(CertificateError::UnknownIssuer) => {
            " (--redis-ca names the authority to trust)"
        }
        Error::AlertReceived(
            AlertDescription::CertificateRequired
            | AlertDescription::HandshakeFailure
            | AlertDescription::UnknownCA
            | AlertDescription::BadCertificate,
        ) => " (--redis-client-cert and --redis-client-key say who we are)",
        Error::InvalidMessage(_) => " (does it speak TLS there?)",
        _ => "",
    };
    format!("{error}{hint}")
}

fn authorities(file: Option<&Path>) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    match file {
        Some(path) => {
            for certificate in certificates("--redis-ca", path)? {
                roots.add(certificate).map_err(|error| bad_file("--redis-ca", path, &error))?;
            }
        }
        None => {
            // Some of a host's certificates are of a form that nobody reads any more.
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            if roots.is_empty() {
                return Err(TlsError::NoAuthorities);
            }
        }
    }
    Ok(roots)
}

/// The certificates of a file, of which there is at least one.
fn certificates(
    option: &'static str,
    path: &Path,
) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    match read {
        Ok(found) if found.is_empty() => Err(bad_file(option, path, &pem::Error::NoItemsFound)),
        Ok(found) => Ok(found),
        Err(error) => Err(bad_file(option, path, &error)),
    }
}

fn bad_file(option: &'static str, path: &Path, problem: &dyn fmt::Display) -> TlsError {
    TlsError::File { option, path: path.to_owned(), problem: problem.to_string() }
}

impl fmt::Display for TlsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { option, path, problem } => {
                write!(f, "{option} {}: expected a PEM file: {problem}", path.display())
            }
            Self::Identity(error) => {
                write!(f, "--redis-client-cert and --redis-client-key do not go together: {error}")
            }
            Self::NoAuthorities => f.write_str(
                "--redis rediss://: this host trusts no certificate authority: install \
                 ca-certificates, or give --redis-ca",
            ),
            Self::Protocol(error) => write!(f, "TLS can't be set up: {error}"),
        }
    }
}

impl std::error::Error for TlsError {}
