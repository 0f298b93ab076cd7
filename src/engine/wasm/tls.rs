//! TLS of outgoing `https` requests: over a connection that the guest's network gave, with the authorities this machine trusts.
//!
//! Nothing here decides what may be reached; the [`Stack`](crate::net::stack::Stack) did. Authorities are read once for the
//! process: from `SSL_CERT_FILE` and `SSL_CERT_DIR` where wcompose was started with them, else from the system's store.

use std::io;
use std::sync::Arc;

use thiserror::Error;
use tokio::sync::OnceCell;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{AlertDescription, ClientConfig, Error as TlsError, RootCertStore};
use wasmtime_wasi_http::Error as HttpError;

use crate::net::stack::Stream;

/// Why there is no TLS connection.
#[derive(Debug, Error)]
pub enum Fault {
    /// Nothing could be trusted.
    #[error(
        "no certificates of authorities were found on this machine{0}; install `ca-certificates`, or set SSL_CERT_FILE"
    )]
    NoAuthorities(String),
    /// The host is neither a name nor an address.
    #[error("`{0}` is no name that a certificate can have")]
    BadName(String),
    /// The server's certificate does not prove who it is.
    #[error(
        "{0}; an authority that this machine does not know is trusted when SSL_CERT_FILE names its file as wcompose starts"
    )]
    Certificate(TlsError),
    /// The server refused with an alert.
    #[error("the server ended the handshake: {0:?}")]
    Alert(AlertDescription),
    /// The other side does not speak TLS as we do.
    #[error("{0}")]
    Protocol(String),
    /// The connection failed.
    #[error("{0}")]
    Connection(io::Error),
}

impl Fault {
    /// The error as `wasi:http` names it.
    pub fn code(&self) -> HttpError {
        match self {
            Self::NoAuthorities(_) => HttpError::ConfigurationError,
            Self::BadName(_) => HttpError::HttpRequestUriInvalid,
            Self::Certificate(_) => HttpError::TlsCertificateError,
            Self::Alert(alert) => HttpError::TlsAlertReceived {
                alert_id: Some(u8::from(*alert)),
                alert_message: Some(format!("{alert:?}")),
            },
            Self::Protocol(_) => HttpError::TlsProtocolError,
            Self::Connection(_) => HttpError::ConnectionTerminated,
        }
    }
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<TlsError>()).cloned();
        match inner {
            Some(TlsError::AlertReceived(alert)) => Self::Alert(alert),
            Some(error @ TlsError::InvalidCertificate(_)) => Self::Certificate(error),
            Some(TlsError::InvalidMessage(_)) => Self::Protocol("the server does not speak TLS".into()),
            Some(other) => Self::Protocol(other.to_string()),
            None if error.kind() == io::ErrorKind::UnexpectedEof => {
                Self::Protocol("the server closed the connection in the middle of the handshake".into())
            }
            None => Self::Connection(error),
        }
    }
}

/// Speaks TLS with a server that must prove to be `host`.
pub async fn connect(stream: Stream, host: &str) -> Result<TlsStream<Stream>, Fault> {
    let name = ServerName::try_from(host.to_owned()).map_err(|_| Fault::BadName(host.to_owned()))?;
    Ok(TlsConnector::from(client().await?).connect(name, stream).await?)
}

/// The settings all guests share: reading the authorities takes milliseconds, and they are the same for everybody.
async fn client() -> Result<Arc<ClientConfig>, Fault> {
    static CLIENT: OnceCell<Arc<ClientConfig>> = OnceCell::const_new();
    let made = CLIENT.get_or_try_init(|| async {
        tokio::task::spawn_blocking(load).await.expect("reading certificates does not panic").map(Arc::new)
    });
    made.await.cloned()
}

fn load() -> Result<ClientConfig, Fault> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    let (usable, _) = roots.add_parsable_certificates(found.certs);
    if usable == 0 {
        let why = found.errors.first().map(|error| format!(" ({error})")).unwrap_or_default();
        return Err(Fault::NoAuthorities(why));
    }
    let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("the provider has the default versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}
